"""Which agents there are, and what it costs to ask."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from frontdesk import directory as module
from frontdesk.directory import MAX_LOOK_UPS, UNKNOWN_SECONDS, Directory
from frontdesk.errors import AgentNotFound, BackendUnavailable, Forbidden, GatewayError
from frontdesk.ports import Placement
from frontdesk.turn import Agent, Batch, Call, Principal, Thread, Turn
from tests.requirements import requirement

ANYBODY = Principal()


def agent(number: int, name: str, backend: str = "letta") -> Agent:
    return Agent(f"agent-{number}", name, backend)


class ListedBackend:
    """A backend in memory, that counts what it is asked and fails when told to."""

    def __init__(self, *agents: Agent, name: str = "letta") -> None:
        self.all = list(agents)
        self.failure: Exception | None = None
        self.finds: list[str] = []
        self.asked_at_once = 0
        self.most_at_once = 0
        self.open = asyncio.Event()
        self.open.set()
        self.closed = False
        self.pings: asyncio.Queue[None] = asyncio.Queue()
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def _fail(self) -> None:
        if self.failure:
            raise self.failure

    async def agents(self) -> Sequence[Agent]:
        self._fail()
        return list(self.all)

    async def hidden(self) -> int:
        return 0

    async def find(self, name: str) -> Sequence[Agent]:
        self.finds.append(name)
        self.asked_at_once += 1
        self.most_at_once = max(self.most_at_once, self.asked_at_once)
        try:
            await self.open.wait()
            self._fail()
        finally:
            self.asked_at_once -= 1
        return [each for each in self.all if name in (each.name, each.id)]

    async def ping(self) -> str:
        self.pings.put_nowait(None)
        self._fail()
        return "0.16.7"

    async def open_thread(self) -> None: ...

    async def pinned(self, agent: Agent, pin: str) -> Thread | None: ...

    async def thread(self, agent: Agent, thread_id: str) -> Thread | None: ...

    async def calls(self, agent: Agent, thread: Thread) -> Sequence[Call]:
        return []

    async def run(self, turn: Turn, placement: Placement) -> AsyncGenerator[Batch, None]:
        yield ()

    async def cancel(self, turn: Turn, placement: Placement) -> bool:
        return False

    async def instructed(self, placement: Placement, system: str) -> None: ...

    async def aclose(self) -> None:
        self.closed = True


def listing(*backends: Any, **aliases: str) -> Directory:
    return Directory(backends, aliases)


async def names(directory: Directory, principal: Principal = ANYBODY) -> list[str]:
    return [name for name, _ in directory.advertised(principal)]


async def test_a_listed_agent_costs_no_look_up() -> None:
    backend = ListedBackend(agent(1, "Milo"))
    directory = listing(backend, **{"gpt-4o": "Milo"})
    await directory.refresh()
    for model in ("Milo", "agent-1", "letta/Milo", "letta/agent-1", "gpt-4o"):
        assert (await directory.find(model, ANYBODY)) == (agent(1, "Milo"), "auto")
    for model in ("Milo:stateless", "letta/Milo:stateless", "gpt-4o:stateless"):
        assert (await directory.find(model, ANYBODY)) == (agent(1, "Milo"), "stateless")
    assert (await directory.find("Milo:single", ANYBODY))[1] == "single"
    assert backend.finds == []


async def test_a_suffix_may_belong_to_a_name() -> None:
    directory = listing(ListedBackend(agent(1, "Milo"), agent(2, "Milo:single")))
    await directory.refresh()
    assert (await directory.find("Milo:single", ANYBODY)) == (agent(2, "Milo:single"), "auto")


@requirement("operations.new-agent")
async def test_a_new_agent_is_found_before_the_next_listing() -> None:
    backend = ListedBackend()
    directory = listing(backend)
    await directory.refresh()
    backend.all.append(agent(7, "New"))
    assert (await directory.find("New", ANYBODY))[0].id == "agent-7"
    assert await names(directory) == ["New"]
    await directory.find("New", ANYBODY)
    assert backend.finds == ["New"]


@requirement("operations.unknown-is-cheap")
async def test_a_name_nobody_knows_is_asked_for_once_at_a_time_and_not_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = ListedBackend()
    directory = listing(backend)
    backend.open.clear()
    asking = [asyncio.create_task(directory.find("gpt-4o", ANYBODY)) for _ in range(50)]
    await asyncio.sleep(0.01)
    backend.open.set()
    assert all(isinstance(end, AgentNotFound) for end in await asyncio.gather(*asking, return_exceptions=True))
    with pytest.raises(AgentNotFound):
        await directory.find("gpt-4o", ANYBODY)
    assert backend.finds == ["gpt-4o"]
    backend.all.append(agent(1, "gpt-4o"))
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + UNKNOWN_SECONDS + 0.1)
    assert (await directory.find("gpt-4o", ANYBODY))[0].id == "agent-1"


@requirement("operations.unknown-is-cheap")
async def test_many_unknown_names_do_not_hammer_the_backend() -> None:
    backend = ListedBackend()
    directory = listing(backend)
    backend.open.clear()
    asking = [asyncio.create_task(directory.find(f"guess-{n}", ANYBODY)) for n in range(200)]
    await asyncio.sleep(0.02)
    backend.open.set()
    await asyncio.gather(*asking, return_exceptions=True)
    assert backend.most_at_once == MAX_LOOK_UPS
    with pytest.raises(AgentNotFound):
        await directory.find("x" * 10_000, ANYBODY)
    assert len(backend.finds) == 200


async def test_who_goes_away_does_not_spoil_the_look_up_for_others() -> None:
    backend = ListedBackend(agent(1, "Milo"))
    directory = listing(backend)
    backend.open.clear()
    first, second = (asyncio.create_task(directory.find("Milo", ANYBODY)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait({first})
    backend.open.set()
    assert (await second)[0].name == "Milo"


async def test_a_failed_look_up_is_not_remembered() -> None:
    backend = ListedBackend(agent(1, "Milo"))
    directory = listing(backend)
    backend.failure = BackendUnavailable("down")
    with pytest.raises(BackendUnavailable):
        await directory.find("Milo", ANYBODY)
    backend.failure = None
    assert (await directory.find("Milo", ANYBODY))[0].name == "Milo"


@requirement("operations.health")
@pytest.mark.parametrize("failure", [BackendUnavailable("down"), ValueError("what is this?")])
async def test_a_failed_refresh_keeps_what_was_known_and_says_so(failure: Exception) -> None:
    backend = ListedBackend(agent(1, "Milo"))
    directory = listing(backend)
    await directory.refresh()
    seen = directory.listings["letta"].seen
    backend.failure = failure
    await directory.refresh()
    assert directory.listings["letta"].error
    assert directory.listings["letta"].seen == seen
    assert "what is this" not in directory.listings["letta"].error
    assert (await directory.find("Milo", ANYBODY))[0].name == "Milo"
    directory.forget(agent(1, "Milo"))
    assert directory.listings["letta"].error, "forgetting an agent is no sign of life"
    backend.failure = None
    await directory.refresh()
    assert directory.listings["letta"].error == ""
    assert await names(directory) == ["Milo"]


async def test_the_refreshing_goes_on_after_a_failure() -> None:
    backend = ListedBackend(agent(1, "Milo"))
    backend.failure = BackendUnavailable("down")
    directory = Directory([backend], {}, refresh_seconds=0.01)  # type: ignore[list-item]
    directory.start()
    async with asyncio.timeout(5):
        await backend.pings.get()
        await backend.pings.get()
        assert directory.listings["letta"].error
        backend.failure = None
        await backend.pings.get()
        await backend.pings.get()
        assert directory.listings["letta"].error == ""
    await directory.stop()
    assert backend.closed


@requirement("operations.duplicates")
async def test_agents_of_one_name_are_known_by_their_ids() -> None:
    directory = listing(ListedBackend(agent(1, "Twin"), agent(2, "Twin"), agent(3, "Milo")))
    await directory.refresh()
    assert await names(directory) == ["agent-1", "agent-2", "Milo"]
    with pytest.raises(AgentNotFound) as info:
        await directory.find("Twin", ANYBODY)
    assert "agent-1, agent-2" in info.value.message
    assert (await directory.find("agent-2", ANYBODY))[0].id == "agent-2"
    only_one = Principal("key", ("agent-2",))
    assert (await directory.find("Twin", only_one))[0].id == "agent-2"


@requirement("operations.duplicates")
async def test_one_name_at_two_backends_is_told_apart_by_the_backends_name() -> None:
    directory = listing(
        ListedBackend(agent(1, "Milo", "home"), name="home"), ListedBackend(agent(2, "Milo", "work"), name="work")
    )
    await directory.refresh()
    with pytest.raises(AgentNotFound):
        await directory.find("Milo", ANYBODY)
    assert (await directory.find("work/Milo", ANYBODY))[0].id == "agent-2"
    assert (await directory.find("home/agent-1", ANYBODY))[0].id == "agent-1"
    with pytest.raises(AgentNotFound):
        await directory.find("home/agent-2", ANYBODY)


async def test_one_backend_that_is_down_does_not_hide_the_others() -> None:
    home, work = ListedBackend(agent(1, "Milo", "home"), name="home"), ListedBackend(name="work")
    work.failure = BackendUnavailable("down")
    directory = listing(home, work)
    assert (await directory.find("Milo", ANYBODY))[0].id == "agent-1"
    with pytest.raises(BackendUnavailable):
        await directory.find("Otis", ANYBODY)


@requirement("security.agents-per-key")
async def test_a_key_sees_and_uses_its_agents_only() -> None:
    directory = listing(ListedBackend(agent(1, "Milo"), agent(2, "Otis"), agent(3, "Ada")))
    await directory.refresh()
    key = Principal("key", ("Milo", "agent-2", "letta/Ada"))
    assert await names(directory, key) == ["Milo", "Otis", "Ada"]
    narrow = Principal("key", ("Milo",))
    assert await names(directory, narrow) == ["Milo"]
    for model in ("Otis", "agent-2", "letta/Otis", "Otis:stateless"):
        with pytest.raises(Forbidden):
            await directory.find(model, narrow)
    assert await names(directory, Principal("key", ())) == []


async def test_every_error_is_one_of_ours() -> None:
    directory = listing(ListedBackend())
    for model in ("", "/", "letta/", ":stateless", "a/b/c", "\0", "x:single:stateless"):
        with pytest.raises(GatewayError):
            await directory.find(model, ANYBODY)
