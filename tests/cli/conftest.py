import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .servers import StubGateway, StubLetta, listening

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def gateway() -> Iterator[StubGateway]:
    stub = StubGateway()
    with listening(stub.app()) as stub.url:
        yield stub


@pytest.fixture
def letta() -> Iterator[tuple[StubLetta, str]]:
    stub = StubLetta()
    with listening(stub.app()) as url:
        yield stub, url


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing of ours is set but a data folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FRONTDESK_", "LETTA_"))}
    kept.pop("COLUMNS", None)
    return kept | {"FRONTDESK_DATA_DIR": str(tmp_path / "data"), "PYTHONWARNINGS": "error"}


@pytest.fixture
def run(env: dict[str, str], tmp_path: Path) -> Run:
    """Run the command as a process, in an empty folder."""

    def run(*arguments: str, lines: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "frontdesk", *arguments],
            input=lines,
            env=env | more,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run
