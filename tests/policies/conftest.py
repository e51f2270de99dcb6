"""Gateways with scopes, the scripted model behind them, and a marker for each test."""

from collections.abc import Iterator

import pytest

from frontdesk.testing import ScriptedModel
from tests.policies.serving import serving
from tests.protocols.conftest import marker
from tests.served import Served

__all__ = ["marker"]


@pytest.fixture(scope="package")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as model:
        yield model


@pytest.fixture(scope="package")
def desk(model: ScriptedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Callers without a key are let in here, to what is public."""
    with serving(
        tmp_path_factory.mktemp("desk"),
        model,
        allow_anonymous=True,
        anonymous_rate="10000/minute",
        webui_jwt_secret="of Open WebUI, and long enough for it",
    ) as running:
        yield running
