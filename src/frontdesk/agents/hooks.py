"""Hooks: functions that are called at named moments of a turn, in order of priority, with one typed argument.

A hook returns nothing, or a changed copy of what it was given (`dataclasses.replace`). What it raises ends the turn,
unless it was declared with `on_error="ignore"`.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

from pydantic_ai.messages import ModelMessage, ModelResponse

from frontdesk.agents.errors import AgentError
from frontdesk.agents.methods import Function, declared, told
from frontdesk.turn import Item, Message, StopReason, ToolCall, ToolResult, Turn, Usage

OnError = Literal["abort", "ignore"]

TIMEOUT_SECONDS = 60.0
"""As for tools."""


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


@dataclass(frozen=True, eq=False)
class Hook:
    """One hook. Lower priorities are called first; of equal ones, in the order in which they were declared.

    `run` gives None or a changed copy of what it was given; anything else is a TypeError.
    """

    event: type[Moment]
    run: Callable[[Any], Awaitable[Any]]
    priority: int = 50
    on_error: OnError = "abort"
    function: Function | None = None
    timeout_seconds: float = TIMEOUT_SECONDS

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What was decorated, called as if it were not."""
        return (self.function or self.run)(*args, **kwargs)

    @classmethod
    def of(
        cls,
        function: Function,
        event: str,
        priority: int = 50,
        on_error: OnError = "abort",
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> "Hook":
        """A function, or a coroutine function, as a hook. Raises AgentError where it cannot be one."""
        _check(function, event, on_error)
        if timeout_seconds <= 0:
            raise AgentError(f"{told(function)} has timeout_seconds={timeout_seconds:g}: it must be more than 0.")
        moment = EVENTS[event]

        async def run(happened: Any) -> Any:
            answer = function(happened)
            changed = await answer if inspect.isawaitable(answer) else answer
            if changed is not None and not isinstance(changed, moment):
                raise TypeError(
                    f"The hook {told(function)} gave a {type(changed).__name__}: "
                    f"it must return None or a changed copy of the {moment.__name__} it was given."
                )
            if changed is not None and not _is_sound(changed):
                raise TypeError(f"The hook {told(function)} gave a {moment.__name__} which holds what it cannot.")
            return changed

        return cls(moment, run, priority, on_error, function, timeout_seconds)


def _is_sound(changed: Any) -> bool:
    """Whether what it holds is of the right kind: authors' code is often without types."""
    match changed:
        case Chunk():
            return _is_text(changed.text)
        case Incoming():
            return _all(changed.items, lambda item: isinstance(item, Message | ToolCall | ToolResult))
        case BeforeModelCall():
            return _all(changed.messages, lambda message: getattr(message, "kind", "") in ("request", "response"))
        case BeforeToolCall():
            return _is_a(dict, changed.arguments)
        case _:
            return True


def _all(values: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(values, tuple | list) and all(map(fits, cast("Sequence[Any]", values)))


def _is_a(kind: type, value: Any) -> bool:
    return isinstance(value, kind)


def _is_text(value: Any) -> bool:
    """Whether UTF-8 can hold it: it has no half characters."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def hook(
    event: str, *, priority: int = 50, on_error: OnError = "abort", timeout_seconds: float = TIMEOUT_SECONDS
) -> Callable[[Function], Hook]:
    """Have a function called at a moment of each turn, with what that is about: see `EVENTS`.

    priority: lower ones are called first.
    on_error: whether what it raises ends the turn (`abort`), or is only logged (`ignore`).
    timeout_seconds: how long it may take; more is as if it had raised.

    Functions that are no coroutines are called where the server does everything else: they must not wait for anything.
    """

    def decorate(function: Function) -> Hook:
        return declared(
            function,
            partial(Hook.of, event=event, priority=priority, on_error=on_error, timeout_seconds=timeout_seconds),
        )

    return decorate


def _check(function: Function, event: str, on_error: str) -> None:
    if event not in EVENTS:
        raise AgentError(f"{told(function)} is a hook for {event!r:.50}, which never happens. Use {', '.join(EVENTS)}.")
    if on_error not in ("abort", "ignore"):
        raise AgentError(f'{told(function)} has on_error={on_error!r:.50}: use "abort" or "ignore".')
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise AgentError(f"{told(function)} cannot be a hook: it yields.")
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise AgentError(
            f"{told(function)} cannot be a hook: it must take one argument, the {EVENTS[event].__name__}."
        ) from None
    hint = next(iter(inspect.signature(function).parameters.values())).annotation
    if isinstance(hint, type) and hint in EVENTS.values() and hint is not EVENTS[event]:
        raise AgentError(
            f"{told(function)} takes the {hint.__name__}, but at {event!r} it is given the {EVENTS[event].__name__}."
        )
