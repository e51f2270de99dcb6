"""Pure functions over events: the only place where parts are opened and closed, and where a reply is folded.

events  →  Frames  →  PartStarted, PartDelta, PartFinished, TurnFinished  →  each protocol's encoder
events  →  collect →  the whole reply
"""

from collections.abc import AsyncIterable, Iterable, Iterator
from dataclasses import dataclass, replace

from frontdesk.errors import AgentFailed
from frontdesk.turn import (
    Batch,
    Event,
    Message,
    Part,
    Reasoning,
    ReasoningDelta,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolRun,
    ToolRunFinished,
    ToolRunStarted,
    TurnFinished,
)


@dataclass(frozen=True, slots=True)
class PartStarted:
    """A part opens; its text or arguments are still empty. A tool run is complete but for its outcome."""

    index: int
    part: Part


@dataclass(frozen=True, slots=True)
class PartDelta:
    index: int
    part: Part  # as it was opened
    delta: str


@dataclass(frozen=True, slots=True)
class PartFinished:
    index: int
    part: Part  # whole


Frame = PartStarted | PartDelta | PartFinished | TurnFinished


class Frames:
    """Turns events into frames. One object per turn; call it with each batch.

    A text or reasoning part ends when another kind of event or another `part_id` arrives. Tool calls and tool runs may
    be open side by side: calls until the next text or the end, runs until they finish.
    """

    def __init__(self) -> None:
        self._count = 0
        self._open: tuple[type[TextDelta | ReasoningDelta], str] | None = None
        self._part: Part = Message("assistant", ())
        self._index = 0
        self._pieces: list[str] = []
        self._calls: dict[str, tuple[int, ToolCall, list[str]]] = {}
        self._runs: dict[str, tuple[int, ToolRun]] = {}
        self._finished = False

    def __call__(self, events: Iterable[Event]) -> Iterator[Frame]:
        for event in events:
            if self._finished:
                raise AgentFailed("The agent went on after the end of its turn.")
            kind = type(event)
            if (kind is TextDelta or kind is ReasoningDelta) and self._open == (kind, event.part_id):  # type: ignore[union-attr]
                # The hot path: one more token of the part that is open.
                self._pieces.append(event.text)  # type: ignore[union-attr]
                yield PartDelta(self._index, self._part, event.text)  # type: ignore[union-attr]
            else:
                yield from self._transition(event)

    def _transition(self, event: Event) -> Iterator[Frame]:
        match event:
            case TextDelta(text, part_id):
                yield from self._close_calls()
                yield from self._open_text(TextDelta, part_id, Message("assistant", ()), text)
            case ReasoningDelta(text, part_id):
                yield from self._close_calls()
                yield from self._open_text(ReasoningDelta, part_id, Reasoning(""), text)
            case ToolCallDelta(call_id, name, arguments):
                yield from self._close_text()
                yield from self._tool_call(call_id, name, arguments)
            case ToolRunStarted(call_id, name, arguments):
                yield from self._close_text()
                yield from self._start_run(ToolRun(call_id, name, arguments))
            case ToolRunFinished(call_id, output, is_error):
                yield from self._close_text()
                yield from self._start_run(ToolRun(call_id, "", ""))
                index, run = self._runs.pop(call_id)
                yield PartFinished(index, replace(run, output=output, is_error=is_error))
            case TurnFinished():
                yield from self._close_text()
                yield from self._close_calls()
                for index, run in self._runs.values():
                    yield PartFinished(index, run)
                self._finished = True
                yield event

    def _next(self) -> int:
        self._count += 1
        return self._count - 1

    def _open_text(
        self, kind: type[TextDelta | ReasoningDelta], part_id: str, part: Part, text: str
    ) -> Iterator[Frame]:
        yield from self._close_text()
        self._open, self._part, self._pieces = (kind, part_id), part, [text]
        self._index = self._next()
        yield PartStarted(self._index, part)
        yield PartDelta(self._index, part, text)

    def _close_text(self) -> Iterator[Frame]:
        if self._open is None:
            return
        text = "".join(self._pieces)
        self._open = None
        whole = Reasoning(text) if isinstance(self._part, Reasoning) else Message("assistant", (Text(text),))
        yield PartFinished(self._index, whole)

    def _tool_call(self, call_id: str, name: str, arguments: str) -> Iterator[Frame]:
        if call_id not in self._calls:
            call = ToolCall(call_id, name, "")
            self._calls[call_id] = (self._next(), call, [])
            yield PartStarted(self._calls[call_id][0], call)
        index, call, pieces = self._calls[call_id]
        if arguments:
            pieces.append(arguments)
            yield PartDelta(index, call, arguments)

    def _start_run(self, run: ToolRun) -> Iterator[Frame]:
        if run.call_id not in self._runs:
            self._runs[run.call_id] = (self._next(), run)
            yield PartStarted(*self._runs[run.call_id])

    def _close_calls(self) -> Iterator[Frame]:
        for index, call, pieces in self._calls.values():
            if not pieces:
                # A call without arguments is a call with none: clients parse the text, and "" is not JSON.
                yield PartDelta(index, call, "{}")
            yield PartFinished(index, replace(call, arguments="".join(pieces) or "{}"))
        self._calls.clear()


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: the frames of its parts in the order in which they were streamed, without the deltas."""

    frames: tuple[PartStarted | PartFinished, ...]
    end: TurnFinished

    @property
    def parts(self) -> tuple[Part, ...]:
        finished = {frame.index: frame.part for frame in self.frames if isinstance(frame, PartFinished)}
        return tuple(finished[index] for index in sorted(finished))


class Collector:
    """Folds a turn's events into a `Reply`: the same frames as those of a streamed answer, hence the same answer."""

    def __init__(self) -> None:
        self._frames = Frames()
        self._kept: list[PartStarted | PartFinished] = []
        self._end: TurnFinished | None = None

    def add(self, batch: Batch) -> None:
        for frame in self._frames(batch):
            match frame:
                case PartStarted() | PartFinished():
                    self._kept.append(frame)
                case TurnFinished():
                    self._end = frame
                case PartDelta():
                    pass

    def reply(self) -> Reply:
        """The reply. Raises AgentFailed if the turn did not end: a stream that merely stops is a failure."""
        if self._end is None:
            raise AgentFailed("The agent's answer broke off.")
        return Reply(tuple(self._kept), self._end)


async def collect(batches: AsyncIterable[Batch]) -> Reply:
    """Fold a stream into its reply."""
    collector = Collector()
    async for batch in batches:
        collector.add(batch)
    return collector.reply()
