"""What became of a turn whose process died: the backend is asked, and the ledger is told.

Nothing is sent to a conversation before the run that was left there has ended.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from frontdesk.conversations.desk import Desk
from frontdesk.conversations.ledger import Entry, Ledger, base_from
from frontdesk.conversations.owners import Line
from frontdesk.conversations.placing import Spot
from frontdesk.errors import BackendError
from frontdesk.ports import Agents, Backend, Dropped, Kept, Running
from frontdesk.store import codec
from frontdesk.store.codec import Saved
from frontdesk.store.records import Conversation, Node
from frontdesk.turn import Agent, Identity, Part, Thread, ToolCall, ToolResult, TurnFinished, Usage

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 900.0

NEVER_SENT = "The gateway's process ended before the agent had taken this. Send it again."
BROKE_OFF = "The gateway's process ended while the agent was at work, and the agent came to no answer."
AGENT_GONE = "The gateway's process ended, and the agent is not there any more."


Charge = Callable[[str, Agent | None, Usage | None], Awaitable[None]]


class Recovery:
    def __init__(self, agents: Agents, ledger: Ledger, desk: Desk, line: Line, charge: Charge) -> None:
        """`charge` settles what a turn has set aside, if it has: by its agent and its usage, as far as there is any."""
        self._charge = charge
        self._agents = agents
        self._ledger = ledger
        self._desk = desk
        self._line = line

    async def __call__(self, node: Node, stop: bool) -> None:
        """`stop`: nobody waits for it, so that it is ended if it runs still.

        Raises GatewayError as long as its outcome cannot be found out.
        """
        row = await self._ledger.conversation(node.conversation)
        if row is None:
            await self._charge(node.id, None, None)
            await self._ledger.forget(node.id)
            return
        told = codec.items_of(node.input)
        entry = Entry(node.id, row, Spot(Identity.LINEAGE, row), base_from(node.base), told, told, plain=node.plain)
        if node.answered:
            await self._ledger.settled(node.id)
        elif node.state == "claimed" or not row.thread:
            await self._charge(node.id, None, None)
            await self._ledger.end(entry, "failed_before", "process_died", NEVER_SENT)
        else:
            await self._settle(node, row, entry, stop)
        self._line.move(row.id)

    async def _settle(self, node: Node, row: Conversation, entry: Entry, stop: bool) -> None:
        agent = await self._agents.by_id(row.backend, row.agent)
        if agent is None:
            await self._charge(node.id, None, None)
            await self._ledger.end(entry, "failed_before", "process_died", AGENT_GONE)
            return
        outcome = await self._outcome(self._agents.backend(agent), agent, row, node, stop)
        if not isinstance(outcome, Running):
            await self._charge(node.id, agent, outcome.usage if isinstance(outcome, Kept) else None)
        match outcome:
            case Kept(complete=True) as kept:
                end = TurnFinished(kept.stop_reason, kept.usage, kept.mark)
                parts, calls = self._ours(kept.reply, agent, row)
                await self._ledger.complete(entry, Saved(parts, end, calls), left=True, system="")
                log.info("a turn was recovered", turn=node.id)
            case Dropped():
                await self._ledger.end(entry, "failed_before", "process_died", NEVER_SENT)
            case Kept():
                await self._ledger.end(entry, "failed_after", "process_died", BROKE_OFF, kept=True)
            case Running():
                raise BackendError("The run goes on, although it was told to stop.")

    async def _outcome(
        self, backend: Backend, agent: Agent, row: Conversation, node: Node, stop: bool
    ) -> Kept | Dropped | Running:
        deadline = time.monotonic() + (0 if stop else PATIENCE_SECONDS)
        thread = Thread(row.thread, own=row.kind == "own")
        calls = await self._answered(node) or await self._decided(backend, agent, row, node)
        while True:
            outcome = await backend.outcome(node.id, agent, thread, node.run, calls)
            if not isinstance(outcome, Running):
                return outcome
            if time.monotonic() >= deadline:  # a server that died in a run says for ever that it goes on
                await backend.stop(node.id, agent, thread, node.run)
                return await backend.outcome(node.id, agent, thread, node.run, calls)
            await asyncio.sleep(LOOK_SECONDS)

    async def _answered(self, node: Node) -> list[str]:
        """The backend's ids of the tool calls which a turn answered."""
        results = {item.call_id for item in codec.items_of(node.input) if isinstance(item, ToolResult)}
        parent = await self._ledger.node(node.parent) if results and node.parent else None
        return (
            [upstream for ours, upstream in self._ledger.reply(parent).calls.items() if ours in results]
            if parent
            else []
        )

    async def _decided(self, backend: Backend, agent: Agent, row: Conversation, node: Node) -> list[str]:
        """The backend's ids of calls of the agent's own on which a turn decided: of those no reply tells."""
        results = [item for item in codec.items_of(node.input) if isinstance(item, ToolResult)]
        if not results:
            return []
        calls = await backend.calls(agent, Thread(row.thread, own=row.kind == "own"))
        return self._desk.upstream(row.principal, agent, row.id, results, [call.call_id for call in calls])

    def _ours(
        self, reply: tuple[Part, ...], agent: Agent, row: Conversation
    ) -> tuple[tuple[Part, ...], dict[str, str]]:
        """The reply with the call ids we hand out."""
        calls: dict[str, str] = {}
        parts: list[Part] = []
        for part in reply:
            if isinstance(part, ToolCall):
                ours = self._desk.call_id(row.principal, agent, row.id, part.call_id)
                calls[ours] = part.call_id
                parts.append(ToolCall(ours, part.name, part.arguments))
            else:
                parts.append(part)
        return tuple(parts), calls
