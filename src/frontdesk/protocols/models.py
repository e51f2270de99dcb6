"""GET /v1/models: every agent, with the extra fields which clients are known to read."""

from typing import Any

from fastapi import APIRouter, Request

from frontdesk.directory import Directory
from frontdesk.protocols.front import visitor
from frontdesk.turn import Agent

PARAMETERS = ["messages", "stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls", "metadata"]


def model_body(name: str, agent: Agent) -> dict[str, Any]:
    window = agent.context_window
    return {
        "id": name,
        "object": "model",
        "created": agent.created,
        "owned_by": agent.backend,
        "name": agent.name or agent.id,
        "description": agent.description,
        "context_length": window,
        "max_context_length": window,
        "max_model_len": window,
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "supported_parameters": [name for name in PARAMETERS if agent.client_tools or "tool" not in name],
        "capabilities": {
            "vision": True,
            "tools": agent.client_tools,
            "client_tools": agent.client_tools,
            "reasoning": True,
            "structured_output": False,
            "stateful": True,
        },
        "metadata": {"agent_id": agent.id, "backend": agent.backend, "model": agent.model, "tags": list(agent.tags)},
    }


def router(directory: Directory) -> APIRouter:
    """The routes, reading the directory's listing: no backend is called for a list."""
    routes = APIRouter(tags=["Models"])

    @routes.get("/models", summary="List the agents you may use")
    async def models(request: Request) -> dict[str, Any]:  # type: ignore[reportUnusedFunction]
        named = directory.advertised(visitor(request.scope).principal)
        return {"object": "list", "data": [model_body(name, agent) for name, agent in named]}

    @routes.get("/models/{model:path}", summary="One agent, by name or id")
    async def model(model: str, request: Request) -> dict[str, Any]:  # type: ignore[reportUnusedFunction]
        agent, _ = await directory.find(model, visitor(request.scope).principal)
        return model_body(model, agent)

    return routes
