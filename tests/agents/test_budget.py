"""The skill `Budget`: what it takes, and that its agent never spends more, through a gateway."""

import asyncio
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic_ai.models.test import TestModel

from frontdesk import Agent
from frontdesk.agents.errors import AgentError
from frontdesk.agents.skills import Budget
from frontdesk.agents.skills.budget import budgets_of
from frontdesk.amounts import Amount
from frontdesk.app import create_app
from frontdesk.config import Settings
from frontdesk.store.budgets import StoredAccounts
from frontdesk.store.database import Database
from frontdesk.testing import ScriptedModel
from tests.agents.spenders import runs
from tests.faults.asking import broken_off, create, failure
from tests.faults.watch import Watched, eventually, watched
from tests.protocols.conftest import marker
from tests.requirements import requirement

__all__ = ["marker"]

# --- as it is written ------------------------------------------------------------------------------------------------


def test_it_is_each_users_for_a_day_unless_it_says_otherwise() -> None:
    (budget,) = budgets_of(Agent("scout", model="openai/gpt-5-mini", skills=[Budget("0.10 USD")]))
    assert (budget.limit, budget.per, budget.period) == (Amount("USD", 100_000), "user", "day")


def test_an_agent_may_have_several() -> None:
    skills = [Budget("0.10 USD"), Budget("5 USD", per="agent", period="month"), Budget("9 tokens", name="short")]
    found = budgets_of(Agent("scout", model="openai/gpt-5-mini", skills=skills))
    assert [each.name for each in found] == ["user-day", "agent-month", "short"]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Budget("a lot"), "'a lot' is no amount"),
        (lambda: Budget("1 USD", per="team"), "key, user, agent, all"),  # pyright: ignore[reportArgumentType]
        (lambda: Budget("1 USD", reserve="10 tokens"), "both be in USD"),
        (lambda: Budget("1 USD", price_input_per_mtok="1"), "give both prices"),
        (lambda: agent_with(Budget("1 USD"), Budget("2 USD")), "two budgets that are called user-day"),
        (lambda: agent_with(Budget("1 USD"), model="litellm/gpt-4o"), "nobody knows what litellm/gpt-4o costs"),
        (lambda: agent_with(Budget("1 USD"), model=TestModel()), "nobody knows what test/test costs"),
        (lambda: agent_with(Budget("1 USD"), fallbacks=["ollama/llama3"]), "nobody knows what ollama/llama3 costs"),
    ],
)
def test_one_that_cannot_be_kept_is_refused_when_it_is_made(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(AgentError, match=complaint):
        make()


def agent_with(*skills: Budget, **fields: Any) -> Agent:
    values: dict[str, Any] = {"model": "openai/gpt-4o", "skills": skills} | fields
    return Agent("scout", **values)


def test_a_model_of_unknown_price_will_do_with_a_price_and_in_tokens() -> None:
    free = Budget("1 USD", price_input_per_mtok=0, price_output_per_mtok=0)
    assert budgets_of(agent_with(free, Budget("9 tokens", per="agent"), model="litellm/gpt-4o"))


# --- as it is kept ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Desk:
    gateway: Watched
    folder: Path
    model: ScriptedModel
    marker: str

    def body(self, agent: str, script: str) -> dict[str, Any]:
        return {"model": agent, "messages": [{"role": "user", "content": f"{script}\n{self.marker}"}]}

    async def ask(self, agent: str, script: str, *, stream: bool = False, user: str = "ann") -> str:
        """What it says, or the code of the error."""
        async with self.client(user) as client:
            try:
                reply = await create(client, **self.body(agent, script), stream=stream)
                if not stream:
                    return reply.choices[0].message.content
                return "".join([chunk.choices[0].delta.content or "" async for chunk in reply])
            except openai.APIError as error:
                return str(error.code)

    def client(self, user: str = "ann") -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.gateway.base_url, api_key=user, max_retries=0)

    async def books(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Spent and held by budget and holder."""
        await self.gateway.idle()
        database = await Database.open(f"sqlite:///{self.folder / 'frontdesk.db'}")
        try:
            standings = await StoredAccounts(database, "the test").standings()
        finally:
            await database.aclose()
        return {(each.budget, each.holder): (each.spent, each.held) for each in standings}


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(models=("scripted", "gpt-4o")) as model:
        yield model


@contextmanager
def serving(model: ScriptedModel, folder: Path, marker: str, **settings: Any) -> Generator[Desk]:
    keys = tuple({"name": name, "sha256": sha256(name.encode()).hexdigest()} for name in ("ann", "bob"))
    values: dict[str, Any] = {
        "agents": ("tests.agents.spenders:agents",),
        "providers": {"openai": {"base_url": model.base_url, "api_key": "sk-scripted"}},
        "keys": keys,
        "api_keys": "probe",
    }
    with watched(folder, **values | settings) as gateway:
        yield Desk(gateway, folder, model, marker)


@pytest.fixture
def desk(model: ScriptedModel, tmp_path: Path, marker: str) -> Generator[Desk]:
    with serving(model, tmp_path, marker) as desk:
        yield desk


SPENT = ("python/frugal/user-day", "ann")


async def test_all_calls_of_a_turn_are_charged(desk: Desk) -> None:
    script = f'@usage 10 5\n@call look {{"at": "{desk.marker}"}}\n@then\n@usage 20 7\n@say Found.'
    assert await desk.ask("frugal", script) == "Found."
    assert await desk.books() == {SPENT: (42, 0)}


@pytest.mark.parametrize("stream", [False, True])
@requirement("python.budget")
async def test_without_budget_it_is_a_402_before_the_first_byte_for_this_user_alone(desk: Desk, stream: bool) -> None:
    assert await desk.ask("frugal", "@usage 50 30\n@say One.") == "One."
    async with desk.client() as client:
        error = await failure(client, **desk.body("frugal", "@say Two."), stream=stream)
    assert isinstance(error, openai.APIStatusError)
    assert (error.status_code, error.code) == (402, "insufficient_budget")
    assert await desk.ask("frugal", "@usage 1 1\n@say Two.", user="bob") == "Two."
    assert len(desk.model.requests_with(desk.marker)) == 2
    assert await desk.books() == {SPENT: (80, 0), (SPENT[0], "bob"): (2, 0)}


@requirement("python.budget.release")
async def test_a_turn_that_needs_more_than_there_is_ends_in_its_midst_and_pays_what_it_used(desk: Desk) -> None:
    script = f'@usage 50 30\n@say Begun.\n@call look {{"at": "{desk.marker}"}}\n@then\n@say Never.'
    async with desk.client() as client:
        choices, error = await broken_off(client, **desk.body("frugal", script))
    assert "Begun." in "".join(choice.delta.content or "" for choice in choices)
    assert error.code == "insufficient_budget"
    assert runs[desk.marker] == 1
    assert len(desk.model.requests_with(desk.marker)) == 1
    assert await desk.books() == {SPENT: (80, 0)}


async def test_a_priced_tool_is_paid_for_each_run_and_does_not_run_unpaid(desk: Desk) -> None:
    call = f'@call search {{"query": "{desk.marker}"}}\n'
    assert await desk.ask("scout", f"@usage 1000 100\n{call}{call}@then\n@usage 1000 100\n@say Nothing.") == "Nothing."
    assert runs[desk.marker] == 2
    one = ("python/scout/agent-day", "python/scout")
    dear = 2 * (2_500 + 1_000)
    assert await desk.books() == {one: (40_000 + dear, 0)}
    assert await desk.ask("scout", f"@usage 4 0\n{call * 5}@then\n@say Never.") == "insufficient_budget"
    assert runs[desk.marker] <= 4, "a step that fails stops its other tools, perhaps before they have begun"
    assert await desk.books() == {one: (80_000 + dear + 10, 0)}


@requirement("python.budget")
async def test_many_turns_of_one_agent_never_overdraw(desk: Desk) -> None:
    script = f'@usage 1000 100\n@call search {{"query": "{desk.marker}"}}\n@then\n@usage 1000 100\n@say Nothing.'
    said = await asyncio.gather(*(desk.ask("scout", script) for _ in range(20)))
    assert set(said) <= {"Nothing.", "insufficient_budget"}
    ((spent, held),) = (await desk.books()).values()
    assert 10_000 < spent <= 100_000
    assert held == 0
    assert runs[desk.marker] <= 4


async def test_an_agent_that_is_handed_a_turn_pays_its_part_of_it(desk: Desk) -> None:
    script = "@usage 30 5\n@call transfer_to_frugal {}\n@then\n@usage 40 30\n@say Here I am."
    assert await desk.ask("router", script) == "Here I am."
    assert await desk.books() == {SPENT: (70, 0)}
    assert await desk.ask("router", script) == "insufficient_budget"
    assert await desk.books() == {SPENT: (70, 0)}


async def test_the_budgets_of_the_settings_hold_beside_its_own(
    model: ScriptedModel, tmp_path: Path, marker: str
) -> None:
    common = {"name": "python", "limit": "1000 tokens", "agents": ["python/*"], "per": "all", "reserve": "1 token"}
    with serving(model, tmp_path, marker, budgets=(common,)) as desk:
        assert await desk.ask("frugal", "@usage 55 10\n@say One.") == "One."
        assert await desk.ask("router", "@usage 875 20\n@say Two.") == "Two."
        assert await desk.ask("frugal", "@usage 39 0\n@say Three.") == "insufficient_budget"  # of its own
        assert await desk.ask("frugal", "@usage 39 0\n@say Three.", user="bob") == "Three."
        assert await desk.ask("router", "@say Four.") == "insufficient_budget"
        spent = {budget: spent for (budget, holder), (spent, _) in (await desk.books()).items() if holder != "bob"}
        assert spent == {"python": 999, SPENT[0]: 65}


def test_a_budget_of_the_settings_that_cannot_be_kept_is_told_at_the_start(tmp_path: Path) -> None:
    def starting(**fields: Any) -> None:
        values: dict[str, Any] = {"agents": ("tests.agents.spenders:agents",), "data_dir": tmp_path}
        values["providers"] = {"openai": {"api_key": "sk-scripted"}}
        money = {"name": "money", "limit": "5 USD"} | fields
        create_app(Settings(_env_file=None, budgets=(money,), **values))  # pyright: ignore[reportCallIssue]

    with pytest.raises(AgentError, match="nobody knows what openai/scripted, the model of frugal, costs"):
        starting(agents=["python/*"])
    starting(agents=["scout"])
    starting(price_input_per_mtok=0, price_output_per_mtok=0)


async def test_a_turn_that_is_cut_short_is_charged_by_its_length(
    model: ScriptedModel, tmp_path: Path, marker: str
) -> None:
    with serving(model, tmp_path, marker, on_disconnect="cancel") as desk:
        async with desk.client() as client:
            body = desk.body("frugal", "@say Begun.\n@hang")
            async with await create(client, **body, stream=True) as stream:
                async for chunk in stream:
                    if chunk.choices[0].delta.content:
                        break
        await eventually(lambda: desk.gateway.busy() == (0, 0, 0.0, []))
        told = len(body["messages"][0]["content"].encode())
        spent, held = (await desk.books())[SPENT]
        assert -(-told // 4) < spent <= -(-told // 4) + 3
        assert held == 0
