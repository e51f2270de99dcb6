"""GET /agents: who is here and what works with each of them. Their instructions and prompts are nobody's business."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypedDict
from urllib.parse import quote

from fastapi import APIRouter, Query, Request

from frontdesk.directory import Directory
from frontdesk.policies.abilities import abilities
from frontdesk.policies.options import Rules
from frontdesk.policies.search import QUERY_CHARACTERS, Search
from frontdesk.protocols.a2a.paths import a2a_path
from frontdesk.protocols.agent_paths import AGENTS, SHARED, V1, Own
from frontdesk.protocols.front import address, visitor
from frontdesk.turn import Agent, Mode, Principal

Wish = Annotated[str, Query(max_length=QUERY_CHARACTERS, description="What an agent is wanted for, in plain words")]
Limit = Annotated[int, Query(ge=1, le=100, description="How many of those that are found")]

ModeOf = Callable[[Agent, Principal], Mode]
"""How this caller's requests to an agent find their conversations, where the model string does not say."""


class Entry(TypedDict):
    """An agent as it is listed. `url` and `base_url` are paths on this server."""

    id: str
    object: str
    name: str
    agent_id: str
    backend: str
    created: int
    description: str
    tags: list[str]
    model: str
    scope: str
    context_window: int | None
    skills: list[dict[str, str]]
    url: str
    base_url: str
    a2a_url: str


def entry(name: str, agent: Agent) -> Entry:
    """`name`: what means it as a model."""
    url = f"{AGENTS}/{quote(name, safe='')}"
    return {
        "id": name,
        "object": "agent",
        "name": agent.name or agent.id,
        "agent_id": agent.id,
        "backend": agent.backend,
        "created": agent.created,
        "description": agent.description,
        "tags": list(agent.tags),
        "model": agent.model,
        "scope": agent.scope,
        "context_window": agent.context_window,
        "skills": [{"name": each.name, "description": each.description} for each in agent.skills],
        "url": url,
        "base_url": url + V1,
        "a2a_url": a2a_path(name),
    }


def router(directory: Directory, rules: Rules, mode: ModeOf, own: Own) -> APIRouter:
    routes = APIRouter(tags=["Agents"])

    index = Search()

    def listed_for(principal: Principal) -> list[Agent]:
        """Each once: also where it has other names."""
        return list({(agent.backend, agent.id): agent for _, agent in directory.advertised(principal)}.values())

    @routes.get(AGENTS, summary="The agents you may use, and where")
    async def agents(request: Request, search: Wish = "", limit: Limit = 20) -> dict[str, Any]:  # type: ignore[reportUnusedFunction]
        listed = listed_for(visitor(request.scope).principal)
        if search:
            listed = (await asyncio.to_thread(index.ranked, search, listed))[:limit]
        return {"object": "list", "data": [entry(directory.called(agent), agent) for agent in listed]}

    @routes.get(f"{AGENTS}/{{name}}", summary="One agent: what works with it, and its endpoints")
    async def agent(name: str, request: Request) -> dict[str, Any]:  # type: ignore[reportUnusedFunction]
        there, principal = address(request.scope), visitor(request.scope).principal
        assert there, "the layer before the routes has found it"
        found = there.agent
        shown = entry(directory.called(found), found)
        base = shown["base_url"]
        own_endpoints = [{**each, "url": shown["url"] + each["path"]} for each in await own.told(found, principal)]
        works = abilities(found, rules, mode(found, principal))
        return {
            **shown,
            "abilities": [{"name": each.name, "works": each.works, "how": each.how} for each in works],
            "urls": {path[1:].replace("/", "_"): base + path for path in SHARED},
            "endpoints": own_endpoints,
        }

    return routes
