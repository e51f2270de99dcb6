"""What every database promises of accounts: nobody spends what is not there, and nothing is charged twice."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from frontdesk.ports import Account, Held, Shortage, Wanted
from frontdesk.store import records
from frontdesk.store.budgets import StoredAccounts
from frontdesk.store.database import Database
from frontdesk.store.tables import accounts, holds
from frontdesk.store.transaction import Transaction
from tests.store.owners import add

OWNER, OTHER = "process-1", "process-2"


@pytest.fixture
async def kept(database: Database) -> StoredAccounts:
    await database.do(add(OWNER))
    return StoredAccounts(database, OWNER)


@pytest.fixture
async def other(database_url: str) -> AsyncGenerator[StoredAccounts]:
    """The accounts as another process has them, which has died, or signed off."""
    opened = await Database.open(database_url)
    yield StoredAccounts(opened, OTHER)
    await opened.aclose()


def account(limit: int = 100, *, id: str = "", holder: str = "alice", period: str = "2026-01") -> Account:
    return Account(id or uuid.uuid4().hex, "daily", "tokens", holder, period, limit)


async def standing(database: Database, of: Account) -> tuple[int, int]:
    """Spent and held; nothing of what is held is held by nobody."""

    def look(tx: Transaction) -> tuple[int, int]:
        row = tx.execute(select(accounts.c.spent, accounts.c.held).where(accounts.c.id == of.id)).first()
        spent, held = (row.spent, row.held) if row else (0, 0)
        assert held == (tx.scalar(select(func.sum(holds.c.amount)).where(holds.c.account == of.id)) or 0)
        return spent, held

    return await database.read(look)


async def reserved(kept: StoredAccounts, turn: str, *wanted: tuple[Account, int]) -> Shortage | None:
    return await kept.reserve(turn, [Wanted(each, more) for each, more in wanted], "openai/gpt-5-mini")


async def test_what_is_set_aside_is_charged_for_what_was_used(database: Database, kept: StoredAccounts) -> None:
    mine = account(100)
    assert await reserved(kept, "t1", (mine, 60)) is None
    assert await standing(database, mine) == (0, 60)
    assert await reserved(kept, "t2", (mine, 41)) == Shortage(mine, 41, spent=0, held=60)
    assert await reserved(kept, "t2", (mine, 40)) is None
    await kept.settle("t1", {mine.id: 25})
    assert await standing(database, mine) == (25, 40)
    await kept.settle("t2", {mine.id: 0})
    assert await standing(database, mine) == (25, 0)


async def test_a_turn_may_set_more_aside_as_it_goes_on(database: Database, kept: StoredAccounts) -> None:
    mine = account(100)
    assert await reserved(kept, "t1", (mine, 60)) is None
    assert await kept.reserve("t1", [Wanted(mine, 30, used=55)], "openai/gpt-5") is None
    assert await kept.reserve("t1", [Wanted(mine, 11, used=85)], "openai/gpt-5") == Shortage(mine, 11, spent=0, held=90)
    assert await kept.held("t1") == [Held(mine.id, "daily", "tokens", 90, 55, "openai/gpt-5")]
    await kept.settle("t1", {})
    assert await standing(database, mine) == (55, 0)


async def test_of_several_accounts_all_or_none_is_set_aside(database: Database, kept: StoredAccounts) -> None:
    rich, poor = account(1000), account(10)
    short = await reserved(kept, "t1", (rich, 50), (poor, 50))
    assert short == Shortage(poor, 50, spent=0, held=0)
    assert await standing(database, rich) == await standing(database, poor) == (0, 0)
    assert await kept.held("t1") == []
    assert await reserved(kept, "t1", (rich, 50), (poor, 10)) is None
    await kept.settle("t1", {rich.id: 7, poor.id: 8})
    assert (await standing(database, rich), await standing(database, poor)) == ((7, 0), (8, 0))


async def test_what_has_been_settled_is_not_settled_again(database: Database, kept: StoredAccounts) -> None:
    mine = account(100)
    assert await reserved(kept, "t1", (mine, 60)) is None
    await asyncio.gather(*(kept.settle("t1", {mine.id: 25}) for _ in range(8)))
    await kept.settle("unknown", {mine.id: 25})
    assert await standing(database, mine) == (25, 0)


async def test_more_may_be_charged_than_was_set_aside_and_then_nothing_is_left(
    database: Database, kept: StoredAccounts
) -> None:
    mine = account(100)
    assert await reserved(kept, "t1", (mine, 60)) is None
    await kept.settle("t1", {mine.id: 130})
    assert await standing(database, mine) == (130, 0)
    assert await reserved(kept, "t2", (mine, 1)) == Shortage(mine, 1, spent=130, held=0)


async def test_large_amounts_are_counted_exactly(database: Database, kept: StoredAccounts) -> None:
    mine = account(10**15)
    assert await reserved(kept, "t1", (mine, 10**15 - 1)) is None
    assert await reserved(kept, "t2", (mine, 2)) is not None
    await kept.settle("t1", {mine.id: 10**15 - 3})
    assert await standing(database, mine) == (10**15 - 3, 0)


async def test_turns_at_the_same_time_never_set_aside_more_than_there_is(
    database: Database, kept: StoredAccounts
) -> None:
    mine, everybody = account(200), account(155, holder="")
    turns = [f"t{number}" for number in range(50)]
    outcomes = await asyncio.gather(*(reserved(kept, turn, (mine, 10), (everybody, 10)) for turn in turns))
    assert outcomes.count(None) == 15
    assert await standing(database, mine) == await standing(database, everybody) == (0, 150)
    await asyncio.gather(*(kept.settle(turn, {mine.id: 10, everybody.id: 10}) for turn in turns))
    assert await standing(database, mine) == await standing(database, everybody) == (150, 0)


async def test_nor_do_processes_at_the_same_time(database: Database, kept: StoredAccounts, database_url: str) -> None:
    """Threads with an event loop each stand for the processes: they share nothing but the file or the server."""
    mine = account(300)

    async def spend(process: int) -> int:
        opened = await Database.open(database_url)
        own = StoredAccounts(opened, OWNER)
        let_through = 0
        for number in range(30):
            turn = f"t{process}-{number}"
            if await reserved(own, turn, (mine, 10)) is None:
                let_through += 1
                await own.settle(turn, {mine.id: 9})
        await opened.aclose()
        return let_through

    counts = await asyncio.gather(*(asyncio.to_thread(asyncio.run, spend(process)) for process in range(3)))
    spent, held = await standing(database, mine)
    assert (spent, held) == (9 * sum(counts), 0)
    assert 290 < spent <= 300


# --- processes that are gone -----------------------------------------------------------------------------------------


async def test_what_a_dead_process_held_is_given_back_when_it_is_needed(
    database: Database, kept: StoredAccounts, other: StoredAccounts
) -> None:
    mine = account(100)
    assert await other.reserve("theirs", [Wanted(mine, 90, used=30)], "") is None
    assert await reserved(kept, "ours", (mine, 60)) is None
    assert await standing(database, mine) == (30, 60)


async def test_what_a_living_process_holds_is_left_alone(
    database: Database, kept: StoredAccounts, other: StoredAccounts
) -> None:
    mine = account(100)
    await database.do(add(OTHER))
    assert await reserved(other, "theirs", (mine, 90)) is None
    assert await reserved(kept, "ours", (mine, 60)) == Shortage(mine, 60, spent=0, held=90)
    await kept.tidy(before=0)
    assert await standing(database, mine) == (0, 90)


async def test_so_is_what_is_held_for_a_turn_whose_outcome_is_not_known_yet(
    database: Database, kept: StoredAccounts, other: StoredAccounts
) -> None:
    """Its process is gone; whoever takes it over finds out what it used."""
    mine = account(100)
    await database.do(lambda tx: records.add_turn(tx, **turn("theirs")))
    assert await reserved(other, "theirs", (mine, 90)) is None
    assert await reserved(kept, "ours", (mine, 60)) == Shortage(mine, 60, spent=0, held=90)
    await database.do(lambda tx: records.change_turn(tx, "theirs", state="failed_after"))
    assert await reserved(kept, "ours", (mine, 60)) is None
    assert await standing(database, mine) == (0, 60)


async def test_tidying_up_gives_back_and_forgets_old_periods(
    database: Database, kept: StoredAccounts, other: StoredAccounts
) -> None:
    old, ever, running = account(), account(period=""), account()
    assert await reserved(other, "theirs", (old, 10), (ever, 10)) is None
    assert await reserved(kept, "ours", (running, 10)) is None
    await kept.tidy(before=0)
    assert {(each.spent, each.held) for each in await kept.standings()} == {(0, 0), (0, 10)}
    await kept.tidy(before=time.time() + 1)
    assert [(each.period, each.held) for each in await kept.standings()] == [("2026-01", 10), ("", 0)]


def turn(id: str) -> dict[str, Any]:
    fields: dict[str, Any] = dict.fromkeys(records.Node.__slots__, "")
    of_other_types = {"seq": 1, "dedupe": None, "left": False, "plain": True, "created": 0.0, "ended": 0.0}
    return fields | of_other_types | {"id": id, "state": "streaming", "owner": OTHER}


# --- whatever comes ------------------------------------------------------------------------------------------------

Step = tuple[str, int, Sequence[int]]
STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "settle"]), st.integers(0, 4), st.tuples(*[st.integers(0, 40)] * 3)),
    max_size=25,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_the_books_are_right_whatever_comes(database: Database, kept: StoredAccounts, steps: list[Step]) -> None:
    """Against books kept by hand."""
    example = uuid.uuid4().hex[:8]
    each = [account(limit) for limit in (40, 80, 120)]
    spent, held = [0, 0, 0], {number: [0, 0, 0] for number in range(5)}
    for kind, number, amounts in steps:
        turn, mine = f"{example}-{number}", held[number]
        if kind == "reserve":
            sums = [spent[index] + sum(of[index] for of in held.values()) for index in range(3)]
            fits = all(not amounts[index] or sums[index] + amounts[index] <= each[index].limit for index in range(3))
            assert (await reserved(kept, turn, *zip(each, amounts, strict=True)) is None) == fits
            if fits:
                held[number] = [mine[index] + amounts[index] for index in range(3)]
        else:
            charges = [min(amounts[index], mine[index]) for index in range(3)]
            await kept.settle(turn, {each[index].id: charges[index] for index in range(3)})
            spent = [spent[index] + charges[index] for index in range(3)]
            held[number] = [0, 0, 0]
    for index in range(3):
        assert await standing(database, each[index]) == (spent[index], sum(of[index] for of in held.values()))
        assert sum(await standing(database, each[index])) <= each[index].limit
