"""By what a turn refers to: the tool calls it answers, the turn it says it comes after."""

from dataclasses import replace

from frontdesk.conversations.placing.branches import at
from frontdesk.conversations.placing.owed import missed
from frontdesk.conversations.placing.spots import Ask, Spot
from frontdesk.conversations.placing.standing import all_left, others, where_it_stands
from frontdesk.errors import InvalidRequest, PreviousNotFound
from frontdesk.store import records
from frontdesk.store.records import Conversation, Node
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Identity


def answering(tx: Transaction, ask: Ask, mine: str) -> Spot | None:
    """The conversation in which the calls wait, if it stands there still."""
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


def answered(tx: Transaction, node: Node | None) -> Node | None:
    """The turn, or the latest before it, after which a conversation may stand."""
    while node and not node.stands:
        node = records.turn(tx, node.parent) if node.parent else None
    return node


def rests_at(tx: Transaction, ask: Ask, row: Conversation, mine: str, heads: tuple[str, str]) -> bool:
    """Whether a conversation stands there and, unless its last client has gone, nobody is at work in it."""
    return row.head in heads and (not others(tx, row, mine) or (ask.gives_way and all_left(tx, ask, row, mine)))
