"""A gateway with a Letta server and Python agents side by side; each case runs with an agent of each kind."""

import hashlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from frontdesk.demo.local_letta import LocalLetta
from frontdesk.testing import ScriptedModel
from tests.cases.wire import Desk
from tests.served import Served, served

OWNER, USER, OTHER = "sk-of-the-owner", "sk-of-a-user", "sk-of-another"


def key(name: str, value: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(value.encode()).hexdigest(), **more}


def settings(model: ScriptedModel) -> dict[str, Any]:
    return {
        "agents": ("tests.cases.cast:agents",),
        "agents_resolver": "tests.cases.cast:resolve",
        "providers": {"openai": {"base_url": model.base_url, "api_key": "sk-scripted"}},
        "image_allow_hosts": ("127.0.0.1",),
    }


@pytest.fixture(scope="session")
def both(
    letta: LocalLetta, milo: str, model: ScriptedModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    data_dir = tmp_path_factory.mktemp("cases")
    with served(data_dir, letta_base_url=letta.base_url, **settings(model)) as running:
        yield running


@pytest.fixture(scope="session")
def locked(model: ScriptedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same Python agents behind keys."""
    keys = [key("owner", OWNER, scopes=["owner"]), key("user", USER), key("other", OTHER, agents=["weather"])]
    with served(tmp_path_factory.mktemp("locked"), keys=keys, probe_key=OWNER, **settings(model)) as running:
        yield running


@pytest.fixture
def tag() -> str:
    return f"#{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["python", "letta"])
def desk(request: pytest.FixtureRequest, both: Served, milo: str, model: ScriptedModel, tag: str) -> Desk:
    """An agent of either kind, one after the other."""
    return Desk(both.url, "clerk" if request.param == "python" else milo, model, tag)


@pytest.fixture
def clerk(both: Served, model: ScriptedModel, tag: str) -> Desk:
    """A Python agent, for what only those have."""
    return Desk(both.url, "clerk", model, tag)
