"""What an agent never heard, and is to be told with the next turn."""

from dataclasses import replace

from frontdesk.conversations.placing.notes import kept_input
from frontdesk.conversations.placing.spots import Ask, Spot
from frontdesk.store import codec, records
from frontdesk.store.records import Conversation, Node
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Item, Message


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


def missed(tx: Transaction, last: Node, row: Conversation | None) -> tuple[Item, ...]:
    """What a turn that came to no answer was told, and said, and is not in the conversation."""
    if last.live or last.stands:
        return ()
    if row and row.head == last.id:  # all but the rest of it is in the conversation
        rest = records.turn(tx, f"{last.id}-rest")
        return codec.items_of(rest.input) if rest else ()
    return telling(last)


def telling(turn: Node) -> tuple[Item, ...]:
    """What a turn that was cut short was told, and what its client saw of the answer."""
    said = [part for part in codec.reply_of(turn.reply).parts if isinstance(part, Message)]
    return (*codec.items_of(turn.input), *said)
