"""What the gateway needs from outside, as small Protocols."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from frontdesk.turn import Agent, Batch, Call, Identity, Item, Thread, Turn


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a turn runs and what the agent has not heard yet.

    `deliver` is in order and begins with the seeds of a new conversation. `instructions` is empty where the
    conversation already holds them.
    """

    agent: Agent
    thread: Thread
    identity: Identity
    deliver: tuple[Item, ...]
    instructions: str = ""


class Backend(Protocol):
    """Agents of one kind in one place. Its errors are ours (`BackendError`), raised with `from`."""

    @property
    def name(self) -> str: ...

    async def agents(self) -> Sequence[Agent]:
        """Every agent to be served, newest first."""
        ...

    async def find(self, name: str) -> Sequence[Agent]:
        """The agents of exactly this name or id, by an indexed look-up; cheap enough for a request."""
        ...

    async def ping(self) -> str:
        """Reach the backend and say its version. Raises BackendUnavailable or BackendRejectedKey."""
        ...

    async def open(self, agent: Agent, turn: Turn, pin: str = "", system: str = "") -> Thread:
        """Begin a conversation. `pin` is a fingerprint under which `pinned` finds it again, also after a restart;
        `system` that of the instructions it is about to be given.

        Gives the agent's own thread where it has no other, or where the turn's mode asks for it.
        """
        ...

    async def pinned(self, agent: Agent, pin: str) -> Thread | None: ...

    async def thread(self, agent: Agent, thread_id: str) -> Thread | None:
        """The conversation of this id, or None if the backend has none for this agent."""
        ...

    async def calls(self, agent: Agent, thread: Thread) -> Sequence[Call]:
        """The caller's tool calls in the latest part of a conversation, newest first."""
        ...

    def run(self, turn: Turn, placement: Placement) -> AsyncGenerator[Batch, None]:
        """Give the agent what is new and yield what it says, one batch for each read from upstream.

        Ends with TurnFinished or raises. Closing the generator hangs up; it does not stop the agent (see `cancel`).
        """
        ...

    async def cancel(self, turn: Turn, placement: Placement) -> tuple[Item, ...]:
        """Stop the agent's run of this turn. Gives what of its input is not in the conversation, and must be given
        again with the next turn."""
        ...

    async def instructed(self, placement: Placement, system: str) -> None:
        """Note in the conversation the fingerprint of the instructions it has now been given."""
        ...

    async def aclose(self) -> None: ...
