"""What agents are told of themselves: prompt and memory, compiled by Letta when a conversation begins, and then kept.

Letta sends a conversation what it compiled at its beginning, until somebody has it compiled anew, whatever has become
of the agent's memory meanwhile. So that is looked after here: before a conversation goes on, the agent's memory blocks
are looked at, but for one agent not more often than every few seconds. Nothing of it has to outlive the process: what a
prompt shows can be read in it.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import structlog

from frontdesk.backends.letta.client import LettaClient
from frontdesk.errors import BackendUnavailable, EndpointNotFound
from frontdesk.turn import Thread

log = structlog.get_logger(__name__)

Row = Mapping[str, Any]

REMEMBERED = 1000  # conversations; a compiled prompt has some 5,000 characters, and its memory may have more
PLACEHOLDER = "{CORE_MEMORY}"


@dataclass(frozen=True, slots=True)
class Memory:
    """An agent's prompt and blocks, when they were looked at. `mark` changes with what a compiled prompt shows."""

    system: str
    blocks: tuple[Row, ...]
    mark: str
    seen: float


@dataclass(frozen=True, slots=True)
class Compiled:
    """A conversation's prompt, empty while nobody needed it, and the `mark` of the memory it shows."""

    text: str = ""
    mark: str = ""


class Prompts:
    """`refresh_seconds`: how long a look at an agent's memory is good for; None leaves prompts as Letta has them."""

    def __init__(self, client: LettaClient, refresh_seconds: float | None) -> None:
        self._client = client
        self._refresh_seconds = refresh_seconds
        self._memories: dict[str, Memory] = {}  # by agent
        self._compiled: OrderedDict[str, Compiled] = OrderedDict()  # by conversation
        self._new: set[str] = set()  # conversations that were compiled just now

    def opened(self, thread: Thread) -> None:
        """It was compiled just now."""
        if len(self._new) < REMEMBERED:
            self._new.add(thread.id)

    def edited(self, agent_id: str) -> None:
        """A tool of the agent's has run: its memory may be another."""
        self._memories.pop(agent_id, None)

    def forget(self, thread: Thread) -> None:
        """Letta has compiled it anew."""
        self._compiled.pop(thread.id, None)

    async def refresh(self, agent_id: str, thread: Thread) -> None:
        """Have the prompt compiled anew if it shows another memory than the agent has. The agent's own thread Letta
        looks after itself."""
        if thread.id in self._new:
            self._new.discard(thread.id)
            return
        if thread.own or self._refresh_seconds is None:
            return
        known = self._compiled.get(thread.id, Compiled())
        if known.mark:
            memory, text = await self._memory(agent_id, self._refresh_seconds), known.text
        else:
            memory, text = await asyncio.gather(self._memory(agent_id, self._refresh_seconds), self._first(thread))
        if memory is None or memory.mark == known.mark:
            return
        if not shows(text or await self._first(thread), memory):
            text = await self._recompiled(thread)
        self._keep(thread, Compiled(text if known.text else "", memory.mark))

    async def text(self, thread: Thread) -> str:
        """A conversation's prompt as it is now. Raises BackendUnavailable if Letta does not tell it."""
        known = self._compiled.get(thread.id, Compiled())
        if not known.text:
            known = replace(known, text=await self._first(thread))
        self._keep(thread, known)
        return known.text or untold()

    async def own(self, row: Row) -> str:
        """The same of an agent's own thread, which Letta compiles anew by itself."""
        ids: Sequence[str] = row.get("message_ids") or ()
        return prompt_in(await self._client.get(f"/v1/messages/{ids[0]}")) or untold() if ids else untold()

    async def _first(self, thread: Thread) -> str:
        query = {"limit": 1, "order": "asc"}
        return prompt_in(await self._client.get(f"/v1/conversations/conv-{thread.id}/messages", query))

    async def _recompiled(self, thread: Thread) -> str:
        try:
            return str(await self._client.post(f"/v1/conversations/conv-{thread.id}/recompile"))
        except EndpointNotFound:
            self._refresh_seconds = None
            return ""

    async def _memory(self, agent_id: str, good_for_seconds: float) -> Memory | None:
        """None where the server does not show it; it is not asked again then."""
        known = self._memories.get(agent_id)
        if known and time.monotonic() < known.seen + good_for_seconds:
            return known
        row: Row = await self._client.get(f"/v1/agents/{agent_id}", {"include": "agent.blocks"})
        if not isinstance(blocks := row.get("blocks"), list):
            self._refresh_seconds = None
            return None
        found = memory_of(row.get("system") or "", blocks, time.monotonic())  # pyright: ignore[reportUnknownArgumentType]
        self._memories[agent_id] = found
        return found

    def _keep(self, thread: Thread, compiled: Compiled) -> None:
        self._compiled[thread.id] = compiled
        self._compiled.move_to_end(thread.id)
        if len(self._compiled) > REMEMBERED:
            self._compiled.popitem(last=False)


def memory_of(system: str, blocks: Sequence[Row], seen: float) -> Memory:
    rendered = sorted([block.get("label"), block.get("description"), block.get("value")] for block in blocks)
    mark = hashlib.sha256(msgspec.json.encode([system, rendered])).hexdigest()
    return Memory(system, tuple(blocks), mark, seen)


def shows(text: str, memory: Memory) -> bool:
    """Whether a compiled prompt shows this memory. In doubt it does not: to compile it anew costs 30 ms, once."""
    if not all(part.strip() in text for part in memory.system.split(PLACEHOLDER)):
        return False
    if text.count("\n<value>\n") != len(memory.blocks):
        return False
    return all(shows_block(text, block) for block in memory.blocks)


def shows_block(text: str, block: Row) -> bool:
    start = text.find(f"<{block.get('label')}>\n<description>\n{block.get('description') or ''}")
    end = text.find("\n<value>\n", start)
    return start >= 0 and end >= 0 and text.startswith(f"\n<value>\n{block.get('value') or ''}\n</value>", end)


def prompt_in(rows: Sequence[Row]) -> str:
    """The compiled prompt, if that is what the first message is."""
    first: Row = rows[0] if rows else {}
    return str(first.get("content") or "") if first.get("message_type") == "system_message" else ""


def untold() -> str:
    raise BackendUnavailable("The Letta server does not tell the agent's own prompt.")
