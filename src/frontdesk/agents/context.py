"""The request context: what a tool, a hook or a prompt can know of the turn it runs for.

One object per turn, held in a ContextVar: nothing of a request is kept on an agent, a skill or a tool, which all
requests share.
"""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from frontdesk.ports import Hold
from frontdesk.turn import Principal, Turn, Usage


@dataclass(slots=True)
class Context:
    """The turn at hand. `agent` is who is at work, which a handoff changes; `usage` grows with every model call."""

    agent: str
    turn: Turn
    conversation: str = ""  # opaque; the same in all turns of one conversation
    usage: Usage = field(default_factory=Usage)
    scratch: dict[str, Any] = field(default_factory=dict[str, Any])  # for hooks and tools, while the turn lasts
    hold: Hold | None = None  # what the turn may spend; None where no budget concerns it

    @property
    def principal(self) -> Principal:
        return self.turn.principal


_current: ContextVar[Context] = ContextVar("frontdesk.agents.context")

entered = _current.set
left = _current.reset


def context() -> Context:
    """The context of the turn that is running here. Raises LookupError outside one."""
    return _current.get()
