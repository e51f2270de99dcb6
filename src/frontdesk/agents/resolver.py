"""Agents that are made when somebody asks for them: by a function of the author's, from a name."""

import asyncio
import inspect
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog

from frontdesk.agents.agent import NAME, Agent, is_engine, wrapped
from frontdesk.agents.authors import contained
from frontdesk.agents.errors import AgentError
from frontdesk.agents.tools import in_thread
from frontdesk.errors import BackendError, BackendUnavailable

log = structlog.get_logger(__name__)

Resolve = Callable[[str], "Agent | Awaitable[Agent | None] | None"]

WAIT_SECONDS = 30.0
MAX_AGENTS = 1000
MAX_UNKNOWN = 10_000
UNKNOWN_SECONDS = 5.0
"""How long a name that means nothing is remembered, at most: a new agent can be called soon."""


@dataclass(slots=True)
class Kept:
    agent: Agent
    fresh_until: float
    used: float


class Resolver:
    """Asks the function, and remembers what it gave for `seconds`: at most MAX_AGENTS, those that were used last.

    `take` is called with each agent that is new, before anybody is given it, and `drop` with each that is let go: it
    was replaced, or nobody has asked for it for long enough. A function that gives the same object again keeps it.
    """

    def __init__(
        self,
        resolve: Resolve,
        seconds: float,
        take: Callable[[Agent], Awaitable[None]],
        drop: Callable[[Agent], None],
        max_agents: int = MAX_AGENTS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._resolve = resolve
        self._seconds = seconds
        self._take = take
        self._drop = drop
        self._max_agents = max_agents
        self._wait_seconds = wait_seconds
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # the longest unused first
        self._unknown: OrderedDict[str, float] = OrderedDict()  # until when, the oldest first
        self._asking: dict[str, asyncio.Task[Agent | None]] = {}

    async def find(self, name: str) -> Agent | None:
        """The agent of this name, None if there is none. Those who ask at the same time share one call.

        Raises BackendUnavailable if the function fails, takes too long, or gives what cannot be served.
        """
        now = time.monotonic()
        if not NAME.fullmatch(name) or self._unknown.get(name, 0.0) > now:
            return None
        kept = self._kept.get(name)
        if kept and kept.fresh_until > now:
            kept.used = now
            self._kept.move_to_end(name)
            return kept.agent
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.create_task(self._ask(name))
            task.add_done_callback(partial(self._asked, name))
        return await asyncio.shield(task)

    def sweep(self) -> None:
        """Let go of agents which nobody has asked for since they were last made."""
        now = time.monotonic()
        for name in [
            name for name, kept in self._kept.items() if max(kept.fresh_until, kept.used + self._seconds) < now
        ]:
            self._drop(self._kept.pop(name).agent)

    async def stop(self) -> None:
        """Let go of everything."""
        for task in list(self._asking.values()):
            task.cancel()
            await asyncio.wait([task])
        while self._kept:
            self._drop(self._kept.popitem()[1].agent)

    def _asked(self, name: str, task: asyncio.Task[Agent | None]) -> None:
        del self._asking[name]
        if not task.cancelled():
            task.exception()  # whoever waited has it; they may all have gone

    async def _ask(self, name: str) -> Agent | None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                agent = await self._answer(name)
                if agent is None:
                    self._forget(name)
                else:
                    await self._keep(name, agent)
                return agent
        except BackendError:
            raise
        except TimeoutError as error:
            log.error("the resolver of agents takes too long", agent=name, seconds=self._wait_seconds)
            raise BackendUnavailable("This agent could not be made in time. Try again later.") from error
        except Exception as error:
            log.exception("the resolver of agents failed", agent=name)
            raise BackendUnavailable("This agent could not be made. The log of the gateway says why.") from error

    async def _answer(self, name: str) -> Agent | None:
        """What the function gives. Raises AgentError if that is no agent, or another one."""
        if inspect.iscoroutinefunction(self._resolve):
            with contained():
                answer: object = await self._resolve(name)
        else:
            answer = await in_thread(self._resolve, name)
        if answer is None:
            return None
        agent = wrapped(answer, name) if is_engine(answer) else answer
        if not isinstance(agent, Agent):
            raise AgentError(f"the resolver gave {answer!r:.100} for {name!r}: it must give an Agent, or None")
        if agent.name != name:
            raise AgentError(f"the resolver gave an agent called {agent.name!r} for {name!r}: the names must be equal")
        return agent

    async def _keep(self, name: str, agent: Agent) -> None:
        now = time.monotonic()
        before = self._kept.get(name)
        if before is None or before.agent is not agent:
            await self._take(agent)
            self._forget(name, known=True)
        self._kept[name] = Kept(agent, now + self._seconds, now)
        self._kept.move_to_end(name)
        while len(self._kept) > self._max_agents:
            self._drop(self._kept.popitem(last=False)[1].agent)

    def _forget(self, name: str, *, known: bool = False) -> None:
        if kept := self._kept.pop(name, None):
            self._drop(kept.agent)
        self._unknown.pop(name, None)
        if not known:
            self._unknown[name] = time.monotonic() + min(self._seconds, UNKNOWN_SECONDS)
            while len(self._unknown) > MAX_UNKNOWN:
                self._unknown.popitem(last=False)
