"""Conversations as their owner looks at them: listed, read, described, branched and deleted.

Whoever asks finds only what is their own. An agent's one thread, which all its callers share, is nobody's and not here.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from sqlalchemy import Connection

from frontdesk.conversations.desk import scope_of
from frontdesk.conversations.housekeeping import Housekeeping
from frontdesk.conversations.ids import CONVERSATION, Ids
from frontdesk.conversations.tasks import shortened
from frontdesk.errors import AgentNotFound, ConversationBusy, ConversationNotFound, InvalidRequest
from frontdesk.ports import Agents
from frontdesk.store import codec, records
from frontdesk.store.database import Database
from frontdesk.store.records import Conversation, Node
from frontdesk.turn import Agent, Item, Message, Mode, Part, Principal, StopReason, Thread

KEPT = ("chat", "temporary", "stateless")
"""Those that are found by their id. Only chats are listed: the others are gone after a day."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A conversation, as its owner knows it."""

    id: str  # the public one
    agent: str  # what means it as a model
    agent_id: str
    name: str  # the owner's own name for it, if there is one
    title: str  # the first words
    turns: int
    metadata: Mapping[str, str]
    created: float
    used: float


@dataclass(frozen=True, slots=True)
class Told:
    """Something that was said: in which turn, whether it was told (i) or answered (o), and at which place among that.
    Not `complete` if it was cut short."""

    turn_id: str
    side: Literal["i", "o"]
    index: int
    item: Item | Part
    complete: bool


class Directory(Agents, Protocol):
    """What is asked about agents here."""

    @property
    def listings(self) -> Mapping[str, object]: ...  # by backend

    def advertised(self, principal: Principal) -> Sequence[tuple[str, Agent]]: ...

    async def find(self, model: str, principal: Principal) -> tuple[Agent, Mode]: ...


class Archive:
    def __init__(self, database: Database, ids: Ids, directory: Directory, housekeeping: Housekeeping) -> None:
        self._database = database
        self._ids = ids
        self._directory = directory
        self._housekeeping = housekeeping

    # --- reading -------------------------------------------------------------------------------------------------

    async def page(
        self, principal: Principal, limit: int, after: str = "", agent: str = ""
    ) -> tuple[list[Entry], bool]:
        """The caller's chats, latest used first, and whether there are more. `agent`: only with this one.

        Raises AgentNotFound, Forbidden, InvalidRequest for an `after` which is none of them.
        """
        agents = await self._agents(principal, agent)
        last = await self._last_seen(principal, after) if after else None
        return await self._listed(principal, limit, last, agents)

    async def _agents(self, principal: Principal, agent: str) -> set[tuple[str, str]] | None:
        if not agent:
            known = None if principal.agents is None else self._directory.advertised(principal)
            return None if known is None else {(each.backend, each.id) for _, each in known}
        try:
            found, _ = await self._directory.find(agent, principal)
        except AgentNotFound as error:
            if principal.agents is None and (gone := await self._agents_of(principal, agent)):
                return gone
            error.param = "agent"
            raise
        return {(found.backend, found.id)}

    async def _agents_of(self, principal: Principal, agent_id: str) -> set[tuple[str, str]]:
        """An agent that is gone, by its id, if the caller has spoken with it."""
        here = {(backend, agent_id) for backend in self._directory.listings}
        found = await self._database.read(lambda tx: records.of_principal(tx, principal.id, 1, agents=here))
        return here if found else set()

    async def _last_seen(self, principal: Principal, after: str) -> Conversation:
        try:
            return await self._row(principal, after)
        except ConversationNotFound:
            raise InvalidRequest("There is no conversation of this id to go on after.", param="after") from None

    async def _listed(
        self, principal: Principal, limit: int, after: Conversation | None, agents: set[tuple[str, str]] | None
    ) -> tuple[list[Entry], bool]:
        def look(tx: Connection) -> tuple[list[Conversation], bool, dict[str, tuple[int, str]]]:
            rows = records.of_principal(tx, principal.id, limit + 1, after, agents)
            more, rows = len(rows) > limit, rows[:limit]
            return rows, more, records.summaries(tx, [row.head for row in rows])

        rows, more, summaries = await self._database.read(look)
        names = self._names(principal)
        return [self._entry(row, summaries, names) for row in rows], more

    async def get(self, principal: Principal, public_id: str) -> Entry:
        """Raises ConversationNotFound."""
        return await self._shown(principal, await self._row(principal, public_id))

    async def told(self, principal: Principal, public_id: str) -> list[Told]:
        """All that was said, oldest first, also before this conversation was branched from another.

        Raises ConversationNotFound.
        """
        row = await self._row(principal, public_id)
        told: list[Told] = []
        for node in await self._database.read(lambda tx: records.path(tx, row.head)):
            told += told_in(node)
        return told

    # --- changing ------------------------------------------------------------------------------------------------

    async def create(self, principal: Principal, agent: str, metadata: Mapping[str, str]) -> Entry:
        """A conversation in which nothing has been said. Raises AgentNotFound, Forbidden, InvalidRequest."""
        found, _ = await self._directory.find(agent, principal)
        if not found.conversations:
            raise InvalidRequest(
                f"The agent {found.name!r} has one thread, and no conversations beside it.",
                param="agent",
                code="unsupported_value",
            )
        row = new_conversation(principal, found, codec.dumped(dict(metadata)))
        await self._database.do(lambda tx: records.add_conversation(tx, row))
        return await self._shown(principal, row)

    async def describe(self, principal: Principal, public_id: str, metadata: Mapping[str, str]) -> Entry:
        """Replace a conversation's metadata. Raises ConversationNotFound."""
        row = await self._row(principal, public_id)
        values = {"metadata": codec.dumped(dict(metadata))}
        await self._database.do(lambda tx: records.change_conversation(tx, row.id, **values))
        return await self._shown(principal, replace(row, **values))

    async def fork(self, principal: Principal, public_id: str) -> Entry:
        """Another conversation with the same history; what is said in one is not heard in the other.

        Raises ConversationNotFound, ConversationBusy, InvalidRequest where that cannot be had, BackendError.
        """
        row = await self._row(principal, public_id)
        await self._database.read(lambda tx: check_resting(tx, row))
        copy_id = uuid.uuid4().hex
        now = time.time()
        # It bears a name, though not one its owner gave: else a transcript that fits both would lead to neither.
        name = self._ids.conversation(copy_id, principal.id, row.agent)
        copy = replace(row, id=copy_id, kind="chat", thread="", pin=name, created=now, used=now)
        if row.thread:
            copy = await self._forked(row, copy)
        else:
            await self._database.do(lambda tx: records.add_conversation(tx, copy))
        return await self._shown(principal, copy)

    async def _forked(self, row: Conversation, copy: Conversation) -> Conversation:
        """With a thread of its own. What began at the other while that was made may be in it, so it is thrown away."""
        agent = await self._directory.by_id(row.backend, row.agent)
        backend = self._directory.backend(agent) if agent else None
        thread = await backend.fork(agent, Thread(row.thread)) if agent and backend else None
        if agent is None or backend is None or thread is None:
            raise InvalidRequest(
                "This conversation cannot be branched: its agent's server has no means to, or has the agent or the"
                " conversation no more.",
                code="unsupported_value",
            )
        copy = replace(copy, thread=thread.id)

        def add(tx: Connection) -> None:
            check_resting(tx, row)
            records.add_conversation(tx, copy)

        try:
            await self._database.do(add)
        except BaseException:
            await backend.delete(agent, thread)
            raise
        return copy

    async def delete(self, principal: Principal, public_id: str) -> None:
        """Raises ConversationNotFound, ConversationBusy."""
        row = await self._row(principal, public_id)
        if not await self._housekeeping.delete(row.id):
            raise not_found(public_id)

    # --- whose ---------------------------------------------------------------------------------------------------

    async def _row(self, principal: Principal, public_id: str) -> Conversation:
        """The conversation of an id, if it is the caller's. That it is another's is told to nobody."""
        conversation_id = self._ids.conversation_meant(public_id) or ""
        row = await self._database.read(lambda tx: records.conversation(tx, conversation_id))
        if row is None or row.kind not in KEPT or row.principal != principal.id:
            raise not_found(public_id)
        if self._ids.conversation_of(public_id, principal.id, row.agent) is None:
            raise not_found(public_id)
        if not await may_use(self._directory, principal, row.backend, row.agent):
            raise not_found(public_id)
        return row

    # --- showing -------------------------------------------------------------------------------------------------

    async def _shown(self, principal: Principal, row: Conversation) -> Entry:
        summaries = await self._database.read(lambda tx: records.summaries(tx, [row.head]))
        return self._entry(row, summaries, self._names(principal))

    def _names(self, principal: Principal) -> dict[tuple[str, str], str]:
        """What each agent is called, its own name before an alias."""
        advertised = reversed(self._directory.advertised(principal))
        return {(agent.backend, agent.id): name for name, agent in advertised}

    def _entry(
        self, row: Conversation, summaries: Mapping[str, tuple[int, str]], names: Mapping[tuple[str, str], str]
    ) -> Entry:
        count, first = summaries.get(row.head, (0, ""))
        return Entry(
            id=self._ids.conversation(row.id, row.principal, row.agent),
            agent=names.get((row.backend, row.agent), row.agent),
            agent_id=row.agent,
            name="" if row.pin.startswith(CONVERSATION) else row.pin,
            title=title_of(codec.items_of(first) if first else ()),
            turns=count,
            metadata=codec.loaded(row.metadata),
            created=row.created,
            used=row.used,
        )


async def may_use(agents: Agents, principal: Principal, backend: str, agent_id: str) -> bool:
    """Whether the caller's key may use an agent, which may be gone."""
    if principal.agents is None:
        return True
    agent = await agents.by_id(backend, agent_id)
    names = (agent.name, f"{agent.backend}/{agent.name}") if agent else ()
    return principal.may_use(agent_id, *names)


def told_in(node: Node) -> list[Told]:
    """All of a turn."""
    given, reply = codec.items_of(node.input), codec.reply_of(node.reply).parts
    told = [Told(node.id, "i", index, item, complete=True) for index, item in enumerate(given)]
    return told + [Told(node.id, "o", index, part, node.answered) for index, part in enumerate(reply)]


def title_of(told: Sequence[Item]) -> str:
    said = (item.text for item in told if isinstance(item, Message) and item.role == "user")
    return next((short for text in said if (short := shortened(text))), "")


def new_conversation(principal: Principal, agent: Agent, metadata: str) -> Conversation:
    return records.begun(scope_of(principal.id, agent), principal.id, agent.backend, agent.id, metadata=metadata)


def check_resting(tx: Connection, seen: Conversation) -> None:
    """Raises ConversationBusy for a conversation that a turn is in, or has gone through since, or that waits for tool
    results: those can be given only once."""
    row = records.conversation(tx, seen.id)
    if row is None or row.kind not in KEPT:
        raise ConversationNotFound("This conversation has just been deleted.")
    if row.head != seen.head or row.thread != seen.thread or records.live_in(tx, row.id):
        raise ConversationBusy(
            "A turn of this conversation is running. Branch it when that has ended.", retry_after_seconds=2
        )
    node = records.turn(tx, row.head) if row.head else None
    end = codec.reply_of(node.reply).end if node else None
    if end and end.stop_reason is StopReason.TOOL_CALLS:
        raise ConversationBusy("The agent waits for tool results in this conversation. Send them first.", retry=False)


def not_found(public_id: str) -> ConversationNotFound:
    return ConversationNotFound(f"There is no conversation {public_id[:80]!r}.")
