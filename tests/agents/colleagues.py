"""The agents of the tests of asking one another. They speak with the scripted model, wherever OpenAI is.

Where those elsewhere are, the tests write down here before they serve.
"""

from collections.abc import Mapping
from typing import Any

from frontdesk import Agent
from frontdesk.agents.skills import AskAgent

MODEL = "openai/scripted"

elsewhere: dict[str, Any] = {}
"""Targets by the names which `traveller` is told."""


def agent(name: str, targets: Mapping[str, Any] | list[str] | None = None, scope: str = "user", **limits: Any) -> Agent:
    skills = [AskAgent(targets, **limits)] if targets else []
    return Agent(name, model=MODEL, instructions=f"You are {name}.", skills=skills, scope=scope)


def agents() -> list[Agent]:
    listed = [
        agent("alice", ["bob", "boss", "missing", "Milo"]),
        agent("bob", ["carol", "alice"]),
        agent("carol", ["dan"]),
        agent("dan", ["eve"]),
        agent("eve"),
        agent("boss", scope="owner"),
        agent("hasty", ["eve"], timeout_seconds=0.5),
        agent("frugal", ["eve", "busy"], max_questions=2),
        agent("busy", ["eve"]),
    ]
    return [*listed, agent("traveller", elsewhere, timeout_seconds=4.0)] if elsewhere else listed
