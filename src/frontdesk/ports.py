"""What the gateway needs from outside, as small Protocols."""

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from frontdesk.turn import Agent, Batch, Call, Identity, Item, Part, StopReason, Thread, ToolRun, Turn, Usage


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a turn runs and what the agent has not heard yet.

    `deliver` is in order and begins with the seeds of a new conversation. `instructions` are told as a message, and
    empty where the conversation already holds them; `overlay` are such as belong to this turn alone, where the turn's
    `system_prompt` says; `closing` is an instruction that comes after everything else.
    """

    agent: Agent
    thread: Thread
    identity: Identity
    deliver: tuple[Item, ...]
    instructions: str = ""
    closing: str = ""
    overlay: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """A run is at work there."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Nothing of the turn is in the conversation, and nothing runs."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The conversation holds the input and this reply; not `complete` if the agent failed before its end.

    Tool calls have the backend's ids. `mark` and `condensed` are as in TurnFinished.
    """

    reply: tuple[Part, ...]
    stop_reason: StopReason
    usage: Usage
    complete: bool
    mark: str = ""
    condensed: bool = False


Outcome = Running | Dropped | Kept


class Agents(Protocol):
    """Who is known by an id, and where they are."""

    async def by_id(self, backend: str, agent_id: str) -> Agent | None: ...

    def backend(self, agent: Agent) -> "Backend": ...

    @property
    def backends(self) -> "Sequence[Backend]": ...


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

    async def hidden(self) -> int:
        """How many agents it keeps behind those that are served, to share their load or to bridge what they lack."""
        ...

    async def ping(self) -> str:
        """Reach the backend and say its version. Raises BackendUnavailable or BackendRejectedKey."""
        ...

    # --- conversations: each is a thread there ---------------------------------------------------------------------

    async def open(self, agent: Agent, turn: Turn) -> Thread:
        """Begin a conversation. Gives the agent's own thread where it has no other, or where the turn asks for it."""
        ...

    async def fork(self, agent: Agent, thread: Thread, at: str = "") -> Thread | None:
        """A conversation with the same history, to its end, or up to and with the message `at`. None where that cannot
        be had exactly."""
        ...

    async def delete(self, agent: Agent, thread: Thread) -> None:
        """Remove a conversation; that it is gone already is fine."""
        ...

    async def calls(self, agent: Agent, thread: Thread) -> Sequence[Call]:
        """The caller's tool calls in the latest part of a conversation, newest first."""
        ...

    async def awaiting(self, agent: Agent, thread: Thread) -> Sequence[ToolRun]:
        """Calls of the agent's own in a conversation which wait for the caller to approve of them."""
        ...

    # --- turns -----------------------------------------------------------------------------------------------------

    def run(self, turn: Turn, placement: Placement) -> AsyncGenerator[Batch, None]:
        """Give the agent what is new and yield what it says, one batch for each read from upstream.

        Ends with TurnFinished or raises. Closing the generator hangs up; it does not stop the agent (see `cancel`).
        """
        ...

    def run_id(self, turn_id: str) -> str:
        """The backend's name for the run of a turn; empty while it is not known."""
        ...

    async def cancel(self, turn: Turn, placement: Placement) -> tuple[Item, ...]:
        """Stop the agent's run of this turn, and give what `dropped` does."""
        ...

    async def dropped(self, turn_id: str, placement: Placement) -> tuple[Item, ...]:
        """What of a turn's input is not in the conversation, after its run has ended."""
        ...

    async def outcome(
        self, turn_id: str, agent: Agent, thread: Thread, run_id: str = "", call_ids: Collection[str] = ()
    ) -> Outcome:
        """What became of a turn of which nobody has heard the end. `call_ids` are the calls it answered, if it did."""
        ...

    async def stop(self, turn_id: str, agent: Agent, thread: Thread, run_id: str = "") -> None:
        """End whatever runs there of a turn."""
        ...

    async def generate(self, agent: Agent, prompt: str) -> str:
        """One answer of the agent's model, without the agent: no memory, no history, no trace.

        Raises EndpointNotFound where that is not to be had.
        """
        ...

    async def sweep(self) -> int:
        """Take away what was made at the backend for a turn, or an agent, and is needed no longer. Gives how many
        things that were."""
        ...

    async def aclose(self) -> None: ...


# --- what agents that run in this process keep ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one turn added to a thread: `messages` in the engine's own JSON, and what is `pending` after it."""

    turn: str
    messages: str
    state: str = ""  # JSON of the backend's own: which calls wait for the caller, and of whom


class Threads(Protocol):
    """Histories of agents that keep none themselves. Each is a list of stretches, oldest first.

    All raise StoreUnavailable where the store cannot be used.
    """

    async def make(self, agent: str) -> str:
        """A new thread, empty. Gives its id."""
        ...

    async def read(self, thread: str) -> Sequence[Stretch] | None:
        """All of it; None if there is no such thread."""
        ...

    async def append(self, thread: str, stretch: Stretch) -> None:
        """Add a turn's stretch, or put it in the place of what the same turn has added before. Raises
        ConversationNotFound if there is no such thread."""
        ...

    async def find(self, thread: str, turn: str) -> Stretch | None:
        """What a turn has added."""
        ...

    async def fork(self, thread: str, at: str = "") -> str | None:
        """A new thread with the same stretches, to its end or up to and with that of the turn `at`. None if there is
        no such thread, or turn in it."""
        ...

    async def delete(self, thread: str) -> None:
        """Remove it; that it is gone already is fine."""
        ...
