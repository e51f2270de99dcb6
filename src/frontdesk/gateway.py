"""Runs turns: find the agent, enter the ledger, wait in line, run, watch, settle. The only orchestration.

run = gateway.run(turn)
async for batch in run.batches(): ...      # events, as the agent speaks
run.leave()                                # the client went away: finish within the grace, else stop the agent

await gateway.begin(run, …)                # or it runs by itself,
gateway.hear(turn_id).batches()            # and whoever wants to may hear it, now or later
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import structlog

from frontdesk.conversations.background import Background
from frontdesk.conversations.broadcast import Broadcast, said_again
from frontdesk.conversations.desk import Desk, alone, keyed
from frontdesk.conversations.ids import fingerprint
from frontdesk.conversations.ledger import Doubt, Ended, Entry, Ledger, NotInLine, Repeat
from frontdesk.conversations.owners import Line, Owners
from frontdesk.conversations.placing import Ask
from frontdesk.conversations.snapshots import Snapshots
from frontdesk.directory import Directory
from frontdesk.errors import (
    AgentFailed,
    AgentNotFound,
    AgentTimeout,
    ApprovalRequired,
    ConnectionLost,
    ConversationBusy,
    ConversationNotFound,
    GatewayError,
    ShuttingDown,
    TurnCancelled,
)
from frontdesk.policies.admission import Admission
from frontdesk.policies.budgets import Budgets, TurnHold
from frontdesk.policies.options import Rules, settled
from frontdesk.ports import Backend, Placement
from frontdesk.store import codec
from frontdesk.store.codec import Saved
from frontdesk.store.records import EMPTY, Node
from frontdesk.turn import (
    Agent,
    Batch,
    Event,
    Identity,
    Item,
    Message,
    Part,
    Principal,
    Signals,
    StopReason,
    Text,
    TextDelta,
    Thread,
    ToolCall,
    ToolCallDelta,
    Turn,
    TurnFinished,
)

log = structlog.get_logger(__name__)

NOTE_SECONDS = 1.0
"""A turn that takes longer is noted with its run at the backend, by which its outcome is found after a crash."""

OVERTAKEN_SECONDS = 0.05
"""A request that is sent again may come before the news that the client of the first one has hung up."""

LOOK_SECONDS = 0.25
"""How often to look whether a turn that runs in another process has ended."""

CANCEL_SECONDS = 5.0
"""How long whoever cancels a turn waits for its end. Another process hears of it within 2.5 s."""


class Tap(Protocol):
    """Watches one turn."""

    def batch(self, events: Batch) -> None: ...

    def end(self, error: BaseException | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the gateway works with."""

    directory: Directory
    desk: Desk
    ledger: Ledger
    owners: Owners
    line: Line
    snapshots: Snapshots
    background: Background
    admission: Mapping[str, Admission]  # by backend
    budgets: Budgets
    rules: Rules
    tap: Callable[[Turn, Agent], Tap]
    count_repeat: Callable[[str], object]  # told how a request was answered which repeats another
    grace_seconds: float | None = 5.0


class OneThreadOnly(GatewayError):
    """The backend has no conversations after all: this turn belongs to the agent's one thread."""


class Gateway:
    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.directory = parts.directory
        self.running: dict[str, Run] = {}  # by turn
        self._runs: set[Run] = set()
        self._tidying: set[asyncio.Future[None]] = set()
        self._by_themselves: dict[asyncio.Task[None], Run] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        return sum(admission.in_flight for admission in self.parts.admission.values())

    @property
    def waiting(self) -> int:
        """Turns that wait for others of their conversation, or for a free place."""
        return self.parts.line.waiting + sum(admission.waiting for admission in self.parts.admission.values())

    async def close(self, wait_seconds: float = 5.0) -> None:
        """Wait until the turns that are being cut short have stopped their agents. New ones are not refused.

        Turns that run by themselves are left for another process to find out their end.
        """
        for run in self._by_themselves.values():
            run.hand_over()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds):
                await self._idle.wait()
                if self._tidying:
                    await asyncio.wait(self._tidying)
        for task in self._tidying:
            task.cancel()
        await asyncio.gather(*self._tidying, return_exceptions=True)

    def later(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        """Do this without making the caller wait for it."""
        task = asyncio.ensure_future(forgiving(work))
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)
        return task

    def run(self, turn: Turn, *, streaming: bool = False) -> "Run":
        """Begin a turn. Nothing happens before its batches are asked for."""
        return Run(self, turn, streaming)

    async def begin(self, run: "Run", within: AbstractContextManager[None]) -> None:
        """Let a turn run by itself, `within` this. Returns once it is in the ledger, where its outcome will be too.

        Raises GatewayError if it does not come so far.
        """
        task = asyncio.create_task(by_itself(run, within))
        self._by_themselves[task] = run
        task.add_done_callback(lambda done: self._by_themselves.pop(done, None))
        entered = asyncio.create_task(run.entered.wait())
        await asyncio.wait({task, entered}, return_when=asyncio.FIRST_COMPLETED)
        entered.cancel()
        if not run.entered.is_set():
            task.result()

    def hear(self, turn_id: str) -> "Hearing":
        """Come to hear a turn, from its beginning, while it runs or after."""
        return Hearing(self, turn_id)

    async def cancel(self, turn_id: str, wait_seconds: float = CANCEL_SECONDS) -> None:
        """Cancel a turn, in whichever process it runs, and wait until it has ended, but not for long."""
        self.stop(turn_id)
        await self.parts.ledger.unwant(turn_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds), aclosing(replayed(self.parts.ledger, turn_id)) as heard:
                async for _ in heard:
                    pass

    async def cancel_keyed(self, principal: Principal, key: str) -> None:
        """The same for the turn of a caller's idempotency key, if there is one that has not ended."""
        node = await self.parts.ledger.noted(keyed(principal.id, key))
        if node and node.live:
            await self.cancel(node.id)

    def stop(self, turn_id: str) -> None:
        """The same for a turn of this process, without waiting."""
        if run := self.running.get(turn_id):
            run.stop()

    def began(self, run: "Run") -> None:
        self._runs.add(run)
        self._idle.clear()

    def ended(self, run: "Run") -> None:
        self._runs.discard(run)
        if not self._runs:
            self._idle.set()

    def left(self) -> frozenset[str]:
        """The turns whose client went away."""
        return frozenset(turn_id for turn_id, run in self.running.items() if run.abandoned)

    def holds(self, entry: Entry) -> bool:
        """Whether a turn of this process is in the conversation, and will tell those in line when it has ended."""
        where = entry.conversation.id
        return any(run.holds == where and run.turn.id != entry.turn_id for run in self.running.values())

    def runs(self, request: str) -> bool:
        """Whether an equal request is being answered here."""
        return bool(request) and any(run.request == request for run in self.running.values())

    def make_way(self, conversation_id: str) -> None:
        """A new message has come for this conversation: nobody listens to the old answer, once its client has left."""
        for run in self.running.values():
            if run.holds == conversation_id:
                run.give_way()


class Run:
    """One turn on its way. `conversation_id`, `identity` are known from the first batch on."""

    def __init__(self, gateway: Gateway, turn: Turn, streaming: bool) -> None:
        self._gateway = gateway
        self._streaming = streaming
        self._parts = gateway.parts
        self._task: asyncio.Task[object] | None = None
        self._entry: Entry | None = None
        self._followed: Run | None = None  # the turn of which this one is a repetition
        self._broadcast = Broadcast(exact=turn.background)
        self._system = ""  # fingerprint of the instructions that the conversation was given before
        self._calls: dict[str, str] = {}  # the backend's id of each tool call by ours
        self._hold: TurnHold | None = None  # what it has set aside of its budgets
        self._grace: asyncio.TimerHandle | None = None
        self._note: asyncio.TimerHandle | None = None
        self._left = False
        self._wanted = False
        self._stopped = False
        self._handed_over = False
        self.entered = asyncio.Event()  # its row, or that of the turn which it repeats, is in the ledger
        self.turn = turn
        self.answered_by = turn.id  # the turn whose answer this is: itself, unless it repeats another
        self.request = ""
        self.conversation_id = ""
        self.identity: Identity | None = None
        self.replayed = False

    @property
    def id(self) -> str:
        return self.turn.id

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """What the agent says. Raises GatewayError; ends early and quietly when it was stopped after `leave`."""
        self._task = asyncio.current_task()
        gateway = self._gateway
        gateway.began(self)
        agent: Agent | None = None
        try:
            who = self.turn.principal
            agent, asked, model = await gateway.directory.find_for_turn(self.turn.agent, who)
            mode = self._parts.desk.mode(self.turn, agent, asked)
            who = replace(who, at=None) if who.at else who  # the agent may ask others for them
            turn = replace(self.turn, mode=mode, principal=who)
            self.turn = turn = alone(turn, asked) if who.stranger else turn
            if model:
                self.turn = turn = replace(turn, options=replace(turn.options, model=model))
            structlog.contextvars.bind_contextvars(turn=turn.id, agent=agent.name, **about(turn))
            backend = gateway.directory.backend(agent)
            if not turn.background and (task := self._parts.background.task(turn, streaming=self._streaming)):
                text = await self._parts.background.answer(task, partial(self._generate, backend, agent))
                if text is not None:
                    yield (TextDelta(text), TurnFinished(StopReason.STOP))
                    return
                self.turn = replace(turn, mode="stateless", conversation="", signals=Signals(trace=turn.signals.trace))
            self.turn = settled(self.turn, agent, self._parts.rules)
            async with aclosing(self._answer(backend, agent)) as answer:
                async for batch in answer:
                    yield batch
        except BaseException as error:
            self._broadcast.end(error)
            if agent and isinstance(error, AgentNotFound):
                gateway.directory.forget(agent)
            raise
        finally:
            self._broadcast.end()
            self._task = None
            gateway.ended(self)

    async def _generate(self, backend: Backend, agent: Agent, prompt: str) -> str:
        """An answer of the agent's model alone, which counts as any other."""
        hold = self._parts.budgets.hold(self.turn, agent)
        said: list[Part] | None = None
        try:
            await hold.reserve()
            text = await backend.generate(agent, prompt)
            said = [Message("assistant", (Text(text),))]
            return text
        finally:
            await finish(hold.settle(said=said))

    async def _answer(self, backend: Backend, agent: Agent) -> AsyncGenerator[Batch, None]:
        """The turn's own answer, or that of the turn which it repeats."""
        parts = self._parts
        ask = await parts.desk.ask(backend, agent, self.turn, self._gateway.left())
        if ask.goes_on and self._gateway.runs(ask.request):
            await asyncio.sleep(OVERTAKEN_SECONDS)
            ask = replace(ask, left=self._gateway.left())
        self.request = ask.request
        claim = await parts.ledger.claim(ask)
        while True:
            match claim:
                case Doubt(node):
                    if await parts.owners.is_alive(node.owner):
                        ask = replace(ask, honest=True)
                    else:  # and its turn is about to be taken over
                        ask = replace(ask, left=ask.left | {node.id})
                case Repeat(node):
                    self._show(agent, node.conversation, Identity.LINEAGE)
                    self.replayed, self.answered_by = True, node.id
                    self.entered.set()
                    if self.turn.background:  # whoever comes to hear this one is given that
                        parts.count_repeat("joined" if node.live else "replayed")
                        return
                    running = self._gateway.running.get(node.id)
                    joins = running is not None and not running.stopped
                    hear = self._follow(running) if running and joins else replayed(parts.ledger, node.id)
                    async with aclosing(hear) as again:
                        async for batch in again:
                            yield batch
                            if batch and isinstance(batch[-1], TurnFinished):
                                parts.count_repeat("joined" if joins else "replayed")
                                await self._heard(node)
                                return
                    # That turn came to nothing, and this is another.
                    self.replayed, self.answered_by = False, self.turn.id
                case Entry() as entry:
                    self.entered.set()
                    try:
                        async with aclosing(self._enter(backend, ask, entry)) as own:
                            async for batch in own:
                                yield batch
                        return
                    except NotInLine:
                        pass
                    except OneThreadOnly:
                        await parts.ledger.withdraw(entry)
                        ask = replace(ask, agent=replace(agent, conversations=False, bridged=False))
                    except ConversationNotFound:  # somebody has deleted it at the backend
                        if ask.named or not entry.conversation.thread:
                            await parts.ledger.lose(entry)
                            raise
                        claim = await parts.ledger.renew(ask, entry)
                        continue
            claim = await parts.ledger.claim(ask)

    def _show(self, agent: Agent, conversation_id: str, identity: Identity) -> None:
        self.conversation_id = self._parts.desk.conversation_id(self.turn, agent, conversation_id)
        self.identity = identity

    # --- a repetition --------------------------------------------------------------------------------------------

    async def _follow(self, run: "Run") -> AsyncGenerator[Batch, None]:
        """Hear a turn that runs here: all of it so far, then as it goes on."""
        self._followed = run
        run.rejoin()
        try:
            async with aclosing(run.listen()) as heard:
                async for batch in heard:
                    yield batch
        finally:
            self._followed = None
            run.part()

    async def listen(self) -> AsyncGenerator[Batch, None]:
        """For others: all of it so far, then as it goes on. Ends early if it came to nothing before a word was said."""
        async with aclosing(self._broadcast.listen()) as heard:
            async for batch in heard:
                yield batch
        if self._broadcast.spoke and (error := self._broadcast.error):
            raise error if isinstance(error, GatewayError) else AgentFailed("The answer broke off.")

    async def _heard(self, node: Node) -> None:
        """The answer has reached a client after all: the next equal request is another."""
        if not (self._left or node.live):
            await forgiving(self._parts.ledger.left(node.id, False))

    # --- a turn of its own ---------------------------------------------------------------------------------------

    async def _enter(self, backend: Backend, ask: Ask, entry: Entry) -> AsyncGenerator[Batch, None]:
        """From its row in the ledger to the end of that row, whatever comes between."""
        parts, gateway = self._parts, self._gateway
        self._entry = entry
        gateway.running[self.turn.id] = self
        submitted = False
        try:
            if entry.waits:
                self._entry = entry = await self._wait(ask, entry)
            async with parts.admission[backend.name].hold(patient=self.turn.background):
                self._hold = parts.budgets.hold(self.turn, ask.agent)
                await self._hold.reserve()
                placement = replace(await self._place(backend, ask, entry), hold=self._hold)
                self._show(ask.agent, entry.conversation.id, placement.identity)
                submitted = True
                with self._watched(ask.agent):
                    async with aclosing(self._run(backend, placement, entry)) as batches:
                        async for batch in batches:
                            yield batch
        except BaseException as error:
            if not submitted:
                await finish(self._withdraw(entry, error))
            raise

    async def _withdraw(self, entry: Entry, error: BaseException) -> None:
        if self._hold:
            await forgiving(self._hold.settle())
        await self._note_end(entry, *self._never_begun(error))

    def _never_begun(self, error: BaseException) -> tuple[BaseException, Ended]:
        """Why a turn came to its end before its agent was asked."""
        if self._handed_over:
            return ShuttingDown("The gateway was shut down before this had its turn."), "failed_before"
        cancelled = self.turn.background and self._stopped
        return (TurnCancelled("This was cancelled."), "cancelled") if cancelled else (error, "failed_before")

    async def _wait(self, ask: Ask, entry: Entry) -> Entry:
        """Stand in line. Raises ConversationBusy when that takes too long; nothing was appended then."""
        parts = self._parts
        self._gateway.make_way(entry.conversation.id)

        async def come() -> bool:
            nonlocal entry
            entry = await parts.ledger.advance(ask, entry)
            return not entry.waits

        told, patient = self._gateway.holds(entry), self.turn.background
        if not await parts.line.wait(entry.conversation.id, come, told, patient=patient):
            raise ConversationBusy(
                "Another turn of this conversation is still running. Nothing was sent; try again when it has ended.",
                retry_after_seconds=2,
            )
        return entry

    async def _place(self, backend: Backend, ask: Ask, entry: Entry) -> Placement:
        """The thread, made where there is none, and what it is to be told."""
        row = entry.conversation
        desk = self._parts.desk
        if row.thread:
            thread, self._system = Thread(row.thread, own=row.kind == "own"), row.system
            return await desk.placement(ask, entry, thread, self._system, seeded=False)
        if branch := await self._parts.snapshots.branch(backend, ask.agent, entry):
            thread, self._system = branch
            return await desk.placement(ask, entry, thread, self._system, seeded=False)
        turn = replace(self.turn, mode="single") if row.kind == "own" else self.turn
        thread = await backend.open(ask.agent, turn)
        if thread.own and row.kind != "own":
            raise OneThreadOnly("This agent has one thread.")
        # A branch stands where it begins, and holds nothing of that yet.
        parent = entry.spot.parent.id if entry.spot.parent else ""
        await self._parts.ledger.opened(entry, thread.id, parent, EMPTY if parent else "")
        return await desk.placement(ask, entry, thread, "", seeded=True)

    @contextmanager
    def _watched(self, agent: Agent) -> Generator[None]:
        self._tap = self._parts.tap(self.turn, agent)
        failed: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failed = error
            raise
        finally:
            self._tap.end(failed)

    async def _run(self, backend: Backend, placement: Placement, entry: Entry) -> AsyncGenerator[Batch, None]:
        """The agent's turn. However it is cut short, it is settled before the conversation is given on."""
        heard = settled = False
        self._note = asyncio.get_running_loop().call_later(NOTE_SECONDS, self._note_streaming, backend)
        try:
            async with aclosing(backend.run(self.turn, placement)) as upstream:
                async for batch in upstream:
                    heard = heard or bool(batch)
                    self._tap.batch(batch)
                    batch = self._ours(batch, placement, entry)
                    if batch and isinstance(batch[-1], TurnFinished):
                        settled = True
                        await finish(self._complete(backend, placement, entry, batch, batch[-1]))
                    else:
                        self._broadcast.add(batch)
                    yield batch
        except ApprovalRequired as error:  # the agent has the message, and waits
            await finish(self._settle(backend, placement, entry, error, heard=True))
            where = f"Answer with POST /v1/conversations/{self.conversation_id}/approvals."
            raise ApprovalRequired(f"{error.message} {where}") from error
        except ConnectionLost as error:  # perhaps only the connection: the run may go on, with nobody to hear it
            self._gateway.later(self._settle(backend, placement, entry, error, heard))
            raise
        except BaseException as error:
            if not settled:
                await finish(self._settle(backend, placement, entry, error, heard))
            raise

    def _ours(self, batch: Batch, placement: Placement, entry: Entry) -> Batch:
        """The same events with the call ids we hand out."""
        ours: list[Event] | None = None
        for index, event in enumerate(batch):
            if type(event) is ToolCallDelta:
                ours = ours or list(batch)
                who = self.turn.principal.id
                call_id = self._parts.desk.call_id(who, placement.agent, entry.conversation.id, event.call_id)
                self._calls[call_id] = event.call_id
                ours[index] = replace(event, call_id=call_id)
        return ours or batch

    # --- its end -------------------------------------------------------------------------------------------------

    async def _complete(
        self, backend: Backend, placement: Placement, entry: Entry, last: Batch, end: TurnFinished
    ) -> None:
        """The reply is whole. If the store does not take that now, the outcome is found again at the backend later.

        Nobody hears the end before it is noted: what they say next must find its place.
        """
        parts = self._parts
        self._broadcast.keep(last)
        system = "" if end.condensed else fingerprint(placement.instructions) or self._system
        reply = Saved(self._broadcast.parts(), end, self._calls)
        settles = parts.snapshots.wanted(placement.agent, entry, placement.thread, reply)
        try:
            if self._hold:
                await self._hold.settle(end.usage, reply.parts)
            left, events = self.abandoned, self._events()
            await parts.ledger.complete(entry, reply, left=left, system=system, settles=settles, events=events)
        except Exception as error:
            log.error("a reply could not be noted", turn=self.turn.id, error=str(error))
            parts.ledger.abandon(entry)
            settles = False
        finally:
            self._broadcast.tell(last)
            self._end(None)
        if settles:
            self._gateway.later(self._copy(backend, placement, entry))

    def _events(self) -> str:
        """All that was said, as it was said, where it is to be heard so again."""
        return codec.events_text(self._broadcast.past()) if self.turn.background else ""

    async def _copy(self, backend: Backend, placement: Placement, entry: Entry) -> None:
        """Keep the conversation as it is now, before it goes on."""
        try:
            await forgiving(self._parts.snapshots.take(backend, placement.agent, entry, placement.thread))
        finally:
            await self._parts.ledger.settled(entry.turn_id)
            self._parts.line.move(entry.conversation.id)

    async def _settle(
        self, backend: Backend, placement: Placement, entry: Entry, error: BaseException, heard: bool
    ) -> None:
        """The turn was cut short, or failed: stop the agent, see what of it is in the conversation, and note that.

        Where nobody can say now, the turn stays in the ledger as it is, until that has been found out.
        """
        if self._handed_over and placement.agent.outlives:
            self._parts.ledger.abandon(entry)
            self._end(error)
            return
        if isinstance(error, ConversationNotFound) and not heard:  # it is entered anew, or goes with its conversation
            if self._hold:
                await forgiving(self._hold.settle())
            self._end(error)
            return
        by_us = isinstance(error, asyncio.CancelledError | GeneratorExit | AgentTimeout | ConnectionLost)
        try:
            if by_us:
                dropped = await backend.cancel(self.turn, placement)
            else:
                dropped = await backend.dropped(self.turn.id, placement) if heard else placement.deliver
        except Exception as failure:
            log.warning("what became of a turn is not known yet", turn=self.turn.id, error=str(failure))
            self._parts.ledger.abandon(entry)
            self._end(error)
            return
        kept = len(dropped) < len(placement.deliver)
        if self._handed_over:
            error = ShuttingDown("The gateway was shut down while the agent was at work.")
        cut = isinstance(error, asyncio.CancelledError | GeneratorExit)
        state: Ended = "cancelled" if cut else "failed_after" if kept else "failed_before"
        await self._note_end(entry, error, state, kept=kept, rest=dropped if kept else ())

    async def _note_end(
        self, entry: Entry, error: BaseException, state: Ended, *, kept: bool = False, rest: tuple[Item, ...] = ()
    ) -> None:
        said = [part for part in self._broadcast.parts() if not isinstance(part, ToolCall)]
        try:
            if self._hold:  # what failed is not charged by its length, but what was cut short is
                unsaid = state != "cancelled" and not isinstance(error, ApprovalRequired)
                await self._hold.settle(said=None if unsaid else self._broadcast.parts())
            told = said if state == "cancelled" else ()
            code, trouble, events = code_of(error), str(error), self._events()
            await self._parts.ledger.end(entry, state, code, trouble, kept=kept, rest=rest, said=told, events=events)
        except Exception as failure:
            log.error("the end of a turn could not be noted", turn=self.turn.id, error=str(failure))
            self._parts.ledger.abandon(entry)
        finally:
            self._end(error)

    def _note_streaming(self, backend: Backend) -> None:
        self._gateway.later(self._parts.ledger.streaming(self.turn.id, backend.run_id(self.turn.id)))

    def _end(self, error: BaseException | None) -> None:
        """The conversation is free for the next in line."""
        if self._note:
            self._note.cancel()
        self._gateway.running.pop(self.turn.id, None)
        if self._entry:
            self._parts.line.move(self._entry.conversation.id)

    # --- the client is gone --------------------------------------------------------------------------------------

    @property
    def holds(self) -> str:
        """The conversation this turn is in."""
        return self._entry.conversation.id if self._entry else ""

    @property
    def abandoned(self) -> bool:
        """Whether nobody hears it."""
        return self._left and not self._broadcast.listeners

    def leave(self) -> None:
        """The client went away. The one who reads `batches` reads on; the agent is stopped when the grace is over."""
        self._left = True
        if self._followed or self._entry is None:
            self.stop()
            return
        self._gateway.later(self._parts.ledger.left(self.turn.id, True))
        self._let_go()

    def _let_go(self) -> None:
        grace = self._parts.grace_seconds
        if self.abandoned and grace is not None:
            seconds = 0 if self._wanted else grace
            self._grace = asyncio.get_running_loop().call_later(seconds, self._stop_if_abandoned)

    def _stop_if_abandoned(self) -> None:
        if self.abandoned:
            self.stop()

    def rejoin(self) -> None:
        """Somebody has come to hear it again."""
        if self._grace:
            self._grace.cancel()

    def part(self) -> None:
        """One of those has gone."""
        self._let_go()

    def give_way(self) -> None:
        """A new message has come for this conversation."""
        self._wanted = True
        if self.abandoned and self._parts.grace_seconds is not None:
            self.stop()

    def stop(self) -> None:
        """Interrupt the reading of `batches` wherever it waits."""
        if self._task and not self._stopped:
            self._stopped = True
            self._task.cancel()

    def hand_over(self) -> None:
        """This process ends: leave the agent at work, and its turn for another process to find out its end."""
        self._handed_over = True
        self.stop()

    @property
    def stopped(self) -> bool:
        return self._stopped


class Hearing:
    """Somebody who has come to hear a turn. It goes on, or has ended, without them."""

    def __init__(self, gateway: Gateway, turn_id: str) -> None:
        self._gateway = gateway
        self._task: asyncio.Task[object] | None = None
        self.id = turn_id
        self.stopped = False

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """All of it, as it was said where the turn was a background one. Raises AgentFailed if it came to nothing."""
        self._task = asyncio.current_task()
        run, ledger = self._gateway.running.get(self.id), self._gateway.parts.ledger
        finished = False
        if run:
            run.rejoin()
        try:
            async with aclosing(run.listen() if run else replayed(ledger, self.id)) as heard:
                async for batch in heard:
                    finished = bool(batch) and isinstance(batch[-1], TurnFinished)
                    yield batch
        finally:
            if run:
                run.part()
        if not finished:
            raise came_to_nothing(await ledger.node(self.id))

    def leave(self) -> None:
        if self._task and not self.stopped:
            self.stopped = True
            self._task.cancel()


def came_to_nothing(node: Node | None) -> GatewayError:
    """Why a turn has no answer."""
    if node and node.state == "cancelled":
        return TurnCancelled("This was cancelled.")
    trouble, code = (node.trouble, node.error) if node else ("", "")
    return AgentFailed(trouble or "This turn came to no answer.", code=code or None)


async def replayed(ledger: Ledger, turn_id: str) -> AsyncGenerator[Batch, None]:
    """Wait for a turn that runs elsewhere, and give its answer again. Ends early if it came to none."""
    while (node := await ledger.node(turn_id)) and node.live:
        yield ()
        await asyncio.sleep(LOOK_SECONDS)
    events = await ledger.events(turn_id)
    for batch in events:
        yield batch
    if events or node is None or node.state != "completed":
        return
    kept = ledger.reply(node)
    if kept.end:
        yield said_again(kept.parts, kept.end)


async def by_itself(run: Run, within: AbstractContextManager[None]) -> None:
    """Raises only what kept it from entering the ledger: what comes later is there."""
    try:
        with within:
            async for _ in run.batches():
                pass
    except GatewayError as error:
        if not run.entered.is_set():
            raise
        log.warning("a turn in the background failed", turn=run.id, code=error.public_code)
    except Exception:
        if not run.entered.is_set():
            raise
        log.exception("a turn in the background failed", turn=run.id)
    except asyncio.CancelledError:
        if not run.stopped:
            raise


def about(turn: Turn) -> dict[str, Any]:
    """What the caller wants to find again in the logs; no more of it than OpenAI allows, for it is on every line."""
    short = {name[:64]: value[:512] for name, value in turn.metadata.items()}
    return {"metadata": short} if short else {}


def code_of(error: BaseException) -> str:
    return error.public_code if isinstance(error, GatewayError) else "cancelled"


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
        log.warning("could not tidy up after a turn", error=error.message)
