"""A gateway with agents that misbehave, and the scripted model behind them."""

from collections.abc import Iterator

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
    with serving(tmp_path_factory.mktemp("hostile"), model, agents=("tests.hostile.cast:agents",)) as running:
        yield running


@pytest.fixture
def asking(gateway: Served, model: ScriptedModel, marker: str) -> Asking:
    return Asking(gateway, model, marker, streamed=False)
