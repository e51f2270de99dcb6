"""Frontdesk: the front desk for your agents. OpenAI clients walk up to one door; agents with memory are behind it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frontdesk.agents.agent import Agent
    from frontdesk.agents.context import Context, context
    from frontdesk.agents.endpoints import http
    from frontdesk.agents.handoffs import handoff
    from frontdesk.agents.hooks import hook
    from frontdesk.agents.prompts import prompt
    from frontdesk.agents.skill import Skill
    from frontdesk.agents.tools import tool

__version__ = "0.1.0"

__all__ = ["Agent", "Context", "Skill", "__version__", "context", "handoff", "hook", "http", "prompt", "tool"]

_HOMES = {
    "Agent": "agent",
    "Context": "context",
    "Skill": "skill",
    "context": "context",
    "handoff": "handoffs",
    "hook": "hooks",
    "http": "endpoints",
    "prompt": "prompts",
    "tool": "tools",
}


def __getattr__(name: str) -> Any:
    """The words for agents in Python, imported when asked for: the server must start without Pydantic AI."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.agents.{_HOMES[name]}"), name)
