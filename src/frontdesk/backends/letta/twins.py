"""Modern twins of agents: for turns with the caller's tools, which older agents know nothing of, and to share load.

A twin is an agent of the modern type with the same memory blocks, the same tools, model and prompt as its original,
hidden from all listings. The original is left as it is, but for a memory block that a twin makes: it is given that too,
and so are all twins. An older agent has one, which is its first; with replicas any agent has as many as are wished.

A twin is known by its metadata and tags alone, so any process finds it, after any crash. It is made in two steps: first
it is there, whole but unfinished, then it is marked with the fingerprint of what it was made from. Of several with one
number that are unfinished the oldest remains, and none is finished while there is another: so there are never two.

On which twin a conversation is, Letta knows; a new one goes by its turn's id. So nothing need be remembered here.
"""

import asyncio
import hashlib
import re
import time
import zlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
import structlog

from frontdesk.backends.letta.client import LettaClient
from frontdesk.errors import AgentFailed, AgentNotFound, NotFound

log = structlog.get_logger(__name__)

T = TypeVar("T")
Row = Mapping[str, Any]

TAG = "frontdesk-twin"
TYPE = "letta_v1_agent"
MODERN = frozenset({TYPE, "sleeptime_agent"})  # their loop knows conversations and client tools
SEND_MESSAGE = "send_message"
ARCHIVAL = frozenset({"archival_memory_insert", "archival_memory_search"})
INCLUDED = [("include", f"agent.{each}") for each in ("blocks", "tools", "secrets", "sources")]
PAGE = 200

PATIENCE_SECONDS = 5.0
"""How long a twin may remain unfinished before its maker counts as dead. It takes a tenth of a second."""

LOOK_SECONDS = 0.1
KEPT_SECONDS = 90 * 86_400.0
"""How long a conversation in which nobody speaks keeps a twin that is one too many."""

REMEMBERED = 1000  # conversations

NOW = """
Whatever is said above of `send_message`, of an inner monologue which nobody sees, and of heartbeats is out of date. \
Now the user reads what you write: answer directly, and never call `send_message`. Call the tools you are given as you \
need them, several at once if they do not depend on each other. You go on by yourself when their results are there. \
Your turn ends when you answer without calling a tool."""
"""The end of a twin's prompt. The agent's own text stands before it unchanged: it may hold anything its owner wrote."""


@dataclass(frozen=True, slots=True)
class Twin:
    """`made_from` is the fingerprint of what it was made from, or last brought in step with; empty while it is made.
    `grown` are memory blocks which it has made since then."""

    id: str
    original: str
    made_from: str
    grown: frozenset[str] = frozenset()
    number: int = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many twins an agent is to have. Conversations on further ones may be gone on with, or are `lost`."""

    twins: int
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Original:
    """An agent, as its first twin is to be."""

    id: str
    body: Row
    archive: str
    fingerprint: str


class Twins:
    def __init__(
        self, client: LettaClient, patience_seconds: float = PATIENCE_SECONDS, kept_seconds: float = KEPT_SECONDS
    ) -> None:
        self._client = client
        self._patience_seconds = patience_seconds
        self._kept = timedelta(seconds=kept_seconds)
        self._locks: dict[str, asyncio.Lock] = {}  # by agent
        self._looks: dict[str, tuple[float, Mapping[int, Twin]]] = {}  # when they were in step last, by agent
        self._at_work: set[asyncio.Future[Any]] = set()
        self._new: set[str] = set()  # conversations in which nothing has been said
        self._originals: frozenset[str] = frozenset()

    # --- conversations -------------------------------------------------------------------------------------------

    async def open(self, agent_id: str, body: Row, turn_id: str = "", among: int = 1) -> Row:
        """Begin a conversation on one of an agent's twins. Which one, the turn's id decides."""
        twin, _ = await self.of(agent_id, zlib.crc32(turn_id.encode()) % among + 1)
        row: Row = await self._client.post("/v1/conversations/", body, {"agent_id": twin.id})
        if len(self._new) < REMEMBERED:
            self._new.add(row["id"])
        return row

    async def keep_in_step(self, agent_id: str, conversation: str) -> bool:
        """Before something new is said in a twin's conversation: give all twins what has changed on the agent.

        False if nothing has.
        """
        if conversation in self._new:
            self._new.discard(conversation)
            return False
        original, twins = await asyncio.gather(self._original(agent_id), self._all_of(agent_id))
        if in_step(finished(twins), original):
            return False
        await self._to_its_end(self._settled(agent_id))
        return True

    # --- the twins of an agent -----------------------------------------------------------------------------------

    async def of(self, agent_id: str, number: int = 1) -> tuple[Twin, bool]:
        """An agent's twin of this number, and whether one had to be made or brought in step just now.

        Raises AgentNotFound if the agent is gone.
        """
        original, there = await asyncio.gather(self._original(agent_id), self._all_of(agent_id))
        twins = finished(there)
        if number in twins and in_step(twins, original):
            return twins[number], False
        return (await self._to_its_end(self._settled(agent_id, number)))[number], True

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Also if whoever waits for it goes away: a twin that is half made would make the next one wait."""
        task = asyncio.ensure_future(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return await asyncio.shield(task)

    async def _settled(self, agent_id: str, most: int = 0) -> Mapping[int, Twin]:
        """All twins of an agent, in step with it and with each other. Those up to number `most` that are missing are
        made, in order."""
        asked = time.monotonic()
        async with self._locks.setdefault(agent_id, asyncio.Lock()):
            looked, twins = self._looks.get(agent_id, (0.0, {}))
            if looked > asked and (most in twins or not most):  # others have waited too: one look does for all
                return twins
            looked = time.monotonic()
            original, there = await asyncio.gather(self._original(agent_id), self._all_of(agent_id))
            twins = finished(there)
            for number in range(1, most + 1):
                if number not in twins:
                    twins[number] = await self._made(original, number)
            if any(twin.grown for twin in twins.values()):
                original = await self._grown(twins.values(), original)
            for number, twin in twins.items():  # one by one: they share blocks
                if not in_step({number: twin}, original):
                    twins[number] = await self._brought_over(twin, original)
            self._looks[agent_id] = (looked, twins)
            return twins

    async def _grown(self, twins: Iterable[Twin], original: Original) -> Original:
        """The agent with the blocks that its twins have made, for all of them have one memory."""
        grown = frozenset[str]().union(*(twin.grown for twin in twins))
        for block in sorted(grown.difference(original.body["block_ids"])):
            with suppress(AgentFailed):  # it has one of that label already
                await self._client.patch(f"/v1/agents/{original.id}/core-memory/blocks/attach/{block}", None)
        return await self._original(original.id)

    async def _original(self, agent_id: str) -> Original:
        row: Row = await self._client.get(f"/v1/agents/{agent_id}", INCLUDED)
        archive = ""
        if any(tool["name"] in ARCHIVAL for tool in row["tools"]):
            archive = await self._archive(agent_id)
        body = body_of(row)
        return Original(agent_id, body, archive, digest([body, archive]))

    async def _archive(self, agent_id: str) -> str:
        rows = await self._client.get("/v1/archives/", {"agent_id": agent_id})
        return rows[0]["id"] if rows else ""

    async def _brought_over(self, twin: Twin, original: Original) -> Twin:
        """All of it at once, and the fingerprint with it."""
        if original.archive and not await self._archive(twin.id):  # Letta allows one for each agent
            await self._client.patch(f"/v1/agents/{twin.id}/archives/attach/{original.archive}", None)
        new, number = not twin.made_from, twin.number
        metadata = mark(original.id, original.fingerprint, original.body["block_ids"], number)
        name = numbered(original.body["name"], number)
        await self._client.patch(f"/v1/agents/{twin.id}", {**original.body, "name": name, "metadata": metadata})
        log.info("a twin is in step with its agent", agent=original.id, twin=twin.id, number=number, new=new)
        return replace(twin, made_from=original.fingerprint, grown=frozenset())

    # --- one of each number --------------------------------------------------------------------------------------

    async def _all_of(self, agent_id: str) -> list[Twin]:
        """The oldest first."""
        query = [("tags", tag_of(agent_id)), ("show_hidden_agents", "true"), ("include", "agent.blocks")]
        twins = twins_in(await self._client.get("/v1/agents/", query))
        return [twin for twin in twins if twin.original == agent_id]

    async def _made(self, original: Original, number: int) -> Twin:
        """A twin that nobody else uses yet, or the one that another process has finished meanwhile."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._patience_seconds
        mine, new = "", False
        while True:
            there = [twin for twin in await self._all_of(original.id) if twin.number == number]
            if new and mine not in [twin.id for twin in there]:
                await self._delete(mine)
                raise AgentFailed("The Letta server does not list hidden agents, so the agent can have no twin there.")
            new = False
            if not there:  # or whoever was before us has given up
                mine, new = await self._create(original, number), True
                continue
            chosen = next((twin for twin in there if twin.made_from), there[0])
            if mine and mine != chosen.id:
                await self._delete(mine)
                mine = ""
            elif chosen.made_from or (mine and len(there) == 1):
                return chosen
            elif clock() >= deadline:  # whoever was before us has died
                for twin in there[1:]:
                    await self._delete(twin.id)
                return chosen
            else:
                await asyncio.sleep(LOOK_SECONDS)

    async def _create(self, original: Original, number: int) -> str:
        made = {
            **original.body,
            "name": numbered(original.body["name"], number),
            "agent_type": TYPE,
            "hidden": True,
            "tags": [TAG, tag_of(original.id)],
            "metadata": mark(original.id, number=number),
            "include_base_tools": False,
            "include_base_tool_rules": False,
            "initial_message_sequence": [],
        }
        return str((await self._client.post("/v1/agents/", made))["id"])

    async def _delete(self, twin_id: str) -> None:
        """The blocks, tools and archive, which are its agent's, remain."""
        with suppress(NotFound):
            await self._client.delete(f"/v1/agents/{twin_id}")

    # --- tidying up ----------------------------------------------------------------------------------------------

    async def count(self) -> int:
        """How many there are, of all agents."""
        twins = await self._all()
        self._originals = frozenset(twin.original for twin in twins)
        return len(twins)

    def has(self, agent_id: str) -> bool:
        """Whether an agent had twins when they were last counted."""
        return agent_id in self._originals

    async def sweep(self, wanted: Callable[[Row], Wanted] = lambda _: Wanted(1)) -> int:
        """Delete twins whose agent is gone, what somebody left unfinished, and those which are more than wanted. Gives
        how many that were.

        No new conversation begins on one that is too many; it remains while one of its own may be gone on with.
        """
        doomed = await self._doomed(wanted)
        for twin in doomed:
            await self._delete(twin.id)
            log.info("a twin is deleted", agent=twin.original, twin=twin.id, number=twin.number)
        return len(doomed)

    async def _doomed(self, wanted: Callable[[Row], Wanted]) -> list[Twin]:
        twins = await self._all()
        rows = {original: await self._row(original) for original in {twin.original for twin in twins}}
        over: set[str] = set()
        for twin in twins:
            row = rows[twin.original]
            if row is None or await self._is_over(twin, wanted(row)):
                over.add(twin.id)
        if any(twin.id not in over for twin in spare(twins)):
            await asyncio.sleep(self._patience_seconds)  # it may be finished by now
            twins = [twin for twin in await self._all() if twin in twins]
        return [twin for twin in twins if twin.id in over or twin in spare(twins)]

    async def _is_over(self, twin: Twin, wanted: Wanted) -> bool:
        """Whether it is one too many, and none of its conversations may be gone on with."""
        if twin.number <= wanted.twins:
            return False
        return wanted.lost or (twin.made_from != "" and not await self._is_used(twin))

    async def _is_used(self, twin: Twin) -> bool:
        """Whether it has a conversation that was used within the time for which conversations are kept."""
        query = {"agent_id": twin.id, "order_by": "last_message_at", "limit": PAGE}
        rows: Sequence[Row] = await self._client.get("/v1/conversations/", query)
        since = datetime.now(UTC) - self._kept
        return any(moment(row.get("last_message_at") or row["created_at"]) > since for row in rows)

    async def _all(self) -> list[Twin]:
        """The oldest first."""
        found: dict[str, Row] = {}
        query = [("tags", TAG), ("show_hidden_agents", "true"), ("limit", str(PAGE))]
        after: list[tuple[str, str]] = []
        while True:
            rows: Sequence[Row] = await self._client.get("/v1/agents/", query + after)
            before = len(found)
            found.update({row["id"]: row for row in rows})
            if len(found) == before or len(rows) < PAGE:
                return twins_in(list(found.values()))
            after = [("after", rows[-1]["id"])]

    async def _row(self, agent_id: str) -> Row | None:
        """An agent as it is listed; None if it is gone."""
        try:
            return await self._client.get(f"/v1/agents/{agent_id}")
        except AgentNotFound:
            return None

    async def aclose(self) -> None:
        await asyncio.gather(*self._at_work, return_exceptions=True)


# --- what a twin is like ---------------------------------------------------------------------------------------------


def body_of(row: Row) -> dict[str, Any]:
    """What a twin has of its agent, in a fixed order. Of a modern one it has all as it is."""
    system, config, tools, ruled = row.get("system") or "", row["llm_config"], row["tools"], row["tool_rules"] or ()
    if row.get("agent_type") not in MODERN:
        system = f"{system}\n{NOW}"
        config = config | {"put_inner_thoughts_in_kwargs": False, "parallel_tool_calls": True}
        tools = [tool for tool in tools if tool["name"] != SEND_MESSAGE]
        ruled = rules(ruled)
    same = ("embedding_config", "compaction_settings", "timezone", "max_files_open", "per_file_view_window_char_limit")
    return {
        "name": re.sub(r"[^\w '\-]", "-", f"{row['name']} - Frontdesk twin"),
        "system": system,
        "llm_config": config,
        "reasoning": bool(config.get("enable_reasoner")),
        "tool_ids": sorted(tool["id"] for tool in tools),
        "tool_rules": sorted(ruled, key=str),
        "block_ids": sorted(block["id"] for block in row["blocks"]),
        "folder_ids": sorted(source["id"] for source in row["sources"]),
        "secrets": {secret["key"]: secret["value"] for secret in row["secrets"]},
        **{name: row[name] for name in same if row.get(name) is not None},
    }


def rules(given: Sequence[Row]) -> list[Row]:
    """Those that mean something to a modern agent, which goes on after a tool without being told. Fewer are better:
    with any rule but one for approval, Letta lets the model make one call at a time."""
    kept: list[Row] = []
    for rule in given:
        children = [each for each in rule.get("children") or () if each != SEND_MESSAGE]
        meant = {**rule, "children": children} if children else rule
        if rule["type"] != "continue_loop" and SEND_MESSAGE not in str(meant):
            kept.append(meant)
    return sorted(kept, key=str)


def numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name} {number}"


def mark(agent_id: str, made_from: str = "", blocks: Sequence[str] = (), number: int = 1) -> dict[str, Any]:
    """The metadata of a twin: whose it is and which one, from what it was made, and with which blocks."""
    return {"frontdesk": {"twin_of": agent_id, "number": number, "made_from": made_from, "blocks": [*blocks]}}


def twin_in(row: Row) -> Twin | None:
    """The twin that an agent is; None for one that is not ours."""
    match row.get("metadata"):
        case {"frontdesk": {"twin_of": str(original), "made_from": str(made_from), "blocks": [*given], **more}} if (
            row.get("agent_type") == TYPE
        ):
            grown = {block["id"] for block in row.get("blocks") or ()}.difference(given)
            number = more.get("number")
            return Twin(
                row["id"],
                original,
                made_from,
                frozenset(grown) if made_from else frozenset(),
                number if isinstance(number, int) else 1,
            )
        case _:
            return None


def twins_in(rows: Sequence[Row]) -> list[Twin]:
    """The oldest first."""
    in_order = sorted(rows, key=lambda row: (row.get("created_at") or "", row["id"]))
    return [twin for row in in_order if (twin := twin_in(row))]


def finished(twins: Sequence[Twin]) -> dict[int, Twin]:
    """Of one agent's twins the oldest finished one of each number."""
    return {twin.number: twin for twin in reversed(twins) if twin.made_from}


def in_step(twins: Mapping[int, Twin], original: Original) -> bool:
    return all(twin.made_from == original.fingerprint and not twin.grown for twin in twins.values())


def spare(twins: Sequence[Twin]) -> list[Twin]:
    """All but the oldest finished one of each agent and number."""
    used = {(twin.original, twin.number): twin for twin in reversed(twins) if twin.made_from}
    return [twin for twin in twins if used.get((twin.original, twin.number)) != twin]


def tag_of(agent_id: str) -> str:
    return f"{TAG}-of-{agent_id}"


def digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def moment(written: str) -> datetime:
    """Letta's time of day; where it names no zone it is UTC."""
    found = datetime.fromisoformat(written)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
