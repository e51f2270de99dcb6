"""What every database promises of the threads of agents."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator

import pytest
from sqlalchemy import func, select, update

from frontdesk.errors import ConversationNotFound
from frontdesk.ports import Stretch
from frontdesk.store import records
from frontdesk.store.database import Database
from frontdesk.store.tables import places, stretches, threads
from frontdesk.store.threads import STRAY_SECONDS, StoredThreads
from frontdesk.store.transaction import Transaction


@pytest.fixture
def kept(database: Database) -> StoredThreads:
    return StoredThreads(database)


@pytest.fixture
async def other(database_url: str) -> AsyncGenerator[StoredThreads]:
    """The threads as another process has them."""
    opened = await Database.open(database_url)
    yield StoredThreads(opened)
    await opened.aclose()


def stretch(turn: str, said: str = "", state: str = "") -> Stretch:
    return Stretch(turn, json.dumps([said or turn]), state)


async def thread_of(kept: StoredThreads, *turns: str) -> str:
    thread = await kept.make("weather")
    for turn in turns:
        await kept.append(thread, stretch(turn))
    return thread


async def turns_in(kept: StoredThreads, thread: str | None) -> list[str]:
    found = await kept.read(thread or "")
    assert found is not None
    return [each.turn for each in found]


async def rows(database: Database) -> tuple[int, int, int]:
    """How many threads, places and stretches there are."""

    def count(tx: Transaction) -> tuple[int, int, int]:
        one, two, three = (tx.scalars(select(func.count()).select_from(table)).one() for table in TABLES)
        return one, two, three

    return await database.read(count)


TABLES = (threads, places, stretches)


async def test_a_new_thread_is_empty(kept: StoredThreads) -> None:
    assert await kept.read(await kept.make("weather")) == []


async def test_there_is_nothing_in_a_thread_that_was_never_made(kept: StoredThreads) -> None:
    assert await kept.read("nowhere") is None
    assert await kept.find("nowhere", "t1") is None
    assert await kept.fork("nowhere") is None
    await kept.delete("nowhere")
    with pytest.raises(ConversationNotFound):
        await kept.append("nowhere", stretch("t1"))


async def test_what_turns_have_added_is_read_in_their_order(kept: StoredThreads, other: StoredThreads) -> None:
    thread = await kept.make("weather")
    added = [stretch(f"t{number}", state="{}" if number == 11 else "") for number in range(12)]
    for each in added:
        await kept.append(thread, each)
    assert await other.read(thread) == added
    assert await other.find(thread, "t11") == added[11]
    assert await other.find(thread, "t12") is None


async def test_any_text_is_kept_as_it_is(kept: StoredThreads) -> None:
    thread = await kept.make("weather")
    odd = Stretch(
        "t1", json.dumps(["\0 \ud800 ' \" ; -- 𝄞"]) + "𝄞 Grüße '); DROP TABLE threads; --" + "x" * 500_000, "'"
    )
    await kept.append(thread, odd)
    assert await kept.read(thread) == [odd]


async def test_a_turn_that_adds_again_replaces_what_it_had_added(kept: StoredThreads, database: Database) -> None:
    thread = await thread_of(kept, "t1", "t2", "t3")
    for said in ("first", "second"):
        await kept.append(thread, stretch("t2", said))
    assert await kept.read(thread) == [stretch("t1"), stretch("t2", "second"), stretch("t3")]
    assert await rows(database) == (1, 3, 3)


async def test_threads_do_not_see_each_other(kept: StoredThreads) -> None:
    one, two = await thread_of(kept, "t1"), await thread_of(kept, "t2")
    await kept.append(one, stretch("t2", "another"))
    assert await turns_in(kept, one) == ["t1", "t2"]
    assert await kept.read(two) == [stretch("t2")]


async def test_a_fork_has_the_same_past_and_a_future_of_its_own(kept: StoredThreads) -> None:
    thread = await thread_of(kept, "t1", "t2")
    fork = await kept.fork(thread)
    assert fork not in (None, thread)
    await kept.append(thread, stretch("t3"))
    await kept.append(fork, stretch("t4"))
    assert await turns_in(kept, thread) == ["t1", "t2", "t3"]
    assert await turns_in(kept, fork) == ["t1", "t2", "t4"]


async def test_a_fork_ends_with_the_turn_at_which_it_was_made(kept: StoredThreads) -> None:
    thread = await thread_of(kept, "t1", "t2", "t3")
    fork = await kept.fork(thread, at="t2")
    assert await turns_in(kept, fork) == ["t1", "t2"]
    assert await kept.fork(thread, at="t4") is None
    again = await kept.fork(fork or "", at="t1")
    assert await turns_in(kept, again) == ["t1"]


async def test_what_is_replaced_in_a_thread_stays_in_its_forks(kept: StoredThreads) -> None:
    thread = await thread_of(kept, "t1", "t2")
    fork = await kept.fork(thread)
    await kept.append(thread, stretch("t1", "new here"))
    await kept.append(fork or "", stretch("t2", "new there"))
    assert await kept.read(thread) == [stretch("t1", "new here"), stretch("t2")]
    assert await kept.read(fork or "") == [stretch("t1"), stretch("t2", "new there")]


async def test_a_fork_of_a_long_history_writes_none_of_it_again(kept: StoredThreads, database: Database) -> None:
    thread = await thread_of(kept, *(f"t{number}" for number in range(50)))
    for _ in range(5):
        await kept.fork(thread)
    assert await rows(database) == (6, 300, 50)


async def test_of_a_deleted_thread_nothing_is_left(kept: StoredThreads, database: Database) -> None:
    thread = await thread_of(kept, "t1", "t2")
    await kept.append(thread, stretch("t2", "again"))
    await kept.delete(thread)
    await kept.delete(thread)
    assert await kept.read(thread) is None
    assert await rows(database) == (0, 0, 0)


async def test_a_fork_outlives_the_thread_it_came_from(kept: StoredThreads, database: Database) -> None:
    thread = await thread_of(kept, "t1", "t2")
    fork = await kept.fork(thread, at="t1")
    await kept.delete(thread)
    assert await turns_in(kept, fork) == ["t1"]
    assert await rows(database) == (1, 1, 1)
    await kept.delete(fork or "")
    assert await rows(database) == (0, 0, 0)


async def test_forks_that_are_deleted_at_once_leave_nothing(
    kept: StoredThreads, other: StoredThreads, database: Database
) -> None:
    """Each must not think that another still has the history."""
    for _ in range(10):
        thread = await thread_of(kept, "t1", "t2", "t3")
        forks = [await kept.fork(thread) for _ in range(5)]
        kinds = [kept, other] * 3
        await asyncio.gather(
            *(by.delete(each or "") for by, each in zip(kinds, [thread, *forks], strict=True)),
            *(by.fork(thread, at="t2") for by in kinds[:2]),
        )
        for each in await database.read(lambda tx: tx.scalars(select(threads.c.id)).all()):
            assert await turns_in(kept, each) == ["t1", "t2"]
            await kept.delete(each)
        assert await rows(database) == (0, 0, 0)


async def test_turns_that_add_to_one_thread_at_once_are_all_kept(kept: StoredThreads, other: StoredThreads) -> None:
    thread = await kept.make("weather")
    turns = [f"t{number}" for number in range(40)]
    await asyncio.gather(*(by.append(thread, stretch(turn)) for turn in turns for by in (kept, other)))
    assert sorted(await turns_in(kept, thread)) == sorted(turns)


async def test_threads_without_a_conversation_are_swept_after_a_day(kept: StoredThreads, database: Database) -> None:
    stray, young, known = [await thread_of(kept, turn) for turn in ("t1", "t2", "t3")]

    def age(tx: Transaction) -> None:
        long_ago = time.time() - STRAY_SECONDS - 1
        tx.execute(update(threads).where(threads.c.id.in_((stray, known))).values(created=long_ago))
        row = records.begun("scope", "me", "python", "weather")
        records.add_conversation(tx, row)
        records.change_conversation(tx, row.id, thread=known)

    await database.do(age)
    assert await kept.sweep() == 1
    assert await kept.sweep() == 0
    assert await kept.read(stray) is None
    assert await turns_in(kept, young) == ["t2"]
    assert await turns_in(kept, known) == ["t3"]


async def test_a_history_of_thousands_of_turns_is_read_at_once(kept: StoredThreads, database: Database) -> None:
    thread = await kept.make("weather")

    numbers = range(1, 5001)

    def fill(tx: Transaction) -> None:
        for number in numbers:
            tx.execute(stretches.insert(), {"id": number, "messages": "[]", "state": ""})
            at = {"thread": thread, "place": number, "turn": f"t{number}", "stretch": number}
            tx.execute(places.insert(), at)

    await database.do(fill)
    assert await turns_in(kept, thread) == [f"t{number}" for number in numbers]
    fork = await kept.fork(thread, at="t4000")
    assert len(await turns_in(kept, fork)) == 4000
    await kept.delete(thread)
    assert await rows(database) == (1, 4000, 4000)
