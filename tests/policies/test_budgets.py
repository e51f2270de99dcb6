"""What one turn holds and is charged, on a real store."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from frontdesk.amounts import Budget, budget
from frontdesk.errors import InsufficientBudget, PriceUnknown
from frontdesk.policies.budgets import Budgets, TurnHold, told_tokens
from frontdesk.ports import Shortage, Wanted
from frontdesk.store.budgets import StoredAccounts
from frontdesk.store.database import Database
from frontdesk.turn import (
    Agent,
    File,
    Image,
    Message,
    Options,
    Principal,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    Usage,
)
from tests.requirements import requirement
from tests.store.owners import add

MODEL = "openai/gpt-4o"  # 2.50 dollars for a million tokens in, 10 out
WEATHER = Agent("weather", "weather", "python", model=MODEL)
DAY = 24 * 3600.0
ANN = Principal("web/ann")


@dataclass
class Till:
    """A store, and budgets on it, at a moment of the test's own."""

    database: Database
    accounts: StoredAccounts
    now: float = 1_800_000_000.0
    counted: list[tuple[str, str, Decimal]] = field(default_factory=list[tuple[str, str, Decimal]])

    def budgets(self, *budgets: Budget) -> Budgets:
        return Budgets(self.accounts, budgets, self.count, lambda: self.now)

    def count(self, budget: str, unit: str, spent: Decimal) -> None:
        self.counted.append((budget, unit, spent))

    async def hold(self, *budgets: Budget, turn: Turn | None = None, agent: Agent = WEATHER) -> TurnHold:
        hold = self.budgets(*budgets).hold(turn or asked(), agent)
        await hold.reserve()
        return hold

    async def books(self) -> dict[str, tuple[int, int]]:
        """Spent and held by budget."""
        return {each.budget: (each.spent, each.held) for each in await self.accounts.standings()}


@pytest.fixture
async def till(tmp_path: Path) -> AsyncGenerator[Till]:
    database = await Database.open(f"sqlite:///{tmp_path / 'frontdesk.db'}")
    await database.do(add("here"))
    yield Till(database, StoredAccounts(database, "here"))
    await database.aclose()


def tokens(limit: int, **fields: Any) -> Budget:
    return budget("tokens", f"{limit} tokens", **fields)


def dollars(limit: str, **fields: Any) -> Budget:
    return budget("money", f"{limit} USD", **fields)


def asked(text: str = "Hi!!", id: str = "turn-1", **fields: Any) -> Turn:
    return Turn(id, "weather", (Message("user", (Text(text),)),), principal=ANN, **fields)


def at_most(tokens: int) -> Options:
    return Options(max_output_tokens=tokens)


# --- before it begins ------------------------------------------------------------------------------------------------


async def test_a_turn_that_no_budget_concerns_holds_nothing(till: Till) -> None:
    for others in ((), (tokens(5000, keys=["other"]),), (tokens(5000, agents=["Weather"]),)):
        hold = await till.hold(*others)
        await hold.call_model(MODEL, 10**9)
        await hold.call_tool(Decimal(1000))
        hold.used(MODEL, Usage(10, 10))
        await hold.settle()
    assert await till.books() == {}
    await till.hold(tokens(5000, agents=["python/w*"], keys=["we?"]))
    assert await till.books() == {"tokens": (0, 1001)}


@pytest.mark.parametrize(
    ("fields", "options", "held"),
    [
        ({}, Options(), 1001),
        ({}, at_most(50), 51),
        ({"reserve": "200 tokens"}, Options(), 200),
        ({"reserve": "200 tokens"}, at_most(50), 200),
        ({"reserve": "200 tokens"}, at_most(500), 501),
    ],
)
async def test_what_the_longest_answer_would_take_is_set_aside(
    till: Till, fields: dict[str, Any], options: Options, held: int
) -> None:
    await till.hold(tokens(10_000, **fields), turn=asked(options=options))
    assert await till.books() == {"tokens": (0, held)}


async def test_of_a_small_budget_no_more_than_there_is(till: Till) -> None:
    await till.hold(tokens(80))
    assert await till.books() == {"tokens": (0, 80)}


async def test_what_is_too_long_for_the_budget_is_refused(till: Till) -> None:
    for turn in (asked("long" * 81), asked(options=at_most(80))):
        for fields in ({}, {"reserve": "10 tokens"}):
            with pytest.raises(InsufficientBudget, match="more than the whole budget"):
                await till.hold(tokens(80, **fields), turn=turn)
    assert await till.books() == {}


async def test_money_is_set_aside_by_the_price_of_the_model_that_was_chosen(till: Till) -> None:
    options = replace(at_most(100_000), model="openai/gpt-4o-mini")  # 60 cents for a million
    await till.hold(dollars("1"), turn=asked(options=options))
    assert await till.books() == {"money": (0, 60_001)}


async def test_all_budgets_hold_or_none(till: Till) -> None:
    with pytest.raises(InsufficientBudget, match="'money' of this user"):
        await till.hold(tokens(10_000), dollars("0.001", per="user"), turn=asked(options=at_most(1000)))
    assert await till.books() == {}


async def test_a_model_without_a_price_is_refused_where_money_counts(till: Till) -> None:
    unknown = replace(WEATHER, model="ollama/llama3")
    with pytest.raises(PriceUnknown, match="price_input_per_mtok"):
        await till.hold(dollars("1", reserve="0.01 USD"), agent=unknown)
    await till.hold(tokens(10_000), agent=unknown)
    prices = {"price_input_per_mtok": 1, "price_output_per_mtok": 100}
    await till.hold(dollars("1", **prices), turn=asked(options=at_most(1000)), agent=unknown)
    assert await till.books() == {"tokens": (0, 1001), "money": (0, 100_001)}


def test_a_transcript_is_measured_with_all_that_belongs_to_it() -> None:
    turn = Turn(
        "turn-1",
        "weather",
        input=(
            ToolResult("call-1", (Text("x" * 40),)),
            Message("user", (Image("image/png", b"png"), File("a.txt", "text/plain", b"y" * 40))),
        ),
        history=(Message("user", (Text("ü" * 20),)), ToolCall("call-1", "look", "{}")),
        instructions="z" * 40,
        tools=(Tool("look", "up", {}),),
    )
    assert told_tokens(turn) == 10 + 1000 + 10 + 10 + 10 + 4  # and 6 letters of the call, 8 of the tool


def test_text_that_is_no_unicode_is_measured_too() -> None:
    assert told_tokens(asked("\ud800" * 4)) == 1


# --- as it goes on ---------------------------------------------------------------------------------------------------


async def test_each_further_call_is_set_aside_before_it_is_made(till: Till) -> None:
    hold = await till.hold(tokens(1000), turn=asked(options=at_most(99)))
    assert await till.books() == {"tokens": (0, 100)}
    await hold.call_model(MODEL, 1, 99)
    assert await till.books() == {"tokens": (0, 100)}, "this one was set aside before the turn began"
    hold.used(MODEL, Usage(50, 99))
    await hold.call_model(MODEL, 200, 99)
    assert await till.books() == {"tokens": (0, 448)}
    hold.used(MODEL, Usage(200, 10))
    await hold.settle(Usage(999, 999))
    assert await till.books() == {"tokens": (359, 0)}
    assert till.counted == [("tokens", "tokens", Decimal(359))]


async def test_when_there_is_no_more_the_turn_must_end_and_pays_what_it_used(till: Till) -> None:
    budget = tokens(300, per="user")
    await (await till.hold(budget)).settle(Usage(100, 50))
    hold = await till.hold(budget, turn=asked(id="turn-2", options=at_most(99)))
    hold.used(MODEL, Usage(60, 40))
    with pytest.raises(InsufficientBudget, match="suffice: 50 tokens are left of it, and this turn needs 120 tokens"):
        await hold.call_model(MODEL, 60, 60)
    await hold.settle()
    assert await till.books() == {"tokens": (250, 0)}


async def test_a_priced_tool_is_paid_before_it_runs(till: Till) -> None:
    hold = await till.hold(dollars("0.10"), tokens(10_000), turn=asked(options=at_most(1000)))
    await hold.call_tool(Decimal("0.04"))
    await hold.call_tool(Decimal("0.04"))
    with pytest.raises(InsufficientBudget):
        await hold.call_tool(Decimal("0.04"))
    await hold.settle(Usage(1000, 1000))
    assert await till.books() == {"money": (80_000 + 12_500, 0), "tokens": (2000, 0)}


async def test_tools_that_run_at_the_same_time_never_overdraw(till: Till) -> None:
    hold = await till.hold(dollars("0.10"), turn=asked(options=at_most(100)))
    outcomes = await asyncio.gather(*(hold.call_tool(Decimal("0.01")) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(each, InsufficientBudget) for each in outcomes) == 10
    await hold.settle()
    assert await till.books() == {"money": (100_000, 0)}


async def test_a_model_that_was_fallen_back_to_costs_its_own_price_where_that_is_known(till: Till) -> None:
    hold = await till.hold(dollars("1"))
    hold.used("openai/gpt-4o-mini", Usage(output_tokens=1_000))
    hold.used("ollama/llama3", Usage(output_tokens=1_000))
    await hold.settle()
    assert await till.books() == {"money": (600 + 10_000, 0)}


async def test_the_agent_that_a_turn_goes_to_has_its_own_budgets(till: Till) -> None:
    poor = Agent("poor", "poor", "python", model=MODEL, budgets=(tokens(500, per="agent"),))
    hold = await till.hold(tokens(10_000), turn=asked(options=at_most(99)))
    hold.used(MODEL, Usage(60, 40))
    await hold.hand_over(poor)
    hold.used(MODEL, Usage(30, 20))
    await hold.settle()
    assert await till.books() == {"tokens": (150, 0), "python/poor/tokens": (50, 0)}


async def test_also_where_the_first_has_none(till: Till) -> None:
    poor = Agent("poor", "poor", "python", model=MODEL, budgets=(dollars("1"),))
    hold = await till.hold()
    hold.used(MODEL, Usage(output_tokens=500))
    await hold.hand_over(poor)
    hold.used(MODEL, Usage(output_tokens=100))
    await hold.settle()
    assert await till.books() == {"python/poor/money": (1000, 0)}


async def test_and_it_may_not_go_there_when_those_are_used_up(till: Till) -> None:
    poor = Agent("poor", "poor", "python", model=MODEL, budgets=(tokens(500, per="agent"),))
    await till.hold(agent=poor)
    hold = await till.hold(tokens(10_000), turn=asked(id="turn-2"))
    with pytest.raises(InsufficientBudget, match="set aside for other turns"):
        await hold.hand_over(poor)
    await hold.settle()
    assert await till.books() == {"tokens": (0, 0), "python/poor/tokens": (0, 500)}


# --- at its end ------------------------------------------------------------------------------------------------------


async def test_an_answer_whose_agent_tells_no_usage_is_charged_by_its_length(till: Till) -> None:
    hold = await till.hold(tokens(10_000), turn=asked("x" * 40))
    await hold.settle(Usage(), [Reasoning("y" * 40), Message("assistant", (Text("z" * 80),))])
    assert await till.books() == {"tokens": (40, 0)}


async def test_what_has_ended_can_spend_no_more_and_is_charged_once(till: Till) -> None:
    hold = await till.hold(dollars("1"))
    await asyncio.gather(hold.settle(Usage(output_tokens=1000)), hold.settle(Usage(output_tokens=1000)))
    with pytest.raises(InsufficientBudget, match="has ended"):
        await hold.call_tool(Decimal("0.01"))
    with pytest.raises(InsufficientBudget, match="has ended"):
        await hold.call_model(MODEL, 1, 1)
    assert await till.books() == {"money": (10_000, 0)}
    assert len(till.counted) == 1


async def test_an_absurd_usage_is_bounded(till: Till) -> None:
    hold = await till.hold(tokens(10_000), dollars("1"))
    await hold.settle(Usage(10**40, 10**40))
    assert await till.books() == {"tokens": (10**15, 0), "money": (10**15, 0)}
    negative = await till.hold(budget("other", "10 tokens"), turn=asked(id="turn-2"))
    await negative.settle(Usage(-5, -5))
    assert (await till.books())["other"] == (0, 0)


class SlowAccounts(StoredAccounts):
    """Of a database whose transactions take their time, and go on when whoever waits for them is cancelled."""

    async def reserve(self, turn: str, wanted: Sequence[Wanted], model: str = "") -> Shortage | None:
        async def late() -> Shortage | None:
            await asyncio.sleep(0.02)
            return await StoredAccounts.reserve(self, turn, wanted, model)

        return await asyncio.shield(late())


@requirement("python.budget.release")
async def test_a_turn_that_is_cancelled_while_it_sets_aside_leaves_nothing(till: Till) -> None:
    till.accounts = SlowAccounts(till.database, "here")
    for number in range(3):
        hold = till.budgets(tokens(10_000)).hold(asked(id=f"turn-{number}"), WEATHER)
        task = asyncio.create_task(hold.reserve())
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await hold.settle()
    await asyncio.sleep(0.03)
    assert (await till.books())["tokens"] == (0, 0)


async def test_a_turn_whose_process_is_gone_is_charged_what_was_found_out(till: Till) -> None:
    own = replace(WEATHER, budgets=(dollars("1"),))
    for number in range(4):
        await till.hold(tokens(100_000), turn=asked(id=f"turn-{number}"), agent=own)
    noted = await till.hold(tokens(100_000), turn=asked(id="turn-4"), agent=own)
    noted.used(MODEL, Usage(output_tokens=20))
    await noted.call_model(MODEL, 0, 2000)  # this notes what has been used
    budgets = till.budgets(tokens(100_000))
    await budgets.settle("turn-0", own, Usage(output_tokens=100))
    await budgets.settle("turn-1", own, None)
    await budgets.settle("turn-2", None, None)
    await till.budgets().settle("turn-3", None, Usage(output_tokens=100))  # its budgets are not there any more
    await budgets.settle("turn-4", own, None)
    await budgets.settle("turn-4", own, Usage(output_tokens=100))
    await budgets.settle("never", own, Usage(output_tokens=100))
    assert await till.books() == {"tokens": (120, 0), "python/weather/money": (1200, 0)}


# --- by the calendar -------------------------------------------------------------------------------------------------


async def test_each_day_begins_anew_and_a_turn_belongs_to_the_day_on_which_it_began(till: Till) -> None:
    daily = tokens(100, period="day", per="user")
    overnight = await till.hold(daily)
    with pytest.raises(InsufficientBudget, match="other turns"):
        await till.hold(daily, turn=asked(id="turn-2"))
    till.now += DAY
    today = await till.hold(daily, turn=asked(id="turn-3"))
    await overnight.settle(Usage(70, 30))
    await today.settle(Usage(10, 10))
    with pytest.raises(InsufficientBudget, match=r"80 tokens are left .* begins anew at 2027-01-17 00:00 UTC") as info:
        await till.hold(daily, turn=asked(id="turn-4", options=at_most(90)))
    assert info.value.retry_after_seconds
    assert 0 < info.value.retry_after_seconds <= DAY
    by_day = {each.period: each.spent for each in await till.accounts.standings()}
    assert by_day == {"2027-01-15": 100, "2027-01-16": 20}


async def test_an_agents_own_budget_is_not_that_of_another_of_the_same_name(till: Till) -> None:
    both = [replace(WEATHER, id=name, name=name, budgets=(tokens(80),)) for name in ("one", "two")]
    for number, agent in enumerate(both):
        hold = await till.hold(agent=agent, turn=asked(id=f"turn-{number}"))
        await hold.settle(Usage(80))
    assert await till.books() == {"python/one/tokens": (80, 0), "python/two/tokens": (80, 0)}


async def test_what_is_long_over_is_forgotten(till: Till) -> None:
    hold = await till.hold(tokens(80))
    await hold.settle(Usage(80))
    till.now = time.time() + 399 * DAY
    await till.budgets().tidy()
    assert await till.books() == {"tokens": (80, 0)}
    till.now = time.time() + 401 * DAY
    await till.budgets().tidy()
    assert await till.books() == {}
