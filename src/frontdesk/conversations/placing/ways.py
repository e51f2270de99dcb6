"""The ways to find where a turn belongs, in the order in which they are tried."""

from frontdesk.conversations.placing.names import in_pin
from frontdesk.conversations.placing.own_thread import in_own_thread, own
from frontdesk.conversations.placing.references import after, answering, came_before, check_answering
from frontdesk.conversations.placing.spots import Ask, Spot
from frontdesk.conversations.placing.transcript import by_lineage, unknown
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Identity


def spot(tx: Transaction, ask: Ask, mine: str = "") -> Spot:
    """Where a turn belongs. `mine` is the turn itself, where it stands in line already.

    Raises ConversationNotFound, PreviousNotFound; InvalidRequest for tool results and names that do not belong together
    and where unknown histories are refused; Unauthenticated for a stranger in the thread of all.
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
