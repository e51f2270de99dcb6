"""The rows and the questions asked of them. Plain functions over a connection; each caller's transaction is its own.

Statements are made once: making one costs more than running it.
"""

import math
import time
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    Delete,
    Row,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from frontdesk.store.tables import conversations, owners, pins, receipts, turns
from frontdesk.store.transaction import Transaction

LIVE = ("claimed", "submitted", "streaming", "settling")
"""States of a turn that holds, or waits for, its conversation."""

ANSWERED = ("completed", "settling")
"""States of a turn whose reply is whole."""

STANDING = (*ANSWERED, "noted")
"""States after which a conversation may stand: answered, or put there without asking the agent for anything."""

EMPTY = "empty"
"""In place of a fingerprint, of a thread that was made for a conversation with a past, and holds nothing of it yet."""

FEW = 20


@dataclass(frozen=True, slots=True)
class Conversation:
    id: str
    scope: str
    family: str
    principal: str
    backend: str
    agent: str
    kind: str
    thread: str
    head: str
    system: str
    pin: str
    metadata: str
    created: float
    used: float
    struck: str = ""

    @property
    def usable(self) -> bool:
        """Whether turns may run there."""
        return self.kind not in ("snapshot", "doomed")

    @property
    def holds(self) -> bool:
        """Whether its thread holds what was said in it."""
        return bool(self.thread) and self.system != EMPTY

    @property
    def unbound(self) -> bool:
        """Whether it has no agent yet: it is the one's that speaks there first."""
        return not self.agent


def begun(
    scope: str,
    principal: str,
    backend: str,
    agent: str,
    *,
    id: str = "",
    family: str = "",
    kind: str = "chat",
    pin: str = "",
    metadata: str = "{}",
) -> Conversation:
    """A conversation that has just begun, of a family of its own unless it is given one."""
    id, now = id or uuid.uuid4().hex, time.time()
    return Conversation(
        id=id,
        scope=scope,
        family=family or id,
        principal=principal,
        backend=backend,
        agent=agent,
        kind=kind,
        thread="",
        head="",
        system="",
        pin=pin,
        metadata=metadata,
        created=now,
        used=now,
    )


@dataclass(frozen=True, slots=True)
class Node:
    """A turn, as the point at which a conversation stands after it."""

    seq: int
    id: str
    scope: str
    conversation: str
    parent: str
    state: str
    owner: str
    left: bool
    dedupe: str | None
    request: str
    message: str
    after: str | None
    spoken: str | None
    pair: str | None
    base: str
    plain: bool
    input: str
    reply: str
    run: str
    error: str
    created: float
    ended: float
    trouble: str

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def answered(self) -> bool:
        return self.state in ANSWERED

    @property
    def noted(self) -> bool:
        """Whether it was put there without a model call: the agent is told with the next turn."""
        return self.state == "noted"

    @property
    def stands(self) -> bool:
        return self.state in STANDING


@dataclass(frozen=True, slots=True)
class Receipt:
    """A request that its caller may ask about later, by the id of its turn. `turn` is the one that answers it."""

    id: str
    principal: str
    turn: str
    body: str
    events: str
    unwanted: bool
    created: float


@dataclass(frozen=True, slots=True)
class InLine:
    """A turn that holds its conversation, or stands in line for it."""

    id: str
    seq: int
    state: str
    left: bool

    @property
    def answered(self) -> bool:
        return self.state in ANSWERED


@dataclass(frozen=True, slots=True)
class Equal:
    """A turn of a request that was made before: what is needed to see whether this one repeats it."""

    id: str
    state: str
    left: bool
    owner: str
    ended: float

    @property
    def live(self) -> bool:
        return self.state in LIVE


def _nodes(rows: Iterable[Row[Any]]) -> list[Node]:
    return [Node(*row) for row in rows]


# --- conversations -------------------------------------------------------------------------------------------------

_conversation = select(conversations).where(conversations.c.id == bindparam("id"))
_locked = _conversation.with_for_update()
_standing = select(conversations).where(conversations.c.head.in_(bindparam("heads", expanding=True)))
_families = select(conversations.c.id, conversations.c.family).where(
    conversations.c.id.in_(bindparam("ids", expanding=True))
)
_bind = (
    update(conversations)
    .where(
        conversations.c.id == bindparam("this"),
        conversations.c.agent == "",
        conversations.c.principal == bindparam("whose"),
    )
    .values(scope=bindparam("within"), backend=bindparam("place"), agent=bindparam("with_"))
)
_bind_turns = update(turns).where(turns.c.conversation == bindparam("this")).values(scope=bindparam("within"))
_add_conversation = insert(conversations)
_change_conversation = update(conversations).where(conversations.c.id == bindparam("this"))


def conversation(tx: Transaction, conversation_id: str, *, lock: bool = False) -> Conversation | None:
    """A conversation; with `lock`, nobody else changes it before this transaction ends."""
    row = tx.execute(_locked if lock else _conversation, {"id": conversation_id}).first()
    return Conversation(*row) if row else None


def standing(tx: Transaction, heads: Sequence[str]) -> list[Conversation]:
    """The conversations which stand after one of these turns, and nowhere further on."""
    return [Conversation(*row) for row in tx.execute(_standing, {"heads": heads})]


def families(tx: Transaction, conversation_ids: Iterable[str]) -> dict[str, str]:
    """The family of each of these conversations."""
    return {row[0]: row[1] for row in tx.execute(_families, {"ids": list(set(conversation_ids))})}


def add_conversation(tx: Transaction, row: Conversation) -> None:
    tx.execute(_add_conversation, {name: getattr(row, name) for name in Conversation.__slots__})


def change_conversation(tx: Transaction, conversation_id: str, **values: Any) -> None:
    tx.execute(_change_conversation, {"this": conversation_id} | values)


def bind(tx: Transaction, conversation_id: str, principal: str, scope: str, backend: str, agent: str) -> None:
    """Give a principal's conversation its agent, unless another was first."""
    values = {"this": conversation_id, "whose": principal, "within": scope, "place": backend, "with_": agent}
    if tx.execute(_bind, values).rowcount:
        tx.execute(_bind_turns, {"this": conversation_id, "within": scope})


def drop_thread(tx: Transaction, row: Conversation) -> Conversation:
    """Leave a conversation without its thread, which is to be deleted: its next turn makes another."""
    if row.thread:
        id = uuid.uuid4().hex
        left = replace(row, id=id, family=id, kind="doomed", head=GONE, pin="", metadata="{}", struck="")
        add_conversation(tx, left)
    change_conversation(tx, row.id, thread="", system="")
    return replace(row, thread="", system="")


# --- pins ----------------------------------------------------------------------------------------------------------

_pinned = select(pins.c.conversation, pins.c.family).where(
    pins.c.scope == bindparam("scope"), pins.c.pin == bindparam("pin")
)
_add_pin = insert(pins)
_move_pin = (
    update(pins)
    .where(pins.c.scope == bindparam("whose"), pins.c.pin == bindparam("name"))
    .values(conversation=bindparam("to"))
)


def pinned(tx: Transaction, scope: str, pin: str) -> tuple[str, str] | None:
    """The conversation and the family of a pin."""
    row = tx.execute(_pinned, {"scope": scope, "pin": pin}).first()
    return (row[0], row[1]) if row else None


def add_pin(tx: Transaction, scope: str, pin: str, conversation_id: str, family: str) -> None:
    """Raises IntegrityError if another transaction was first."""
    tx.execute(_add_pin, {"scope": scope, "pin": pin, "conversation": conversation_id, "family": family})


def move_pin(tx: Transaction, scope: str, pin: str, conversation_id: str) -> None:
    tx.execute(_move_pin, {"whose": scope, "name": pin, "to": conversation_id})


# --- turns ---------------------------------------------------------------------------------------------------------

_mine = turns.c.scope == bindparam("scope")
_turn = select(turns).where(turns.c.id == bindparam("id"))
_by_dedupe = select(turns).where(turns.c.dedupe == bindparam("dedupe"))
_by_request = (
    select(turns.c.id, turns.c.state, turns.c.left, turns.c.owner, turns.c.ended)
    .where(_mine, turns.c.request == bindparam("request"))
    .order_by(turns.c.seq.desc())
    .limit(FEW)
)
_by_after = select(turns).where(_mine, turns.c.after == bindparam("chain")).order_by(turns.c.seq.desc()).limit(FEW)
_by_spoken = select(turns).where(_mine, turns.c.spoken == bindparam("chain")).order_by(turns.c.seq.desc()).limit(FEW)
_by_pair = select(turns).where(_mine, turns.c.pair == bindparam("chain")).order_by(turns.c.seq.desc()).limit(FEW)
_line = (
    select(turns.c.id, turns.c.seq, turns.c.state, turns.c.left)
    .where(turns.c.conversation == bindparam("conversation"), turns.c.state.in_(LIVE))
    .order_by(turns.c.seq)
)
_dropped = (
    select(turns)
    .where(
        turns.c.conversation == bindparam("conversation"),
        turns.c.parent == bindparam("head"),
        turns.c.state == "cancelled",
    )
    .order_by(turns.c.seq.desc())
    .limit(FEW)
)
_noted = select(turns).where(turns.c.parent.in_(bindparam("parents", expanding=True)), turns.c.state == "noted")
_note_run = (
    update(turns)
    .where(turns.c.id == bindparam("this"), turns.c.state == "submitted")
    .values(state="streaming", run=bindparam("name"))
)
_tried = (
    select(turns.c.id)
    .where(
        turns.c.conversation == bindparam("conversation"),
        turns.c.seq > bindparam("seq"),
        turns.c.state.in_(("cancelled", "failed_before", "failed_after")),
    )
    .limit(1)
)
_child = select(turns.c.id).where(turns.c.parent == bindparam("parent"), turns.c.state == "completed").limit(1)
_add_turn = insert(turns)
_change_turn = update(turns).where(turns.c.id == bindparam("this"))
_place = select(turns.c.conversation, turns.c.seq).where(turns.c.id == bindparam("id"), turns.c.state == "claimed")


def turn(tx: Transaction, turn_id: str) -> Node | None:
    row = tx.execute(_turn, {"id": turn_id}).first()
    return Node(*row) if row else None


def by_dedupe(tx: Transaction, dedupe: str) -> Node | None:
    row = tx.execute(_by_dedupe, {"dedupe": dedupe}).first()
    return Node(*row) if row else None


def by_request(tx: Transaction, scope: str, request: str) -> list[Equal]:
    """The latest turns of the very same request, newest first."""
    return [Equal(*row) for row in tx.execute(_by_request, {"scope": scope, "request": request})]


def by_after(tx: Transaction, scope: str, chain: str) -> list[Node]:
    """The latest turns after which exactly this had been said, newest first."""
    return _nodes(tx.execute(_by_after, {"scope": scope, "chain": chain}))


def by_spoken(tx: Transaction, scope: str, chain: str) -> list[Node]:
    """The latest turns after which the agent had said exactly this, newest first."""
    return _nodes(tx.execute(_by_spoken, {"scope": scope, "chain": chain}))


def by_pair(tx: Transaction, scope: str, chain: str) -> list[Node]:
    return _nodes(tx.execute(_by_pair, {"scope": scope, "chain": chain}))


def live_in(tx: Transaction, conversation_id: str) -> list[InLine]:
    """The turns that hold a conversation or stand in line for it, in the order in which they came."""
    return [InLine(*row) for row in tx.execute(_line, {"conversation": conversation_id})]


def dropped_in(tx: Transaction, conversation_id: str, head: str) -> list[Node]:
    """Turns that were cancelled since the conversation has stood where it stands: the agent never heard of them."""
    return _nodes(tx.execute(_dropped, {"conversation": conversation_id, "head": head}))[::-1]


def notes_to(tx: Transaction, node: Node | None) -> list[Node]:
    """What was put into a conversation since its last turn, up to and with this, oldest first."""
    found: list[Node] = []
    while node and node.noted:
        found.append(node)
        node = turn(tx, node.parent) if node.parent else None
    return found[::-1]


def notes_after(tx: Transaction, turn_ids: Iterable[str]) -> list[Node]:
    """What was put after one of these turns, before any other turn."""
    found: list[Node] = []
    parents = list(turn_ids)
    while parents and (more := _nodes(tx.execute(_noted, {"parents": parents}))):
        found += more
        parents = [node.id for node in more]
    return found


def continued(tx: Transaction, turn_id: str) -> bool:
    return tx.execute(_child, {"parent": turn_id}).first() is not None


def place_in_line(tx: Transaction, turn_id: str) -> tuple[str, int] | None:
    """The conversation a turn stands in line for, and its `seq`; None if it is not in line any more."""
    row = tx.execute(_place, {"id": turn_id}).first()
    return (row[0], row[1]) if row else None


def tried_after(tx: Transaction, node: Node, conversation_id: str) -> bool:
    """Whether a turn has been given to a conversation and come to nothing since it stands where it stands."""
    return tx.execute(_tried, {"conversation": conversation_id, "seq": node.seq}).first() is not None


def add_turn(tx: Transaction, **values: Any) -> None:
    tx.execute(_add_turn, values)


def change_turn(tx: Transaction, turn_id: str, **values: Any) -> None:
    tx.execute(_change_turn, {"this": turn_id} | values)


def note_run(tx: Transaction, turn_id: str, run: str) -> None:
    """A turn is streaming; nothing is noted if it has ended meanwhile."""
    tx.execute(_note_run, {"this": turn_id, "name": run})


def remove_turn(tx: Transaction, turn_id: str) -> None:
    tx.execute(delete(turns).where(turns.c.id == turn_id))


_walk = select(turns.c.id, turns.c.parent).where(turns.c.id == bindparam("id")).cte("walk", recursive=True)
_walk = _walk.union_all(select(turns.c.id, turns.c.parent).join(_walk, turns.c.id == _walk.c.parent))
_path = select(turns).join(_walk, turns.c.id == _walk.c.id).order_by(turns.c.seq)


def path(tx: Transaction, turn_id: str) -> list[Node]:
    """A turn and all before it, oldest first."""
    return _nodes(tx.execute(_path, {"id": turn_id}))


# --- receipts ------------------------------------------------------------------------------------------------------

_receipt = select(receipts).where(receipts.c.id == bindparam("id"))
_add_receipt = insert(receipts)
_remove_receipt = delete(receipts).where(receipts.c.id == bindparam("id"))
_note_events = update(receipts).where(receipts.c.turn == bindparam("this")).values(events=bindparam("told"))
_events = select(receipts.c.events).where(receipts.c.turn == bindparam("turn"), receipts.c.events != "").limit(1)
_unwant = update(receipts).where(receipts.c.turn == bindparam("this")).values(unwanted=True)
_unwanted = (
    select(turns.c.id)
    .join(receipts, receipts.c.turn == turns.c.id)
    .where(receipts.c.unwanted, turns.c.owner == bindparam("owner"), turns.c.state.in_(LIVE))
)
_expired = delete(receipts).where(receipts.c.created < bindparam("before"))


def receipt(tx: Transaction, turn_id: str) -> Receipt | None:
    row = tx.execute(_receipt, {"id": turn_id}).first()
    return Receipt(*row) if row else None


def put_receipt(tx: Transaction, turn_id: str, principal: str, answered_by: str, body: str) -> None:
    """Keep a request, in place of what may have been kept of it before."""
    remove_receipt(tx, turn_id)
    told = events_of(tx, answered_by)
    row = Receipt(turn_id, principal, answered_by, body, told, unwanted=False, created=time.time())
    tx.execute(_add_receipt, {name: getattr(row, name) for name in Receipt.__slots__})


def remove_receipt(tx: Transaction, turn_id: str) -> bool:
    """False if there is none."""
    return tx.execute(_remove_receipt, {"id": turn_id}).rowcount == 1


def note_events(tx: Transaction, turn_id: str, events: str) -> None:
    tx.execute(_note_events, {"this": turn_id, "told": events})


def events_of(tx: Transaction, turn_id: str) -> str:
    """A turn as it was said, where that was kept."""
    return tx.execute(_events, {"turn": turn_id}).scalar() or ""


def unwant(tx: Transaction, turn_id: str) -> None:
    tx.execute(_unwant, {"this": turn_id})


def unwanted(tx: Transaction, owner: str) -> list[str]:
    """The turns of a process that are to be cancelled."""
    return [row[0] for row in tx.execute(_unwanted, {"owner": owner})]


def moment_and_seq(text: str) -> tuple[float, int]:
    """A place in a list of receipts. Raises ValueError for what is none."""
    moment, _, seq = text.rpartition("-")
    place = float(moment), int(seq)
    if not (math.isfinite(place[0]) and 0 <= place[1] < 2**63):
        raise ValueError("no such place")
    return place


def asked_for(
    tx: Transaction,
    scope: str,
    kind: str,
    *,
    states: Collection[str] | None = None,
    family: str | None = None,
    since: float = 0.0,
    after: tuple[float, int] | None = None,
    limit: int,
) -> tuple[list[str], int, str]:
    """The receipts of turns in this scope whose body begins with the field `kind`, by their ids: the latest first, by
    when the turn ended or began. Also how many there are on all pages, and the place after which the next one begins.
    """
    moment = case((turns.c.ended > 0, turns.c.ended), else_=turns.c.created)
    found = (
        select(receipts.c.id, moment.label("moment"), turns.c.seq)
        .join(turns, turns.c.id == receipts.c.turn)
        .where(turns.c.scope == scope, receipts.c.id == turns.c.id)
        .where(func.substr(receipts.c.body, 1, len(kind) + 4) == f'{{"{kind}":', moment >= since)
    )
    if states is not None:
        found = found.where(turns.c.state.in_(states))
    if family is not None:
        found = found.where(
            turns.c.conversation.in_(select(conversations.c.id).where(conversations.c.family == family))
        )
    total = tx.execute(select(func.count()).select_from(found.subquery())).scalar_one()
    if after:
        found = found.where(tuple_(moment, turns.c.seq) < after)
    rows = tx.execute(found.order_by(moment.desc(), turns.c.seq.desc()).limit(limit + 1)).all()
    more = f"{rows[limit - 1].moment!r}-{rows[limit - 1].seq}" if len(rows) > limit else ""
    return [row.id for row in rows[:limit]], total, more


def trim_receipts(tx: Transaction, before: float) -> None:
    """Forget requests from before that moment, and those of turns which are gone."""
    tx.execute(_expired, {"before": before})
    tx.execute(delete(receipts).where(~select(turns.c.id).where(turns.c.id == receipts.c.turn).exists()))


# --- processes -----------------------------------------------------------------------------------------------------

_beat = update(owners).where(owners.c.id == bindparam("this")).values(beat=owners.c.beat + 1)
_beats = select(owners.c.id, owners.c.beat)
_beat_of = select(owners.c.beat).where(owners.c.id == bindparam("owner"))
_at_work = select(turns.c.owner).where(turns.c.state.in_(LIVE)).distinct()
_of_owner = select(turns).where(turns.c.owner == bindparam("owner"), turns.c.state.in_(LIVE)).order_by(turns.c.seq)
_take = (
    update(turns)
    .where(turns.c.id == bindparam("this"), turns.c.owner == bindparam("from_"), turns.c.state.in_(LIVE))
    .values(owner=bindparam("to"), left=True)  # its client's connection died with the process
)


def beat(tx: Transaction, owner: str) -> dict[str, int]:
    """Say that `owner` lives. Gives every process's count, and 0 for those that left turns behind and are gone."""
    if not tx.execute(_beat, {"this": owner}).rowcount:
        tx.execute(insert(owners), {"id": owner, "beat": 1, "started": time.time()})
    counts = {row[0]: 0 for row in tx.execute(_at_work)}
    return counts | {row[0]: row[1] for row in tx.execute(_beats)}


def beat_of(tx: Transaction, owner: str) -> int | None:
    return tx.execute(_beat_of, {"owner": owner}).scalar()


def forget_owner(tx: Transaction, owner: str) -> None:
    tx.execute(delete(owners).where(owners.c.id == owner))


def turns_of(tx: Transaction, owner: str) -> list[Node]:
    return _nodes(tx.execute(_of_owner, {"owner": owner}))


def take_over(tx: Transaction, turn_id: str, previous: str, owner: str) -> bool:
    """Make a dead process's turn ours. False if another was first."""
    return tx.execute(_take, {"this": turn_id, "from_": previous, "to": owner}).rowcount == 1


# --- looking back --------------------------------------------------------------------------------------------------


def of_principal(
    tx: Transaction,
    principal: str,
    limit: int,
    after: Conversation | None = None,
    agents: Collection[tuple[str, str]] | None = None,
    without: Collection[tuple[str, str]] = (),
) -> list[Conversation]:
    """A principal's chats, latest used first. `agents`: with these alone, by backend and id; `without`: not these."""
    query = select(conversations).where(conversations.c.kind == "chat", conversations.c.principal == principal)
    if after is not None:
        query = query.where(tuple_(conversations.c.used, conversations.c.id) < tuple_(after.used, after.id))
    if agents is not None:
        query = query.where(tuple_(conversations.c.backend, conversations.c.agent).in_(list(agents)))
    if without:
        query = query.where(tuple_(conversations.c.backend, conversations.c.agent).not_in(list(without)))
    query = query.order_by(conversations.c.used.desc(), conversations.c.id.desc()).limit(limit)
    return [Conversation(*row) for row in tx.execute(query)]


_tale = (
    select(turns.c.id.label("head"), turns.c.id, turns.c.parent)
    .where(turns.c.id.in_(bindparam("heads", expanding=True)))
    .cte("tale", recursive=True)
)
_tale = _tale.union_all(select(_tale.c.head, turns.c.id, turns.c.parent).join(_tale, turns.c.id == _tale.c.parent))
_lengths = (
    select(_tale.c.head, func.sum(case((turns.c.state == "completed", 1), else_=0)), func.min(turns.c.seq))
    .join(turns, turns.c.id == _tale.c.id)
    .group_by(_tale.c.head)
)
_inputs = select(turns.c.seq, turns.c.id, turns.c.input).where(turns.c.seq.in_(bindparam("seqs", expanding=True)))


def summaries(tx: Transaction, heads: Iterable[str]) -> dict[str, tuple[int, str, str]]:
    """Of what led to each of these turns: how many were completed, which was the first, and what was told with it."""
    lengths = {row[0]: (row[1], row[2]) for row in tx.execute(_lengths, {"heads": list(set(heads))})}
    seqs = list({seq for _, seq in lengths.values()})
    first = {row[0]: (row[1], row[2]) for row in tx.execute(_inputs, {"seqs": seqs})}
    return {head: (count, *first[seq]) for head, (count, seq) in lengths.items()}


# --- tidying up ----------------------------------------------------------------------------------------------------


def stale(tx: Transaction, kind: str, before: float, limit: int, *, begun: bool = False) -> list[Conversation]:
    """Conversations of a kind which nobody has used since, and no turn is in; longest unused first. `begun`: only those
    that never came further than their first turn, which a branch always has."""
    busy = select(turns.c.id).where(turns.c.conversation == conversations.c.id, turns.c.state.in_(LIVE)).exists()
    query = select(conversations).where(conversations.c.kind == kind, conversations.c.used < before, ~busy)
    if begun:
        first = select(turns.c.id).where(turns.c.id == conversations.c.head, turns.c.parent == "").exists()
        query = query.where(or_(conversations.c.head == "", first))
    return [Conversation(*row) for row in tx.execute(query.order_by(conversations.c.used).limit(limit))]


def snapshots_of(tx: Transaction, family: str) -> list[Conversation]:
    """The snapshots of a family, the latest used first."""
    query = select(conversations).where(conversations.c.family == family, conversations.c.kind == "snapshot")
    return [Conversation(*row) for row in tx.execute(query.order_by(conversations.c.used.desc()))]


def doomed(tx: Transaction, limit: int, after: str = "") -> list[Conversation]:
    """In the order of their ids, which says nothing."""
    query = select(conversations).where(conversations.c.kind == "doomed", conversations.c.id > after)
    return [Conversation(*row) for row in tx.execute(query.order_by(conversations.c.id).limit(limit))]


def trim_own(tx: Transaction, before: float) -> None:
    """Forget what was said in agents' own threads and ended before; but where each of them stands."""
    own = conversations.c.kind == "own"
    tx.execute(
        delete(turns).where(
            turns.c.conversation.in_(select(conversations.c.id).where(own)),
            turns.c.id.not_in(select(conversations.c.head).where(own)),
            turns.c.state.not_in(LIVE),
            turns.c.ended < before,
        )
    )


GONE = "?"
"""Before the head of a conversation that is out of use: nothing stands there any more, but `bury` begins there."""


def doom(tx: Transaction, conversation_id: str) -> bool:
    """Take a conversation out of use, and its snapshots with it; their threads are still to be deleted. False if it is
    not there any more."""
    tx.execute(delete(pins).where(pins.c.conversation == conversation_id))
    its_turns = select(turns.c.id).where(turns.c.conversation == conversation_id)
    snapshot = and_(conversations.c.kind == "snapshot", conversations.c.head.in_(its_turns))
    itself = and_(conversations.c.id == conversation_id, conversations.c.kind != "doomed")
    gone = {"kind": "doomed", "head": GONE + conversations.c.head, "pin": ""}
    found = tx.execute(update(conversations).where(itself).values(gone)).rowcount == 1
    tx.execute(update(conversations).where(snapshot).values(gone))
    return found


def bury(tx: Transaction, conversation_id: str) -> None:
    """Nothing is left of a conversation, but turns to which others go back. Those of earlier ones, to which only this
    one went back, go with it."""
    row = conversation(tx, conversation_id)
    tx.execute(delete(conversations).where(conversations.c.id == conversation_id))
    tx.execute(_bury, {"conversation": conversation_id, "head": row.head.removeprefix(GONE) if row else ""})


def _burial() -> Delete:
    homeless = ~select(conversations.c.id).where(conversations.c.id == turns.c.conversation).exists()
    mine = or_(turns.c.conversation == bindparam("conversation"), and_(turns.c.id == bindparam("head"), homeless))
    left = select(turns.c.id, turns.c.parent).where(mine).cte("left_over", recursive=True)
    left = left.union(
        select(turns.c.id, turns.c.parent).join(left, turns.c.id == left.c.parent).where(homeless)
    )  # a union without `all`: many turns have the same ones before them
    later = turns.alias("later")
    branched = select(later.c.id).where(later.c.parent == left.c.id, later.c.id.not_in(select(left.c.id))).exists()
    stood_at = select(conversations.c.id).where(conversations.c.head == left.c.id).exists()
    needed = select(left.c.id, left.c.parent).where(or_(branched, stood_at)).cte("needed", recursive=True)
    needed = needed.union(select(left.c.id, left.c.parent).join(needed, left.c.id == needed.c.parent))
    return delete(turns).where(turns.c.id.in_(select(left.c.id)), turns.c.id.not_in(select(needed.c.id)))


_bury = _burial()
