"""Where A2A's clients find an agent."""

from urllib.parse import quote

ROOT = "/a2a"
CARD = "/.well-known/agent-card.json"


def a2a_path(name: str) -> str:
    """The path of an agent, by what means it as a model."""
    return f"{ROOT}/{quote(name, safe='')}"
