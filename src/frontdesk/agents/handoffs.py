"""Handoffs: the turn goes to another agent, which answers in this one's place."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frontdesk.agents.errors import AgentError

if TYPE_CHECKING:
    from frontdesk.agents.agent import Agent

TRANSFER = "transfer_to_"


@dataclass(frozen=True, eq=False)
class Handoff:
    """To whom a turn may go: the name of an agent that is served, or an agent. The model is shown it as a tool."""

    target: "str | Agent"
    description: str = ""  # when to do so
    scope: str = "user"  # what the caller must hold for it

    @property
    def name(self) -> str:
        """The target's name."""
        return self.target if isinstance(self.target, str) else self.target.name

    @property
    def tool_name(self) -> str:
        """`transfer_to_<name>`, with what models do not take in a tool's name replaced."""
        return (TRANSFER + re.sub(r"[^A-Za-z0-9_-]", "_", self.name))[:64]

    @property
    def told(self) -> str:
        """What the model is told of it."""
        about = "" if isinstance(self.target, str) else self.target.description
        what = f"Hand this conversation over to {self.name}, who answers in your place."
        return self.description or (f"{what} {about}" if about else what)


def handoff(to: "str | Agent", description: str = "", scope: str = "user") -> Handoff:
    """Let an agent hand the turn over.

    to: the name of an agent that is served here, or an agent, which need not be served by itself.
    description: when to do so, for the model; the agent's own description, if left out.
    scope: what the caller must hold for it.
    """
    if isinstance(to, str) and not to.strip():
        raise AgentError('A handoff needs a target: handoff(to="name").')
    return Handoff(to, description, scope)
