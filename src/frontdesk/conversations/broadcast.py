"""What a running turn has said so far, for those who come later to hear it: a client that was cut off and is back."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace

from frontdesk.stream import Frames, PartFinished
from frontdesk.turn import (
    Batch,
    Event,
    Message,
    Part,
    Reasoning,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolRun,
    ToolRunFinished,
    ToolRunStarted,
    TurnFinished,
)

DENSE = 256
"""How many events are kept one by one before they are joined: tokens cost far more than the text they make."""


class Broadcast:
    """One turn's events: added by whoever runs it, heard by any number of others, each from the beginning on.

    `exact`: those who come later hear it in the very batches in which it came.
    """

    def __init__(self, *, exact: bool = False) -> None:
        self._exact = exact
        self._batches: list[Batch] = []
        self._events: list[Event] = []
        self._dense = 0
        self._listeners: set[asyncio.Queue[Batch | None]] = set()
        self._ended = False
        self.error: BaseException | None = None

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    @property
    def spoke(self) -> bool:
        return bool(self._events)

    def add(self, batch: Batch) -> None:
        self.keep(batch)
        self.tell(batch)

    def keep(self, batch: Batch) -> None:
        """Note it, for `parts` and for those who come later."""
        self._events += batch
        if self._exact and batch:
            self._batches.append(batch)
        if len(self._events) - self._dense > DENSE:
            self._events = condensed(self._events)
            self._dense = len(self._events)

    def tell(self, batch: Batch) -> None:
        """Give it to those who listen."""
        for listener in self._listeners:
            listener.put_nowait(batch)

    def end(self, error: BaseException | None = None) -> None:
        if self._ended:
            return
        self._ended, self.error = True, error
        for listener in self._listeners:
            listener.put_nowait(None)

    async def listen(self) -> AsyncGenerator[Batch, None]:
        """All events; those that are past at once. Ends with the turn, however it ends (see `error`)."""
        queue: asyncio.Queue[Batch | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            ended = self._ended
            for batch in self.past():
                yield batch
            if ended:
                return
            while (batch := await queue.get()) is not None:
                yield batch
        finally:
            self._listeners.discard(queue)

    def past(self) -> tuple[Batch, ...]:
        """All so far."""
        return tuple(self._batches) if self._exact else (tuple(condensed(self._events)),)

    def parts(self) -> tuple[Part, ...]:
        """What has been said, also by a turn that was cut short."""
        events = condensed(self._events)
        if not (events and isinstance(events[-1], TurnFinished)):
            events.append(TurnFinished(StopReason.STOP))
        frames = [frame for frame in Frames()(events) if isinstance(frame, PartFinished)]
        return tuple(frame.part for frame in sorted(frames, key=lambda frame: frame.index))


def condensed(events: Iterable[Event]) -> list[Event]:
    """The same with neighbouring pieces of one part joined."""
    joined: list[Event] = []
    pieces: list[str] = []

    def close() -> None:
        if len(pieces) > 1:
            last = joined[-1]
            match last:
                case TextDelta() | ReasoningDelta():
                    joined[-1] = replace(last, text="".join(pieces))
                case ToolCallDelta():
                    joined[-1] = replace(last, arguments="".join(pieces))
                case _:
                    pass
        pieces.clear()

    for event in events:
        match event, joined[-1] if joined else None:
            case (TextDelta(text, part), TextDelta(_, same)) if part == same:
                pieces.append(text)
            case (ReasoningDelta(text, part), ReasoningDelta(_, same)) if part == same:
                pieces.append(text)
            case (ToolCallDelta(call, _, arguments), ToolCallDelta(same, _, _)) if call == same:
                pieces.append(arguments)
            case _:
                close()
                joined.append(event)
                match event:
                    case TextDelta(text) | ReasoningDelta(text):
                        pieces.append(text)
                    case ToolCallDelta(_, _, arguments):
                        pieces.append(arguments)
                    case _:
                        pass
    close()
    return joined


def said_again(parts: Iterable[Part], end: TurnFinished) -> tuple[Event, ...]:
    """A kept reply as the events it came from."""
    events: list[Event] = []
    for index, part in enumerate(parts):
        match part:
            case Message():
                events.append(TextDelta(part.text, f"part-{index}"))
            case Reasoning(text):
                events.append(ReasoningDelta(text, f"part-{index}"))
            case ToolCall(call_id, name, arguments):
                events.append(ToolCallDelta(call_id, name, arguments))
            case ToolRun(call_id, name, arguments, output, is_error):
                events += [ToolRunStarted(call_id, name, arguments), ToolRunFinished(call_id, output, is_error)]
    return (*events, end)
