"""Hooks: functions that are called at named moments of a turn, in order of priority, with one typed argument.

A hook returns nothing, or a changed copy of what it was given (`dataclasses.replace`). What it raises ends the turn,
unless it was declared with `on_error="ignore"`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_ai.messages import ModelMessage, ModelResponse

from frontdesk.turn import Item, StopReason, Turn, Usage

OnError = Literal["abort", "ignore"]


@dataclass(frozen=True, slots=True)
class Connection:
    """`connection`: a turn has come, and nothing has been done yet. Raise a GatewayError to refuse it."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Incoming:
    """`message`: what the agent is about to be told. Return a copy with other items to change that."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class BeforeModelCall:
    """`before_model_call`: the messages a model is about to be sent. A changed copy counts for this call alone."""

    messages: tuple[ModelMessage, ...]
    step: int  # from 1


@dataclass(frozen=True, slots=True)
class AfterModelCall:
    """`after_model_call`: what it answered, and the usage of the turn so far. Only to look at."""

    response: ModelResponse
    usage: Usage


@dataclass(frozen=True, slots=True)
class BeforeToolCall:
    """`before_tool_call`: a tool of the agent's own is about to run. A copy with other arguments runs with those."""

    call_id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AfterToolCall:
    """`after_tool_call`: it has run. A copy with another output is what the model sees."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    output: Any
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """`chunk`: text on its way to the caller. A copy with another text is sent instead; empty text is not sent."""

    text: str


@dataclass(frozen=True, slots=True)
class HandingOver:
    """`handoff`: the turn goes from one agent to another. Only to look at, or to refuse."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Finish:
    """`finish`: the turn is over. Only to look at."""

    stop_reason: StopReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failure:
    """`error`: the turn has failed, or was cut short. Only to look at."""

    error: BaseException


Moment = (
    Connection
    | Incoming
    | BeforeModelCall
    | AfterModelCall
    | BeforeToolCall
    | AfterToolCall
    | Chunk
    | HandingOver
    | Finish
    | Failure
)

EVENTS: dict[str, type[Moment]] = {
    "connection": Connection,
    "message": Incoming,
    "before_model_call": BeforeModelCall,
    "after_model_call": AfterModelCall,
    "before_tool_call": BeforeToolCall,
    "after_tool_call": AfterToolCall,
    "chunk": Chunk,
    "handoff": HandingOver,
    "finish": Finish,
    "error": Failure,
}


@dataclass(frozen=True)
class Hook:
    """One hook. Lower priorities are called first; of equal ones, in the order in which they were declared."""

    event: type[Moment]
    run: Callable[[Any], Awaitable[Any]]
    priority: int = 50
    on_error: OnError = "abort"
    function: Callable[..., Any] | None = None
