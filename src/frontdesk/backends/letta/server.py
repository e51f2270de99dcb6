"""One Letta server: how it is set up, and how it names things."""

import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from frontdesk.backends.letta.twins import KEPT_SECONDS
from frontdesk.errors import BackendUnavailable
from frontdesk.turn import Thread

OWN_THREAD = Thread(str(uuid.UUID(int=0)), own=True)
"""The thread an agent has before any conversation is made."""


@dataclass(frozen=True, slots=True)
class LettaSettings:
    """One Letta server and which of its agents to serve. Empty filters let all through."""

    name: str = "letta"
    base_url: str = "http://localhost:8283"
    api_key: str = ""
    project: str = ""
    tags: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # shell patterns
    include_hidden: bool = False
    include_sleeptime: bool = False
    silence_seconds: float = 120.0
    busy_seconds: float = 30.0
    memory_seconds: float | None = 5.0  # how long a look at an agent's memory is good for; None leaves prompts alone
    alone: bool = False  # no other process gives turns to the same conversations
    bridge: Literal["twin", "reject"] = "twin"  # what becomes of the caller's tools where an agent is of an older type
    approvals: Literal["deny", "surface"] = "deny"  # what becomes of the agent's own calls that wait for a human
    allowed_tools: tuple[str, ...] = ()  # shell patterns of the tools which it may run without asking
    replicas: Mapping[str, int] = field(default_factory=dict[str, int])  # twins of agents, by name or id; `*`: of older
    scopes: Mapping[str, str] = field(default_factory=dict[str, str])  # of agents, by id or name; `*`: of all others
    kept_seconds: float = KEPT_SECONDS  # how long a conversation may be gone on with


def conversation(thread: Thread) -> str:
    """The address of a conversation."""
    return f"/v1/conversations/{'default' if thread.own else conv(thread)}"


def conv(thread: Thread) -> str:
    return f"conv-{thread.id}"


def thread_of(row: Mapping[str, Any]) -> Thread:
    return Thread(row["id"].removeprefix("conv-"))


@contextmanager
def as_letta_speaks() -> Generator[None]:
    """JSON of another shape means that something else listens there."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise BackendUnavailable("Something answers at the Letta server's address, but not as Letta does.") from error
