"""Which agents there are: a listing kept fresh in the background, and an indexed look-up for what it does not know.

A chat request never waits for a listing. Names are exact; two agents of one name are each known by id only.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from frontdesk.errors import AgentNotFound, Forbidden, GatewayError, Unauthenticated
from frontdesk.ports import Backend
from frontdesk.scopes import KEY_NEEDED, refusal
from frontdesk.turn import Agent, Mode, Principal

log = structlog.get_logger(__name__)

UNKNOWN_SECONDS = 1.0
"""How long a backend is not asked again for a name it does not know: a new agent may still be called almost at once."""

MAX_UNKNOWN = 1000
MAX_NAME_CHARACTERS = 512
MAX_LOOK_UPS = 100  # at the same time

MODES: Mapping[str, Mode] = {":stateless": "stateless", ":single": "single"}


@dataclass(slots=True)
class Listing:
    """What one backend was last seen to have. `error` is why the latest refresh failed, if it did."""

    agents: Mapping[str, Agent] = field(default_factory=dict[str, Agent])  # by id
    by_name: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    seen: float = 0.0
    latency_seconds: float = 0.0
    version: str = ""
    hidden: int = 0  # agents behind those that are served
    error: str = ""


class Directory:
    def __init__(self, backends: Sequence[Backend], aliases: Mapping[str, str], refresh_seconds: float = 30.0) -> None:
        self._backends = {backend.name: backend for backend in backends}
        self._listings = {name: Listing() for name in self._backends}
        self._aliases = dict(aliases)
        self._refresh_seconds = refresh_seconds
        self._task: asyncio.Task[None] | None = None
        self._unknown: dict[tuple[str, ...], float] = {}  # look-up → until when it needs no repetition
        self._asking: dict[tuple[str, ...], asyncio.Task[list[Agent]]] = {}
        self._places = asyncio.Semaphore(MAX_LOOK_UPS)

    @property
    def listings(self) -> Mapping[str, Listing]:
        return self._listings

    def backend(self, agent: Agent) -> Backend:
        return self._backends[agent.backend]

    @property
    def backends(self) -> tuple[Backend, ...]:
        return tuple(self._backends.values())

    async def by_id(self, backend: str, agent_id: str) -> Agent | None:
        """An agent we have dealt with before; None if it is gone. Raises GatewayError if the backend cannot say."""
        if backend not in self._backends:
            return None
        if known := self._listings[backend].agents.get(agent_id):
            return known
        return next(iter(await self._backends[backend].find(agent_id)), None)

    # --- the listing ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_fresh())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for backend in self._backends.values():
            await backend.aclose()

    async def _keep_fresh(self) -> None:
        while True:
            await self.refresh()
            failing = any(listing.error for listing in self._listings.values())
            await asyncio.sleep(min(self._refresh_seconds, 2.0) if failing else self._refresh_seconds)

    async def refresh(self) -> None:
        await asyncio.gather(*(self._refresh(backend) for backend in self._backends.values()))

    async def _refresh(self, backend: Backend) -> None:
        listing = self._listings[backend.name]
        began = time.perf_counter()
        try:
            listing.version = await backend.ping()
            listing.latency_seconds = time.perf_counter() - began
            agents, hidden = await backend.agents(), await backend.hidden()
        except GatewayError as error:
            if listing.error != error.message:
                log.warning("backend cannot be listed", backend=backend.name, error=error.message)
            listing.error = error.message
            return
        except Exception:  # a listing we cannot read must not end the refreshing
            log.exception("backend cannot be listed", backend=backend.name)
            listing.error = "The backend's listing could not be read."
            return
        if listing.error:
            log.info("backend is back", backend=backend.name, agents=len(agents))
        self._keep(listing, agents)
        listing.hidden = hidden
        listing.seen = time.time()
        listing.error = ""

    def _keep(self, listing: Listing, agents: Sequence[Agent]) -> None:
        names: dict[str, tuple[str, ...]] = {}
        for agent in agents:
            names[agent.name] = (*names.get(agent.name, ()), agent.id)
        listing.agents = {agent.id: agent for agent in agents}
        listing.by_name = names

    def forget(self, agent: Agent) -> None:
        """The backend says there is no such agent any more."""
        listing = self._listings[agent.backend]
        self._keep(listing, [other for other in listing.agents.values() if other.id != agent.id])

    # --- naming --------------------------------------------------------------------------------------------------

    def advertised(self, principal: Principal) -> list[tuple[str, Agent]]:
        """Each agent this principal may use, with the shortest name that means it alone; then the aliases."""
        agents = [agent for listing in self._listings.values() for agent in listing.agents.values() if agent.listed]
        named = [(self.called(agent), agent) for agent in agents]
        for alias, target in self._aliases.items():
            meant = [agent for name, _ in suffixed(target) for agent in self._known(name)]
            named += [(alias, meant[0])] if len(meant) == 1 else []
        return [(name, agent) for name, agent in named if may_use(principal, agent)]

    def closed_to(self, principal: Principal) -> set[tuple[str, str]]:
        """The agents whose scope this principal lacks, by backend and id."""
        agents = (agent for listing in self._listings.values() for agent in listing.agents.values())
        return {(agent.backend, agent.id) for agent in agents if not principal.holds(agent.scope)}

    async def find(self, model: str, principal: Principal) -> tuple[Agent, Mode]:
        """The agent a model string means, and the mode its suffix asks for.

        Raises AgentNotFound, also when two agents share the name; Forbidden if the key may not use it, or lacks its
        scope; Unauthenticated for a stranger, whom nobody tells whether there is such an agent.
        """
        agents, mode = await self._meant(model)
        if principal.at:
            agents = [agent for agent in agents if principal.comes_to(agent.backend, agent.id)]
        if not agents:
            raise self._unknown_to(principal, model)
        allowed = [agent for agent in agents if may_use(principal, agent)]
        if not allowed:
            raise unusable(agents, principal)
        if len(allowed) > 1:
            ids = ", ".join(sorted(agent.id for agent in allowed))
            raise AgentNotFound(
                f"More than one agent is called {model[:200]!r}. Use the id of one as the model: {ids}.", param="model"
            )
        return allowed[0], mode

    def _unknown_to(self, principal: Principal, model: str) -> GatewayError:
        if principal.at is None and principal.stranger:
            return Unauthenticated(KEY_NEEDED)
        if principal.at is None:
            message = f"There is no agent {model[:200]!r} here. GET /v1/models lists the agents."
        else:
            backend, agent_id = principal.at
            agent = self._listings[backend].agents.get(agent_id)
            named = self.called(agent) if agent else agent_id
            message = f"{model[:200]!r} is not the agent {named!r}, whose URL this is. Leave 'model' out, or use /v1."
        return AgentNotFound(message, param="model")

    def called(self, agent: Agent) -> str:
        """The shortest name that means this agent alone: its own, or its id."""
        namesakes = sum(len(listing.by_name.get(agent.name, ())) for listing in self._listings.values())
        return agent.name if agent.name and namesakes <= 1 else agent.id

    async def find_for_turn(self, model: str, principal: Principal) -> tuple[Agent, Mode, str]:
        """The same, and the model that the turn is to have: `Name@provider/model`. A name may hold such a thing too."""
        name, _, chosen = model.rpartition("@")
        if "/" in chosen and not self._known(model) and any(self._known(stem) for stem, _ in suffixed(name)):
            return (*await self.find(name, principal), chosen)
        return (*await self.find(model, principal), "")

    async def _meant(self, model: str) -> tuple[list[Agent], Mode]:
        """The agents of a model string and its mode: from the listing, else asked for. A suffix may be a name's own."""
        readings: list[tuple[str, Mode]] = []
        for stem, mode in suffixed(model):
            if stem in self._aliases:
                readings += suffixed(self._aliases[stem], mode)
            else:
                readings.append((stem, mode))
        for name, mode in readings:
            if known := self._known(name):
                return known, mode
        for name, mode in readings:
            if found := await self._look_up(*self._place(name)):
                return found, mode
        return [], "auto"

    def _place(self, name: str) -> tuple[str, tuple[str, ...]]:
        """The name proper and the backends it may be at: all, unless it says one as `backend/name`."""
        head, slash, rest = name.partition("/")
        return (rest, (head,)) if slash and head in self._backends else (name, tuple(self._backends))

    def _known(self, name: str) -> list[Agent]:
        return self._listed(name, self._backends) or self._listed(*self._place(name))

    def _listed(self, name: str, backends: Iterable[str]) -> list[Agent]:
        found: list[Agent] = []
        for listing in (self._listings[backend] for backend in backends):
            ids = (name,) if name in listing.agents else listing.by_name.get(name, ())
            found += [listing.agents[agent_id] for agent_id in ids]
        return found

    async def _look_up(self, name: str, backends: tuple[str, ...]) -> list[Agent]:
        """Ask the backends, once for all who want to know at the same time, and not again at once for nothing."""
        key = (name, *backends)
        if len(name) > MAX_NAME_CHARACTERS or self._unknown.get(key, 0.0) > time.monotonic():
            return []
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key))
            task.add_done_callback(lambda done: self._asked(key, done))
        return await asyncio.shield(task)

    def _asked(self, key: tuple[str, ...], task: asyncio.Task[list[Agent]]) -> None:
        del self._asking[key]
        if task.cancelled() or task.exception() or task.result():
            return
        while len(self._unknown) >= MAX_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]
        self._unknown.pop(key, None)
        self._unknown[key] = time.monotonic() + UNKNOWN_SECONDS

    async def _ask(self, key: tuple[str, ...]) -> list[Agent]:
        """One that is down hides nothing of the others, but alone it is the answer."""
        name, backends = key[0], [self._backends[name] for name in key[1:]]
        async with self._places:
            answers = await asyncio.gather(*(backend.find(name) for backend in backends), return_exceptions=True)
        found: list[Agent] = []
        failures: list[BaseException] = []
        for backend, answer in zip(backends, answers, strict=True):
            if isinstance(answer, BaseException):
                failures.append(answer)
                continue
            found += answer
            listing = self._listings[backend.name]
            if answer:
                self._keep(listing, [*listing.agents.values(), *(a for a in answer if a.id not in listing.agents)])
        if failures and not found:
            raise failures[0]
        return found


def suffixed(model: str, mode: Mode = "auto") -> list[tuple[str, Mode]]:
    """What a model string may mean: a name as it stands, or one with a mode behind it."""
    return [(model, mode), *((model.removesuffix(end), other) for end, other in MODES.items() if model.endswith(end))]


def may_use(principal: Principal, agent: Agent) -> bool:
    named = in_its_list(principal, agent) and principal.comes_to(agent.backend, agent.id)
    return named and principal.holds(agent.scope)


def in_its_list(principal: Principal, agent: Agent) -> bool:
    return principal.may_use(agent.name, agent.id, f"{agent.backend}/{agent.name}")


def unusable(agents: Sequence[Agent], principal: Principal) -> GatewayError:
    """Why none of these agents can be used."""
    closed = [agent for agent in agents if in_its_list(principal, agent)]
    if not closed:
        return Forbidden("This API key may not use this agent.", param="model")
    return refusal(closed[0].scope, principal, "This agent", param="model")
