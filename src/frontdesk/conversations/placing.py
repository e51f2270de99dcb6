"""Placing a request: which conversation it belongs to, and where in it.

In this order: the tool calls it answers; the turn it says it comes after; the name it gives (a pin); what was said
before (lineage); else it is new.
What decides is the transcript, compared with the replies we produced: a request goes on where a conversation stands, or
branches off where it once stood. All of it runs within one transaction of the store, and calls nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from frontdesk.conversations.lineage import ROOT, Point, Saying, agrees, digest, is_tail, sayings, side
from frontdesk.errors import ConversationNotFound, InvalidRequest, PreviousNotFound
from frontdesk.scopes import nothing_kept
from frontdesk.store import codec, records
from frontdesk.store.records import Conversation, InLine, Node
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Agent, Call, Identity, Item, Message, Mode, Part, StopReason, Turn

UnknownHistory = Literal["seed", "stateless", "reject"]

COMPARED = 5
"""How many conversations are read to see whether a client shows them with its users' words changed."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A turn, and all that the store is asked about it."""

    turn: Turn
    agent: Agent
    mode: Mode
    scope: str
    shown: tuple[Saying, ...]  # the history, as the client tells it
    points: tuple[Point, ...]
    pin: str = ""  # the caller's own name for a conversation
    named: str = ""  # the conversation which an id of ours names
    answering: str = ""  # the conversation whose tool calls are answered
    calls: tuple[Call, ...] = ()  # those calls, and others that wait beside them
    head: str = ""  # where that conversation stood when they did
    unknown_history: UnknownHistory = "seed"
    gives_way: bool = True  # a turn without its client is cut short for a new one
    request: str = ""
    dedupe: str = ""
    left: frozenset[str] = frozenset()  # turns of this process whose client has just gone
    honest: bool = False  # known to be no repetition, for the client of the equal turn is still there

    @property
    def goes_on(self) -> bool:
        """Whether it says where it belongs, so that an equal one is hardly another chat's."""
        return bool(self.turn.history or self.pin or self.named or self.turn.after)


@dataclass(frozen=True, slots=True)
class Fork:
    """A thread to be branched from: at its end, where it must stand after `head` still, or after the message `at`."""

    conversation: str
    thread: str
    head: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a turn belongs. Without `conversation` it is to have a new one, made as `fork` says or by seeding."""

    identity: Identity
    conversation: Conversation | None = None
    parent: Node | None = None
    known: int = 0  # how much of the history the turns up to `parent` account for
    waits: bool = False
    fork: Fork | None = None
    family: str = ""
    kind: str = "chat"
    answers: bool = False  # it goes on with the results of calls that wait there
    again: bool = False  # the agent has this message, but failed before it answered
    owed: tuple[Item, ...] = ()  # what the agent never heard: `notes`, and what was said in cancelled turns
    notes: tuple[Item, ...] = ()  # what was put into the conversation since its last turn
    missed: tuple[Item, ...] = ()  # what the agent never heard of the turn it comes after: now told with this one
    repeats: int = 0  # how many of these the client tells, too, next after what is known
    struck: str = ""  # of a branch: what was taken back where it comes from

    @property
    def appends(self) -> bool:
        return self.conversation is not None


def own_conversation(agent: Agent) -> str:
    """The one conversation of an agent's own thread, whoever speaks there."""
    return digest("own", agent.backend, agent.id)


def spot(tx: Transaction, ask: Ask, mine: str = "") -> Spot:
    """Where a turn belongs. `mine` is the turn itself, where it stands in line already.

    Raises ConversationNotFound, and InvalidRequest where unknown histories are refused.
    """
    last = came_before(tx, ask) if ask.turn.after else None
    if ask.answering and (found := answering(tx, ask, mine)):
        check_answering(tx, ask, found, last)
        return found
    if in_own_thread(tx, ask, last):
        return own(tx, ask, mine)
    if last:
        return after(tx, ask, mine, last)
    if ask.mode == "stateless" or (ask.mode == "pinned_only" and not (ask.pin or ask.named)):
        return Spot(Identity.STATELESS, kind="stateless")
    if ask.named or ask.pin:
        return in_pin(tx, ask, mine)
    return by_lineage(tx, ask, mine) or unknown(ask)


def unknown(ask: Ask) -> Spot:
    """Nobody knows what is told: it is a beginning, or a history from elsewhere."""
    if not ask.turn.history:
        return Spot(Identity.NEW)
    match ask.unknown_history:
        case "seed":
            return Spot(Identity.SEEDED)
        case "stateless":
            return Spot(Identity.STATELESS, kind="stateless")
        case "reject":
            raise InvalidRequest(
                "This history was not written here, and this server takes up no others. Begin a new chat.",
                param=ask.turn.options.name("input"),
                code="unknown_history",
            )


def where_it_stands(tx: Transaction, ask: Ask, row: Conversation, mine: str) -> Spot:
    """At the end of a conversation, which holds all of the history that is told."""
    parent = records.turn(tx, row.head) if row.head else None
    kind = "own" if row.kind == "own" else "chat"
    found = Spot(Identity.LINEAGE, row, parent, len(ask.turn.history), busy(tx, row, mine), kind=kind)
    return with_notes(tx, ask, found, row.struck)


# --- by tool calls -------------------------------------------------------------------------------------------------


def answering(tx: Transaction, ask: Ask, mine: str) -> Spot | None:
    row = records.conversation(tx, ask.answering, lock=True)
    if row is None or not row.usable or (row.scope != ask.scope and row.kind != "own") or row.head != ask.head:
        return None  # others have answered them meanwhile
    return replace(where_it_stands(tx, ask, row, mine), answers=True)


def check_answering(tx: Transaction, ask: Ask, found: Spot, last: Node | None) -> None:
    """Raises InvalidRequest if the calls were made elsewhere than where the turn says that it goes on."""
    if last and last.conversation != ask.answering:
        raise InvalidRequest("These tool calls were not made in that response.", param="previous_response_id")
    named = records.conversation(tx, ask.named) if ask.named else None
    if named and found.conversation and named.family != found.conversation.family:
        raise InvalidRequest("These tool calls were not made in that conversation.", param="conversation")


# --- after a turn that is named ------------------------------------------------------------------------------------


def came_before(tx: Transaction, ask: Ask) -> Node:
    """The turn which this one comes after. Raises PreviousNotFound if the caller never had it from this agent."""
    receipt = records.receipt(tx, ask.turn.after)
    node = records.turn(tx, receipt.turn) if receipt and receipt.principal == ask.turn.principal.id else None
    if node is None or node.scope != ask.scope:
        raise PreviousNotFound(
            "There is no such response of this agent's to go on after.", param="previous_response_id"
        )
    return node


def after(tx: Transaction, ask: Ask, mine: str, last: Node) -> Spot:
    """Where the conversation stands that this turn brought on, or a branch from there if it has gone on since."""
    home = records.conversation(tx, last.conversation, lock=True)
    node = answered(tx, last)
    if home and home.usable and (last.live or rests_at(tx, ask, home, mine, (last.id, node.id if node else ""))):
        found = where_it_stands(tx, ask, home, mine)
        if last.live:
            found = replace(found, parent=last)
    elif node:
        found = at(tx, ask, mine, [node], 0, "", last.conversation)
    else:
        found = Spot(Identity.NEW, family=home.family if home else "")
    lost = missed(tx, last, found.conversation)
    return replace(found, identity=Identity.RESPONSE, owed=(*found.notes, *lost), missed=lost)


def rests_at(tx: Transaction, ask: Ask, row: Conversation, mine: str, heads: tuple[str, str]) -> bool:
    """Whether a conversation stands there and, unless its last client has gone, nobody is at work in it."""
    return row.head in heads and (not others(tx, row, mine) or (ask.gives_way and all_left(tx, ask, row, mine)))


def missed(tx: Transaction, last: Node, row: Conversation | None) -> tuple[Item, ...]:
    """What a turn that came to no answer was told, and said, and is not in the conversation."""
    if last.live or last.stands:
        return ()
    if row and row.head == last.id:  # all but the rest of it is in the conversation
        rest = records.turn(tx, f"{last.id}-rest")
        return codec.items_of(rest.input) if rest else ()
    return telling(last)


def answered(tx: Transaction, node: Node | None) -> Node | None:
    """The turn, or the latest before it, after which a conversation may stand."""
    while node and not node.stands:
        node = records.turn(tx, node.parent) if node.parent else None
    return node


# --- one thread for all --------------------------------------------------------------------------------------------


def in_own_thread(tx: Transaction, ask: Ask, last: Node | None) -> bool:
    if ask.mode == "single" or not (ask.agent.conversations or ask.agent.bridged):
        return True
    return ask.agent.bridged and not ask.turn.tools and not beside_it(tx, ask, last)


def beside_it(tx: Transaction, ask: Ask, last: Node | None) -> bool:
    """Whether a turn goes on with a conversation, where most turns go to the agent's one thread."""
    if last:
        return last.conversation != own_conversation(ask.agent)
    if ask.named:
        return ask.named != own_conversation(ask.agent)
    if ask.pin and records.pinned(tx, ask.scope, ask.pin):
        return True
    return by_lineage(tx, ask, "") is not None


def own(tx: Transaction, ask: Ask, mine: str) -> Spot:
    """Raises InvalidRequest for a conversation that was made for an agent yet to be named; Unauthenticated for a
    stranger, who would hear there what others have said."""
    if ask.turn.principal.stranger:
        raise nothing_kept()
    if ask.named and (row := records.conversation(tx, ask.named)) and row.unbound:
        raise InvalidRequest(
            f"The agent {ask.agent.name!r} speaks in its one thread here, and in no conversations beside it.",
            param="conversation",
            code="unsupported_value",
        )
    row = records.conversation(tx, own_conversation(ask.agent), lock=True)
    if row is None:
        return Spot(Identity.NEW, kind="own", known=len(ask.turn.history))
    found = where_it_stands(tx, ask, row, mine)
    return with_owed(tx, ask, found, row)


# --- by name -------------------------------------------------------------------------------------------------------


def in_pin(tx: Transaction, ask: Ask, mine: str) -> Spot:
    current, family = named(tx, ask)
    if current is None:
        return first_use(tx, ask, mine)
    if not ask.turn.history:
        if ask.turn.signals.resends:  # the whole chat, and nothing of the agent's in it: it begins anew
            return Spot(Identity.HEADER, family=family)
        row = records.conversation(tx, current, lock=True)
        if row is None or not row.usable:
            return Spot(Identity.HEADER, family=family)
        found = where_it_stands(tx, ask, row, mine)
        last = found.parent
        again = bool(last and last.state == "failed_after" and ask.request and last.request == ask.request)
        return replace(with_owed(tx, ask, found, row), identity=Identity.HEADER, again=again)
    found = by_lineage(tx, ask, mine, family, current) or unused(tx, ask, current, mine)
    return replace(found, identity=Identity.HEADER) if found else beginning_under(ask, family)


def unused(tx: Transaction, ask: Ask, current: str, mine: str) -> Spot | None:
    """A conversation that was made beforehand, and in which nothing has been said but what was put there."""
    row = records.conversation(tx, current, lock=True)
    if row is None or not row.usable:
        return None
    parent = records.turn(tx, row.head) if row.head else None
    notes = records.notes_to(tx, parent)
    if notes[0].parent if notes else parent:
        return None
    return with_notes(tx, ask, Spot(Identity.HEADER, row, parent, waits=busy(tx, row, mine)), row.struck)


def named(tx: Transaction, ask: Ask) -> tuple[str | None, str]:
    """The conversation of the name, and its family. Raises ConversationNotFound for an id that names none."""
    if ask.named:
        row = records.conversation(tx, ask.named)
        if row and row.unbound:
            records.bind(tx, row.id, ask.turn.principal.id, ask.scope, ask.agent.backend, ask.agent.id)
            row = records.conversation(tx, ask.named)
        if row is None or (row.scope != ask.scope and row.kind != "own") or not row.usable:
            raise ConversationNotFound(f"There is no conversation {ask.turn.conversation[:80]!r} with this agent.")
        return row.id, row.family
    known = records.pinned(tx, ask.scope, ask.pin)
    return known if known else (None, "")


def first_use(tx: Transaction, ask: Ask, mine: str) -> Spot:
    """A chat may get its name only when it has begun: then it goes on where it stands."""
    found = by_lineage(tx, ask, mine)
    return replace(found, identity=Identity.HEADER) if found else beginning_under(ask)


def beginning_under(ask: Ask, family: str = "") -> Spot:
    """A conversation that is new under its name."""
    found = unknown(ask)
    return found if found.kind == "stateless" else replace(found, identity=Identity.HEADER, family=family)


def busy(tx: Transaction, row: Conversation, mine: str) -> bool:
    """Whether others are before us in this conversation: who runs there, and who came earlier."""
    line = records.live_in(tx, row.id)
    ours = next((turn.seq for turn in line if turn.id == mine), None)
    return any(turn.id != mine and (turn.state != "claimed" or ours is None or turn.seq < ours) for turn in line)


def with_owed(tx: Transaction, ask: Ask, found: Spot, row: Conversation) -> Spot:
    """With all that the agent never heard, in its order: what was put into the conversation, and what was cancelled."""
    notes = records.notes_to(tx, found.parent)
    missed = dropped(tx, ask, row, notes[0].parent if notes else row.head)
    told = list(missed)
    for note in notes:
        lost = dropped(tx, ask, row, note.id)
        told += [*kept_input(note, row.struck), *lost]
        missed += lost
    return replace(found, owed=tuple(told), missed=tuple(missed))


def dropped(tx: Transaction, ask: Ask, row: Conversation, head: str) -> list[Item]:
    """What was asked there, cancelled, and what the client saw of the answer; but not what is being asked again just
    now."""
    told: list[tuple[Item, ...]] = []
    for turn in records.dropped_in(tx, row.id, head):
        if turn.request and turn.request == ask.request:
            continue
        given = codec.items_of(turn.input)
        told = [
            each for each in told if len(given) <= len(each) or given[: len(each)] != each
        ]  # it was to tell that too
        told.append(telling(turn))
    return [item for each in told for item in each]


def telling(turn: Node) -> tuple[Item, ...]:
    """What a turn that was cut short was told, and what its client saw of the answer."""
    said = [part for part in codec.reply_of(turn.reply).parts if isinstance(part, Message)]
    return (*codec.items_of(turn.input), *said)


# --- what was put there, and taken back ----------------------------------------------------------------------------


def with_notes(tx: Transaction, ask: Ask, found: Spot, struck: str) -> Spot:
    """With what was put there since the last turn. Whoever tells the whole transcript may tell that, too."""
    notes = [item for note in records.notes_to(tx, found.parent) for item in kept_input(note, struck)]
    if not notes:
        return found
    repeats = 0
    if history := ask.turn.history:
        shown = [item for item in notes if side(item) != "system"]
        told = (history[found.known :] + ask.turn.input)[: len(shown)]
        repeats = len(shown) if agrees(sayings(told), sayings(shown)) else 0
    return replace(found, owed=tuple(notes), notes=tuple(notes), repeats=repeats)


def kept_input(node: Node, struck: str) -> list[Item]:
    """What a turn was told, but for what was taken back."""
    places = struck_places(struck)
    return [item for index, item in enumerate(codec.items_of(node.input)) if place(node, "i", index) not in places]


def place(node: Node, side: Literal["i", "o"], index: int) -> str:
    """Of an item in a turn: what it was told (i), what it answered (o)."""
    return f"{node.id}{side}{index}"


def struck_places(struck: str) -> frozenset[str]:
    return frozenset(codec.loaded(struck)) if struck else frozenset()


# --- by what was said ----------------------------------------------------------------------------------------------


def by_lineage(tx: Transaction, ask: Ask, mine: str, family: str = "", current: str = "") -> Spot | None:
    """Where what is told has been said before: in this family, or in any conversation of the caller's."""
    if not ask.points:
        return None
    nodes, known = deepest(tx, ask, family)
    if not nodes:
        nodes, known = forgetful(tx, ask, family), len(ask.turn.history)
    if not nodes:
        return None
    if parent := ask.turn.signals.parent:
        nodes = [node for node in nodes if node.message == parent] or nodes
    return at(tx, ask, mine, nodes, known, family, current)


def deepest(tx: Transaction, ask: Ask, family: str) -> tuple[list[Node], int]:
    """The turns after which most of what is told had been said, and how many items that is."""
    compared = 0
    for point in reversed(ask.points):
        if nodes := within(tx, records.by_after(tx, ask.scope, point.after), family):
            return nodes, point.end
        wrapped: list[Node] = []
        for node in within(tx, records.by_spoken(tx, ask.scope, point.spoken), family):
            if compared == COMPARED:
                break
            compared += 1
            if agrees([saying for saying in ask.shown if saying.end <= point.end], said_up_to(tx, node)):
                wrapped.append(node)
        if wrapped:
            return wrapped, point.end
    return [], 0


def forgetful(tx: Transaction, ask: Ask, family: str) -> list[Node]:
    """The one turn whose conversation ends as the transcript does, for a client that sends only the latest part."""
    if len(ask.points) < 2:
        return []
    nodes = within(tx, records.by_pair(tx, ask.scope, ask.points[-1].pair), family)
    if len(nodes) > COMPARED:
        return []
    nodes = [node for node in nodes if is_tail(ask.shown, said_up_to(tx, node))]
    return nodes if len(nodes) == 1 else []


def said_up_to(tx: Transaction, node: Node) -> list[Saying]:
    """All that was said on the way to a turn, with its reply."""
    told: list[Item | Part] = []
    for turn in records.path(tx, node.id):
        told += [*codec.items_of(turn.input), *codec.reply_of(turn.reply).parts]
    return sayings(told)


def within(tx: Transaction, nodes: list[Node], family: str) -> list[Node]:
    """Those that ended well, of one family if it is given."""
    done = [node for node in nodes if node.stands]
    if not (done and family):
        return done
    families = records.families(tx, [node.conversation for node in done])
    return [node for node in done if families.get(node.conversation) == family]


def at(tx: Transaction, ask: Ask, mine: str, nodes: list[Node], known: int, family: str, current: str) -> Spot:
    """Go on after one of these equal turns, where a conversation stands there; else branch off."""
    by_id = {node.id: node for node in nodes}
    by_id |= {note.id: note for note in records.notes_after(tx, by_id)}  # the thread stands before these
    there = records.standing(tx, list(by_id))
    open_ = [
        row for row in there if row.kind in ("chat", "temporary") and (row.pin in ("", ask.pin) or row.id == current)
    ]
    free = [row for row in open_ if not others(tx, row, mine)]
    ending = [row for row in open_ if row not in free and ask.gives_way and all_left(tx, ask, row, mine)]
    if len(free + ending) > 1:
        # Chats that say the same may be two people's: a branch of its own never meets the other's future.
        free, ending = [row for row in free if row.id == current], []
    for row in (*free, *ending):
        locked = records.conversation(tx, row.id, lock=True)
        if locked and locked.head == row.head:
            waits = row in ending or busy(tx, row, mine)
            return with_notes(tx, ask, Spot(Identity.LINEAGE, locked, by_id[row.head], known, waits), locked.struck)
    node = nodes[0]
    home = records.conversation(tx, node.conversation)
    family = family or (home.family if home else "")
    source = records.conversation(tx, current) if current else home
    struck = source.struck if source else ""
    found = Spot(
        Identity.LINEAGE, None, node, known, fork=fork(tx, node, home, there, mine), family=family, struck=struck
    )
    return found if ask.turn.history else with_notes(tx, ask, found, struck)


def fork(
    tx: Transaction, node: Node, home: Conversation | None, there: Sequence[Conversation], mine: str
) -> Fork | None:
    """What to branch from: a snapshot, a conversation that stands there and rests, or a message of one gone further.

    None where only a seed will do: after tool calls, which a branch cannot have answered a second time.
    """
    end = codec.reply_of(node.reply).end
    if end is None or end.stop_reason is StopReason.TOOL_CALLS:
        return None
    for row in sorted(there, key=lambda row: row.kind != "snapshot"):
        if row.holds and (row.kind == "snapshot" or not others(tx, row, mine)):
            return Fork(row.id, row.thread, row.head)
    if home and home.holds and home.usable and end.mark and not home.struck:
        return Fork(home.id, home.thread, at=end.mark)
    return None


def others(tx: Transaction, row: Conversation, mine: str) -> list[InLine]:
    """Who speaks in a conversation. Whoever has done so, and only keeps it for a moment, is waited for."""
    return [turn for turn in records.live_in(tx, row.id) if turn.id != mine and not turn.answered]


def all_left(tx: Transaction, ask: Ask, row: Conversation, mine: str) -> bool:
    return all(turn.left or turn.id in ask.left for turn in others(tx, row, mine))


def base_of(node: Node | None) -> Point | None:
    """The point after a turn, as the ledger has it; None if that cannot be told, for it was cut short."""
    if node is None:
        return ROOT
    if node.after is None:
        return None
    said = sayings(codec.reply_of(node.reply).parts)
    return Point(0, node.after, node.spoken or "", "", said[-1].digest if said else "")
