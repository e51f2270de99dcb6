"""A caller's instructions in a memory block of the agent: for agents with one thread, whose turns follow one another.

There is one such block for each agent, read-only for the agent itself. It is found by its label, so that any process
finds it after any crash, and what it holds is compared with what it is to hold, so that equal instructions cost one
look. A turn without instructions empties it: the next caller must not read what the one before has written.
"""

from collections.abc import Callable, Mapping, Sequence
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


class Blocks:
    def __init__(self, client: LettaClient) -> None:
        self._client = client

    async def show(self, agent_id: str, instructions: str) -> None:
        """Have the agent see these instructions, and no others, in its own thread."""
        row: Row = await self._client.get(f"/v1/agents/{agent_id}", {"include": "agent.blocks"})
        found = next((block for block in row.get("blocks") or () if block["label"] == LABEL), None)
        if found is None and instructions:
            await self._attach(agent_id, instructions)
        elif found is not None and found["value"] != instructions:  # Letta compiles the prompt anew by itself
            await self._client.patch(f"/v1/blocks/{found['id']}", {"value": instructions})

    async def _attach(self, agent_id: str, instructions: str) -> None:
        """Attached, it changes nothing for the model; written to, it does. So a crash in between leaves nothing that
        looks as if it were done."""
        described = {"label": LABEL, "description": DESCRIPTION, "read_only": True, "limit": ROOM, "value": ""}
        block: Row = await self._client.post("/v1/blocks/", described)
        await self._client.patch(f"/v1/agents/{agent_id}/core-memory/blocks/attach/{block['id']}", None)
        await self._client.patch(f"/v1/blocks/{block['id']}", {"value": instructions})

    async def sweep(self, keeps: Callable[[Row], bool]) -> int:
        """Delete such blocks of all agents but those that keep theirs, and those which a crash has left without an
        agent. Gives how many that were."""
        blocks: Sequence[Row] = await self._client.get("/v1/blocks/", {"label": LABEL, "limit": 1000})
        deleted = 0
        for block in blocks:
            path = f"/v1/blocks/{block['id']}"
            agents: Sequence[Row] = ()
            with suppress(NotFound):
                agents = await self._client.get(f"{path}/agents")
            if any(keeps(agent) for agent in agents):
                continue
            with suppress(NotFound):
                await self._client.delete(path)
                deleted += 1
            for agent in agents:
                await self._client.post("/v1/conversations/default/recompile", {"agent_id": agent["id"]})
                log.info("instructions are taken out of an agent's memory", agent=agent["name"])
        return deleted
