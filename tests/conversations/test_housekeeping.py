"""What is deleted, when, and what is spared; on a real store, with a Letta server that counts what it loses."""

import itertools
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import select, text

from frontdesk.app import letta_backend
from frontdesk.config import LettaServer, Settings
from frontdesk.conversations import housekeeping
from frontdesk.conversations.housekeeping import AT_A_TIME, Housekeeping, doom_if_unused
from frontdesk.conversations.ledger import DAY, Ledger
from frontdesk.directory import Directory
from frontdesk.errors import ConversationBusy
from frontdesk.store import records
from frontdesk.store.database import Database
from frontdesk.store.records import Conversation
from frontdesk.store.tables import conversations, pins, turns
from tests.faults.fake import FakeLetta, fake_letta
from tests.faults.watch import eventually
from tests.requirements import requirement
from tests.store.postgres import fresh_database, postgres

NOW = 1_800_000_000.0
MILO = "agent-00000000-0000-4000-8000-000000000001"


@dataclass
class House:
    """A store, its housekeeping, and the Letta server behind."""

    database: Database
    letta: FakeLetta
    keeping: Housekeeping
    now: float = NOW

    async def add(self, name: str, head: str = "", *, days: float, **fields: Any) -> None:
        """A conversation that has not been used for so many days."""
        row: dict[str, Any] = {
            "scope": "s",
            "family": name,
            "principal": "p",
            "backend": "letta",
            "agent": MILO,
            "kind": "chat",
        }
        row |= {"thread": f"thread-of-{name}", "head": head, "system": "", "pin": "", "metadata": "{}"}
        used = self.now - days * DAY
        row |= {"id": name, "created": used, "used": used} | fields
        kept = Conversation(**row)
        await self.database.do(lambda tx: records.add_conversation(tx, kept))

    async def say(self, conversation: str, *turn_ids: str, after: str = "", state: str = "completed") -> None:
        """Turns of a conversation, one after the other, of which the first follows `after`."""
        for turn_id in turn_ids:
            row = turn(turn_id, conversation, after, state)
            await self.database.do(lambda tx, row=row: records.add_turn(tx, **row))
            after = turn_id

    async def kept(self) -> set[str]:
        """The conversations that can still be found."""
        query = select(conversations.c.id).where(conversations.c.kind != "doomed")
        return await self.database.read(lambda tx: set(tx.scalars(query)))

    async def said(self) -> set[str]:
        """The turns of which anything is left."""
        return await self.database.read(lambda tx: set(tx.scalars(select(turns.c.id))))

    async def rows(self) -> int:
        return await self.database.read(lambda tx: len(list(tx.execute(select(conversations)))))

    @property
    def deleted(self) -> list[str]:
        """The conversations which Letta was asked to delete."""
        return [call.partition("thread-of-")[2] for call in self.letta.calls if call.startswith("DELETE ")]


def turn(turn_id: str, conversation: str, parent: str, state: str) -> dict[str, Any]:
    row: dict[str, Any] = {"id": turn_id, "conversation": conversation, "parent": parent, "state": state}
    texts = dict.fromkeys(("owner", "request", "message", "base", "input", "reply", "run", "error"), "")
    unknown = dict.fromkeys(("dedupe", "after", "spoken", "pair"))
    return row | texts | unknown | {"scope": "s", "left": False, "plain": True, "created": 0.0, "ended": 0.0}


@pytest.fixture
def letta() -> Generator[FakeLetta]:
    with fake_letta() as fake:
        yield fake


@pytest.fixture(scope="module")
def postgres_server() -> Generator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store: a file, unless the test asks for another."""
    if getattr(request, "param", "sqlite") == "postgres":
        return fresh_database(request.getfixturevalue("postgres_server"), f"house_{next(numbers)}")
    return f"sqlite:///{tmp_path / 'frontdesk.db'}"


numbers = itertools.count(1)
on_both = pytest.mark.parametrize("store_url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
async def house(letta: FakeLetta, store_url: str) -> AsyncGenerator[House]:
    async for each in housed(store_url, letta, LettaServer(base_url=letta.url)):
        yield each


async def housed(store_url: str, letta: FakeLetta, *servers: LettaServer) -> AsyncGenerator[House]:
    settings = Settings(_env_file=None)  # pyright: ignore[reportCallIssue]
    database = await Database.open(store_url)
    directory = Directory([letta_backend(server, settings) for server in servers], {})
    keeping = Housekeeping(database, Ledger(database), directory, 90, 7, lambda: house.now)
    house = House(database, letta, keeping)
    yield house
    await keeping.stop()
    await directory.stop()
    await database.aclose()


# --- what is due -----------------------------------------------------------------------------------------------------


@requirement("housekeeping.retention")
async def test_what_nobody_has_used_for_the_retention_is_deleted_here_and_at_letta(house: House) -> None:
    await house.add("old", "o2", days=91)
    await house.say("old", "o1", "o2")
    await house.add("young", "y2", days=89)
    await house.say("young", "y1", "y2")
    assert await house.keeping.tidy() == 1
    assert (await house.kept(), await house.said(), house.deleted) == ({"young"}, {"y1", "y2"}, ["old"])
    assert await house.keeping.tidy() == 0


@on_both
async def test_what_never_came_further_than_its_first_turn_goes_earlier(house: House) -> None:
    await house.add("asked-once", "a1", days=8)
    await house.say("asked-once", "a1")
    await house.add("never-used", days=8, thread="")
    await house.add("talked", "t2", days=8)
    await house.say("talked", "t1", "t2")
    await house.keeping.tidy()
    assert (await house.kept(), house.deleted) == ({"talked"}, ["asked-once"])


async def test_a_branch_with_one_turn_of_its_own_is_no_beginning(house: House) -> None:
    await house.add("chat", "c2", days=1)
    await house.say("chat", "c1", "c2")
    await house.add("branch", "b2", days=8)
    await house.say("branch", "b2", after="c1")
    await house.keeping.tidy()
    assert await house.kept() == {"chat", "branch"}


async def test_stateless_and_temporary_ones_go_after_a_day(house: House) -> None:
    for kind in ("stateless", "temporary", "chat"):
        await house.add(f"{kind}-fresh", days=0.9, kind=kind)
        await house.add(f"{kind}-old", days=1.1, kind=kind)
    await house.keeping.tidy()
    assert await house.kept() == {"stateless-fresh", "temporary-fresh", "chat-fresh", "chat-old"}


@on_both
async def test_an_agents_own_thread_is_never_deleted_but_what_was_said_there_is_not_kept_for_ever(house: House) -> None:
    await house.add("own", "o2", days=1000, kind="own", thread="default")
    await house.say("own", "o1", "o2")
    await house.say("own", "o3", after="o2", state="streaming")
    assert await house.keeping.tidy() == 0
    assert (await house.kept(), await house.said()) == ({"own"}, {"o2", "o3"})


@on_both
@pytest.mark.parametrize("state", records.LIVE)
async def test_a_conversation_with_a_turn_in_it_is_spared(house: House, state: str) -> None:
    await house.add("busy", days=1000)
    await house.say("busy", "b1", state=state)
    await house.keeping.tidy()
    assert (await house.kept(), house.deleted) == ({"busy"}, [])


@pytest.mark.parametrize("comes_back", ["by using it", "by beginning a turn"])
async def test_who_comes_back_in_the_last_moment_finds_it(house: House, comes_back: str) -> None:
    await house.add("old", "o1", days=91)
    await house.say("old", "o1")
    seen = await house.database.read(lambda tx: records.conversation(tx, "old"))
    assert seen
    if comes_back == "by using it":
        await house.database.do(lambda tx: records.change_conversation(tx, "old", used=NOW))
    else:
        await house.say("old", "o2", after="o1", state="claimed")
    assert not await house.database.do(lambda tx: doom_if_unused(tx, seen))
    assert await house.kept() == {"old"}


@requirement("housekeeping.retention")
async def test_a_clock_that_jumped_costs_a_bounded_number_of_chats(house: House) -> None:
    for number in range(AT_A_TIME + 10):
        await house.add(f"chat-{number}", f"t{number}b", days=number / 1000, thread="")
        await house.say(f"chat-{number}", f"t{number}a", f"t{number}b")
    house.now += 1000 * 365 * DAY
    assert await house.keeping.tidy() == AT_A_TIME
    assert await house.kept() == {f"chat-{number}" for number in range(10)}  # those used last


async def test_what_goes_after_a_day_anyway_may_be_many(house: House) -> None:
    for number in range(AT_A_TIME + 10):
        await house.add(f"request-{number}", days=2, kind="stateless", thread="")
    assert await house.keeping.tidy() == AT_A_TIME + 10
    assert await house.rows() == 0


# --- the tree of turns -----------------------------------------------------------------------------------------------


@on_both
async def test_a_branch_keeps_all_that_was_said_before_it(house: House) -> None:
    await house.add("chat", "c4", days=91)
    await house.say("chat", "c1", "c2", "c3", "c4")
    await house.say("chat", "c3-failed", after="c2", state="failed_before")
    await house.add("branch", "b3", days=1)
    await house.say("branch", "b3", after="c2")
    await house.keeping.tidy()
    assert (await house.kept(), house.deleted) == ({"branch"}, ["chat"])
    assert await house.said() == {"c1", "c2", "b3"}
    path = await house.database.read(lambda tx: records.path(tx, "b3"))
    assert [node.id for node in path] == ["c1", "c2", "b3"]


@on_both
async def test_a_fork_in_which_nothing_was_said_yet_keeps_it_too(house: House) -> None:
    await house.add("chat", "c2", days=91)
    await house.say("chat", "c1", "c2")
    await house.add("fork", "c2", days=1)
    await house.keeping.tidy()
    assert await house.said() == {"c1", "c2"}


@on_both
@pytest.mark.parametrize("turns_of_its_own", [(), ("f3",)])
async def test_with_the_last_branch_goes_what_only_that_went_back_to(
    house: House, turns_of_its_own: tuple[str, ...]
) -> None:
    await house.add("chat", "c3", days=91)
    await house.say("chat", "c1", "c2", "c3")
    await house.add("fork", turns_of_its_own[-1] if turns_of_its_own else "c2", days=2)
    await house.say("fork", *turns_of_its_own, after="c2")
    await house.add("other", "o2", days=1)
    await house.say("other", "o2", after="c1")
    await house.keeping.tidy()
    assert await house.said() == {"c1", "c2", "o2", *turns_of_its_own}
    house.now += 88.5 * DAY
    await house.keeping.tidy()
    assert (await house.kept(), await house.said()) == ({"other"}, {"c1", "o2"})
    house.now += DAY
    await house.keeping.tidy()
    assert (await house.rows(), await house.said()) == (0, set())


@on_both
async def test_a_conversation_that_is_still_there_keeps_its_turns_when_its_branch_goes(house: House) -> None:
    await house.add("chat", "c2", days=1)
    await house.say("chat", "c1", "c2")
    await house.add("branch", "b2", days=91)
    await house.say("branch", "b2", after="c1")
    await house.keeping.tidy()
    assert (await house.kept(), await house.said()) == ({"chat"}, {"c1", "c2"})


@requirement("housekeeping.retention")
@on_both
async def test_snapshots_go_with_their_conversation(house: House) -> None:
    await house.add("chat", "c2", days=1)
    await house.say("chat", "c1", "c2")
    await house.add("shot", "c1", days=1, kind="snapshot", family="chat")
    await house.add("branch", "b2", days=1, family="chat")
    await house.say("branch", "b2", after="c1")
    await house.add("shot-of-branch", "b2", days=1, kind="snapshot", family="chat")
    assert await house.keeping.delete("chat")
    await house.keeping.tidy()
    assert await house.kept() == {"branch", "shot-of-branch"}
    assert sorted(house.deleted) == ["chat", "shot"]


async def test_snapshots_nobody_needed_go_with_time(house: House) -> None:
    await house.add("chat", "c2", days=1)
    await house.say("chat", "c1", "c2")
    await house.add("shot", "c1", days=91, kind="snapshot", family="chat")
    await house.keeping.tidy()
    assert (await house.kept(), await house.said(), house.deleted) == ({"chat"}, {"c1", "c2"}, ["shot"])


# --- the backend -----------------------------------------------------------------------------------------------------


def answering(status: int) -> Callable[[web.Request], web.StreamResponse]:
    return lambda _: web.json_response({"detail": "out of order"}, status=status)


async def test_a_backend_that_is_down_is_asked_again_the_next_time(house: House) -> None:
    await house.add("old", "o1", days=91)
    await house.say("old", "o1")
    house.letta.answers["DELETE /v1/conversations"] = answering(503)
    assert await house.keeping.tidy() == 0
    assert (await house.kept(), await house.rows()) == (set(), 1)  # nobody finds it any more
    house.letta.answers.clear()
    assert await house.keeping.tidy() == 1
    assert (await house.rows(), await house.said()) == (0, set())


async def test_one_conversation_that_cannot_be_deleted_holds_up_no_other(house: House) -> None:
    for name in ("a-bad-one", "b", "c"):
        await house.add(name, days=91)
    house.letta.answers["DELETE /v1/conversations/conv-thread-of-a-bad-one"] = answering(500)
    assert await house.keeping.tidy() == 2
    assert house.deleted == ["a-bad-one", "b", "c"]


async def test_a_backend_that_is_away_holds_up_no_other_and_is_not_tried_again_and_again(
    letta: FakeLetta, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "AT_A_TIME", 2)
    with fake_letta() as away:
        away.answers["DELETE "] = answering(503)
        servers = (LettaServer(name="away", base_url=away.url), LettaServer(name="letta", base_url=letta.url))
        async for house in housed(store_url, letta, *servers):
            for number in range(5):
                await house.add(f"a{number}", days=2, kind="stateless", backend="away")
                await house.add(f"b{number}", days=2, kind="stateless")
            assert await house.keeping.tidy() == 5
            assert sorted(house.deleted) == [f"b{number}" for number in range(5)]
            assert len([call for call in away.calls if call.startswith("DELETE")]) == 1


async def test_the_thread_is_deleted_also_where_the_agent_is_gone(house: House) -> None:
    house.letta.rows = []
    await house.add("old", days=91)
    assert await house.keeping.tidy() == 1
    assert (house.deleted, await house.rows()) == (["old"], 0)


async def test_conversations_of_a_server_that_is_no_longer_configured_are_forgotten(house: House) -> None:
    await house.add("old", days=91, backend="a-server-of-yesterday")
    assert await house.keeping.tidy() == 1
    assert (house.deleted, await house.rows()) == ([], 0)


# --- on request ------------------------------------------------------------------------------------------------------


async def test_deleting_waits_for_no_backend_which_hears_of_it_soon_after(house: House) -> None:
    await house.add("chat", "c1", days=0, pin="name")
    await house.say("chat", "c1")
    await house.database.do(lambda tx: records.add_pin(tx, "s", "name", "chat", "chat"))
    house.keeping.start()
    assert await house.keeping.delete("chat")
    assert await house.kept() == set()
    assert await house.database.read(lambda tx: tx.execute(select(pins)).all()) == []
    await eventually(lambda: house.deleted == ["chat"])
    assert not await house.keeping.delete("chat")
    assert not await house.keeping.delete("never-there")


async def test_a_conversation_with_a_turn_in_it_cannot_be_deleted(house: House) -> None:
    await house.add("busy", days=0)
    await house.say("busy", "b1", state="streaming")
    with pytest.raises(ConversationBusy):
        await house.keeping.delete("busy")
    assert await house.kept() == {"busy"}


async def test_a_failure_does_not_end_the_housekeeping(house: House) -> None:
    trigger = "CREATE TRIGGER broken BEFORE DELETE ON conversations BEGIN SELECT RAISE(ABORT, 'broken'); END"
    await house.database.do(lambda tx: tx.execute(text(trigger)))
    house.keeping.start()
    await house.add("chat", days=0)
    await house.keeping.delete("chat")
    await eventually(lambda: house.deleted == ["chat"])
    await house.database.do(lambda tx: tx.execute(text("DROP TRIGGER broken")))
    await house.add("other", days=0)
    await house.keeping.delete("other")
    await eventually(lambda: house.deleted == ["chat", "chat", "other"])
