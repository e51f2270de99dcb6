import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from typer.testing import CliRunner, Result

from frontdesk.cli import app

from .servers import StubGateway, StubLetta, listening

Run = Callable[..., Result]


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
def run(env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder, with `lines` piped in. Within this process, because that is quicker."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, lines: str = "", **more: str) -> Result:
        with mock.patch.dict(os.environ, env | more, clear=True):
            result = CliRunner().invoke(app, arguments, input=lines, prog_name="frontdesk")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
