"""A gateway with agents written in Python, and the scripted model behind them."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from frontdesk.testing import ScriptedModel
from tests.backends.python.serving import Asking, serving
from tests.protocols.conftest import marker
from tests.served import Served

__all__ = ["marker"]


@pytest.fixture(scope="session")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as model:
        yield model


@pytest.fixture(scope="module")
def gateway(model: ScriptedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("gateway"), model) as running:
        yield running


@pytest.fixture
def serve(model: ScriptedModel, tmp_path: Path) -> Generator[Any]:
    """Serve with other settings, always from the same data folder, until the test ends."""
    with ExitStack() as running:

        def start(**settings: Any) -> Served:
            return running.enter_context(serving(tmp_path, model, **settings))

        yield start


@pytest.fixture(params=[False, True], ids=["plain", "streamed"])
def asking(request: pytest.FixtureRequest, gateway: Served, model: ScriptedModel, marker: str) -> Asking:
    return Asking(gateway, model, marker, streamed=request.param)
