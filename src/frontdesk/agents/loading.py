"""Which agents are served: those of import paths, those of a folder, and those that a function makes when asked.

Of one name, the first of these three counts.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import cast

import structlog

from frontdesk.agents.agent import Agent, check_scopes, reachable
from frontdesk.agents.errors import AgentError
from frontdesk.agents.files import Folder
from frontdesk.agents.importing import load, load_agents
from frontdesk.agents.lifespans import Lifespans, skills_of
from frontdesk.agents.resolver import Resolve, Resolver
from frontdesk.agents.services import Services

log = structlog.get_logger(__name__)

RESOLVER_SECONDS = 60.0


def nothing(_: Agent) -> None:
    """Finds no fault."""


class Agents:
    """The agents that are served, and their skills at work.

    `check` is called with each agent before it is served, and raises AgentError for one that cannot be. What is wrong
    with those of import paths and of the folder is raised at once, as AgentError. Later on, a file that is wrong leaves
    its agent as it was.
    """

    def __init__(
        self,
        paths: Sequence[str] = (),
        folder: Path | None = None,
        resolver: str = "",
        resolver_seconds: float = RESOLVER_SECONDS,
        *,
        scopes: Collection[str] = (),
        check: Callable[[Agent], None] = nothing,
    ) -> None:
        self._scopes = scopes
        self._also = check
        self._static = by_name(paths)
        self._folder = Folder(folder) if folder else None
        self._foldered: Mapping[str, Agent] = by_own_name(self._folder.read()) if self._folder else {}
        self._listed: Mapping[str, Agent] = {**self._foldered, **self._static}
        self._resolve = resolver_at(resolver) if resolver else None
        self._resolver_seconds = resolver_seconds
        self._resolver: Resolver | None = None
        self._lifespans = Lifespans(Services())
        self._entered: list[Agent] = []
        self._tasks: list[asyncio.Task[None]] = []
        for agent in self.listed().values():
            self._check(agent)
        self._check_handoffs()

    # --- who there is ----------------------------------------------------------------------------------------------

    def listed(self) -> Mapping[str, Agent]:
        """By name: all but those that are made when asked for."""
        return self._listed

    async def find(self, name: str) -> Agent | None:
        """The agent of exactly this name. Raises BackendError if it would have to be made, and cannot be."""
        if known := self._listed.get(name):
            return known
        return await self._resolver.find(name) if self._resolver else None

    def hold(self, agent: Agent) -> AbstractAsyncContextManager[None]:
        """For a turn: keep the agent's skills at work until the block ends, whatever becomes of the agent meanwhile."""
        return self._lifespans.hold(agent)

    # --- while the app serves --------------------------------------------------------------------------------------

    async def start(self, services: Services | None = None) -> None:
        """Have all skills at work, and look for changes. Raises AgentError if a skill cannot begin."""
        self._lifespans = Lifespans(services or Services())
        try:
            for agent in (*self._static.values(), *self._foldered.values()):
                await self._enter(agent)
        except BaseException:
            await self.stop()
            raise
        if self._resolve:
            self._resolver = Resolver(self._resolve, self._resolver_seconds, self._take, self._leave)
            self._tasks.append(asyncio.create_task(sweep(self._resolver, self._resolver_seconds)))
        if self._folder:
            self._tasks.append(asyncio.create_task(self._follow(self._folder)))

    async def stop(self) -> None:
        """Let all skills end. Those of a turn that still runs end after it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._resolver:
            await self._resolver.stop()
            self._resolver = None
        for agent in list(self._entered):
            self._leave(agent)
        await self._lifespans.ended()

    async def _follow(self, folder: Folder) -> None:
        async for agents in folder.watch():
            await self._replace(by_own_name(agents))

    async def _replace(self, agents: Mapping[str, Agent]) -> None:
        """Serve these of the folder from now on. One that cannot be served leaves the one before it in its place."""
        for name, agent in agents.items():
            if agent is not self._foldered.get(name) and await self._taken(agent):
                self._serve({**self._foldered, name: agent}, name)
                log.info("an agent is served as its file is now", agent=name)
        for name in self._foldered.keys() - agents.keys():
            self._serve({other: agent for other, agent in self._foldered.items() if other != name}, name)
            log.info("an agent is no longer served, for its file is gone", agent=name)

    async def _taken(self, agent: Agent) -> bool:
        """Whether it can be served. Its skills are at work then."""
        try:
            await self._take(agent)
        except AgentError as error:
            log.error("an agent cannot be served", agent=agent.name, reason=str(error))
            return False
        return True

    def _serve(self, foldered: Mapping[str, Agent], name: str) -> None:
        """Have these in the folder; `name` is the one by which they differ from those before."""
        before, self._foldered = self._foldered.get(name), foldered
        self._listed = {**foldered, **self._static}
        if before:
            self._leave(before)

    async def _take(self, agent: Agent) -> None:
        """One that comes while the app serves. Raises AgentError if it cannot be served."""
        self._check(agent)
        await self._enter(agent)

    async def _enter(self, agent: Agent) -> None:
        try:
            await self._lifespans.enter(agent)
        except AgentError:
            raise
        except Exception as error:
            names = ", ".join(type(skill).__name__ for skill in skills_of(agent))
            raise AgentError(
                f"A skill of the agent {agent.name} ({names}) cannot begin: {type(error).__name__}: {error}"
            ) from error
        self._entered.append(agent)

    def _leave(self, agent: Agent) -> None:
        self._entered.remove(agent)
        self._lifespans.leave(agent)

    # --- are they as they must be? ---------------------------------------------------------------------------------

    def _check(self, agent: Agent) -> None:
        check_scopes(agent, self._scopes)
        for each in reachable(agent):
            served = self._static.get(each.name)
            if served and served is not each and each is not agent:
                raise AgentError(f"{agent.name} hands over to another agent called {each.name!r} than is served.")
            self._check_also(each)

    def _check_also(self, agent: Agent) -> None:
        try:
            self._also(agent)
        except AgentError as error:
            raise AgentError(f"{agent.name}: {error}") from error

    def _check_handoffs(self) -> None:
        """Names that mean nobody. With a folder or a resolver they may come to mean somebody."""
        if self._folder or self._resolve:
            return
        for agent in self.listed().values():
            for each in reachable(agent):
                for handoff in each.parts.handoffs:
                    if isinstance(handoff.target, str) and handoff.target not in self._static:
                        raise AgentError(
                            f"{each.name} hands over to {handoff.target!r}, but no agent written in Python has this "
                            f"name. There is {', '.join(self._static)}."
                        )


def by_own_name(agents: Iterable[Agent]) -> dict[str, Agent]:
    return {agent.name: agent for agent in agents}


def by_name(paths: Iterable[str]) -> dict[str, Agent]:
    """The agents of import paths. Raises AgentError, also if two have one name."""
    found: dict[str, Agent] = {}
    places: dict[str, str] = {}
    for path in dict.fromkeys(paths):
        for agent in load_agents(path):
            if found.setdefault(agent.name, agent) is not agent:
                raise AgentError(
                    f"{path}: there is an agent called {agent.name!r} already, in {places[agent.name]}. "
                    "Give each its own name."
                )
            places.setdefault(agent.name, path)
    return found


def resolver_at(path: str) -> Resolve:
    """The function that makes agents. Raises AgentError."""
    resolve = load(path)
    if not callable(resolve) or isinstance(resolve, type | Agent):
        raise AgentError(f"{path} is no function: a resolver takes a name and gives an Agent, or None.")
    return cast("Resolve", resolve)


async def sweep(resolver: Resolver, seconds: float) -> None:
    """Again and again, for as long as the app serves."""
    while True:
        await asyncio.sleep(max(1.0, seconds))
        resolver.sweep()
