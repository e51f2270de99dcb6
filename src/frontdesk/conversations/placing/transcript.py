"""By what was said: the turns after which all of what is told had been said before."""

from frontdesk.conversations.lineage import ROOT, Point, Saying, agrees, is_tail, sayings
from frontdesk.conversations.placing.branches import at
from frontdesk.conversations.placing.spots import Ask, Spot
from frontdesk.errors import InvalidRequest
from frontdesk.store import codec, records
from frontdesk.store.records import Node
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Identity, Item, Part

COMPARED = 5
"""How many conversations are read to see whether a client shows them with its users' words changed."""


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


def base_of(node: Node | None) -> Point | None:
    """The point after a turn, as the ledger has it; None if that cannot be told, for it was cut short."""
    if node is None:
        return ROOT
    if node.after is None:
        return None
    said = sayings(codec.reply_of(node.reply).parts)
    return Point(0, node.after, node.spoken or "", "", said[-1].digest if said else "")


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
