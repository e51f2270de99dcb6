"""Skills that ship with Frontdesk. Each is imported when it is first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frontdesk.agents.skills.ask import A2A, AskAgent, Local, Remote
    from frontdesk.agents.skills.budget import X402, Budget
    from frontdesk.agents.skills.discovery import Discovery, Registry
    from frontdesk.agents.skills.mcp import MCP
    from frontdesk.agents.skills.memory import Memory

__all__ = ["A2A", "MCP", "X402", "AskAgent", "Budget", "Discovery", "Local", "Memory", "Registry", "Remote"]

SHIPPED = {"ask_agent": "AskAgent", "budget": "Budget", "discovery": "Discovery", "mcp": "MCP", "memory": "Memory"}
"""By the names which they have in files."""

_HOMES = {
    "A2A": "ask",
    "AskAgent": "ask",
    "Budget": "budget",
    "Discovery": "discovery",
    "Local": "ask",
    "MCP": "mcp",
    "Memory": "memory",
    "Registry": "discovery",
    "Remote": "ask",
    "X402": "budget",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
