"""Conversations as their owner looks at them: listed, read, described, added to, branched and deleted.

Whoever asks finds only what is their own. An agent's one thread, which all its callers share, is nobody's and not here.
"""

import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from frontdesk.conversations.desk import scope_of
from frontdesk.conversations.housekeeping import Housekeeping
from frontdesk.conversations.ids import CONVERSATION, Ids
from frontdesk.conversations.ledger import note
from frontdesk.conversations.placing.notes import struck_places
from frontdesk.conversations.tasks import shortened
from frontdesk.errors import AgentNotFound, ConversationBusy, ConversationNotFound, GatewayError, InvalidRequest
from frontdesk.ports import Agents
from frontdesk.scopes import check
from frontdesk.store import codec, records
from frontdesk.store.database import Database
from frontdesk.store.records import Conversation, Node
from frontdesk.store.transaction import Transaction
from frontdesk.turn import (
    Agent,
    Image,
    Item,
    Message,
    Mode,
    Part,
    Principal,
    StopReason,
    Thread,
    ToolCall,
    ToolResult,
)

KEPT = ("chat", "temporary", "stateless")
"""Those that are found by their id. Only chats are listed: the others are gone after a day."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A conversation, as its owner knows it."""

    id: str  # the public one
    agent: str  # what means it as a model; empty before one has spoken there, if it was made without
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

    @property
    def place(self) -> str:
        return f"{self.turn_id}{self.side}{self.index}"


@dataclass(frozen=True, slots=True)
class Asked:
    """A call of the agent's own, which waits for its caller to let it run or not. `call_id` is ours."""

    call_id: str
    name: str
    arguments: str


class Directory(Agents, Protocol):
    """What is asked about agents here."""

    @property
    def listings(self) -> Mapping[str, object]: ...  # by backend

    def advertised(self, principal: Principal) -> Sequence[tuple[str, Agent]]: ...

    def closed_to(self, principal: Principal) -> Collection[tuple[str, str]]: ...

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

        A key that is limited to some agents also sees those which have none yet.

        Raises AgentNotFound, Forbidden, InvalidRequest for an `after` which is none of them; as all here does,
        Unauthenticated for a stranger.
        """
        check("user", principal)
        agents = await self._agents(principal, agent)
        last = await self._last_seen(principal, after) if after else None
        return await self._listed(principal, limit, last, agents)

    async def _agents(self, principal: Principal, agent: str) -> set[tuple[str, str]] | None:
        if not agent:
            known = None if principal.agents is None else self._directory.advertised(principal)
            return None if known is None else {("", ""), *((each.backend, each.id) for _, each in known)}
        try:
            found, _ = await self._directory.find(agent, principal)
        except AgentNotFound as error:
            if principal.agents is None and principal.at is None and (gone := await self._agents_of(principal, agent)):
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
        closed = self._directory.closed_to(principal)

        def look(tx: Transaction) -> tuple[list[Conversation], bool, dict[str, tuple[int, str, str]]]:
            rows = records.of_principal(tx, principal.id, limit + 1, after, agents, closed)
            more, rows = len(rows) > limit, rows[:limit]
            return rows, more, records.summaries(tx, [row.head for row in rows])

        rows, more, summaries = await self._database.read(look, long=True)
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
        struck = struck_places(row.struck)
        nodes = await self._database.read(lambda tx: records.path(tx, row.head), long=True)
        return [told for node in nodes for told in told_in(node) if told.place not in struck]

    async def asked(self, principal: Principal, public_id: str) -> tuple[Entry, list[Asked]]:
        """The conversation, and what its agent asks approval for.

        Raises ConversationNotFound, BackendError.
        """
        row = await self._row(principal, public_id)
        entry = await self._shown(principal, row)
        agent = await self._directory.by_id(row.backend, row.agent)
        if agent is None or not row.thread or await self._database.read(lambda tx: is_busy(tx, row)):
            return entry, []
        waiting = await self._directory.backend(agent).awaiting(agent, Thread(row.thread))
        whose = (row.id, principal.id, agent.id)
        return entry, [Asked(self._ids.call(each.call_id, *whose), each.name, each.arguments) for each in waiting]

    # --- changing ------------------------------------------------------------------------------------------------

    async def create(
        self, principal: Principal, agent: str, metadata: Mapping[str, str], items: Sequence[Item] = ()
    ) -> Entry:
        """A conversation in which nothing has been said but these items. Without an agent it is the one's that speaks
        there first.

        Raises AgentNotFound, Forbidden, InvalidRequest.
        """
        check("user", principal)
        found = await self._agent_to_be(principal, agent) if agent else None
        check_items(items, ())
        text = codec.dumped(dict(metadata))
        row = new_conversation(principal, found, text) if found else self._unbound(principal, text)

        def add(tx: Transaction) -> Conversation:
            records.add_conversation(tx, row)
            return note(tx, row, items) if items else row

        return await self._shown(principal, await self._database.do(add))

    async def _agent_to_be(self, principal: Principal, agent: str) -> Agent:
        found, _ = await self._directory.find(agent, principal)
        if not found.conversations:
            raise InvalidRequest(
                f"The agent {found.name!r} has one thread, and no conversations beside it.",
                param="agent",
                code="unsupported_value",
            )
        return found

    def _unbound(self, principal: Principal, metadata: str) -> Conversation:
        """Its name is its id, so that this stays the same when it has an agent."""
        row = records.begun("", principal.id, "", "", metadata=metadata)
        return replace(row, pin=self._ids.conversation(row.id, principal.id, ""))

    async def add(self, principal: Principal, public_id: str, items: Sequence[Item]) -> list[Told]:
        """Put these into a conversation: the agent is told with its next turn.

        Raises ConversationNotFound, ConversationBusy, InvalidRequest for what cannot be told there.
        """
        seen = await self._row(principal, public_id)

        def add(tx: Transaction) -> list[Told]:
            row = records.conversation(tx, seen.id, lock=True) or seen
            check_resting(tx, row)
            head = records.turn(tx, row.head) if row.head else None
            check_items(items, [item for each in records.notes_to(tx, head) for item in codec.items_of(each.input)])
            if not items:
                return []
            node = records.turn(tx, note(tx, row, items).head)
            return told_in(node) if node else []

        return await self._database.do(add)

    async def strike(self, principal: Principal, public_id: str, told: Told) -> Entry:
        """Take something back that was said. A thread that holds it cannot forget it, so that the next turn has
        another, in which everything else is told again.

        Raises ConversationNotFound, ConversationBusy.
        """
        seen = await self._row(principal, public_id)

        def strike(tx: Transaction) -> Conversation:
            row = records.conversation(tx, seen.id, lock=True) or seen
            check_resting(tx, row)
            struck = codec.dumped(sorted({*struck_places(row.struck), told.place}))
            head = records.turn(tx, row.head) if row.head else None
            if told.turn_id not in {each.id for each in records.notes_to(tx, head)}:
                row = records.drop_thread(tx, row)
                doom_snapshots(tx, row.family, told.turn_id)
            records.change_conversation(tx, row.id, struck=struck)
            return replace(row, struck=struck)

        row = await self._database.do(strike)
        self._housekeeping.hurry()
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
        if row.holds:
            copy = await self._forked(row, copy)
        else:
            copy = replace(copy, system="")
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

        def add(tx: Transaction) -> None:
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
        check("user", principal)
        conversation_id = self._ids.conversation_meant(public_id) or ""
        row = await self._database.read(lambda tx: records.conversation(tx, conversation_id))
        if row is None or row.kind not in KEPT or row.principal != principal.id:
            raise not_found(public_id)
        if all(self._ids.conversation_of(public_id, principal.id, agent) is None for agent in (row.agent, "")):
            raise not_found(public_id)
        if not row.unbound and not await may_use(self._directory, principal, row.backend, row.agent):
            raise not_found(public_id)
        return row

    # --- showing -------------------------------------------------------------------------------------------------

    async def _shown(self, principal: Principal, row: Conversation) -> Entry:
        summaries = await self._database.read(lambda tx: records.summaries(tx, [row.head]), long=True)
        return self._entry(row, summaries, self._names(principal))

    def _names(self, principal: Principal) -> dict[tuple[str, str], str]:
        """What each agent is called, its own name before an alias."""
        advertised = reversed(self._directory.advertised(principal))
        return {(agent.backend, agent.id): name for name, agent in advertised}

    def _entry(
        self, row: Conversation, summaries: Mapping[str, tuple[int, str, str]], names: Mapping[tuple[str, str], str]
    ) -> Entry:
        count, turn_id, first = summaries.get(row.head, (0, "", ""))
        struck = struck_places(row.struck)
        items = enumerate(codec.items_of(first) if first else ())
        return Entry(
            id=public_id(self._ids, row),
            agent=names.get((row.backend, row.agent), row.agent),
            agent_id=row.agent,
            name="" if row.pin.startswith(CONVERSATION) else row.pin,
            title=title_of([item for index, item in items if f"{turn_id}i{index}" not in struck]),
            turns=count,
            metadata=codec.loaded(row.metadata),
            created=row.created,
            used=row.used,
        )


def public_id(ids: Ids, row: Conversation) -> str:
    """The one it was given when it was made, also if that was before it had an agent."""
    if ids.conversation_of(row.pin, row.principal, "") == row.id:
        return row.pin
    return ids.conversation(row.id, row.principal, row.agent)


async def may_use(agents: Agents, principal: Principal, backend: str, agent_id: str) -> bool:
    """Whether the caller's key may use an agent, which may be gone, and the caller has come to it."""
    if not principal.comes_to(backend, agent_id):
        return False
    try:
        agent = await agents.by_id(backend, agent_id)
    except GatewayError:
        if principal.agents is None:  # what was said there they have heard; to go on, the agent must be there
            return True
        raise
    if agent is None:
        return principal.may_use(agent_id)
    return principal.may_use(agent_id, agent.name, f"{backend}/{agent.name}") and principal.holds(agent.scope)


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


def check_items(items: Sequence[Item], before: Sequence[Item]) -> None:
    """Raises InvalidRequest for what cannot be kept, or cannot be told later. `before`: what is told with them."""
    calls = {item.call_id for item in before if isinstance(item, ToolCall)}
    for item in items:
        match item:
            case ToolCall(call_id=call_id):
                calls.add(call_id)
            case ToolResult(call_id=call_id, param=param) if call_id not in calls:
                raise InvalidRequest(
                    f"The call {call_id[:80]!r} is none the agent is yet to be told of: put it before its output.",
                    param=param,
                )
            case ToolResult(content=content) | Message(content=content):
                for part in content:
                    if isinstance(part, Image) and len(part.url) > codec.MAX_IMAGE_CHARACTERS:
                        raise InvalidRequest(
                            f"A picture of more than {codec.MAX_IMAGE_CHARACTERS // 1024} KiB is not kept here: give"
                            " its address, or send it with a request.",
                            param=part.param,
                            code="invalid_image_url",
                        )


def doom_snapshots(tx: Transaction, family: str, turn_id: str) -> None:
    """Those which hold a turn."""
    for each in records.snapshots_of(tx, family):
        if any(node.id == turn_id for node in records.path(tx, each.head)):
            records.doom(tx, each.id)


def check_resting(tx: Transaction, seen: Conversation) -> None:
    """Raises ConversationBusy for a conversation that a turn is in, or has gone through since, or that waits for tool
    results: those can be given only once."""
    row = records.conversation(tx, seen.id)
    if row is None or row.kind not in KEPT:
        raise ConversationNotFound("This conversation has just been deleted.")
    if row.head != seen.head or row.thread != seen.thread or records.live_in(tx, row.id):
        raise ConversationBusy(
            "A turn of this conversation is running. Try again when that has ended.", retry_after_seconds=2
        )
    if waits_for_results(tx, row):
        raise ConversationBusy("The agent waits for tool results in this conversation. Send them first.", retry=False)


def waits_for_results(tx: Transaction, row: Conversation) -> bool:
    """Whether the agent has called the caller's tools last."""
    node = records.turn(tx, row.head) if row.head else None
    end = codec.reply_of(node.reply).end if node else None
    return end is not None and end.stop_reason is StopReason.TOOL_CALLS


def is_busy(tx: Transaction, row: Conversation) -> bool:
    """Whether a turn is in the conversation, or it waits for the caller's tools: then nothing is asked there."""
    return bool(records.live_in(tx, row.id)) or waits_for_results(tx, row)


def not_found(public_id: str) -> ConversationNotFound:
    return ConversationNotFound(f"There is no conversation {public_id[:80]!r}.")
