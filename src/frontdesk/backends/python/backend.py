"""Agents written in Python as a backend: they run here, in this process, and their histories are kept in our store.

A thread is a list of stretches, one for each turn: it is written when the turn has ended, whole. So what was cut short
leaves nothing, but for the steps in which a tool of the agent's own has run: what that did is done, and the model is to
know of it.
"""

import json
import time
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import FallbackExceptionGroup, ModelAPIError
from pydantic_ai.messages import ModelMessage, ModelRequest

from frontdesk.agents.agent import Agent as PythonAgent
from frontdesk.agents.context import Context, entered
from frontdesk.agents.endpoints import Endpoint
from frontdesk.agents.hooks import Connection, Failure, Finish, Incoming
from frontdesk.agents.loading import Agents
from frontdesk.agents.models import honours
from frontdesk.agents.services import Services
from frontdesk.agents.skills.budget import budgets_of
from frontdesk.backends.python import history
from frontdesk.backends.python.course import Course, Journal
from frontdesk.backends.python.failures import failure
from frontdesk.backends.python.hooks import called
from frontdesk.backends.python.models import Models
from frontdesk.directory import may_use
from frontdesk.errors import AgentNotFound, ConversationNotFound, EndpointNotFound, GatewayError, ProviderError
from frontdesk.policies.structured import MEND, checked, repair
from frontdesk.ports import Dropped, Kept, Outcome, Placement, Running, Stretch, Threads
from frontdesk.scopes import refusal
from frontdesk.turn import (
    Agent,
    Batch,
    Call,
    Format,
    Identity,
    Item,
    Principal,
    Skill,
    StopReason,
    Thread,
    ToolResult,
    ToolRun,
    Turn,
    TurnFinished,
    Usage,
)

if TYPE_CHECKING:
    from frontdesk.backends.python.durable import Durable

log = structlog.get_logger(__name__)

FILES = frozenset({"text/*", "application/pdf"})
DURABLE = "durable"


@dataclass(frozen=True, slots=True)
class State:
    """What waits at the end of a stretch: the caller's calls, their tools by their ids, and the agent who made them."""

    agent: str = ""
    pending: Mapping[str, str] | None = None
    cut: bool = False  # the turn did not come to its end

    def text(self) -> str:
        return json.dumps({"agent": self.agent, "pending": dict(self.pending or {}), "cut": self.cut})


def is_durable(agent: Agent) -> bool:
    return bool(agent.settings.get(DURABLE))


def state_of(text: str) -> State:
    return State(**json.loads(text)) if text else State()


class PythonBackend:
    def __init__(
        self,
        source: Agents,
        threads: Threads,
        models: Models,
        *,
        name: str = "python",
        silence_seconds: float = 120.0,
        durable_url: str = "sqlite://",
    ) -> None:
        """`durable_url`: where the steps of durable turns are kept."""
        self._source = source
        self._threads = threads
        self._models = models
        self._name = name
        self._silence_seconds = silence_seconds
        self._since = int(time.time())
        self._durable_url = durable_url
        self._durable_turns: Durable | None = None
        self._cut: dict[str, Course] = {}  # turns that were cut short after something was done, until that is kept

    @property
    def name(self) -> str:
        return self._name

    async def start(self, services: Services) -> None:
        """Have the agents' skills at work. Raises AgentError if one cannot begin."""
        await self._source.start(services)
        if any(agent.durable for agent in self._source.listed().values()):
            await self._durable.start()

    @property
    def _durable(self) -> "Durable":
        """Imported here: DBOS is needed by few."""
        if self._durable_turns is None:
            from frontdesk.backends.python.durable import Durable

            self._durable_turns = Durable(self._durable_url, self._run, self.dropped)
        return self._durable_turns

    # --- who there is ----------------------------------------------------------------------------------------------

    async def agents(self) -> Sequence[Agent]:
        return [self._described(agent) for agent in self._source.listed().values()]

    async def find(self, name: str) -> Sequence[Agent]:
        found = await self._source.find(name)
        return [self._described(found, listed=name in self._source.listed())] if found else []

    def _described(self, agent: PythonAgent, *, listed: bool = True) -> Agent:
        return Agent(
            id=agent.name,
            name=agent.name,
            backend=self._name,
            created=self._since,
            description=agent.description,
            tags=tuple(agent.tags),
            model=self._models.name(agent),
            honours=honours(self._models.of(agent), agent.settings),
            scope=agent.scope,
            files=FILES,
            outlives=agent.durable,
            recalls=True,
            skills=tuple(
                Skill(tool.name, tool.definition.description or "")
                for tool in agent.parts.tools
                if Principal(scopes=frozenset({agent.scope})).holds(tool.scope)
            ),
            listed=listed,
            budgets=budgets_of(agent),
            settings={DURABLE: True} if agent.durable else {},
        )

    @asynccontextmanager
    async def endpoints(self, agent: Agent) -> AsyncGenerator[Sequence[Endpoint]]:
        """The HTTP endpoints of its own. What they work with is kept up until the block ends. Raises AgentNotFound."""
        async with AsyncExitStack() as held:
            yield (await self._held(agent.id, held)).parts.endpoints

    async def hidden(self) -> int:
        return 0

    async def ping(self) -> str:
        return f"pydantic-ai {version('pydantic-ai-slim')}"

    # --- threads ---------------------------------------------------------------------------------------------------

    async def open(self, agent: Agent, turn: Turn) -> Thread:
        return Thread(await self._threads.make(agent.id))

    async def fork(self, agent: Agent, thread: Thread, at: str = "") -> Thread | None:
        forked = await self._threads.fork(thread.id, at)
        return Thread(forked) if forked else None

    async def delete(self, agent: Agent, thread: Thread) -> None:
        await self._threads.delete(thread.id)

    async def calls(self, agent: Agent, thread: Thread) -> Sequence[Call]:
        """All that were ever made there: those that wait, at the end of it, and those that were answered since."""
        stretches = await self._threads.read(thread.id) or ()
        last = stretches[-1].turn if stretches else ""
        return [
            Call(call_id, name, pending=stretch.turn == last)
            for stretch in reversed(stretches)
            for call_id, name in (state_of(stretch.state).pending or {}).items()
        ]

    async def awaiting(self, agent: Agent, thread: Thread) -> Sequence[ToolRun]:
        return ()

    # --- turns -----------------------------------------------------------------------------------------------------

    def run(self, turn: Turn, placement: Placement) -> AsyncGenerator[Batch, None]:
        wanted = turn.options.format
        answer = self._durable.run(turn, placement) if is_durable(placement.agent) else self._run(turn, placement)
        if wanted is None or wanted.enforced:
            return answer
        return checked(answer, wanted, lambda text: self._mended(placement.agent, wanted, text))

    async def _mended(self, agent: Agent, wanted: Format, text: str) -> str:
        """An answer as it was wanted, by the agent's model alone: empty if that fails too."""
        try:
            return await self.generate(agent, f"{MEND}\n\n{repair(text, wanted)}")
        except GatewayError as error:
            log.warning("an answer could not be made JSON", agent=agent.name, error=error.message)
            return ""

    async def _run(
        self, turn: Turn, placement: Placement, journal: Journal | None = None
    ) -> AsyncGenerator[Batch, None]:
        """Raises GatewayError. What of a turn that was cut short is to stay, is stored before it is left."""
        async with AsyncExitStack() as held:
            course = await self._course(turn, placement, held, journal)
            hooks = course.agent.parts.hooks
            ended = False
            try:
                await called(hooks, Connection(turn))
                yield ()
                async with aclosing(course.batches()) as batches:
                    async for batch in batches:
                        yield batch
                stop = course.stop or StopReason.STOP
                await self._keep(course, placement, course.new)
                await called(hooks, Finish(stop, course.usage))
                ended = True
                yield (TurnFinished(stop, course.usage, mark=turn.id),)
            except BaseException as error:
                if not ended and not (journal and journal.goes_on):
                    await self._cut_short(course, error)
                if isinstance(error, GatewayError) or not isinstance(error, Exception):
                    raise
                ours = failure(error, untouched=not (course.outputs or course.spoke))
                tell(error, ours, turn, course.agent)
                raise ours from error

    async def _course(self, turn: Turn, placement: Placement, held: AsyncExitStack, journal: Journal | None) -> Course:
        stretches = await self._threads.read(placement.thread.id)
        if stretches is None:
            raise ConversationNotFound("The conversation's history is not there any more.")
        stretches = [each for each in stretches if each.turn != turn.id]  # it has begun anew
        state = state_of(stretches[-1].state if stretches else "")
        past = [message for each in stretches for message in history.messages_of(each.messages)]
        pending = state.pending or {}
        answers = any(isinstance(item, ToolResult) and item.call_id in pending for item in placement.deliver)
        agent = await self._held(state.agent if answers and state.agent else placement.agent.id, held)
        self._check(agent, turn.principal)
        context = Context(agent.name, turn, placement.thread.id, hold=placement.hold)
        entered(context)
        try:
            incoming = await called(agent.parts.hooks, Incoming(placement.deliver))
        except GatewayError as error:
            await failed(agent, turn, error)
            raise
        new = history.told(
            incoming.items,
            pending,
            instructions=placement.instructions,
            closing=placement.closing,
        )
        return Course(
            agent=agent,
            context=context,
            turn=turn,
            messages=[*past, *new],
            fresh=len(past),
            models=self._models,
            described=self._described,
            find=lambda name: self._found(name, held),
            silence_seconds=self._silence_seconds,
            overlay=placement.overlay,
            journal=journal,
        )

    async def _held(self, name: str, held: AsyncExitStack) -> PythonAgent:
        found = await self._found(name, held)
        if found is None:
            raise AgentNotFound(f"There is no agent {name[:200]!r} here any more.", param="model")
        return found

    def _check(self, agent: PythonAgent, who: Principal) -> None:
        """Once more: a listing may be older than the agent, and calls that wait may be another agent's. Raises
        Forbidden, and Unauthenticated where a key is needed."""
        if not may_use(who, self._described(agent)):
            raise refusal(agent.scope, who, f"The agent {agent.name!r}")

    async def _found(self, name: str, held: AsyncExitStack) -> PythonAgent | None:
        found = await self._source.find(name)
        if found:
            await held.enter_async_context(self._source.hold(found))
        return found

    async def _keep(self, course: Course, placement: Placement, messages: Sequence[ModelMessage]) -> None:
        """A request that stands alone leaves nothing, unless it waits for the caller's answer."""
        alone = placement.identity is Identity.STATELESS and not course.pending
        if alone and not course.journal:
            return
        state = State(course.agent.name, course.pending).text() if course.pending else ""
        stretch = Stretch(course.turn.id, history.text_of(messages), state)
        if course.journal:
            course.journal.keep(stretch)
        if alone:
            return
        await self._threads.append(placement.thread.id, stretch)

    async def _cut_short(self, course: Course, error: BaseException) -> None:
        """What it leaves is kept when that is asked for: until then whoever has cut it short may do so again."""
        if course.acted:
            self._cut[course.turn.id] = course
        await failed(course.agent, course.turn, error)

    def run_id(self, turn_id: str) -> str:
        return ""

    async def cancel(self, turn: Turn, placement: Placement) -> tuple[Item, ...]:
        if is_durable(placement.agent):
            await self._durable.cancel(turn.id)
        return await self.dropped(turn.id, placement)

    async def dropped(self, turn_id: str, placement: Placement) -> tuple[Item, ...]:
        """What was done stays in the thread; where nothing was, nothing stays."""
        return () if await self._salvaged(turn_id, placement.thread) else placement.deliver

    async def _salvaged(self, turn_id: str, thread: Thread) -> bool:
        course = self._cut.pop(turn_id, None)
        if course is None:
            return False
        stretch = Stretch(turn_id, history.text_of(course.salvage()), State(cut=True).text())
        await self._threads.append(thread.id, stretch)
        return True

    async def outcome(
        self, turn_id: str, agent: Agent, thread: Thread, run_id: str = "", call_ids: Collection[str] = ()
    ) -> Outcome:
        """Whoever asks knows that nobody is at work on it: its process is gone."""
        stretch, broken = await self._threads.find(thread.id, turn_id), False
        if stretch is None and is_durable(agent):
            if await self._durable.resume(turn_id):
                return Running()
            stretch, broken = await self._durable.result(turn_id)
        if stretch is None:  # of what broke off, some steps may have been done
            return Kept((), StopReason.STOP, Usage(), complete=False) if broken else Dropped()
        state, messages = state_of(stretch.state), history.messages_of(stretch.messages)
        pending = state.pending or {}
        stop = StopReason.TOOL_CALLS if pending else history.stop_of(messages)
        if messages and isinstance(messages[-1], ModelRequest) and not pending and not state.cut:
            stop = StopReason.LENGTH
        reply = history.reply_of(messages, pending)
        return Kept(reply, stop, history.usage_of(messages), complete=not state.cut, mark=turn_id)

    async def stop(self, turn_id: str, agent: Agent, thread: Thread, run_id: str = "") -> None:
        if is_durable(agent):
            await self._durable.cancel(turn_id)
            await self._salvaged(turn_id, thread)

    async def generate(self, agent: Agent, prompt: str) -> str:
        found = await self._source.find(agent.id)
        if found is None:
            raise EndpointNotFound("The agent is not there any more.")
        try:
            answer = await model_request(self._models.of(found), [ModelRequest.user_text_prompt(prompt)])
        except Exception as error:
            raise failure(error, untouched=True) from error
        return answer.text or ""

    async def sweep(self) -> int:
        await self._models.sweep()
        forgotten = await self._durable_turns.sweep() if self._durable_turns else 0
        return forgotten + await self._threads.sweep()

    async def rest(self) -> None:
        """This process ends: durable turns that are still at work here go on in another."""
        if self._durable_turns:
            await self._durable_turns.rest()

    async def aclose(self) -> None:
        if self._durable_turns:
            await self._durable_turns.aclose()
        await self._source.stop()
        await self._models.aclose()


async def failed(agent: PythonAgent, turn: Turn, error: BaseException) -> None:
    """Tells the agent's hooks. One of these that fails too changes nothing."""
    try:
        await called(agent.parts.hooks, Failure(error))
    except GatewayError as another:
        log.warning("a hook failed", turn=turn.id, error=another.message)


def tell(error: Exception, ours: GatewayError, turn: Turn, agent: PythonAgent) -> None:
    """What a provider has answered may hold keys and prompts; what our own code or an author's has raised is wanted."""
    about = {"turn": turn.id, "agent": agent.name, "error": type(error).__name__}
    if isinstance(ours, ProviderError) or isinstance(error, ModelAPIError | FallbackExceptionGroup):
        log.warning("a model provider failed", status=getattr(error, "status_code", None), **about)
    else:
        log.warning("a turn failed", exc_info=error, **about)
