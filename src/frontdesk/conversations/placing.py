"""Placing a request: which conversation it belongs to, and what the agent there has not heard yet.

A pin (`x-frontdesk-conversation`) names the conversation; results of tool calls find it through the call id we issued;
anything else gets a new conversation, seeded with the transcript the client sent. The conversation store will add
lineage, so that a chat without a pin finds its conversation again (see docs/conversations.md).
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from frontdesk.conversations.ids import CONVERSATION, Ids, fingerprint
from frontdesk.errors import ConversationNotFound, InvalidRequest
from frontdesk.ports import Backend, Placement
from frontdesk.turn import Agent, Call, Identity, Item, Message, Text, Thread, ToolResult, Turn, unanswered

REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Found:
    """A conversation for a turn, before anybody waits for it. `calls` are those which its tool results may answer."""

    agent: Agent
    thread: Thread
    identity: Identity
    fresh: bool = False
    calls: tuple[Call, ...] = ()


class Desk:
    """Finds conversations, and keeps what a cancelled turn dropped until it can be given again."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._owed: OrderedDict[str, tuple[Item, ...]] = OrderedDict()

    def conversation_id(self, turn: Turn, found: Found) -> str:
        return self._ids.conversation(found.thread.id, turn.principal.id, found.agent.id)

    def call_id(self, turn: Turn, found: Found, upstream_id: str) -> str:
        return self._ids.call(upstream_id, found.thread.id, turn.principal.id, found.agent.id)

    def pin_key(self, turn: Turn, agent: Agent) -> str:
        return self._ids.pin(turn.conversation, turn.principal.id, agent.id)

    async def find(self, backend: Backend, agent: Agent, turn: Turn) -> Found:
        """The conversation of a turn, made if there is none. Hold the lease of `pin_key` around this for a pin."""
        if answers(turn) and (found := await self._answering(backend, agent, turn)):
            return found
        if turn.conversation and turn.mode == "auto" and not repeats(turn):
            return await self._pinned(backend, agent, turn)
        system = fingerprint(turn.instructions)
        return Found(agent, await backend.open(agent, turn, system=system), identity(turn), fresh=True)

    async def _pinned(self, backend: Backend, agent: Agent, turn: Turn) -> Found:
        pin = turn.conversation
        if pin.startswith(CONVERSATION):
            thread_id = self._ids.thread(pin, turn.principal.id, agent.id)
            thread = await backend.thread(agent, thread_id) if thread_id else None
            if thread is None:
                raise ConversationNotFound(f"There is no conversation {pin[:80]!r} with this agent.")
            return Found(agent, thread, Identity.HEADER)
        key = self.pin_key(turn, agent)
        if thread := await backend.pinned(agent, key):
            return Found(agent, thread, Identity.HEADER)
        system = fingerprint(turn.instructions)
        return Found(agent, await backend.open(agent, turn, key, system), Identity.HEADER, fresh=True)

    async def _answering(self, backend: Backend, agent: Agent, turn: Turn) -> Found | None:
        """The conversation which waits for this turn's tool results; None if it has had them already.

        Raises InvalidRequest for ids which are not ours, or not of this caller and agent.
        """
        results = [item for item in turn.input if isinstance(item, ToolResult)]
        thread_id = self._ids.call_thread(results[0].call_id)
        thread = await backend.thread(agent, thread_id) if thread_id else None
        if thread is None:
            raise unknown_call(results[0])
        calls = await backend.calls(agent, thread)
        known = {call.call_id: call for call in calls}
        matched: list[Call] = []
        for result in results:
            upstream = self._ids.upstream(result.call_id, known, thread.id, turn.principal.id, agent.id)
            if upstream is None:
                raise unknown_call(result)
            matched.append(known[upstream])
        if not all(call.pending or call.stalled for call in matched):
            return None
        left = [call for call in calls if (call.pending or call.stalled) and call not in matched]
        return Found(agent, thread, Identity.LINEAGE, calls=(*matched, *left))

    def place(self, turn: Turn, found: Found) -> Placement:
        """What is to be delivered. Called under the lease, so that nothing changes before it is sent."""
        thread, agent = found.thread, found.agent
        known = not found.fresh and fingerprint(turn.instructions) == thread.system
        instructions = "" if known else turn.instructions
        if found.calls:
            deliver = self._results(turn, found.calls)
        elif found.fresh and not thread.own:
            deliver = turn.history + turn.input
        else:
            deliver = tuple(item for item in turn.input if isinstance(item, Message))
        if not deliver and not instructions:
            raise InvalidRequest("There is nothing new for the agent: end with a user message.", param="messages")
        owed = self._owed.get(thread_key(agent, thread), ())  # until it is `paid`: this turn may fail too
        return Placement(agent, thread, found.identity, owed + deliver, instructions)

    def owe(self, placement: Placement, dropped: tuple[Item, ...], said: str) -> None:
        """Remember what the backend dropped with a cancelled turn, and what the client saw of the answer."""
        answer: tuple[Item, ...] = (Message("assistant", (Text(said),)),) if said else ()
        self._owed[thread_key(placement.agent, placement.thread)] = dropped + answer
        while len(self._owed) > REMEMBERED:
            self._owed.popitem(last=False)

    def paid(self, placement: Placement) -> None:
        """What was owed has reached the agent."""
        self._owed.pop(thread_key(placement.agent, placement.thread), None)

    def _results(self, turn: Turn, calls: Sequence[Call]) -> tuple[Item, ...]:
        """The turn's input with the backend's call ids, and an answer for each call the client left out."""
        upstream = iter(calls)
        told: list[Item] = [
            replace(item, call_id=next(upstream).call_id) if isinstance(item, ToolResult) else item
            for item in turn.input
        ]
        missing = [unanswered(call.call_id) for call in upstream]
        return (*missing, *told)


def identity(turn: Turn) -> Identity:
    """How a turn without a pin comes to its new conversation."""
    if turn.mode == "stateless":
        return Identity.STATELESS
    return Identity.SEEDED if turn.history else Identity.NEW


def answers(turn: Turn) -> bool:
    return any(isinstance(item, ToolResult) for item in turn.input)


def repeats(turn: Turn) -> bool:
    """Whether tool results are all there is. Those the agent has had already cannot be given to it a second time: they
    are answered in a conversation of their own, seeded with the transcript."""
    return answers(turn) and all(isinstance(item, ToolResult) for item in turn.input)


def unknown_call(result: ToolResult) -> InvalidRequest:
    return InvalidRequest(
        f"No tool call {result.call_id[:80]!r} was made to you by this agent.", param=result.param, code="invalid_value"
    )


def thread_key(agent: Agent, thread: Thread) -> str:
    """Names a conversation among all of all backends."""
    return f"{agent.backend}/{agent.id}/{thread.id}"
