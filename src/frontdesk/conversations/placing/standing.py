"""A conversation as it stands: its end, and who is at work there."""

from frontdesk.conversations.placing.notes import with_notes
from frontdesk.conversations.placing.spots import Ask, Spot
from frontdesk.store import records
from frontdesk.store.records import Conversation, InLine
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Identity


def where_it_stands(tx: Transaction, ask: Ask, row: Conversation, mine: str) -> Spot:
    """At the end of a conversation, which holds all of the history that is told."""
    parent = records.turn(tx, row.head) if row.head else None
    kind = "own" if row.kind == "own" else "chat"
    found = Spot(Identity.LINEAGE, row, parent, len(ask.turn.history), busy(tx, row, mine), kind=kind)
    return with_notes(tx, ask, found, row.struck)


def busy(tx: Transaction, row: Conversation, mine: str) -> bool:
    """Whether others are before us in this conversation: who runs there, and who came earlier."""
    line = records.live_in(tx, row.id)
    ours = next((turn.seq for turn in line if turn.id == mine), None)
    return any(turn.id != mine and (turn.state != "claimed" or ours is None or turn.seq < ours) for turn in line)


def others(tx: Transaction, row: Conversation, mine: str) -> list[InLine]:
    """Who speaks in a conversation. Whoever has done so, and only keeps it for a moment, is waited for."""
    return [turn for turn in records.live_in(tx, row.id) if turn.id != mine and not turn.answered]


def all_left(tx: Transaction, ask: Ask, row: Conversation, mine: str) -> bool:
    return all(turn.left or turn.id in ask.left for turn in others(tx, row, mine))
