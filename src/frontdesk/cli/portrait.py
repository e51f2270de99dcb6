"""Agents as their Letta servers have them, served here or not, and what of that works here."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from frontdesk.app import rules
from frontdesk.backends.letta.backend import LABEL
from frontdesk.backends.letta.client import LettaClient
from frontdesk.backends.letta.roster import seconds
from frontdesk.backends.letta.twins import tag_of, twin_in
from frontdesk.cli.letta import (
    APPROVAL,
    HIDDEN,
    House,
    Row,
    awaiting_approval,
    embedding_of,
    handles,
    has_conversations,
    listing,
    model_of,
    visit,
    without_conversations,
)
from frontdesk.cli.page import Trouble
from frontdesk.config import LettaServer, Settings
from frontdesk.errors import InvalidRequest, NotFound
from frontdesk.policies.abilities import Ability, abilities

MOST_CONVERSATIONS = 500
"""More are not counted."""

INCLUDED = [("include", f"agent.{each}") for each in ("blocks", "tools", "tags")]
KINDS = {
    "custom": "custom",
    "letta_builtin": "built in",
    "letta_core": "built in",
    "letta_files_core": "files",
    "letta_memory_core": "memory",
    "letta_multi_agent_core": "other agents",
    "letta_sleeptime_core": "memory",
    "letta_voice_sleeptime_core": "memory",
}


@dataclass(frozen=True, slots=True)
class Block:
    label: str
    characters: int
    limit: int | None
    read_only: bool
    shared_with: tuple[str, ...]  # other agents, by name; not its twins


@dataclass(frozen=True, slots=True)
class OwnTool:
    name: str
    kind: str  # `memory`, `built in`, `custom`, or `MCP server NAME`
    needs_approval: bool


@dataclass(frozen=True, slots=True)
class Portrait:
    """One agent. `absent` says why it is not served, if it is not; nothing works then."""

    id: str
    name: str
    server: str
    type: str
    created: int
    description: str
    absent: str
    model: str
    provider: str
    model_known: bool | None
    context_window: int | None
    embedding: str
    tags: tuple[str, ...]
    blocks: tuple[Block, ...]
    tools: tuple[OwnTool, ...]
    one_call_at_a_time: bool  # because of its tool rules
    conversations: int | None  # made by us, those of its twins among them; None where the server has none
    twins: tuple[str, ...]  # their ids, in order
    abilities: tuple[Ability, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """One line of a list of all agents. `absent` says why it is not served; empty if it is. Of a twin `twin_of` is the
    id of its original, and `number` says which of its twins it is."""

    id: str
    name: str
    server: str
    type: str
    created: int
    absent: str
    twin_of: str = ""
    number: int = 0


# --- all of them -------------------------------------------------------------------------------------------------


def everyone(settings: Settings) -> list[Seen]:
    """All agents of all Letta servers, those which are not served among them. Raises Trouble."""

    async def look(server: LettaServer) -> list[Seen]:
        async with visit(server, settings) as house:
            return await all_of(house)

    async def look_everywhere() -> list[list[Seen]]:
        return await asyncio.gather(*map(look, settings.servers))

    return [seen for house in asyncio.run(look_everywhere()) for seen in house]


async def all_of(house: House) -> list[Seen]:
    rows = await listing(house.client, [*HIDDEN, *([("include", "agent.tags")] if house.server.tags else [])])
    names = {row["id"]: str(row["name"]) for row in rows}
    served = {agent.id for agent in await house.backend.agents()}
    twins = {twin.id: twin for row in rows if (twin := twin_in(row))}
    return [
        Seen(
            id=row["id"],
            name=row["name"],
            server=house.server.name,
            type=row.get("agent_type") or "",
            created=seconds(row.get("created_at")),
            absent="" if row["id"] in served else why_absent(row, names),
            twin_of=twins[row["id"]].original if row["id"] in twins else "",
            number=twins[row["id"]].number if row["id"] in twins else 0,
        )
        for row in rows
    ]


def why_absent(row: Row, names: Mapping[str, str]) -> str:
    """Why an agent that is there is not served."""
    if twin := twin_in(row):
        which = "twin" if twin.number == 1 else f"twin {twin.number}"
        return f"{which} of {names.get(twin.original, twin.original)}"
    if row.get("hidden"):
        return "hidden"
    if row.get("agent_type") == "sleeptime_agent":
        return "sleeptime agent"
    return "left out by tags or names"


# --- one of them -------------------------------------------------------------------------------------------------


def portrait(settings: Settings, name: str) -> Portrait:
    """The agent of this name, id, `server/name` or alias. Raises Trouble, also if there are several."""
    if not settings.servers:
        mend = "What an agent in Python can do, a running gateway tells at `GET /agents/{name}`."
        raise Trouble("There is no Letta server in the settings, and this command asks these alone.", mend)
    wanted = settings.aliases.get(name, name)

    async def look(server: LettaServer) -> list[tuple[LettaServer, str]]:
        async with visit(server, settings) as house:
            return [(server, row["id"]) for row in await called(house, wanted.removeprefix(f"{server.name}/"))]

    async def paint() -> Portrait:
        looks = await asyncio.gather(*map(look, settings.servers), return_exceptions=True)
        found = [each for seen in looks if isinstance(seen, list) for each in seen]
        if not found and (errors := [seen for seen in looks if isinstance(seen, BaseException)]):
            raise errors[0]
        server, agent_id = only(found, name)
        async with visit(server, settings) as house:
            return await painted(house, settings, agent_id)

    return asyncio.run(paint())


async def called(house: House, name: str) -> Sequence[Row]:
    """The agents of a server that have this name or id."""
    if re.fullmatch(r"agent-[0-9a-f-]{36}", name):
        with suppress(NotFound, InvalidRequest):
            return [await house.client.get(f"/v1/agents/{name}")]
    return await house.client.get("/v1/agents/", [("name", name), *HIDDEN])


def only(found: Sequence[tuple[LettaServer, str]], name: str) -> tuple[LettaServer, str]:
    match found:
        case [one]:
            return one
        case []:
            raise Trouble(f"There is no agent {name!r}.", "`frontdesk agents --all` lists those there are.")
        case _:
            ids = "".join(f"\n  {server.name}/{agent_id}" for server, agent_id in found)
            raise Trouble(f"{len(found)} agents are called {name!r}:{ids}", "Name one of them by its id.")


async def painted(house: House, settings: Settings, agent_id: str) -> Portrait:
    client = house.client
    row: Row = await client.get(f"/v1/agents/{agent_id}", INCLUDED)
    twins, sharers, models, modern = await asyncio.gather(
        twins_of(client, agent_id),
        asyncio.gather(*(sharing(client, block["id"]) for block in row["blocks"])),
        handles(client),
        has_conversations(client),
    )
    agent = next(iter(await house.backend.find(agent_id)), None)
    if agent and not modern:
        agent = without_conversations(agent)
    tools = own_tools(row)
    awaiting = [tool.name for tool in tools if tool.needs_approval]
    mode = settings.modes.get(row["name"]) or settings.modes.get(agent_id) or settings.conversation_mode
    config: Row = row.get("llm_config") or {}
    model_settings: Row = row.get("model_settings") or {}
    model = model_of(row) or config.get("model") or ""
    begun = [await made_here(client, each) for each in (agent_id, *twins)] if modern else []
    return Portrait(
        id=agent_id,
        name=row["name"],
        server=house.server.name,
        type=row.get("agent_type") or "",
        created=seconds(row.get("created_at")),
        description=row.get("description") or "",
        absent="" if agent else why_absent(row, {}),
        model=model,
        provider=model_settings.get("provider_type") or "",
        model_known=model in models if models else None,
        context_window=config.get("context_window"),
        embedding=embedding_of(row),
        tags=tuple(row.get("tags") or ()),
        blocks=tuple(
            block_of(block, [each for each in others if each["id"] != agent_id and not twin_in(each)])
            for block, others in sorted(
                zip(row["blocks"], sharers, strict=True), key=lambda each: str(each[0]["label"])
            )
        ),
        tools=tools,
        one_call_at_a_time=any(rule["type"] != APPROVAL for rule in row.get("tool_rules") or ()),
        conversations=sum(begun) if modern else None,
        twins=twins,
        abilities=abilities(agent, rules(settings), mode, awaiting) if agent else (),
    )


async def twins_of(client: LettaClient, agent_id: str) -> tuple[str, ...]:
    """The ids of an agent's twins, in order."""
    rows: Sequence[Row] = await client.get("/v1/agents/", [("tags", tag_of(agent_id)), *HIDDEN])
    twins = [twin for row in rows if (twin := twin_in(row)) and twin.original == agent_id]
    return tuple(twin.id for twin in sorted(twins, key=lambda twin: twin.number))


async def sharing(client: LettaClient, block_id: str) -> Sequence[Row]:
    """The agents that have a memory block."""
    return await client.get(f"/v1/blocks/{block_id}/agents")


async def made_here(client: LettaClient, agent_id: str) -> int:
    """How many conversations of an agent were made by us; at most MOST_CONVERSATIONS are looked at."""
    query = {"agent_id": agent_id, "limit": MOST_CONVERSATIONS}
    rows: Sequence[Row] = await client.get("/v1/conversations/", query)
    return sum((row.get("summary") or "").lower().startswith(LABEL.lower()) for row in rows)


def block_of(row: Row, others: Sequence[Row]) -> Block:
    return Block(
        row["label"],
        len(row["value"]),
        row.get("limit"),
        bool(row.get("read_only")),
        tuple(sorted(str(other["name"]) for other in others)),
    )


def own_tools(row: Row) -> tuple[OwnTool, ...]:
    waiting = awaiting_approval(row)
    tools: Sequence[Row] = row["tools"]
    return tuple(
        OwnTool(tool["name"], kind(tool), tool["name"] in waiting)
        for tool in sorted(tools, key=lambda tool: tool["name"])
    )


def kind(tool: Row) -> str:
    """Where a tool comes from."""
    named = str(tool.get("tool_type") or "custom")
    if named == "external_mcp":
        metadata: Row = tool.get("metadata_") or {}
        server: Row = metadata.get("mcp") or {}
        return f"MCP server {server.get('server_name') or ''}".strip()
    return KINDS.get(named, named.replace("_", " "))
