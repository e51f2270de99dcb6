"""A caller's instructions in a memory block of the agent: for agents with one thread, whose turns follow one another.

There is one such block for each agent, read-only for the agent itself. It is found by its label, so that any process
finds it after any crash, and what it holds is compared with what it is to hold, so that equal instructions cost one
look. A turn without instructions empties it: the next caller must not read what the one before has written.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog

from frontdesk.backends.letta.client import LettaClient
from frontdesk.errors import NotFound

log = structlog.get_logger(__name__)

Row = Mapping[str, Any]

LABEL = "frontdesk_instructions"
DESCRIPTION = "What the one who speaks to you now has asked of you. Follow it in your answers."
ROOM = 100_000  # characters, for show: Letta does not hold anybody to it

PATIENCE_SECONDS = 5.0
"""How long a block may be without its agent. It takes a fifth of a second."""


class Blocks:
    def __init__(self, client: LettaClient, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._client = client
        self._patience_seconds = patience_seconds

    async def show(self, agent_id: str, instructions: str) -> Row:
        """Have the agent see these instructions, and no others, in its own thread. Gives the agent."""
        row: Row = await self._client.get(f"/v1/agents/{agent_id}", {"include": "agent.blocks"})
        found = next((block for block in row.get("blocks") or () if block["label"] == LABEL), None)
        if found is None and instructions:
            await self._attach(agent_id, instructions)
        elif found is not None and found["value"] != instructions:  # Letta compiles the prompt anew by itself
            await self._client.patch(f"/v1/blocks/{found['id']}", {"value": instructions})
        return row

    async def _attach(self, agent_id: str, instructions: str) -> None:
        """Attached, it changes nothing for the model; written to, it does. So a crash in between leaves nothing that
        looks as if it were done."""
        described = {"label": LABEL, "description": DESCRIPTION, "read_only": True, "limit": ROOM, "value": ""}
        block: Row = await self._client.post("/v1/blocks/", described)
        await self._client.patch(f"/v1/agents/{agent_id}/core-memory/blocks/attach/{block['id']}", None)
        await self._client.patch(f"/v1/blocks/{block['id']}", {"value": instructions})

    async def sweep(self) -> int:
        """Delete such blocks which a crash has left without an agent. Gives how many that were.

        Not those of agents, of whatever setting here: another server may use them.
        """
        found = await self._without_agent()
        if not found:
            return 0
        await asyncio.sleep(self._patience_seconds)  # one may have been made just now, and not be attached yet
        left = found & await self._without_agent()
        for block_id in left:
            with suppress(NotFound):
                await self._client.delete(f"/v1/blocks/{block_id}")
                log.info("a block that belonged to nobody is deleted", block=block_id)
        return len(left)

    async def _without_agent(self) -> set[str]:
        rows: Sequence[Row] = await self._client.get(
            "/v1/blocks/", {"label": LABEL, "connected_to_agents_count_lt": 1, "limit": 1000}
        )
        return {row["id"] for row in rows}
