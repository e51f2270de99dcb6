"""What skills hold open: begun once, kept while anybody uses it, ended in order and in the task that began it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
import pytest

from frontdesk import Agent, Skill
from frontdesk.agents.lifespans import Lifespans
from frontdesk.agents.services import Services


class Line(Skill):
    """Says what becomes of it. An anyio cancel scope has to be left in the task that entered it."""

    def __init__(self, name: str, said: list[str], *, broken: bool = False) -> None:
        self.name = name
        self.said = said
        self.broken = broken
        self.go_on = asyncio.Event()
        self.go_on.set()

    @asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncGenerator[None]:
        await self.go_on.wait()
        if self.broken:
            raise OSError(f"{self.name} is down")
        with anyio.CancelScope():
            self.said.append(f"{self.name} begins")
            try:
                yield
            finally:
                self.said.append(f"{self.name} ends")


class Upon(Line):
    requires = (Line,)


def agent(name: str, *skills: Skill, hands_to: tuple[Agent, ...] = ()) -> Agent:
    return Agent(name, model="scripted/x", skills=skills, handoffs=hands_to)


async def test_a_skill_of_two_agents_begins_once_and_ends_when_both_have_gone() -> None:
    said: list[str] = []
    shared = Line("line", said)
    one, other, lifespans = agent("one", shared), agent("other", shared), Lifespans(Services())
    await asyncio.gather(lifespans.enter(one), lifespans.enter(other))
    assert said == ["line begins"]
    lifespans.leave(one)
    await lifespans.ended()
    assert said == ["line begins"]
    lifespans.leave(other)
    await lifespans.ended()
    assert said == ["line begins", "line ends"]


async def test_a_turn_keeps_the_skills_of_an_agent_that_is_taken_away() -> None:
    said: list[str] = []
    mine, lifespans = agent("one", Line("line", said)), Lifespans(Services())
    await lifespans.enter(mine)
    async with lifespans.hold(mine):
        lifespans.leave(mine)
        await lifespans.ended()
        assert said == ["line begins"]
    await lifespans.ended()
    assert said == ["line begins", "line ends"]


async def test_a_turn_that_comes_as_the_agent_goes_keeps_its_skills() -> None:
    said: list[str] = []
    mine, lifespans = agent("one", Line("line", said)), Lifespans(Services())
    await lifespans.enter(mine)
    lifespans.leave(mine)
    async with lifespans.hold(mine):
        await lifespans.ended()
        assert said == ["line begins"]
    await lifespans.ended()
    assert said == ["line begins", "line ends"]


async def test_a_turn_that_comes_after_that_has_them_begin_again() -> None:
    said: list[str] = []
    mine, lifespans = agent("one", Line("line", said)), Lifespans(Services())
    for _ in range(2):
        async with lifespans.hold(mine):
            assert said[-1] == "line begins"
        await lifespans.ended()
    assert said == ["line begins", "line ends"] * 2


async def test_skills_begin_after_those_they_require_and_end_before_them() -> None:
    said: list[str] = []
    mine, lifespans = agent("one", Upon("upper", said), Line("lower", said)), Lifespans(Services())
    await lifespans.enter(mine)
    lifespans.leave(mine)
    await lifespans.ended()
    assert said == ["lower begins", "upper begins", "upper ends", "lower ends"]


async def test_the_skills_of_an_agent_behind_a_handoff_are_at_work_too() -> None:
    said: list[str] = []
    top, lifespans = agent("top", hands_to=(agent("below", Line("line", said)),)), Lifespans(Services())
    async with lifespans.hold(top):
        assert said == ["line begins"]
    await lifespans.ended()
    assert said == ["line begins", "line ends"]


async def test_a_skill_that_cannot_begin_lets_the_others_go_and_may_be_tried_again() -> None:
    said: list[str] = []
    broken = Upon("upper", said, broken=True)
    mine, lifespans = agent("one", Line("lower", said), broken), Lifespans(Services())
    with pytest.raises(OSError, match="upper is down"):
        await lifespans.enter(mine)
    await lifespans.ended()
    assert said == ["lower begins", "lower ends"]
    broken.broken = False
    async with lifespans.hold(mine):
        assert said[2:] == ["lower begins", "upper begins"]
    await lifespans.ended()


async def test_who_gives_up_while_a_skill_begins_leaves_nothing_behind() -> None:
    said: list[str] = []
    line = Line("line", said)
    line.go_on.clear()
    mine, lifespans = agent("one", line), Lifespans(Services())
    waiting = asyncio.create_task(lifespans.enter(mine))
    await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    line.go_on.set()
    await lifespans.ended()
    assert said == ["line begins", "line ends"]
    async with lifespans.hold(mine):
        assert said[2:] == ["line begins"]
    await lifespans.ended()


async def test_a_skill_that_is_cancelled_as_it_begins_is_an_error_and_no_silence() -> None:
    class Odd(Skill):
        @asynccontextmanager
        async def lifespan(self, services: Services) -> AsyncGenerator[None]:
            raise asyncio.CancelledError
            yield

    with pytest.raises(RuntimeError, match="it was cancelled"):
        await Lifespans(Services()).enter(agent("one", Odd()))


async def test_a_thousand_turns_at_once_share_one_skill() -> None:
    said: list[str] = []
    mine, lifespans = agent("one", Line("line", said)), Lifespans(Services())

    async def turn() -> None:
        async with lifespans.hold(mine):
            await asyncio.sleep(0)

    await lifespans.enter(mine)
    await asyncio.gather(*(turn() for _ in range(1000)))
    lifespans.leave(mine)
    await lifespans.ended()
    assert said == ["line begins", "line ends"]


async def test_services_are_lent_to_the_lifespan() -> None:
    lent: list[Services] = []

    @dataclass
    class Borrower(Skill):
        name: str = "borrower"

        @asynccontextmanager
        async def lifespan(self, services: Services) -> AsyncGenerator[None]:
            lent.append(services)
            yield

    services = Services()
    lifespans = Lifespans(services)
    async with lifespans.hold(agent("one", Borrower())):
        assert lent == [services]
    await lifespans.ended()
