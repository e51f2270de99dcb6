"""What the gateway needs from outside, as small Protocols."""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import inf
from typing import Any, Protocol

from frontdesk.amounts import Payment, Unit
from frontdesk.turn import (
    Agent,
    Batch,
    Call,
    Identity,
    Item,
    Part,
    Principal,
    StopReason,
    Thread,
    ToolRun,
    Turn,
    Usage,
)


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
    hold: "Hold | None" = field(default=None, compare=False)  # what the turn may spend; None only where nobody counts


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

    async def sweep(self) -> int:
        """Remove threads that have been without a conversation for a day. Gives how many."""
        ...


# --- what may be spent ---------------------------------------------------------------------------------------------


class Hold(Protocol):
    """What a turn has set aside of the budgets that concern it. For a backend that knows what it spends on the way;
    the gateway takes the hold, and settles it at the turn's end.

    What is awaited raises InsufficientBudget where there is no more, and StoreUnavailable: the turn must end then.
    """

    @property
    def binds(self) -> bool:
        """Whether any budget concerns the turn by now. A handoff may change that."""
        ...

    async def call_model(self, model: str, input_tokens: int, max_output_tokens: int | None = None) -> None:
        """`provider/model` is about to be called with about so many tokens: see that enough is set aside for it."""
        ...

    def used(self, model: str, usage: Usage) -> None:
        """What one call came to. Once this has been told, the usage of TurnFinished does not count."""
        ...

    async def call_tool(self, price: Decimal) -> None:
        """A tool is about to run that costs so many dollars; it costs them whether or not it succeeds."""
        ...

    async def hand_over(self, agent: Agent) -> None:
        """The turn goes to another agent: its budgets hold from here on, beside those that hold already."""
        ...


@dataclass(frozen=True, slots=True)
class Account:
    """One holder's part of a budget in one period. `limit` is in `unit`, as `amounts` counts it."""

    id: str
    budget: str
    unit: Unit
    holder: str
    period: str
    limit: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """So much `more` is to be set aside for a turn, of which so much in all is `used` already."""

    account: Account
    more: int
    used: int = 0


@dataclass(frozen=True, slots=True)
class Shortage:
    """There is not enough left in an account."""

    account: Account
    more: int
    spent: int
    held: int


@dataclass(frozen=True, slots=True)
class Held:
    """What a turn has set aside in an account. `used` is what of it is known to be spent."""

    account: str
    budget: str
    unit: Unit
    amount: int
    used: int
    model: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How an account stands."""

    budget: str
    unit: Unit
    holder: str
    period: str
    spent: int
    held: int


@dataclass(frozen=True, slots=True)
class Offer:
    """What would do as a payment, in the protocol's words: for a header, and for a body."""

    header: str
    accepts: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Paid:
    """A payment as it was sent. `id` is the same however often, and however, it is written."""

    id: str
    payment: Payment
    proof: Any


class Payments(Protocol):
    """Who takes payments from callers. All raise PaymentUnavailable where that cannot be done now."""

    async def offer(self, payment: Payment) -> Offer: ...

    async def read(self, payment: Payment, sent: str) -> Paid:
        """Understand what a caller has sent. Raises PaymentRequired if that is no payment of this kind."""
        ...

    async def verify(self, paid: Paid) -> None:
        """See that it can be collected. Raises PaymentRequired."""
        ...

    async def collect(self, paid: Paid) -> str:
        """Have it. Gives why that came to nothing, or an empty text."""
        ...

    async def aclose(self) -> None: ...


class Accounts(Protocol):
    """Where what is spent, and what is set aside for running turns, is kept: exactly, for all processes together.

    All raise StoreUnavailable where the store cannot be used.
    """

    async def reserve(self, turn: str, wanted: Sequence[Wanted], model: str = "") -> Shortage | None:
        """Set all of this aside, beside what the turn has set aside already; or nothing, and say what is missing."""
        ...

    async def settle(self, turn: str, charges: Mapping[str, int]) -> None:
        """Charge accounts for what was used, and give back the rest. Only once: what has been settled is not settled
        again. An account that `charges` does not name is charged what is known to be used."""
        ...

    async def held(self, turn: str) -> Sequence[Held]:
        """What a turn has set aside."""
        ...

    async def standings(self) -> Sequence[Standing]:
        """Every account, by its budget and holder, the latest period first."""
        ...

    async def tidy(self, before: float) -> None:
        """Give back what is held for turns of processes that are gone, and forget periods that nobody has used since
        that moment."""
        ...


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose memory: what one agent knows through one user of one tenant. Both are empty where all callers share it."""

    tenant: str
    user: str
    agent: str


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a memory that is always before the agent's eyes. `version` counts its edits; `changed` is in seconds
    since 1970, and 0 of one that was never edited."""

    label: str
    text: str = ""
    version: int = 0
    changed: float = 0.0


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a memory that is found by searching. `created` is in seconds since 1970."""

    id: str
    text: str
    tags: tuple[str, ...] = ()
    created: float = 0.0


class Memories(Protocol):
    """What agents remember beyond a conversation. Nothing in it is ever too old.

    All raise StoreUnavailable where the store cannot be used. Characters that no database can hold are left out.
    """

    async def blocks(self, whose: Whose) -> Mapping[str, Block]:
        """Those that were ever edited, by their label."""
        ...

    async def edit(self, whose: Whose, label: str, change: Callable[[Block], str]) -> Block:
        """Put what `change` makes of a block in its place, and give the block. Nobody else edits this memory meanwhile.

        What it raises leaves everything as it was. It may be called more than once, and in another thread.
        """
        ...

    async def keep(self, whose: Whose, text: str, tags: Sequence[str], most: int) -> Passage | None:
        """Add a passage; None if there are `most` of them already."""
        ...

    async def search(
        self,
        whose: Whose,
        query: str = "",
        tags: Sequence[str] = (),
        *,
        every_tag: bool = False,
        since: float = 0.0,
        until: float = inf,
        limit: int = 10,
        skip: int = 0,
    ) -> Sequence[Passage]:
        """Passages with some of the words of `query`, or words that begin so, the best first; all, the latest first,
        where it is empty. With one of the tags, or with every one. `since`, but before `until`, in seconds since 1970.
        """
        ...

    async def count(self, whose: Whose) -> int:
        """How many passages there are."""
        ...

    async def known(self, tenant: str | None = None, user: str | None = None, agent: str = "") -> Sequence[Whose]:
        """The memories of a tenant's user, with an agent; or of all users, with all agents; or all there are."""
        ...

    async def delete(self, tenant: str, user: str | None = None, agent: str = "") -> int:
        """Remove those that `known` gives, for good. Gives how many."""
        ...


# --- agents among themselves ---------------------------------------------------------------------------------------


class Desk(Protocol):
    """The desk at which an agent is served: what one of its agents can ask of the others, for the caller it serves."""

    async def ask(
        self, asker: str, agent: str, message: str, principal: Principal, conversation: str, trace: Sequence[str]
    ) -> str:
        """What `agent` answers to a message of the agent `asker`, in a conversation of that name, or in none.

        `agent` is as a caller would write it. `trace` are the marks of those through whom the question has come.
        Cancelling stops the turn. Raises GatewayError.
        """
        ...

    def mark(self, agent: str) -> str:
        """What stands for an agent that runs in this process in a trace."""
        ...

    async def search(self, intent: str, principal: Principal, others: Sequence[Agent] = ()) -> Sequence[Agent]:
        """Those of the agents which a caller may use, and of `others`, that have something of what is wanted: the
        likeliest first."""
        ...
