"""Gateways with other settings, and a marker for each test."""

import uuid
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from frontdesk.demo.local_letta import LocalLetta
from tests.served import Served, served

Serve = Callable[..., Served]


@pytest.fixture
def marker() -> str:
    """Something to find this test's own requests by, at the model."""
    return f"#{uuid.uuid4().hex[:12]}"


@pytest.fixture
def serve(letta: LocalLetta, tmp_path: Path) -> Generator[Serve]:
    """Serve the same agents with other settings, until the test ends; always from the same data folder."""
    with ExitStack() as running:

        def start(**settings: Any) -> Served:
            return running.enter_context(served(tmp_path, **{"letta_base_url": letta.base_url} | settings))

        yield start
