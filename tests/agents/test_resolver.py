"""Agents that are made when somebody asks for them."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pydantic_ai
import pytest
import structlog
from pydantic_ai.models.test import TestModel

from frontdesk import Agent
from frontdesk.agents.errors import AgentError
from frontdesk.agents.resolver import Resolver
from frontdesk.errors import BackendUnavailable, StoreUnavailable


class House:
    """Notes who is asked for, who comes, and who goes."""

    def __init__(
        self, resolve: Callable[[str], Any] | None = None, seconds: float = 60.0, max_agents: int = 1000
    ) -> None:
        self.asked: list[str] = []
        self.came: list[Agent] = []
        self.went: list[Agent] = []
        self._inner = resolve or agent
        self.resolver = Resolver(self._resolve, seconds, self.take, self.went.append, max_agents)

    def _resolve(self, name: str) -> Agent | Awaitable[Agent | None] | None:
        self.asked.append(name)
        return self._inner(name)

    async def take(self, agent: Agent) -> None:
        self.came.append(agent)

    @property
    def present(self) -> set[Agent]:
        return set(self.came) - set(self.went)


def agent(name: str) -> Agent:
    return Agent(name, model="scripted/x")


async def test_an_agent_is_made_once_and_then_remembered() -> None:
    house = House()
    found = await house.resolver.find("ann")
    assert found
    assert found.name == "ann"
    assert await house.resolver.find("ann") is found
    assert (house.asked, house.came) == (["ann"], [found])


async def test_those_who_ask_at_the_same_time_share_one_call() -> None:
    go_on = asyncio.Event()

    async def resolve(name: str) -> Agent:
        await go_on.wait()
        return agent(name)

    house = House(resolve)
    waiting = [asyncio.create_task(house.resolver.find("ann")) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    go_on.set()
    found = await asyncio.gather(*waiting[1:])
    assert len(set(found)) == 1
    assert house.asked == ["ann"]


async def test_a_function_runs_where_it_holds_up_nobody() -> None:
    threads: list[int] = []

    def resolve(name: str) -> None:
        threads.append(threading.get_ident())

    assert await House(resolve).resolver.find("ann") is None
    assert threads != [threading.get_ident()]


async def test_nobody_is_remembered_for_a_while() -> None:
    house = House(lambda name: None)
    assert [await house.resolver.find("nobody") for _ in range(3)] == [None] * 3
    assert house.asked == ["nobody"]


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, "a\n", "../etc"])
async def test_what_cannot_be_a_name_is_nobody_without_asking(name: str) -> None:
    house = House()
    assert await house.resolver.find(name) is None
    assert house.asked == []


async def test_after_its_time_an_agent_is_made_anew_and_the_old_one_let_go() -> None:
    house = House(seconds=0.0)
    first = await house.resolver.find("ann")
    second = await house.resolver.find("ann")
    assert first is not second
    assert (house.came, house.went) == ([first, second], [first])


async def test_the_same_object_given_again_is_kept() -> None:
    ann = agent("ann")
    house = House(lambda name: ann, seconds=0.0)
    assert await house.resolver.find("ann") is await house.resolver.find("ann") is ann
    assert (len(house.asked), house.came, house.went) == (2, [ann], [])


async def test_an_agent_that_is_nobody_any_more_is_let_go() -> None:
    answers = [agent("ann"), None]
    house = House(lambda name: answers.pop(0), seconds=0.0)
    assert await house.resolver.find("ann")
    assert await house.resolver.find("ann") is None
    assert house.present == set()


async def test_only_so_many_are_remembered_and_those_used_last_stay() -> None:
    house = House(max_agents=2)
    for name in ("a", "b", "a", "c"):
        await house.resolver.find(name)
    assert {each.name for each in house.present} == {"a", "c"}


async def test_unknown_names_in_masses_push_out_nobody() -> None:
    house = House(lambda name: agent(name) if name == "ann" else None, max_agents=2)
    ann = await house.resolver.find("ann")
    for number in range(10):
        assert await house.resolver.find(f"x{number}") is None
    assert await house.resolver.find("ann") is ann
    assert house.asked.count("ann") == 1


async def test_a_sweep_lets_go_of_those_whom_nobody_uses() -> None:
    house = House(seconds=0.0)
    await house.resolver.find("ann")
    house.resolver.sweep()
    assert house.present == set()
    fresh = House()
    await fresh.resolver.find("ann")
    fresh.resolver.sweep()
    assert [each.name for each in fresh.present] == ["ann"]


async def test_the_end_lets_go_of_all_and_ends_what_is_being_asked() -> None:
    async def resolve(name: str) -> Agent | None:
        return agent(name) if name == "ann" else await asyncio.Event().wait() and None

    house = House(resolve)
    await house.resolver.find("ann")
    waiting = asyncio.create_task(house.resolver.find("bob"))
    await asyncio.sleep(0)
    await house.resolver.stop()
    assert house.present == set()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def fails(name: str) -> None:
    raise LookupError("password=hunter2")


def says_404(name: str) -> None:
    raise KeyError(name)


def gives_another(name: str) -> Agent:
    return agent("other")


def gives_a_name(name: str) -> str:
    return name


def cannot_make_it(name: str) -> Agent:
    return Agent(name, model="")


@pytest.mark.parametrize("resolve", [fails, says_404, gives_another, gives_a_name, cannot_make_it])
async def test_a_resolver_that_fails_is_a_fault_of_the_server_and_its_reason_is_for_the_log(resolve: Any) -> None:
    house = House(resolve)
    with structlog.testing.capture_logs() as logs, pytest.raises(BackendUnavailable) as error:
        await house.resolver.find("ann")
    assert error.value.message == "This agent could not be made. The log of the gateway says why."
    assert [each["event"] for each in logs] == ["the resolver of agents failed"]
    with structlog.testing.capture_logs(), pytest.raises(BackendUnavailable):
        await house.resolver.find("ann")
    assert len(house.asked) == 2


async def test_an_agent_that_is_not_taken_is_a_fault_of_the_server() -> None:
    async def take(agent: Agent) -> None:
        raise AgentError("its scope is not known")

    taken = Resolver(agent, 60.0, take, lambda agent: None)
    with structlog.testing.capture_logs(), pytest.raises(BackendUnavailable):
        await taken.find("ann")


async def test_a_resolver_that_takes_too_long_is_given_up() -> None:
    async def resolve(name: str) -> None:
        await asyncio.Event().wait()

    slow = Resolver(resolve, 60.0, House().take, lambda agent: None, wait_seconds=0.01)
    with structlog.testing.capture_logs(), pytest.raises(BackendUnavailable, match="in time"):
        await slow.find("ann")


async def test_only_errors_that_are_the_servers_own_pass_as_they_are() -> None:
    def down(name: str) -> None:
        raise BackendUnavailable("The list of tenants is being moved.")

    with pytest.raises(BackendUnavailable, match="being moved"):
        await House(down).resolver.find("ann")


async def test_an_agent_with_a_fresh_fault_does_not_lose_the_old_one() -> None:
    answers: list[Any] = [agent("ann"), StoreUnavailable("gone")]

    def resolve(name: str) -> Agent:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    house = House(resolve, seconds=0.0)
    ann = await house.resolver.find("ann")
    with structlog.testing.capture_logs(), pytest.raises(BackendUnavailable):
        await house.resolver.find("ann")
    assert house.present == {ann}


async def test_a_plain_agent_of_pydantic_ai_gets_the_name_that_was_asked_for() -> None:
    found = await House(lambda name: pydantic_ai.Agent(TestModel())).resolver.find("ann")
    assert found
    assert found.name == "ann"
