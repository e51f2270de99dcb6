"""All promises, by area. An id is `area.thing.behaviour`."""

from tests.requirements import (
    Requirement,
    agents,
    chat,
    clients,
    conversations,
    errors,
    models,
    operations,
    python_agents,
    responses,
    security,
    tools,
)

AREAS: dict[str, dict[str, Requirement]] = {
    "Chat Completions": chat.REQUIREMENTS,
    "Responses": responses.REQUIREMENTS,
    "Tools": tools.REQUIREMENTS,
    "Conversations": conversations.REQUIREMENTS,
    "Agents": agents.REQUIREMENTS,
    "Agents in Python": python_agents.REQUIREMENTS,
    "Models": models.REQUIREMENTS,
    "Clients": clients.REQUIREMENTS,
    "Errors": errors.REQUIREMENTS,
    "Security": security.REQUIREMENTS,
    "Operations": operations.REQUIREMENTS,
}

REQUIREMENTS = {name: entry for area in AREAS.values() for name, entry in area.items()}
