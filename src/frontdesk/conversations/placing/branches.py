"""From a turn onwards: in the conversation that stands there, else in a branch from it."""

from collections.abc import Sequence

from frontdesk.conversations.placing.notes import with_notes
from frontdesk.conversations.placing.spots import Ask, Fork, Spot
from frontdesk.conversations.placing.standing import all_left, busy, others
from frontdesk.store import codec, records
from frontdesk.store.records import Conversation, Node
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Identity, StopReason


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
    branch = fork(tx, ask, node, home, there, mine)
    anew = branch is not None and made_in(node, ask)
    found = Spot(Identity.LINEAGE, None, node, known, fork=branch, family=family, answers=anew, struck=struck)
    return found if ask.turn.history else with_notes(tx, ask, found, struck)


def made_in(node: Node, ask: Ask) -> bool:
    """Whether what is answered, once more, are calls of this turn."""
    made = codec.reply_of(node.reply).calls.values()
    return bool(ask.calls) and all(call.call_id in made for call in ask.calls)


def fork(
    tx: Transaction, ask: Ask, node: Node, home: Conversation | None, there: Sequence[Conversation], mine: str
) -> Fork | None:
    """What to branch from: a snapshot, a conversation that stands there and rests, or a message of one gone further.

    None where only a seed will do: after tool calls, but for agents whose calls can wait in a branch once more.
    """
    end = codec.reply_of(node.reply).end
    if end is None or (end.stop_reason is StopReason.TOOL_CALLS and not ask.agent.recalls):
        return None
    for row in sorted(there, key=lambda row: row.kind != "snapshot"):
        if row.holds and (row.kind == "snapshot" or not others(tx, row, mine)):
            return Fork(row.id, row.thread, row.head)
    if home and home.holds and home.usable and end.mark and not home.struck:
        return Fork(home.id, home.thread, at=end.mark)
    return None
