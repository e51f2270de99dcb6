"""Turns that outlive their process: each is a workflow of DBOS, through Pydantic AI's own integration.

What a model has answered, and what a tool of the agent's own has given, is kept as soon as it is there: each is a step.
When the process dies, the turn begins anew in another, and is given what is kept until it has come to where it was. So
no step that was done is done again. Whose turn it is to begin it anew is for the ledger to say, which knows the dead.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import structlog
from dbos import DBOS, DBOSConfig, SetWorkflowID
from pydantic_ai import Agent as Engine
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.durable_exec.dbos import DBOSDurability
from pydantic_ai.models import Model
from pydantic_ai.tools import RunContext

from frontdesk import __version__
from frontdesk.agents.agent import Agent
from frontdesk.agents.errors import AgentError
from frontdesk.backends.python.course import Course, Watch
from frontdesk.errors import AgentFailed, GatewayError, StoreUnavailable
from frontdesk.ports import Hold, Placement, Stretch
from frontdesk.turn import Batch, Turn, TurnFinished

log = structlog.get_logger(__name__)

T = TypeVar("T")

WORKFLOW = "frontdesk.turn"
THREADS = 32
KEPT_SECONDS = 24 * 3600.0
"""How long a workflow is kept. No turn takes so long, and its outcome is in the ledger after seconds."""

LOG_LEVEL = "CRITICAL"
"""Of DBOS: its lines hold what was said. What concerns a turn is told here."""

LIVE = ("PENDING", "ENQUEUED")

at_work: ContextVar[Course] = ContextVar("frontdesk.backends.python.durable.at_work")


@dataclass
class Journal:
    """The steps of one turn. Nobody hears a turn that was begun anew: its client went with the process."""

    durable: "Durable"
    relay: "Relay | None"
    stretch: Stretch | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the turn is cut short only here, and goes on in another process."""
        return self.durable.resting

    def engine(self, agent: Agent, model: Model) -> Engine[Any, Any]:
        return self.durable.engine(agent, model)

    def begin(self, course: Course) -> None:
        at_work.set(course)

    def tell(self, batch: Batch) -> None:
        if self.relay:
            self.relay.tell(batch)

    def keep(self, stretch: Stretch) -> None:
        self.stretch = stretch

    async def once(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        async def step() -> T:
            return await work()

        return await DBOS.run_step_async({"name": name}, step)


@dataclass
class Relay:
    """From a workflow, which is a task of its own, to the one who hears it."""

    hold: Hold | None
    _said: asyncio.Queue[Batch | BaseException] = field(default_factory=asyncio.Queue[Batch | BaseException])

    def tell(self, batch: Batch) -> None:
        self._said.put_nowait(batch)

    def fail(self, error: BaseException) -> None:
        self._said.put_nowait(error)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Ends with TurnFinished. Raises GatewayError."""
        while True:
            said = await self._said.get()
            if isinstance(said, BaseException):
                raise said if isinstance(said, GatewayError) else AgentFailed("The turn was stopped.") from said
            yield said
            if said and isinstance(said[-1], TurnFinished):
                return


Run = Callable[[Turn, Placement, Journal], AsyncGenerator[Batch, None]]
Leave = Callable[[str, Placement], Awaitable[object]]


class Durable:
    """The durable turns of this process. `url` is where DBOS keeps their steps.

    `run` runs a turn; `leave` is called when one that nobody hears has failed, and keeps what of it is to stay.
    """

    def __init__(self, url: str, run: Run, leave: Leave) -> None:
        self._url = url
        self._run = run
        self._leave = leave
        self._name = uuid.uuid4().hex  # else DBOS would begin anew, by itself, what may run in another process still
        self._up = False
        self._starting = asyncio.Lock()
        self._relays: dict[str, Relay] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}  # the turns at work in this process
        self._resumed: set[str] = set()
        self._engines: WeakKeyDictionary[Agent, Engine[Any, Any]] = WeakKeyDictionary()
        self.resting = False

    async def start(self) -> None:
        """Open what is kept, if that has not been done. Raises StoreUnavailable, AgentError."""
        async with self._starting:
            if not self._up:
                logging.getLogger("dbos").setLevel(LOG_LEVEL)
                with unavailable():
                    await asyncio.to_thread(DBOS.migrate, self._url)  # which may take its time
                    self._launch()
                self._up = True

    def _launch(self) -> None:
        """On the loop, for there the turns are to run."""

        @DBOS.workflow(name=WORKFLOW)
        async def turn(turn: Turn, placement: Placement) -> Stretch | None:
            return await self._work(turn, placement)

        config = DBOSConfig(
            name="frontdesk",
            system_database_url=self._url,
            executor_id=self._name,
            application_version=f"frontdesk-{__version__}",  # what another version has kept may not be understood
            max_executor_threads=THREADS,
            log_level=LOG_LEVEL,
        )
        DBOS(config=config)
        if DBOS.executor_id != self._name:
            raise AgentError("This process has a DBOS already. Durable agents need that of Frontdesk: make no other.")
        DBOS.launch()
        self._workflow = turn

    # --- a turn ----------------------------------------------------------------------------------------------------

    async def run(self, turn: Turn, placement: Placement) -> AsyncGenerator[Batch, None]:
        """Closing it hangs up; the turn goes on. Raises GatewayError."""
        relay = self._relays[turn.id] = Relay(placement.hold)
        try:
            await self.start()
            begun = asyncio.create_task(self._begin(turn, placement), context=outside())
            try:
                await asyncio.shield(begun)
            except asyncio.CancelledError:
                await asyncio.wait([begun])  # it may have been written, and can be cancelled only after that
                raise
            async with aclosing(relay.batches()) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self._relays.pop(turn.id, None)

    async def _begin(self, turn: Turn, placement: Placement) -> None:
        with unavailable(), SetWorkflowID(turn.id):
            await DBOS.start_workflow_async(self._workflow, turn, replace(placement, hold=None))

    async def _work(self, turn: Turn, placement: Placement) -> Stretch | None:
        """The workflow: from its beginning each time. Gives what the turn adds to its thread, if it came to its end."""
        relay = self._relays.get(turn.id)
        if task := asyncio.current_task():
            self._tasks[turn.id] = task
        journal = Journal(self, relay)
        try:
            placement = replace(placement, hold=relay.hold if relay else None)
            async with aclosing(self._run(turn, placement, journal)) as batches:
                async for batch in batches:
                    journal.tell(batch)
        except BaseException as error:
            if relay:
                relay.fail(error)
            if not isinstance(error, Exception):
                raise
            if not relay:
                await self._leave(turn.id, placement)
        finally:
            self._tasks.pop(turn.id, None)
        return journal.stretch

    def engine(self, agent: Agent, model: Model) -> Engine[Any, Any]:
        """Pydantic AI's engine for an agent, whose calls of the model are steps."""
        if agent.engine:
            raise AgentFailed(f"{agent.name} cannot go on with a durable turn: it has an engine of its own.")
        if agent not in self._engines:
            durability = DBOSDurability[Any](event_stream_handler=overheard)
            self._engines[agent] = Engine(model, name="frontdesk", capabilities=[durability, Watching()])
        return self._engines[agent]

    async def cancel(self, turn_id: str) -> None:
        """Stop a turn, wherever it runs, for good. Here it has stopped then. Raises StoreUnavailable."""
        if task := self._tasks.get(turn_id):
            task.cancel()
            await asyncio.wait([task])
        with unavailable():
            await self.start()
            await DBOS.cancel_workflow_async(turn_id)

    # --- after a crash ---------------------------------------------------------------------------------------------

    async def resume(self, turn_id: str) -> bool:
        """Whether a turn goes on. One whose process is gone does from now on: whoever asks knows that it is.

        Raises StoreUnavailable.
        """
        if turn_id in self._tasks:
            return True
        with unavailable():
            await self.start()
            status = await DBOS.get_workflow_status_async(turn_id)
            if status is None or status.status not in LIVE:
                self._resumed.discard(turn_id)
                return False
            if status.app_version != DBOS.application_version:
                log.warning("a turn of another version of Frontdesk cannot go on", turn=turn_id)
                await DBOS.cancel_workflow_async(turn_id)
                return False
            if turn_id not in self._resumed:
                self._resumed.add(turn_id)
                await DBOS.resume_workflow_async(turn_id)
        return True

    async def result(self, turn_id: str) -> tuple[Stretch | None, bool]:
        """What a turn that goes on no more has come to, and whether it was broken off. Raises StoreUnavailable."""
        with unavailable():
            await self.start()
            status = await DBOS.get_workflow_status_async(turn_id)
        if status is None:
            return None, False
        return (status.output, False) if status.status == "SUCCESS" else (None, True)

    # --- its end ---------------------------------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Forget old workflows. Gives how many. Raises StoreUnavailable."""
        if not self._up:
            return 0
        before = datetime.fromtimestamp(time.time() - KEPT_SECONDS, UTC).isoformat()
        with unavailable():
            old = await DBOS.list_workflows_async(
                name=WORKFLOW, end_time=before, limit=1000, load_input=False, load_output=False
            )
            await DBOS.delete_workflows_async([each.workflow_id for each in old])
        return len(old)

    async def rest(self) -> None:
        """This process ends: what is at work here goes on in another."""
        self.resting = True
        if tasks := list(self._tasks.values()):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def aclose(self) -> None:
        if not self._up:
            return
        await self.rest()
        self._up = False
        # DBOS has put its threads in the place of the loop's, and takes them away.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
        await asyncio.to_thread(DBOS.destroy)


class Watching(AbstractCapability[Any]):
    """`Watch` for an engine that many turns have: it must be told of it when it is made."""

    async def for_run(self, ctx: RunContext[Any]) -> AbstractCapability[Any]:
        return Watch(at_work.get())


async def overheard(_: RunContext[Any], events: AsyncIterable[Any]) -> None:
    """What the engine tells within a step: the model, as it speaks."""
    await at_work.get().overhear(events)


def outside() -> Context:
    """Where a workflow can begin: not within a step of another, whose tool has asked an agent."""
    if DBOS.workflow_id is None:
        return copy_context()
    context = Context()
    context.run(structlog.contextvars.bind_contextvars, **structlog.contextvars.get_contextvars())
    return context


@contextmanager
def unavailable() -> Generator[None]:
    """Raises StoreUnavailable for what DBOS, or its database, raises."""
    try:
        yield
    except (GatewayError, AgentError):
        raise
    except Exception as error:
        log.warning("DBOS failed", error=repr(error)[:500])
        raise StoreUnavailable("The store of durable turns cannot be used.") from error
