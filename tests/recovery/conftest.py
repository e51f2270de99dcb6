"""Two Letta servers, one with Redis behind it, each behind a proxy that spoils what it is told to, and gateways before
that."""

import uuid
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from letta_client import Letta

from frontdesk.demo.local_letta import LettaOptions, LocalLetta
from frontdesk.testing import ScriptedModel
from tests.faults.watch import Watched, watched
from tests.recovery.proxy import Proxy, proxied
from tests.recovery.redis import NoRedis, redis

MODEL = "openai-proxy/scripted"


@dataclass(frozen=True)
class Place:
    """A Letta server, the proxy before it, and an agent."""

    letta: LocalLetta
    proxy: Proxy
    agent: str
    agent_id: str
    redis_port: int = 0

    @property
    def api(self) -> Letta:
        return Letta(base_url=self.letta.base_url, api_key="none")

    def rows(self, path: str) -> Any:
        return self.api.get(path, cast_to=object)

    def runs(self, conversation: str) -> list[dict[str, Any]]:
        """The runs of a conversation, newest first."""
        return self.rows(f"/v1/runs/?conversation_id={conversation}&limit=50")

    def conversations(self) -> list[str]:
        """Letta's ids of the agent's conversations, newest first."""
        rows = self.rows(f"/v1/conversations/?limit=500&order=desc&agent_id={self.agent_id}")
        return [row["id"] for row in rows]


def agent_of(letta: LocalLetta) -> Any:
    """An agent of one's own."""
    name = f"agent-{uuid.uuid4().hex[:12]}"
    api = Letta(base_url=letta.base_url, api_key="none")
    return api.agents.create(name=name, model=MODEL, embedding="letta/letta-free")


@pytest.fixture(scope="session")
def plain_place(letta: LocalLetta) -> Generator[Place]:
    agent = agent_of(letta)
    with proxied(letta.base_url) as proxy:
        yield Place(letta, proxy, agent.name, agent.id)


@pytest.fixture(scope="session")
def redis_place(model: ScriptedModel, tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    """The one Letta of the run that has Redis: it locks conversations then."""
    folder = tmp_path_factory.mktemp("redis")
    with ExitStack() as stack:
        try:
            port = stack.enter_context(redis(folder))
        except NoRedis as missing:
            pytest.skip(f"no Redis server here: {missing}")
        options = LettaOptions(model_base_url=model.base_url, redis_host="127.0.0.1", redis_port=port)
        letta = stack.enter_context(LocalLetta(folder / "letta", options))
        agent = agent_of(letta)
        proxy = stack.enter_context(proxied(letta.base_url))
        yield Place(letta, proxy, agent.name, agent.id, port)


@pytest.fixture(scope="session", params=["plain_place", "redis_place"], ids=["without Redis", "with Redis"])
def place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(request.param)


@pytest.fixture
def serve(tmp_path: Path) -> Generator[Callable[..., Watched]]:
    """Serve a place's agents until the test ends; each gateway has a store of its own."""
    with ExitStack() as running:

        def start(place: Place, **settings: Any) -> Watched:
            folder = tmp_path / uuid.uuid4().hex
            return running.enter_context(watched(folder, **{"letta_base_url": place.proxy.url} | settings))

        yield start


@pytest.fixture
def gateway(place: Place, serve: Callable[..., Watched]) -> Watched:
    return serve(place)


@pytest.fixture
def marker() -> str:
    """Something to find this test's own requests by, at the proxy and at the model."""
    return f"#{uuid.uuid4().hex[:12]}"
