"""Turns whose callers may ask about them later: how they stand, what they brought, and what was said in them.

Whoever asks finds only what is their own, of agents they may use: that there is another's is told to nobody.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from frontdesk.conversations.archive import Told, may_use, public_id, told_in
from frontdesk.conversations.desk import scope_of
from frontdesk.conversations.ids import Ids
from frontdesk.conversations.placing.notes import struck_places
from frontdesk.errors import InvalidRequest, TurnNotFound
from frontdesk.ports import Agents
from frontdesk.scopes import check
from frontdesk.store import codec, records
from frontdesk.store.codec import Saved
from frontdesk.store.database import Database
from frontdesk.store.records import Conversation, Node
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Agent, Principal

State = Literal["queued", "running", "completed", "cancelled", "failed"]

STATES: dict[str, State] = {
    "claimed": "queued",
    "submitted": "running",
    "streaming": "running",
    "settling": "completed",
    "completed": "completed",
    "cancelled": "cancelled",
    "failed_before": "failed",
    "failed_after": "failed",
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """A turn as its caller may know it. `body` is what the protocol kept with it, `answered_by` the turn whose reply
    this is, `conversation` public. `code` and `trouble` say why it failed. Moments are in seconds since 1970."""

    turn_id: str
    answered_by: str
    body: Any
    state: State
    reply: Saved
    code: str
    trouble: str
    conversation: str
    created: float
    ended: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which receipts to list: of whose body this `kind` is the first field. `context` is a conversation by its public
    id, or by the caller's name for it; `after` the end of the page before."""

    kind: str
    limit: int
    context: str = ""
    states: frozenset[State] | None = None
    since: float = 0.0
    after: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """`total` counts those of all pages. `next` is empty on the last one."""

    receipts: list[Receipt]
    total: int = 0
    next: str = ""


class Receipts:
    def __init__(self, database: Database, ids: Ids, agents: Agents) -> None:
        self._database = database
        self._ids = ids
        self._agents = agents

    async def get(self, principal: Principal, turn_id: str) -> Receipt:
        """Raises TurnNotFound; Unauthenticated for a stranger, for whom nothing is kept."""
        check("user", principal)

        def look(tx: Transaction) -> tuple[records.Receipt, Node, Conversation] | None:
            kept = records.receipt(tx, turn_id)
            node = records.turn(tx, kept.turn) if kept and kept.principal == principal.id else None
            row = records.conversation(tx, node.conversation) if node else None
            return (kept, node, row) if kept and node and row else None

        found = await self._database.read(look)
        if found is None or not await may_use(self._agents, principal, found[2].backend, found[2].agent):
            raise TurnNotFound("There is no such response.")
        kept, node, row = found
        return Receipt(
            turn_id=kept.id,
            answered_by=node.id,
            body=codec.loaded(kept.body),
            state=STATES[node.state],
            reply=codec.reply_of(node.reply),
            code=node.error,
            trouble=node.trouble,
            conversation=shown_id(self._ids, principal, row),
            created=kept.created,
            ended=node.ended,
        )

    async def page(self, principal: Principal, agent: Agent, wanted: Wanted) -> Page:
        """The caller's with an agent, the latest first.

        Raises InvalidRequest for an `after` that is none; Unauthenticated for a stranger.
        """
        check("user", principal)
        scope = scope_of(principal.id, agent)
        try:
            after = records.moment_and_seq(wanted.after) if wanted.after else None
        except ValueError:
            raise InvalidRequest("This is no token of a page.", param="page_token") from None
        named = self._ids.conversation_of(wanted.context, principal.id, agent.id)
        states = None if wanted.states is None else [ours for ours, shown in STATES.items() if shown in wanted.states]

        def look(tx: Transaction) -> tuple[list[str], int, str]:
            family = None
            if wanted.context:
                row = records.conversation(tx, named) if named else None
                pinned = records.pinned(tx, scope, wanted.context)
                family = row.family if row else pinned[1] if pinned else ""
            return records.asked_for(
                tx,
                scope,
                wanted.kind,
                states=states,
                family=family,
                since=wanted.since,
                after=after,
                limit=wanted.limit,
            )

        ids, total, more = await self._database.read(look, long=True)
        found: list[Receipt] = []
        for turn_id in ids:
            with suppress(TurnNotFound):  # it was deleted just now
                found.append(await self.get(principal, turn_id))
        return Page(found, total, more)

    async def delete(self, principal: Principal, turn_id: str) -> None:
        """Forget that it was asked for; the agent's conversation keeps what was said. Raises TurnNotFound."""
        await self.get(principal, turn_id)
        await self._database.do(lambda tx: records.remove_receipt(tx, turn_id))

    async def told(self, principal: Principal, turn_ids: set[str]) -> list[Told]:
        """All that was said in these turns, of those which are the caller's. Raises Unauthenticated for a stranger."""
        check("user", principal)

        def look(tx: Transaction) -> list[tuple[Node, Conversation]]:
            nodes = [node for turn_id in turn_ids if (node := records.turn(tx, turn_id))]
            rows = [(node, records.conversation(tx, node.conversation)) for node in nodes]
            return [(node, row) for node, row in rows if row and node.scope == scope_at(principal, row)]

        found = await self._database.read(look)
        usable = [pair for pair in found if await may_use(self._agents, principal, pair[1].backend, pair[1].agent)]
        told = [(each, struck_places(row.struck)) for node, row in usable for each in told_in(node)]
        return [each for each, struck in told if each.place not in struck]


def shown_id(ids: Ids, principal: Principal, row: Conversation) -> str:
    """A conversation's public id; of an agent's one thread, which is nobody's, the caller's own."""
    return ids.conversation(row.id, principal.id, row.agent) if row.kind == "own" else public_id(ids, row)


def scope_at(principal: Principal, row: Conversation) -> str:
    """What the caller's turns bear in a conversation, be it the agent's one thread, which is nobody's."""
    return scope_of(principal.id, Agent(row.agent, "", row.backend))
