"""What skills hold open: entered when the first agent comes that has the skill, left when the last of them has gone."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog

from frontdesk.agents.agent import Agent, reachable
from frontdesk.agents.services import Services
from frontdesk.agents.skill import Skill

log = structlog.get_logger(__name__)

END_SECONDS = 10.0
"""How long a skill may take to end; then it is cancelled."""


class Lifespans:
    """The skills at work, each once, however many agents have it and turns use it.

    An agent that is served, and each turn of it, count as users of its skills, and of those of the agents it hands
    over to. So an agent that is taken away in the middle of a turn keeps its skills to the end of that.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lives: dict[int, Life] = {}  # by the skill's identity
        self._ending: set[asyncio.Task[None]] = set()

    async def enter(self, agent: Agent) -> None:
        """Returns when all its skills are at work. What one of them raises is raised, and the others are let go."""
        entered: list[Life] = []
        try:
            for skill in skills_of(agent):
                life = self._lives.get(id(skill))
                if life is None:
                    life = self._lives[id(skill)] = Life(skill, self._services)
                life.users += 1
                entered.append(life)
                await life.enter()
        except BaseException:
            self._leave(entered)
            raise

    def leave(self, agent: Agent) -> None:
        """Those of its skills which nobody else uses end, in the background."""
        self._leave([self._lives[id(skill)] for skill in skills_of(agent)])

    @asynccontextmanager
    async def hold(self, agent: Agent) -> AsyncGenerator[None]:
        """Keep its skills at work until the block ends."""
        await self.enter(agent)
        try:
            yield
        finally:
            self.leave(agent)

    async def ended(self) -> None:
        """Returns when everything that was left has ended."""
        while self._ending:
            await asyncio.wait(self._ending)

    def _leave(self, lives: "list[Life]") -> None:
        for life in lives:
            life.users -= 1
        if unused := [life for life in reversed(lives) if not life.users]:
            task = asyncio.create_task(self._end(unused))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _end(self, lives: "list[Life]") -> None:
        """One after the other, those which others require last."""
        for life in lives:
            await life.end_if_unused()
            if not life.users and self._lives.get(id(life.skill)) is life:
                del self._lives[id(life.skill)]


class Life:
    """One skill's lifespan, in a task of its own: what it enters there, such as a cancel scope, is left there too."""

    def __init__(self, skill: Skill, services: Services) -> None:
        self.skill = skill
        self.users = 0
        self._services = services
        self._lock = asyncio.Lock()  # who comes while it begins or ends, waits
        self._task: asyncio.Task[None] | None = None
        self._begun: asyncio.Future[None] | None = None
        self._over = asyncio.Event()

    @property
    def _at_work(self) -> bool:
        """It has begun, and is not told to end. One that has failed since is none at work."""
        begun = self._begun is not None and self._begun.done()
        return begun and self._task is not None and not self._task.done() and not self._over.is_set()

    async def enter(self) -> None:
        """Returns when it is at work. Raises what the skill raises."""
        if self._at_work:
            return
        async with self._lock:
            if not self._at_work:
                await self._begin()

    async def _begin(self) -> None:
        self._over = asyncio.Event()
        self._begun = asyncio.get_running_loop().create_future()
        self._begun.add_done_callback(lambda begun: begun.cancelled() or begun.exception())  # nobody may be waiting
        self._task = asyncio.create_task(self._live(self._begun), name=f"skill {type(self.skill).__name__}")
        await asyncio.shield(self._begun)

    async def end_if_unused(self) -> None:
        async with self._lock:
            if self.users or self._task is None:
                return
            self._over.set()
            _, late = await asyncio.wait([self._task], timeout=END_SECONDS)
            if late:
                log.warning("a skill does not end, and is cancelled", skill=type(self.skill).__name__)
                self._task.cancel()
                await asyncio.wait([self._task])
            self._task = None

    async def _live(self, begun: asyncio.Future[None]) -> None:
        try:
            async with self.skill.lifespan(self._services):
                begun.set_result(None)
                await self._over.wait()
        except BaseException as error:
            if not begun.done():
                begun.set_exception(error if isinstance(error, Exception) else RuntimeError("it was cancelled"))
            elif isinstance(error, Exception):
                log.exception("a skill failed", skill=type(self.skill).__name__)
            if not isinstance(error, Exception):
                raise


def skills_of(agent: Agent) -> list[Skill]:
    """Its skills, and those of the agents it holds itself, those which others require first, each once."""
    by_identity = {id(skill): skill for each in reachable(agent) for skill in each.parts.skills}
    return list(by_identity.values())
