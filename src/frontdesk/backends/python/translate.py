"""Pydantic AI's stream of events, as ours. Pure."""

from collections.abc import Collection
from typing import Any

from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_core import to_json

from frontdesk.backends.python.history import output_text
from frontdesk.turn import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolRunFinished,
    ToolRunStarted,
)


class Translator:
    """One per turn. `callers` are the names of the tools which the caller runs: their calls go out as they are
    written, unless `streams_calls` is put off. Those of the agent's own are shown when they run. `shown` are the ids of
    the caller's calls that have gone out."""

    def __init__(self, callers: Collection[str]) -> None:
        self._callers = callers
        self.streams_calls = True
        self.shown: set[str] = set()
        self._step = 0
        self._parts: dict[int, str] = {}  # our ids of the parts of this step, by the engine's index
        self._calls: dict[int, tuple[str, str]] = {}  # the caller's calls: their ids and names

    def step(self) -> None:
        """Another call of the model begins."""
        self._step += 1
        self._parts.clear()
        self._calls.clear()

    def __call__(self, event: Any) -> Event | None:
        if type(event) is PartDeltaEvent:  # the hot path
            return self._delta(event)
        match event:
            case PartStartEvent(index=index, part=part):
                return self._start(index, part)
            case FunctionToolCallEvent(part=part) if part.tool_name not in self._callers:
                return ToolRunStarted(part.tool_call_id, part.tool_name, part.args_as_json_str())
            case FunctionToolResultEvent(part=part) if part.tool_name not in self._callers:
                return ToolRunFinished(part.tool_call_id, output_text(part.content), part.outcome != "success")
            case _:  # what else the engine tells, now or in time to come, is nothing to a caller
                return None

    def _start(self, index: int, part: Any) -> Event | None:
        self._parts[index] = f"{self._step}.{index}"
        match part:
            case TextPart(content=text) if text:
                return TextDelta(text, self._parts[index])
            case ThinkingPart(content=text) if text:
                return ReasoningDelta(text, self._parts[index])
            case ToolCallPart(tool_name=name, tool_call_id=call_id) if self.streams_calls and name in self._callers:
                self._calls[index] = (call_id, name)
                self.shown.add(call_id)
                return ToolCallDelta(call_id, name, fragment(part.args))
            case _:
                return None

    def _delta(self, event: PartDeltaEvent) -> Event | None:
        delta = event.delta
        kind = type(delta)
        if kind is TextPartDelta:
            text: str = delta.content_delta  # type: ignore[union-attr]
            return TextDelta(text, self._parts[event.index]) if text else None
        if kind is ThinkingPartDelta:
            text: str = delta.content_delta  # type: ignore[union-attr]
            return ReasoningDelta(text, self._parts[event.index]) if text else None
        if kind is ToolCallPartDelta and event.index in self._calls:
            return ToolCallDelta(*self._calls[event.index], fragment(delta.args_delta))  # type: ignore[union-attr]
        return None


def fragment(arguments: str | dict[str, Any] | None) -> str:
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return to_json(arguments).decode()
