"""By name: a caller's own for a conversation, or an id of ours."""

from dataclasses import replace

from frontdesk.conversations.placing.notes import with_notes
from frontdesk.conversations.placing.owed import with_owed
from frontdesk.conversations.placing.spots import Ask, Spot
from frontdesk.conversations.placing.standing import busy, where_it_stands
from frontdesk.conversations.placing.transcript import by_lineage, unknown
from frontdesk.errors import ConversationNotFound
from frontdesk.store import records
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Identity


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


def beginning_under(ask: Ask, family: str = "") -> Spot:
    """A conversation that is new under its name."""
    found = unknown(ask)
    return found if found.kind == "stateless" else replace(found, identity=Identity.HEADER, family=family)
