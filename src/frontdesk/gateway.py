"""Runs turns: find the agent, place the conversation, take its lease, run, watch. The only orchestration.

run = gateway.run(turn)
async for batch in run.batches(): ...      # events, as the agent speaks
run.leave()                                # the client went away: finish within the grace, else stop the agent
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from typing import Any, Protocol

import structlog

from frontdesk.conversations.ids import fingerprint
from frontdesk.conversations.leases import Leases
from frontdesk.conversations.placing import Desk, Found, thread_key
from frontdesk.directory import Directory
from frontdesk.errors import AgentNotFound, AgentTimeout, ConnectionLost, GatewayError, InvalidRequest
from frontdesk.policies.admission import Admission
from frontdesk.ports import Backend, Placement
from frontdesk.turn import Agent, Batch, Event, Identity, TextDelta, ToolCallDelta, Turn

log = structlog.get_logger(__name__)


class Tap(Protocol):
    """Watches one turn."""

    def batch(self, events: Batch) -> None: ...

    def end(self, error: BaseException | None) -> None: ...


class Gateway:
    def __init__(
        self,
        directory: Directory,
        desk: Desk,
        leases: Leases,
        admission: Admission,
        *,
        grace_seconds: float | None = 5.0,
        tap: Callable[[Turn, Agent], Tap],
    ) -> None:
        self.directory = directory
        self.desk = desk
        self.leases = leases
        self.admission = admission
        self.grace_seconds = grace_seconds
        self.tap = tap
        self._running: set[Run] = set()
        self._tidying: set[asyncio.Future[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def close(self, wait_seconds: float = 5.0) -> None:
        """Wait until the turns that are being cut short have stopped their agents. New ones are not refused."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds):
                await self._idle.wait()
                if self._tidying:
                    await asyncio.wait(self._tidying)

    def later(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        """Do this without making the caller wait for it."""
        task = asyncio.ensure_future(work)
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)
        return task

    def run(self, turn: Turn) -> "Run":
        """Begin a turn. Nothing happens before its batches are asked for."""
        return Run(self, turn)

    def began(self, run: "Run") -> None:
        self._running.add(run)
        self._idle.clear()

    def ended(self, run: "Run") -> None:
        self._running.discard(run)
        if not self._running:
            self._idle.set()


class Run:
    """One turn on its way. `conversation_id`, `identity` are known from the first batch on."""

    def __init__(self, gateway: Gateway, turn: Turn) -> None:
        self._gateway = gateway
        self._task: asyncio.Task[object] | None = None
        self._left = False
        self._wanted = False
        self._stopped = False
        self._said: list[str] = []
        self.turn = turn
        self.conversation_id = ""
        self.identity: Identity | None = None

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """What the agent says. Raises GatewayError; ends early and quietly when it was stopped after `leave`."""
        self._task = asyncio.current_task()
        gateway = self._gateway
        gateway.began(self)
        agent: Agent | None = None
        try:
            agent, mode = await gateway.directory.find(self.turn.agent, self.turn.principal)
            self.turn = turn = replace(self.turn, mode=mode)
            structlog.contextvars.bind_contextvars(turn=turn.id, agent=agent.name, **about(turn))
            check_tools(turn, agent)
            backend = gateway.directory.backend(agent)
            async with gateway.admission.hold():
                found = await self._find(backend, agent)
                async with gateway.leases.hold(thread_key(agent, found.thread), self._give_way) as waited:
                    if waited:  # the turn before this one may have changed what is known of the conversation
                        found = await self._find(backend, agent)
                    placement = gateway.desk.place(turn, found)
                    self.conversation_id, self.identity = gateway.desk.conversation_id(turn, found), found.identity
                    with self._watched(agent):
                        async with aclosing(self._run(backend, placement, found)) as batches:
                            async for batch in batches:
                                yield batch
        except AgentNotFound:
            if agent:
                gateway.directory.forget(agent)
            raise
        finally:
            self._task = None
            gateway.ended(self)

    async def _find(self, backend: Backend, agent: Agent) -> Found:
        """The conversation. Two first requests of one pin must not make two of them."""
        gateway, turn = self._gateway, self.turn
        if not turn.conversation:
            return await gateway.desk.find(backend, agent, turn)
        async with gateway.leases.hold(gateway.desk.pin_key(turn, agent)):
            return await gateway.desk.find(backend, agent, turn)

    @contextmanager
    def _watched(self, agent: Agent) -> Generator[None]:
        self._tap = self._gateway.tap(self.turn, agent)
        failed: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failed = error
            raise
        finally:
            self._tap.end(failed)

    async def _run(self, backend: Backend, placement: Placement, found: Found) -> AsyncGenerator[Batch, None]:
        """The agent's turn. However it is cut short, the agent is stopped before the conversation is given on."""
        turn, desk = self.turn, self._gateway.desk
        heard = False
        try:
            if placement.instructions and not found.fresh:  # a new conversation was made with them
                await backend.instructed(placement, fingerprint(turn.instructions))
            async with aclosing(backend.run(turn, placement)) as upstream:
                async for batch in upstream:
                    heard = heard or bool(batch)
                    self._tap.batch(batch)
                    yield self._ours(batch, found)
            desk.paid(placement)
        except (asyncio.CancelledError, GeneratorExit):
            await finish(self._stop_agent(backend, placement, owe=True))
            raise
        except AgentTimeout:  # the caller is told, and will say it again: nothing is owed
            await finish(self._stop_agent(backend, placement, owe=False))
            raise
        except ConnectionLost:  # perhaps only the connection: the run may go on, with nobody to hear it
            stopping = self._gateway.later(self._stop_agent(backend, placement, owe=False))
            self._gateway.leases.keep(thread_key(found.agent, found.thread), stopping)
            raise
        except GatewayError:
            if heard:  # then some of it may have been kept, and nothing is told twice
                desk.paid(placement)
            if placement.instructions:  # a failed turn leaves nothing in the conversation, and so not these
                await finish(forgiving(backend.instructed(placement, "")))
            raise

    def _ours(self, batch: Batch, found: Found) -> Batch:
        """The same events with the call ids we hand out; and a note of what was said."""
        ours: list[Event] | None = None
        for index, event in enumerate(batch):
            if type(event) is TextDelta:
                self._said.append(event.text)
            elif type(event) is ToolCallDelta:
                ours = ours or list(batch)
                ours[index] = replace(event, call_id=self._gateway.desk.call_id(self.turn, found, event.call_id))
        return ours or batch

    async def _stop_agent(self, backend: Backend, placement: Placement, *, owe: bool) -> None:
        desk = self._gateway.desk
        try:
            dropped = await backend.cancel(self.turn, placement)
            if not dropped:
                desk.paid(placement)
            elif owe:
                desk.owe(placement, dropped, "".join(self._said))
            if dropped and placement.instructions:
                await backend.instructed(placement, "")
        except GatewayError as error:
            log.warning("agent could not be stopped", turn=self.turn.id, error=error.message)

    # --- the client is gone --------------------------------------------------------------------------------------

    def leave(self) -> None:
        """The client went away. The one who reads `batches` reads on; the agent is stopped when the grace is over."""
        self._left = True
        grace = self._gateway.grace_seconds
        if grace is not None:
            asyncio.get_running_loop().call_later(0 if self._wanted else grace, self.stop)

    def _give_way(self) -> None:
        """A new message has come for this conversation: once its client has left, nobody listens to the old answer."""
        self._wanted = True
        if self._left and self._gateway.grace_seconds is not None:
            self.stop()

    def stop(self) -> None:
        """Interrupt the reading of `batches` wherever it waits."""
        if self._task and not self._stopped:
            self._stopped = True
            self._task.cancel()

    @property
    def stopped(self) -> bool:
        return self._stopped


def about(turn: Turn) -> dict[str, Any]:
    """What the caller wants to find again in the logs; no more of it than OpenAI allows, for it is on every line."""
    short = {name[:64]: value[:512] for name, value in turn.metadata.items()}
    return {"metadata": short} if short else {}


def check_tools(turn: Turn, agent: Agent) -> None:
    """Raises InvalidRequest for tools this agent cannot be given."""
    if turn.tools and not agent.client_tools:
        raise InvalidRequest(
            f"The agent {agent.name!r} is of a type that cannot use the caller's tools.",
            param="tools",
            code="unsupported_parameter",
        )
    for index, tool in enumerate(turn.tools):
        if tool.name in agent.reserved_tools:
            raise InvalidRequest(
                f"The name {tool.name!r} belongs to a tool by which the agent keeps its memory. Rename yours.",
                param=f"tools[{index}].function.name",
                code="invalid_value",
            )


async def finish(work: Coroutine[Any, Any, None]) -> None:
    """Do this to its end, also while we are being cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def forgiving(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except GatewayError as error:
        log.info("could not tidy up after a failed turn", error=error.message)
