"""The ledger: every turn has a row before its agent hears of it, and its outcome after.

    claimed ──► submitted ──► streaming ──► (settling) ──► completed
       │            │             ├────────► cancelled       its client left; what the agent never heard is owed
       │            │             └────────► failed_after    something of it may be in the conversation
       └────────────┴──────────────────────► failed_before   nothing is

    noted                                                     put there without a model call; the next turn tells it

A live row is the lease of its conversation: the oldest holds it, the others stand in line behind it. It is given up
when the row ends, or when the process at work on it is found dead (see `owners`).
"""

import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
from sqlalchemy.exc import IntegrityError

from frontdesk.conversations.lineage import ROOT, Point, is_plain, reply_point, sayings
from frontdesk.conversations.placing import Ask, Spot, spot
from frontdesk.conversations.placing.notes import kept_input, place, struck_places
from frontdesk.conversations.placing.own_thread import own_conversation
from frontdesk.conversations.placing.standing import busy
from frontdesk.conversations.placing.transcript import base_of
from frontdesk.errors import ConversationBusy, GatewayError, IdempotencyConflict
from frontdesk.store import codec, records
from frontdesk.store.codec import Saved
from frontdesk.store.database import Database
from frontdesk.store.records import Conversation, Node
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Batch, Identity, Item, Message, Part, Text, ToolCall

MAX_LINE = 50
LONG = 200
"""Items of a transcript whose place takes more than a moment to find."""

DAY = 24 * 3600.0
REPLAY_SECONDS = 600.0
"""How long an answer is given again to an equal request without a key, if its client hung up before it was whole."""

RETRY_SECONDS = 60.0
"""The same if it did not, but says that it sends the request again: the answer was lost on the way."""

Ended = Literal["cancelled", "failed_before", "failed_after"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A turn's row. `conversation.thread` is empty until the backend's side of it has been made."""

    turn_id: str
    conversation: Conversation
    spot: Spot
    base: Point | None  # None: nobody can tell
    fresh: tuple[Item, ...]  # what is told after `base`
    told: tuple[Item, ...]  # what it adds to the turns before it, beside the reply
    waits: bool = False
    plain: bool = True  # the thread holds nothing but text before it

    def plain_with(self, reply: Sequence[Part]) -> bool:
        """Whether it holds nothing but text after it, too."""
        return self.plain and is_plain((*self.told, *reply))

    @property
    def remembered(self) -> bool:
        """Whether a later request may find this conversation by what was said in it."""
        return self.conversation.kind in ("chat", "temporary")


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same request has been made before: its turn runs, or is completed."""

    node: Node


@dataclass(frozen=True, slots=True)
class Doubt:
    """The same request runs in another process. If that is alive, this one is another, which happens to be equal."""

    node: Node


Claim = Entry | Repeat | Doubt


class NotInLine(GatewayError):
    """Its conversation is gone, or its row was taken over: it is to be entered anew."""


class Ledger:
    """The ledger as one process keeps it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.owner = uuid.uuid4().hex
        self.mine: set[str] = set()  # the turns this process is at work on

    # --- the beginning -------------------------------------------------------------------------------------------

    async def claim(self, ask: Ask) -> Claim:
        """Enter a turn, unless it is there already.

        Raises IdempotencyConflict, ConversationBusy, ConversationNotFound, InvalidRequest, StoreUnavailable.
        """
        self.mine.add(ask.turn.id)  # before it is written: whoever looks for rows without a turn must not take it
        try:
            claim = await self._claim(ask)
        except BaseException:
            self.mine.discard(ask.turn.id)
            raise
        if not isinstance(claim, Entry):
            self.mine.discard(ask.turn.id)
        return claim

    async def _claim(self, ask: Ask) -> Claim:
        def enter(tx: Transaction) -> Claim:
            claim = earlier(tx, ask, self.owner) or self._enter(tx, ask, spot(tx, ask), None)
            if ask.turn.receipt is not None:
                answered_by = claim.turn_id if isinstance(claim, Entry) else claim.node.id
                body = codec.dumped(dict(ask.turn.receipt))
                records.put_receipt(tx, ask.turn.id, ask.turn.principal.id, answered_by, body)
            return claim

        long = len(ask.turn.history) > LONG
        try:
            return await self._database.do(enter, long=long)
        except IntegrityError:  # another request made the same pin, or used the same key, in the same moment
            return await self._database.do(enter, long=long)

    async def advance(self, ask: Ask, entry: Entry) -> Entry:
        """Enter it anew if it is the first in line: those before it have changed where it belongs."""

        def is_first(tx: Transaction) -> bool:
            place = records.place_in_line(tx, entry.turn_id)
            if place is None:
                raise NotInLine("This turn is not in line any more.")
            row = records.conversation(tx, place[0])
            return row is None or not busy(tx, row, entry.turn_id)

        def go_on(tx: Transaction) -> Entry:
            if records.place_in_line(tx, entry.turn_id) is None:
                raise NotInLine("This turn is not in line any more.")
            return self._enter(tx, ask, spot(tx, ask, entry.turn_id), entry)

        if not await self._database.read(is_first):
            return entry
        try:
            return await self._database.do(go_on)
        except IntegrityError:  # another has made the same pin in this moment
            return await self._database.do(go_on)

    def _enter(self, tx: Transaction, ask: Ask, found: Spot, entry: Entry | None) -> Entry:
        now = time.time()
        if found.waits and entry is None:
            refuse_long_line(tx, found)
        row = self._conversation(tx, ask, found, now)
        if row.thread and not (row.holds or found.waits):  # an earlier turn made a thread for its past, and failed
            row = records.drop_thread(tx, row)
        base, fresh, told = beginning(ask, found)
        plain = found.parent.plain if found.parent and (found.appends or found.fork) else True
        values: dict[str, Any] = {
            "conversation": row.id,
            "parent": found.parent.id if found.parent else "",
            "state": "claimed" if found.waits else "submitted",
            "base": base_text(base) if base and row.kind in ("chat", "temporary") and fresh == told else "",
            "plain": plain,
            "input": codec.items_text(told),
            "error": "",
            "trouble": "",
            "ended": 0.0,
        }
        if entry:
            records.change_turn(tx, entry.turn_id, **values)
        else:
            first = {
                "id": ask.turn.id,
                "scope": ask.scope,
                "owner": self.owner,
                "left": False,
                "dedupe": ask.dedupe or None,
                "request": ask.request,
                "message": ask.turn.signals.message,
                "after": None,
                "spoken": None,
                "pair": None,
                "reply": "",
                "run": "",
                "created": now,
            }
            records.add_turn(tx, **first, **values)
        return Entry(ask.turn.id, row, found, base, fresh, told, found.waits, plain)

    def _conversation(self, tx: Transaction, ask: Ask, found: Spot, now: float) -> Conversation:
        row = found.conversation
        if row is None:
            row = new_conversation(ask, found)
            records.add_conversation(tx, row)
        else:
            pin = ask.pin or row.pin
            records.change_conversation(tx, row.id, used=now, pin=pin)
            row = replace(row, used=now, pin=pin)
        if ask.pin and row.kind in ("chat", "temporary"):
            if records.pinned(tx, ask.scope, ask.pin):
                records.move_pin(tx, ask.scope, ask.pin, row.id)
            else:
                records.add_pin(tx, ask.scope, ask.pin, row.id, row.family)
        return row

    # --- on the way ----------------------------------------------------------------------------------------------

    async def opened(self, entry: Entry, thread: str, head: str, system: str) -> None:
        """The backend's side of a conversation has been made; it stands after the turn `head`."""
        if entry.conversation.head and not head:  # it had one before: the conversation stands where it stood
            head, system = entry.conversation.head, records.EMPTY
        values = {"thread": thread, "head": head, "system": system}
        await self._database.do(lambda tx: records.change_conversation(tx, entry.conversation.id, **values))

    async def streaming(self, turn_id: str, run: str) -> None:
        await self._database.do(lambda tx: records.note_run(tx, turn_id, run))

    async def left(self, turn_id: str, left: bool) -> None:
        """Note whether the client of a turn is there to hear it."""
        await self._database.do(lambda tx: records.change_turn(tx, turn_id, left=left))

    # --- the end -------------------------------------------------------------------------------------------------

    async def complete(
        self, entry: Entry, reply: Saved, *, left: bool, system: str, settles: bool = False, events: str = ""
    ) -> None:
        """The reply is whole, and in the conversation. If the turn `settles`, it holds that until `settled`. `events`:
        as it was said, where it is to be heard so again."""
        state = "settling" if settles else "completed"

        def complete(tx: Transaction) -> None:
            completed(tx, entry, reply, state, left, system)
            if events:
                records.note_events(tx, entry.turn_id, events)

        await self._database.do(complete)
        if not settles:
            self.mine.discard(entry.turn_id)

    async def settled(self, turn_id: str) -> None:
        await self._database.do(lambda tx: records.change_turn(tx, turn_id, state="completed"))
        self.mine.discard(turn_id)

    def abandon(self, entry: Entry) -> None:
        """We cannot note how the turn ended. It is found out later, as for one of a process that died."""
        self.mine.discard(entry.turn_id)

    async def end(
        self,
        entry: Entry,
        state: Ended,
        code: str = "",
        trouble: str = "",
        *,
        kept: bool = False,
        rest: Sequence[Item] = (),
        said: Sequence[Part] = (),
        events: str = "",
    ) -> None:
        """The turn came to no reply but what was `said` of it. `code` and `trouble` say why.

        `kept`: something of it may be in the conversation, but for the `rest`.
        """

        def ended(tx: Transaction) -> None:
            reply = codec.reply_text(Saved(tuple(said))) if said else ""
            values: dict[str, Any] = {"state": state, "error": code, "trouble": trouble, "reply": reply}
            values |= {"ended": time.time(), "dedupe": None}
            row = records.conversation(tx, entry.conversation.id)
            if kept:
                records.change_conversation(tx, entry.conversation.id, head=entry.turn_id)
                if row and row.thread and not row.holds:
                    records.change_conversation(tx, row.id, system="")
            elif row and row.thread and entry.spot.identity is not Identity.RESPONSE:
                values["parent"] = row.head  # others may have come before it since it was entered
            records.change_turn(tx, entry.turn_id, **values)
            if events:
                records.note_events(tx, entry.turn_id, events)
            if kept and rest:
                node = records.turn(tx, entry.turn_id)
                assert node is not None
                again = {name: getattr(node, name) for name in Node.__slots__ if name != "seq"}
                again |= {"id": f"{node.id}-rest", "parent": node.id, "input": codec.items_text(rest)}
                records.add_turn(tx, **again)

        await self._database.do(ended)
        self.mine.discard(entry.turn_id)

    async def forget(self, turn_id: str) -> None:
        """A turn without a conversation."""
        await self._database.do(lambda tx: records.change_turn(tx, turn_id, state="failed_before", ended=time.time()))

    # --- snapshots -----------------------------------------------------------------------------------------------

    async def resting(self, conversation_id: str, head: str) -> Conversation | None:
        """The conversation, if it still stands there and no turn is in it. It has now been of use."""

        def look(tx: Transaction) -> Conversation | None:
            row = records.conversation(tx, conversation_id)
            if row is None or row.head != head or records.live_in(tx, row.id):
                return None
            records.change_conversation(tx, row.id, used=time.time())
            return row

        return await self._database.do(look)

    async def add_snapshot(self, entry: Entry, thread: str, keep: int) -> list[Conversation] | None:
        """Keep a fork of a conversation as it stands after this turn, which settles. Gives those which are one too many
        now, None if the conversation has gone on all the same."""

        def add(tx: Transaction) -> list[Conversation] | None:
            row = records.conversation(tx, entry.conversation.id)
            if row is None or row.head != entry.turn_id:
                return None
            now = time.time()
            copy = replace(row, id=uuid.uuid4().hex, kind="snapshot", thread=thread, pin="", created=now, used=now)
            records.add_conversation(tx, copy)
            old = records.snapshots_of(tx, row.family)[keep:]
            return [each for each in old if records.doom(tx, each.id)]

        return await self._database.do(add)

    async def withdraw(self, entry: Entry) -> None:
        """The turn was entered in the wrong place, and will be in another."""
        await self._database.do(lambda tx: records.remove_turn(tx, entry.turn_id))

    async def renew(self, ask: Ask, entry: Entry) -> Entry:
        """The backend's side of a conversation is gone: the turn is entered anew, and the conversation has another made
        of what is known here."""

        def renew(tx: Transaction) -> Entry:
            if row := records.conversation(tx, entry.conversation.id, lock=True):
                records.drop_thread(tx, row)
            return self._enter(tx, ask, spot(tx, ask, entry.turn_id), entry)

        return await self._database.do(renew)

    async def lose(self, entry: Entry) -> None:
        """The backend's side of a conversation is gone, and so is the conversation."""
        await self._database.do(lambda tx: records.doom(tx, entry.conversation.id))
        await self.bury(entry.conversation.id)
        self.mine.discard(entry.turn_id)

    async def bury(self, conversation_id: str) -> None:
        await self._database.do(lambda tx: records.bury(tx, conversation_id), long=True)

    # --- receipts ------------------------------------------------------------------------------------------------

    async def unwant(self, turn_id: str) -> None:
        """Have a turn cancelled by the process that runs it."""
        await self._database.do(lambda tx: records.unwant(tx, turn_id))

    # --- reading -------------------------------------------------------------------------------------------------

    async def told(self, turn_id: str, struck: str = "") -> tuple[Item, ...]:
        """The transcript up to and with a turn, oldest first, but for what was taken back, and for what was put there
        since the last turn: that is owed."""
        nodes = await self._database.read(lambda tx: records.path(tx, turn_id), long=True)
        while nodes and nodes[-1].noted:
            nodes.pop()
        return tuple(item for node in nodes for item in transcript_of(node, struck))

    async def events(self, turn_id: str) -> tuple[Batch, ...]:
        """A turn as it was said, batch by batch, where that was kept."""
        return codec.events_of(await self._database.read(lambda tx: records.events_of(tx, turn_id)))

    async def node(self, turn_id: str) -> Node | None:
        return await self._database.read(lambda tx: records.turn(tx, turn_id))

    async def noted(self, dedupe: str) -> Node | None:
        """The turn of what may be there only once."""
        return await self._database.read(lambda tx: records.by_dedupe(tx, dedupe))

    def reply(self, node: Node) -> Saved:
        return codec.reply_of(node.reply)

    async def conversation(self, conversation_id: str) -> Conversation | None:
        return await self._database.read(lambda tx: records.conversation(tx, conversation_id))

    async def standing(self, conversation_id: str) -> tuple[Conversation, Node | None, bool] | None:
        """A conversation, the turn after which it stands, and whether nothing has been tried there since."""

        def look(tx: Transaction) -> tuple[Conversation, Node | None, bool] | None:
            row = records.conversation(tx, conversation_id)
            if row is None or not row.usable:
                return None
            node = records.turn(tx, row.head) if row.head else None
            return row, node, node is not None and not records.tried_after(tx, node, row.id)

        return await self._database.read(look)


def transcript_of(node: Node, struck: str) -> list[Item]:
    """What a turn adds to a transcript: what it was told, and the text and the calls of its reply."""
    places = struck_places(struck)
    said = [
        part
        for index, part in enumerate(codec.reply_of(node.reply).parts)
        if isinstance(part, Message | ToolCall) and place(node, "o", index) not in places
    ]
    return [*kept_input(node, struck), *said]


def refuse_long_line(tx: Transaction, found: Spot) -> None:
    if found.conversation and len(records.live_in(tx, found.conversation.id)) > MAX_LINE:
        raise ConversationBusy("Too many turns wait for this conversation already.", retry_after_seconds=2)


def earlier(tx: Transaction, ask: Ask, owner: str) -> Repeat | Doubt | None:
    """The turn of an equal request, if this one is the same come again.

    Without a key that says so, two equal requests are two, unless the client of the first has not had its answer.
    Raises IdempotencyConflict for a key that was used for another request.
    """
    now = time.time()
    if ask.dedupe and (node := records.by_dedupe(tx, ask.dedupe)):
        if node.request != ask.request:
            raise IdempotencyConflict("This idempotency key was used for another request. Use a new one.")
        if node.live or (node.state == "completed" and now - node.ended < DAY):
            return Repeat(node)
        records.change_turn(tx, node.id, dedupe=None)
    node_id, doubtful = repeated(tx, ask, owner, now)
    if node_id and (node := records.turn(tx, node_id)):
        return Doubt(node) if doubtful else Repeat(node)
    return None


def repeated(tx: Transaction, ask: Ask, owner: str, now: float) -> tuple[str, bool]:
    """The turn that an equal request repeats, and whether that is in doubt. Of those that are over the last one counts:
    who has heard of that one does not mean an earlier one."""
    retried = ask.turn.signals.retried
    for turn in records.by_request(tx, ask.scope, ask.request) if ask.request else ():
        left = turn.left or turn.id in ask.left
        if turn.live:
            if left or retried:
                return turn.id, False
            if turn.owner != owner and not ask.honest and ask.goes_on:
                return turn.id, True
            continue
        seconds = REPLAY_SECONDS if left else RETRY_SECONDS if retried else 0
        missed = turn.state == "completed" and now - turn.ended < seconds and not records.continued(tx, turn.id)
        return turn.id if missed else "", False
    return "", False


def new_conversation(ask: Ask, found: Spot) -> Conversation:
    agent = (ask.agent.backend, ask.agent.id)
    if found.kind == "own":
        return records.begun("own", "", *agent, id=own_conversation(ask.agent), kind="own", pin=ask.pin)
    kind = "temporary" if found.kind == "chat" and ask.turn.signals.temporary else found.kind
    row = records.begun(ask.scope, ask.turn.principal.id, *agent, family=found.family, kind=kind, pin=ask.pin)
    return replace(row, struck=found.struck)


def beginning(ask: Ask, found: Spot) -> tuple[Point | None, tuple[Item, ...], tuple[Item, ...]]:
    """Where the turn begins, what its client tells since, and what of that the turns before it do not hold."""
    turn = ask.turn
    if found.kind == "own":
        return ROOT, turn.input, turn.input
    told = (turn.history[found.known :] + turn.input)[found.repeats :]
    if not turn.history:
        told = found.missed + told
        return base_before(found.parent), found.notes + told, told
    ends = {point.end: point for point in (ROOT, *(ask.points if turn.input else ask.points[:-1]))}
    base = ends.get(found.known) or ends[max(ends)]  # a reply that is to be gone on with is told again, made longer
    return base, turn.history[base.end :] + turn.input, told


def completed(tx: Transaction, entry: Entry, reply: Saved, state: str, left: bool, system: str) -> None:
    point = end_point(entry.base, entry.fresh, reply.parts) if entry.base and entry.remembered else None
    records.change_turn(
        tx,
        entry.turn_id,
        state=state,
        reply=codec.reply_text(reply),
        left=left,
        after=point.after if point else None,
        spoken=point.spoken if point else None,
        pair=(point.pair or None) if point else None,
        plain=entry.plain_with(reply.parts),
        ended=time.time(),
    )
    records.change_conversation(tx, entry.conversation.id, head=entry.turn_id, system=system, used=time.time())


def end_point(base: Point, told: Sequence[Item], parts: Sequence[Part]) -> Point | None:
    """Where the conversation stands after the reply, as its client will tell it; None if that will tell of no reply."""
    if not any(isinstance(part, Message | ToolCall) and (isinstance(part, ToolCall) or part.text) for part in parts):
        return None
    match list(told):
        case [*before, Message("assistant") as last]:  # it went on with its last reply
            text = last.text + "".join(part.text for part in parts if isinstance(part, Message))
            calls = [part for part in parts if isinstance(part, ToolCall)]
            return reply_point(base, (*before, Message("assistant", (Text(text),)), *calls))
        case _:
            return reply_point(base, (*told, *parts))


def base_text(base: Point) -> str:
    return msgspec.json.encode([base.after, base.spoken, base.said]).decode()


def base_from(text: str) -> Point | None:
    if not text:
        return None
    after, spoken, said = msgspec.json.decode(text)
    return Point(0, after, spoken, "", said)


def base_before(node: Node | None) -> Point | None:
    """The point after a turn; if it was only put there, the one before all that was."""
    return base_from(node.base) if node and node.noted else base_of(node)


def note(tx: Transaction, row: Conversation, items: Sequence[Item]) -> Conversation:
    """Put something into a conversation without a model call: its agent is told with the next turn."""
    parent = records.turn(tx, row.head) if row.head else None
    before = records.notes_to(tx, parent)
    base, now = base_before(parent), time.time()
    told = [item for each in before for item in kept_input(each, row.struck)] + list(items)
    spoke = [saying.role for saying in sayings(told)][-1:] == ["assistant"]
    point = reply_point(base, told) if base and spoke else None
    turn_id = f"turn_{int(now * 1000):011x}{secrets.token_hex(8)}"
    records.add_turn(
        tx,
        id=turn_id,
        scope=row.scope,
        conversation=row.id,
        parent=row.head,
        state="noted",
        owner="",
        left=False,
        dedupe=None,
        request="",
        message="",
        after=point.after if point else None,
        spoken=point.spoken if point else None,
        pair=(point.pair or None) if point else None,
        base=base_text(base) if base else "",
        plain=parent.plain if parent else True,
        input=codec.items_text(items),
        reply="",
        run="",
        error="",
        trouble="",
        created=now,
        ended=now,
    )
    records.change_conversation(tx, row.id, head=turn_id, used=now)
    return replace(row, head=turn_id, used=now)
