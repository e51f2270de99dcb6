"""What a turn is before the store is asked about it, and what its agent is told once it has its place."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from frontdesk.conversations.ids import CONVERSATION, Ids, fingerprint
from frontdesk.conversations.ledger import Entry, Ledger
from frontdesk.conversations.lineage import ROOT, digest, follow, sayings
from frontdesk.conversations.placing import Ask, UnknownHistory
from frontdesk.errors import ConversationNotFound, InvalidRequest
from frontdesk.ports import Backend, Placement
from frontdesk.scopes import nothing_kept
from frontdesk.store import codec
from frontdesk.store.records import Node
from frontdesk.turn import (
    Agent,
    Call,
    Item,
    Message,
    Mode,
    Principal,
    Signals,
    Thread,
    ToolCall,
    ToolResult,
    Turn,
    unanswered,
)

CONTINUE = "Go on with your last message exactly where it ended. Do not repeat any of it, and do not introduce it."
"""What a client wants that sends back an unfinished answer: Letta has no other way to be asked for more."""

ANSWER = "Your turn broke off before you had answered. Answer the last message now."
"""For an agent that has heard a message, and failed; to send it again would be to say it twice."""

Attach = Callable[[tuple[Item, ...]], Awaitable[tuple[Item, ...]]]
"""Fetches the pictures of these items."""


@dataclass(frozen=True, slots=True)
class Customs:
    """How conversations are found here."""

    mode: Mode = "auto"
    agent_modes: Mapping[str, Mode] = field(default_factory=dict[str, Mode])  # by name or id
    unknown_history: UnknownHistory = "seed"
    gives_way: bool = True


class Desk:
    def __init__(self, ids: Ids, ledger: Ledger, customs: Customs, attach: Attach) -> None:
        self._ids = ids
        self._ledger = ledger
        self._customs = customs
        self._attach = attach

    # --- ids -----------------------------------------------------------------------------------------------------

    def conversation_id(self, turn: Turn, agent: Agent, conversation_id: str) -> str:
        """As the caller calls it, if it was made before it had an agent."""
        if self._unbound(turn) == conversation_id:
            return turn.conversation
        return self._ids.conversation(conversation_id, turn.principal.id, agent.id)

    def call_id(self, principal: str, agent: Agent, conversation_id: str, upstream_id: str) -> str:
        return self._ids.call(upstream_id, conversation_id, principal, agent.id)

    def upstream(
        self, principal: str, agent: Agent, conversation_id: str, results: Sequence[ToolResult], calls: Sequence[str]
    ) -> list[str]:
        """Which of the backend's calls these results answer."""
        whose = (conversation_id, principal, agent.id)
        found = [self._ids.upstream(result.call_id, calls, *whose) for result in results]
        return [each for each in found if each]

    # --- before --------------------------------------------------------------------------------------------------

    def mode(self, turn: Turn, agent: Agent, asked: Mode) -> Mode:
        """By the model's suffix, else as `mode_for` has it."""
        return self.mode_for(agent, turn.principal) if asked == "auto" else asked

    def mode_for(self, agent: Agent, principal: Principal) -> Mode:
        """As the key has it, else the agent, else this server."""
        by_agent = self._customs.agent_modes
        return principal.mode or by_agent.get(agent.name) or by_agent.get(agent.id) or self._customs.mode

    async def ask(self, backend: Backend, agent: Agent, turn: Turn, left: frozenset[str]) -> Ask:
        """A turn, ready to be placed. Raises InvalidRequest for results of calls nobody made to this caller, and for a
        question that has come round; ConversationNotFound for a conversation which is not theirs."""
        if self._ids.mark(agent.backend, agent.id) in turn.signals.trace:
            raise InvalidRequest("This question has come to this agent before, through others.", code="agent_loop")
        scope = scope_of(turn.principal.id, agent)
        answering, calls, head = await self._answering(backend, agent, turn, scope)
        named = self._named(turn, agent)
        shown = sayings(turn.history)
        return Ask(
            turn=turn,
            agent=agent,
            mode=turn.mode,
            scope=scope,
            shown=tuple(shown),
            points=tuple(follow(ROOT, shown)),
            pin="" if named else turn.conversation,
            named=named,
            answering=answering,
            calls=calls,
            head=head,
            unknown_history=self._customs.unknown_history,
            gives_way=self._customs.gives_way,
            request=request_of(turn, agent),
            dedupe=dedupe_of(turn, scope),
            left=left,
        )

    def _named(self, turn: Turn, agent: Agent) -> str:
        if not turn.conversation.startswith(CONVERSATION):
            return ""
        found = self._ids.conversation_of(turn.conversation, turn.principal.id, agent.id) or self._unbound(turn)
        if found is None:
            raise ConversationNotFound(f"There is no conversation {turn.conversation[:80]!r} with this agent.")
        return found

    def _unbound(self, turn: Turn) -> str | None:
        """The conversation a turn names by an id from before it had an agent. Whether it has this one now, placing
        finds out."""
        return self._ids.conversation_of(turn.conversation, turn.principal.id, "")

    async def _answering(
        self, backend: Backend, agent: Agent, turn: Turn, scope: str
    ) -> tuple[str, tuple[Call, ...], str]:
        """The conversation which waits for this turn's tool results, its calls, and where it stands; the calls alone if
        it has had them."""
        results = [item for item in turn.input if isinstance(item, ToolResult)]
        if not results:
            return "", (), ""
        conversation_id = self._ids.conversation_of_call(results[0].call_id)
        found = await self._ledger.standing(conversation_id) if conversation_id else None
        if found is None or found[0].scope not in (scope, "own") or found[0].agent != agent.id:
            raise unknown_call(results[0])
        row, node, stands = found
        kept = codec.reply_of(node.reply if node else "")
        names = {part.call_id: part.name for part in kept.parts if isinstance(part, ToolCall)}
        calls: Sequence[Call] = [
            Call(upstream, names.get(ours, ""), pending=True) for ours, upstream in kept.calls.items()
        ]
        matched = self._matched(turn, agent, row.id, results, calls)
        if matched is None or not stands:  # not the latest, or another turn was tried since: the backend knows
            calls = await backend.calls(agent, Thread(row.thread, own=row.kind == "own")) if row.thread else ()
            matched = self._matched(turn, agent, row.id, results, calls)
        if matched is None:
            foreign = (each for each in results if self._matched(turn, agent, row.id, [each], calls) is None)
            raise unknown_call(next(foreign))
        if not all(call.pending or call.stalled for call in matched):
            return "", (*matched,), ""
        left = [call for call in calls if (call.pending or call.stalled) and call not in matched]
        return row.id, (*matched, *left), row.head

    def _matched(
        self, turn: Turn, agent: Agent, conversation_id: str, results: Sequence[ToolResult], calls: Sequence[Call]
    ) -> list[Call] | None:
        """The call that each result answers; None if one of them answers none of these."""
        known = {call.call_id: call for call in calls}
        whose = (conversation_id, turn.principal.id, agent.id)
        upstream = [self._ids.upstream(result.call_id, known, *whose) for result in results]
        return None if None in upstream else [known[each] for each in upstream if each]

    # --- after ---------------------------------------------------------------------------------------------------

    async def placement(self, ask: Ask, entry: Entry, thread: Thread, system: str, *, seeded: bool) -> Placement:
        """What the agent is to be told in its thread, which was last given the instructions with the fingerprint
        `system`. `seeded`: the thread is new, and holds nothing.

        Raises InvalidRequest if there is nothing to tell.
        """
        turn, parent = ask.turn, entry.spot.parent
        if seeded and entry.spot.answers:  # a new thread holds no calls
            entry = replace(entry, spot=replace(entry.spot, answers=False))
        if not entry.spot.answers and any(isinstance(each, ToolResult) and decides(each) for each in turn.input):
            raise InvalidRequest(
                "These calls wait for no approval any more.", param="approvals", code="approval_not_pending"
            )
        if seeded and parent and not turn.history:  # what went before, for a client that says only what is new
            past = await self._ledger.told(parent.id, entry.conversation.struck)
            turn, entry = replace(turn, history=past), replace(entry, spot=replace(entry.spot, known=len(past)))
        calls = ask.calls if ask.answering else (*ask.calls, *beside(ask.calls, parent))
        deliver = self._news(turn, calls, entry, thread, seeded=seeded)
        instructions, overlay = turn.instructions, ""
        if turn.system_prompt in ("override", "block"):
            instructions, overlay = "", instructions
        elif fingerprint(instructions) == system:
            instructions = ""
        closing = CONTINUE if ask.turn.history and not turn.input else ANSWER if entry.spot.again else ""
        if overlay and not deliver and not closing:  # an agent answers messages
            instructions, overlay = overlay, ""
        if not deliver and not instructions and not closing:
            where = turn.options.name("input")
            raise InvalidRequest("There is nothing new for the agent: end with a user message.", param=where)
        told = await self._attach(deliver)
        return Placement(ask.agent, thread, entry.spot.identity, told, instructions, closing, overlay)

    def _news(
        self, turn: Turn, calls: Sequence[Call], entry: Entry, thread: Thread, *, seeded: bool
    ) -> tuple[Item, ...]:
        if entry.spot.answers:
            return answers(turn, calls)
        if thread.own:
            return tuple(item for item in entry.spot.owed + turn.input if isinstance(item, Message))
        spot = entry.spot
        before = turn.history[: spot.known] if seeded else ()
        new = () if spot.again else (turn.history[spot.known :] + turn.input)[spot.repeats :]
        return with_calls(before + spot.owed + new, turn.history)


def with_calls(told: Sequence[Item], history: Sequence[Item]) -> tuple[Item, ...]:
    """The same with the call before each result that comes without it, for an agent that has given the call up.

    A result whose call nobody knows says nothing, and is left out.
    """
    told_calls = {item.call_id for item in told if isinstance(item, ToolCall)}
    known = {item.call_id: item for item in history if isinstance(item, ToolCall)}
    whole: list[Item] = []
    for item in told:
        if isinstance(item, ToolResult) and item.call_id not in told_calls:
            if item.call_id not in known:
                continue
            whole.append(known[item.call_id])
        whole.append(item)
    return tuple(whole)


def beside(calls: Sequence[Call], node: Node | None) -> list[Call]:
    """The other calls that were made in the same turn."""
    known = {call.call_id for call in calls}
    made = codec.reply_of(node.reply).calls.values() if node else ()
    return [Call(upstream, "", pending=True) for upstream in made if upstream not in known]


def answers(turn: Turn, calls: Sequence[Call]) -> tuple[Item, ...]:
    """The turn's input with the backend's call ids, and an answer for each call the client left out."""
    upstream = iter(calls)
    told: list[Item] = [
        replace(item, call_id=next(upstream).call_id) if isinstance(item, ToolResult) else item for item in turn.input
    ]
    missing = [unanswered(call.call_id) for call in upstream]
    return (*missing, *told)


def decides(result: ToolResult) -> bool:
    """Whether it lets the agent run its own tool, or not."""
    return result.approved is not None


def alone(turn: Turn, asked: Mode) -> Turn:
    """A stranger's turn, which stands for itself: it goes on with nothing but tool calls whose ids the caller has, and
    equals no other stranger's. Raises Unauthenticated for what would have to be kept, or is shared by many."""
    if turn.after or turn.background or asked == "single" or turn.conversation.startswith(CONVERSATION):
        raise nothing_kept()
    kept = Signals(task=turn.signals.task, trace=turn.signals.trace)
    return replace(turn, mode="stateless", conversation="", receipt=None, signals=kept)


def scope_of(principal: str, agent: Agent) -> str:
    """Whose conversations, with which agent: what is found never belongs to anybody else."""
    return digest("scope", principal, agent.backend, agent.id)


def request_of(turn: Turn, agent: Agent) -> str:
    signals = turn.signals
    return digest(signals.digest, agent.id, turn.conversation, turn.mode) if signals.digest else ""


def dedupe_of(turn: Turn, scope: str) -> str:
    """What may be there only once: an idempotency key, or a client's id for an answer to this very request."""
    signals = turn.signals
    if signals.key:
        return keyed(turn.principal.id, signals.key)
    return digest("message", scope, signals.message, signals.digest) if signals.message and signals.digest else ""


def keyed(principal: str, key: str) -> str:
    """What a caller's idempotency key is noted as."""
    return digest("key", principal, key)


def unknown_call(result: ToolResult) -> InvalidRequest:
    return InvalidRequest(
        f"No tool call {result.call_id[:80]!r} was made to you by this agent.", param=result.param, code="invalid_value"
    )
