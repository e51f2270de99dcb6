"""All promises, by area. An id is `area.thing.behaviour`."""

from tests.requirements import Requirement, chat, errors, operations, security, tools

AREAS: dict[str, dict[str, Requirement]] = {
    "Chat Completions": chat.REQUIREMENTS,
    "Tools": tools.REQUIREMENTS,
    "Errors": errors.REQUIREMENTS,
    "Security": security.REQUIREMENTS,
    "Operations": operations.REQUIREMENTS,
}

REQUIREMENTS = {name: entry for area in AREAS.values() for name, entry in area.items()}
