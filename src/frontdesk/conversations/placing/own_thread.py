"""One thread for all: where an agent has no other, or is set to use none."""

from frontdesk.conversations.lineage import digest
from frontdesk.conversations.placing.owed import with_owed
from frontdesk.conversations.placing.spots import Ask, Spot
from frontdesk.conversations.placing.standing import where_it_stands
from frontdesk.conversations.placing.transcript import by_lineage
from frontdesk.errors import InvalidRequest
from frontdesk.scopes import nothing_kept
from frontdesk.store import records
from frontdesk.store.records import Node
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Agent, Identity


def own_conversation(agent: Agent) -> str:
    """The one conversation of an agent's own thread, whoever speaks there."""
    return digest("own", agent.backend, agent.id)


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
