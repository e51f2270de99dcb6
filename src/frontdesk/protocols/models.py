"""GET /v1/models: every agent, with the extra fields which clients are known to read."""

from typing import Any

from fastapi import APIRouter, Request

from frontdesk.directory import Directory
from frontdesk.policies.abilities import BY_DEFAULT, carried_out, client_tools, structured_output
from frontdesk.policies.options import Rules
from frontdesk.protocols.front import address, visitor
from frontdesk.turn import Agent, Principal

ALWAYS = ("messages", "stream", "stream_options", "metadata")
WITH_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
SETTINGS = {
    "max_output_tokens": ("max_tokens", "max_completion_tokens"),
    "temperature": ("temperature",),
    "reasoning_effort": ("reasoning_effort",),
}
"""What OpenRouter and its clients call our settings."""


def model_body(name: str, agent: Agent, rules: Rules) -> dict[str, Any]:
    window = agent.context_window
    tools = client_tools(agent, rules).works == "yes"
    structured = structured_output(agent, rules).works == "yes"
    parameters = [word for each in carried_out(agent, rules) for word in SETTINGS.get(each, ())]
    parameters += ["response_format", "structured_outputs"] if structured else ["response_format"]
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
        "supported_parameters": [*ALWAYS, *(WITH_TOOLS if tools else ()), *parameters],
        "capabilities": {
            "vision": True,
            "tools": tools,
            "client_tools": tools,
            "reasoning": True,
            "structured_output": structured,
            "stateful": True,
        },
        "metadata": {"agent_id": agent.id, "backend": agent.backend, "model": agent.model, "tags": list(agent.tags)},
    }


def router(directory: Directory, rules: Rules = BY_DEFAULT) -> APIRouter:
    """The routes, reading the directory's listing: no backend is called for a list."""
    routes = APIRouter(tags=["Models"])
    described: dict[tuple[str, str], tuple[Agent, dict[str, Any]]] = {}  # by backend and id

    def who(request: Request) -> Principal:
        return visitor(request.scope).principal

    def body(name: str, agent: Agent) -> dict[str, Any]:
        """An agent seldom changes, and to find out what works for it takes a while if there are thousands."""
        known = described.get((agent.backend, agent.id))
        if known is None or known[0] != agent or known[1]["id"] != name:
            known = described[agent.backend, agent.id] = agent, model_body(name, agent, rules)
        return known[1]

    @routes.get("/models", summary="List the agents you may use")
    async def models(request: Request) -> dict[str, Any]:  # type: ignore[reportUnusedFunction]
        there = address(request.scope)
        named = [(directory.called(there.agent), there.agent)] if there else directory.advertised(who(request))
        return {"object": "list", "data": [body(name, agent) for name, agent in named]}

    @routes.get("/models/{model:path}", summary="One agent, by name or id")
    async def model(model: str, request: Request) -> dict[str, Any]:  # type: ignore[reportUnusedFunction]
        agent, _ = await directory.find(model, who(request))
        return model_body(model, agent, rules)

    return routes
