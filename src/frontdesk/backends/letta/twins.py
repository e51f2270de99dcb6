"""Modern twins of older agents, for turns with the caller's tools.

Letta's older loop knows nothing of client tools and conversations. So such an agent is given a twin: an agent of the
modern type with the same memory blocks, the same tools, model and prompt, hidden from all listings. The agent itself is
left as it is, but for a memory block that its twin makes: it is given that too.

A twin is known by its metadata and tags alone, so any process finds it, after any crash. It is made in two steps: first
it is there, whole but unfinished, then it is marked with the fingerprint of what it was made from. Of several that are
unfinished the oldest remains, and none is finished while there is another: so there are never two.
"""

import asyncio
import hashlib
import re
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
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
SEND_MESSAGE = "send_message"
ARCHIVAL = frozenset({"archival_memory_insert", "archival_memory_search"})
INCLUDED = [("include", f"agent.{each}") for each in ("blocks", "tools", "secrets", "sources")]
PAGE = 200

PATIENCE_SECONDS = 5.0
"""How long a twin may remain unfinished before its maker counts as dead. It takes a tenth of a second."""

LOOK_SECONDS = 0.1
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


@dataclass(frozen=True, slots=True)
class Original:
    """An older agent, as its twin is to be."""

    id: str
    body: Row
    archive: str
    fingerprint: str


class Twins:
    def __init__(self, client: LettaClient, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._client = client
        self._patience_seconds = patience_seconds
        self._locks: dict[str, asyncio.Lock] = {}  # by agent
        self._at_work: set[asyncio.Future[Any]] = set()
        self._new: set[str] = set()  # conversations in which nothing has been said

    # --- conversations -------------------------------------------------------------------------------------------

    async def open(self, agent_id: str, body: Row) -> Row:
        """Begin a conversation of an agent's twin."""
        twin, _ = await self.of(agent_id)
        row: Row = await self._client.post("/v1/conversations/", body, {"agent_id": twin.id})
        if len(self._new) < REMEMBERED:
            self._new.add(row["id"])
        return row

    async def keep_in_step(self, agent_id: str, conversation: str) -> bool:
        """Before something new is said in a twin's conversation: give it what has changed on the agent.

        False if nothing has.
        """
        if conversation in self._new:
            self._new.discard(conversation)
            return False
        _, changed = await self.of(agent_id)
        return changed

    # --- the twin of an agent ------------------------------------------------------------------------------------

    async def of(self, agent_id: str) -> tuple[Twin, bool]:
        """An agent's twin, and whether it had to be made or brought in step just now.

        Raises AgentNotFound if the agent is gone.
        """
        original, twin = await asyncio.gather(self._original(agent_id), self._found(agent_id))
        if twin and twin.made_from == original.fingerprint and not twin.grown:
            return twin, False
        return await self._to_its_end(self._settled(original)), True

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Also if whoever waits for it goes away: a twin that is half made would make the next one wait."""
        task = asyncio.ensure_future(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return await asyncio.shield(task)

    async def _settled(self, original: Original) -> Twin:
        async with self._locks.setdefault(original.id, asyncio.Lock()):
            twin = await self._found(original.id) or await self._made(original)
            if twin.grown:
                original = await self._grown(twin, original)
            elif twin.made_from == original.fingerprint:  # others were faster
                return twin
            return await self._brought_over(twin, original)

    async def _grown(self, twin: Twin, original: Original) -> Original:
        """The agent with the blocks that its twin has made, for the two have one memory."""
        for block in sorted(twin.grown.difference(original.body["block_ids"])):
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
        metadata = mark(original.id, original.fingerprint, original.body["block_ids"])
        await self._client.patch(f"/v1/agents/{twin.id}", {**original.body, "metadata": metadata})
        log.info("a twin is in step with its agent", agent=original.id, twin=twin.id, new=not twin.made_from)
        return Twin(twin.id, original.id, original.fingerprint)

    # --- one for each --------------------------------------------------------------------------------------------

    async def _found(self, agent_id: str) -> Twin | None:
        return next((twin for twin in await self._all_of(agent_id) if twin.made_from), None)

    async def _all_of(self, agent_id: str) -> list[Twin]:
        """The oldest first."""
        query = [("tags", tag_of(agent_id)), ("show_hidden_agents", "true"), ("include", "agent.blocks")]
        twins = twins_in(await self._client.get("/v1/agents/", query))
        return [twin for twin in twins if twin.original == agent_id]

    async def _made(self, original: Original) -> Twin:
        """A twin that nobody else uses yet, or the one that another process has finished meanwhile."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._patience_seconds
        mine, new = "", False
        while True:
            there = await self._all_of(original.id)
            if new and mine not in [twin.id for twin in there]:
                await self._delete(mine)
                raise AgentFailed("The Letta server does not list hidden agents, so the agent can have no twin there.")
            new = False
            if not there:  # or whoever was before us has given up
                mine, new = await self._create(original), True
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

    async def _create(self, original: Original) -> str:
        made = {
            **original.body,
            "agent_type": TYPE,
            "hidden": True,
            "tags": [TAG, tag_of(original.id)],
            "metadata": mark(original.id),
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

    async def sweep(self, *, keep: bool = True) -> int:
        """Delete twins whose agent is gone, what somebody left unfinished, and with `keep` false all of them. Gives how
        many that were."""
        doomed = await self._doomed(keep=keep)
        for twin in doomed:
            await self._delete(twin.id)
            log.info("a twin is deleted", agent=twin.original, twin=twin.id)
        return len(doomed)

    async def _doomed(self, *, keep: bool) -> list[Twin]:
        twins = await self._all()
        if not keep:
            return twins
        gone = [original for original in {twin.original for twin in twins} if await self._is_gone(original)]
        if any(twin.original not in gone for twin in spare(twins)):
            await asyncio.sleep(self._patience_seconds)  # it may be finished by now
            twins = [twin for twin in await self._all() if twin in twins]
        return [twin for twin in twins if twin.original in gone or twin in spare(twins)]

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

    async def _is_gone(self, agent_id: str) -> bool:
        try:
            await self._client.get(f"/v1/agents/{agent_id}")
        except AgentNotFound:
            return True
        return False

    async def aclose(self) -> None:
        await asyncio.gather(*self._at_work, return_exceptions=True)


# --- what a twin is like ---------------------------------------------------------------------------------------------


def body_of(row: Row) -> dict[str, Any]:
    """What a twin has of its agent, in a fixed order."""
    config = row["llm_config"] | {"put_inner_thoughts_in_kwargs": False, "parallel_tool_calls": True}
    same = ("embedding_config", "compaction_settings", "timezone", "max_files_open", "per_file_view_window_char_limit")
    return {
        "name": re.sub(r"[^\w '\-]", "-", f"{row['name']} - Frontdesk twin"),
        "system": f"{row.get('system') or ''}\n{NOW}",
        "llm_config": config,
        "reasoning": bool(config.get("enable_reasoner")),
        "tool_ids": sorted(tool["id"] for tool in row["tools"] if tool["name"] != SEND_MESSAGE),
        "tool_rules": rules(row["tool_rules"] or ()),
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


def mark(agent_id: str, made_from: str = "", blocks: Sequence[str] = ()) -> dict[str, Any]:
    """The metadata of a twin: whose it is, from what it was made, and with which blocks."""
    return {"frontdesk": {"twin_of": agent_id, "made_from": made_from, "blocks": [*blocks]}}


def twin_in(row: Row) -> Twin | None:
    """The twin that an agent is; None for one that is not ours."""
    match row.get("metadata"):
        case {"frontdesk": {"twin_of": str(original), "made_from": str(made_from), "blocks": [*given]}} if (
            row.get("agent_type") == TYPE
        ):
            grown = {block["id"] for block in row.get("blocks") or ()}.difference(given)
            return Twin(row["id"], original, made_from, frozenset(grown) if made_from else frozenset())
        case _:
            return None


def twins_in(rows: Sequence[Row]) -> list[Twin]:
    """The oldest first."""
    in_order = sorted(rows, key=lambda row: (row.get("created_at") or "", row["id"]))
    return [twin for row in in_order if (twin := twin_in(row))]


def spare(twins: Sequence[Twin]) -> list[Twin]:
    """All but the oldest finished one of each agent."""
    used = {twin.original: twin for twin in reversed(twins) if twin.made_from}
    return [twin for twin in twins if used.get(twin.original) != twin]


def tag_of(agent_id: str) -> str:
    return f"{TAG}-of-{agent_id}"


def digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
