"""What is asked: a turn, and all that is known of it. What is found: its spot in the tree."""

from dataclasses import dataclass
from typing import Literal

from frontdesk.conversations.lineage import Point, Saying
from frontdesk.store.records import Conversation, Node
from frontdesk.turn import Agent, Call, Identity, Item, Mode, Turn

UnknownHistory = Literal["seed", "stateless", "reject"]


@dataclass(frozen=True, slots=True)
class Ask:
    """A turn, and all that the store is asked about it."""

    turn: Turn
    agent: Agent
    mode: Mode
    scope: str
    shown: tuple[Saying, ...]  # the history, as the client tells it
    points: tuple[Point, ...]
    pin: str = ""  # the caller's own name for a conversation
    named: str = ""  # the conversation which an id of ours names
    answering: str = ""  # the conversation whose tool calls are answered
    calls: tuple[Call, ...] = ()  # those calls, and others that wait beside them
    head: str = ""  # where that conversation stood when they did
    unknown_history: UnknownHistory = "seed"
    gives_way: bool = True  # a turn without its client is cut short for a new one
    request: str = ""
    dedupe: str = ""
    left: frozenset[str] = frozenset()  # turns of this process whose client has just gone
    honest: bool = False  # known to be no repetition, for the client of the equal turn is still there

    @property
    def goes_on(self) -> bool:
        """Whether it says where it belongs, so that an equal one is hardly another chat's."""
        return bool(self.turn.history or self.pin or self.named or self.turn.after)


@dataclass(frozen=True, slots=True)
class Fork:
    """A thread to be branched from: at its end, where it must stand after `head` still, or after the message `at`."""

    conversation: str
    thread: str
    head: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a turn belongs. Without `conversation` it is to have a new one, made as `fork` says or by seeding."""

    identity: Identity
    conversation: Conversation | None = None
    parent: Node | None = None
    known: int = 0  # how much of the history the turns up to `parent` account for
    waits: bool = False
    fork: Fork | None = None
    family: str = ""
    kind: str = "chat"
    answers: bool = False  # it goes on with the results of calls that wait there
    again: bool = False  # the agent has this message, but failed before it answered
    owed: tuple[Item, ...] = ()  # what the agent never heard: `notes`, and what was said in cancelled turns
    notes: tuple[Item, ...] = ()  # what was put into the conversation since its last turn
    missed: tuple[Item, ...] = ()  # what the agent never heard of the turn it comes after: now told with this one
    repeats: int = 0  # how many of these the client tells, too, next after what is known
    struck: str = ""  # of a branch: what was taken back where it comes from

    @property
    def appends(self) -> bool:
        return self.conversation is not None
