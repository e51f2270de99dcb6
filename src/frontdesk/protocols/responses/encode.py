"""Events → Responses. Pure. The events of a stream and the body of a plain reply say the same.

A part of the answer is an item of the `output`; one that is hidden is none, and a pair is two. An event is a template
rendered once per item, around the JSON text of a delta: most of what is sent never changes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from frontdesk.errors import AgentFailed, GatewayError, TurnCancelled
from frontdesk.protocols.items import body_of, item_id, pair_bodies
from frontdesk.protocols.openai_errors import body_of as error_body
from frontdesk.stream import Frame, Frames, PartDelta, PartFinished, PartStarted, Reply
from frontdesk.turn import Batch, Message, Part, Reasoning, StopReason, ToolCall, ToolRun, TurnFinished, Usage

json = msgspec.json.encode

Body = dict[str, Any]

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

DONE = b"data: [DONE]\n\n"

BEATS = 4
"""Every so many keep-alives in a row the whole response is sent, since some clients do not count comments."""

FIRST = 2
"""The number of the first event after those by which a stream begins."""

INCOMPLETE = {StopReason.LENGTH: "max_output_tokens", StopReason.CONTENT_FILTER: "content_filter"}

ERROR_CODES = {
    "rate_limit_exceeded": "rate_limit_exceeded",
    "server_overloaded": "rate_limit_exceeded",
    "context_length_exceeded": "invalid_prompt",
    "invalid_value": "invalid_prompt",
    "invalid_image_url": "invalid_image_url",
}
"""Ours in the words a response has for them; any other is `server_error`."""


LAST: Mapping[Status, str] = {
    "in_progress": "in_progress",
    "incomplete": "incomplete",
    "failed": "incomplete",
    "cancelled": "incomplete",
}
"""The status of the last item, where the answer is not whole."""


@dataclass(frozen=True, slots=True)
class Style:
    """What a reply shows, beside its text.

    `function_pair` shows the agent's own tools as calls with their results: for clients that show no other kind, and
    that have no tools of their own which they would run.
    """

    tool_items: Literal["mcp_call", "function_pair", "off"] = "mcp_call"
    show_reasoning: bool = True
    keepalive: Literal["chunk", "comment", "off"] = "chunk"


@dataclass(frozen=True, slots=True)
class Head:
    """What is not of the answer itself. `created_at` is in seconds since 1970, and so is `now`.

    `echo` are the request's settings. `turn_id` and `conversation` are asked when they are needed: the turn whose
    answer this is, and the public id of its conversation, or "", are known only when the turn has been placed.
    """

    id: str
    created_at: int
    echo: Mapping[str, Any]
    turn_id: Callable[[], str]
    conversation: Callable[[], str]
    now: Callable[[], int]
    encrypted_content: bool = False  # whether the caller asked for it: there is none, and that is said


# --- the whole response ------------------------------------------------------------------------------------------


def response_body(
    head: Head,
    style: Style,
    status: Status,
    parts: Sequence[Part] = (),
    *,
    end: TurnFinished | None = None,
    error: Body | None = None,
    completed_at: int | None = None,
) -> Body:
    """The response with what has been answered. `error` is what `failure` gives; without `end` no usage is known."""
    last = len(parts) - 1
    output: list[Body] = []
    for index, part in enumerate(parts):
        output += item_bodies(head, style, index, part, LAST.get(status, "completed") if index == last else "completed")
    return whole(head, status, output, end=end, error=error, completed_at=completed_at)


def reply_body(head: Head, style: Style, reply: Reply) -> Body:
    """The response to a turn that has ended."""
    status = status_of(reply.end)
    completed_at = head.now() if status == "completed" else None
    return response_body(head, style, status, reply.parts, end=reply.end, completed_at=completed_at)


def status_of(end: TurnFinished) -> Literal["completed", "incomplete"]:
    return "incomplete" if end.stop_reason in INCOMPLETE else "completed"


def failure(code: str, message: str) -> Body:
    """Why a response failed, by our own code."""
    return {"code": ERROR_CODES.get(code, "server_error"), "message": message}


def whole(
    head: Head,
    status: Status,
    output: Sequence[Body],
    *,
    end: TurnFinished | None = None,
    error: Body | None = None,
    completed_at: int | None = None,
) -> Body:
    conversation = head.conversation()
    reason = INCOMPLETE.get(end.stop_reason) if end and status == "incomplete" else None
    return {
        "id": head.id,
        "object": "response",
        "created_at": head.created_at,
        "status": status,
        "completed_at": completed_at,
        "error": error,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": list(output),
        "usage": usage_body(end.usage) if end else None,
        "conversation": {"id": conversation} if conversation else None,
        **head.echo,
    }


def usage_body(usage: Usage) -> Body:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def item_bodies(head: Head, style: Style, index: int, part: Part, status: str = "completed") -> tuple[Body, ...]:
    """A part as the items by which it is shown: one, or none, or two. A tool run is never half done."""
    turn_id = head.turn_id()
    match part:
        case Reasoning():
            if not style.show_reasoning:
                return ()
            return (body_of(part, item_id(part, turn_id, "o", index), status) | encrypted(head),)
        case ToolRun():
            match style.tool_items:
                case "mcp_call":
                    return (body_of(part, item_id(part, turn_id, "o", index)),)
                case "function_pair":
                    return pair_bodies(part, turn_id, index)
                case "off":
                    return ()
        case Message() | ToolCall():
            return (body_of(part, item_id(part, turn_id, "o", index), status),)


def encrypted(head: Head) -> Body:
    return {"encrypted_content": None} if head.encrypted_content else {}


# --- a stream ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """A part that is shown. `place` is what every event about it says of where it is."""

    part: Part  # as it was opened
    place: Body
    delta: bytes = b""  # an event with one more piece of it, up to that piece

    @property
    def output_index(self) -> int:
        return self.place["output_index"]


class EventEncoder:
    """The events of one stream, batch by batch.

    `after`: the caller has heard all up to the event of this number. How it ended is told in any case. The numbers
    follow from what the agent says alone, unless the whole response is sent to bridge a silence; in the background it
    is not, so that whoever comes back finds the same numbers.
    """

    def __init__(self, head: Head, style: Style, *, after: int | None = None) -> None:
        self._frames = Frames()
        self._head = head
        self._style = style
        self._after = -1 if after is None else after
        self._number = FIRST
        self._open: dict[int, Open] = {}  # by the index of the part
        self._output: dict[int, Body] = {}  # what is finished, by its place
        self._next_output = 0
        self._last = -1  # the index of the last part
        self._beats = 0
        self._finished = False

    def begin(self) -> bytes:
        # The first batch may have been encoded before: these two have numbers of their own.
        response = whole(self._head, "in_progress", ())
        kinds = ("response.created", "response.in_progress")
        return b"".join(
            event(kind, {"response": response}, number) for number, kind in enumerate(kinds) if number > self._after
        )

    def keepalive(self) -> bytes:
        if self._style.keepalive == "off":
            return b""
        self._beats += 1
        if self._beats % BEATS or self._style.keepalive == "comment" or self._head.echo.get("background"):
            return b": keepalive\n\n"
        response = whole(self._head, "in_progress", self._items())
        return self._event("response.in_progress", {"response": response})

    def error(self, error: GatewayError) -> bytes:
        if self._finished:  # the answer is whole, and has been sent
            return DONE
        self._finished = True
        self._number = max(self._number, self._after + 1)
        said = error_body(error)["error"]
        told = {"code": said["code"], "message": said["message"], "param": said["param"]}
        if isinstance(error, TurnCancelled):
            response = whole(self._head, "cancelled", self._items())
        else:
            why = failure(error.public_code, error.message)
            response = whole(self._head, "failed", self._items(), error=why)
        return self._event("error", told) + self._event("response.failed", {"response": response}) + DONE

    def end(self) -> bytes:
        return DONE if self._finished else self.error(AgentFailed("The agent's answer broke off."))

    def batch(self, events: Batch) -> bytes:
        if not events:
            return b""
        self._beats = 0
        if type(last := events[-1]) is not TurnFinished or last.stop_reason not in INCOMPLETE:
            return self._told(self._frames(events))
        before = self._told(self._frames(events[:-1]))  # apart: what came along with the end was not cut by it
        end = list(self._frames(events[-1:]))
        return before + self._told(end, self._last_part(end))

    def _told(self, frames: Iterable[Frame], cut: int = -1) -> bytes:
        """`cut` is the index of the part that was cut short."""
        out: list[bytes] = []
        for frame in frames:
            if type(frame) is PartDelta and (item := self._open.get(frame.index)):
                if self._number > self._after:
                    out.append(b'%b%b,"sequence_number":%d}\n\n' % (item.delta, json(frame.delta), self._number))
                self._number += 1
            else:
                out += self._rare(frame, cut)
        return b"".join(out)

    def _last_part(self, frames: Sequence[Frame]) -> int:
        """The last part of the answer, which is the one that was cut short."""
        return max([self._last, *(frame.index for frame in frames if not isinstance(frame, TurnFinished))])

    def _rare(self, frame: Frame, cut: int) -> Iterator[bytes]:
        match frame:
            case PartStarted(index=index, part=part):
                self._last = max(self._last, index)
                yield from self._start(index, part)
            case PartFinished(index=index, part=part):
                if item := self._open.get(index):
                    status = "incomplete" if index == cut else "completed"
                    bodies = item_bodies(self._head, self._style, index, part, status)
                    yield from self._finish(item, part, bodies)
            case TurnFinished():
                yield self._end(frame, cut)
            case PartDelta():  # of a part that is not shown
                pass

    def _start(self, index: int, part: Part) -> Iterator[bytes]:
        bodies = item_bodies(self._head, self._style, index, part)
        if not bodies:
            return
        body = bodies[0] | {"status": "in_progress"}
        output_index = self._next_output
        self._next_output += len(bodies)
        place = {"item_id": body["id"], "output_index": output_index}
        match part:
            case Message():
                part_place = place | {"content_index": 0}
                delta = opened("response.output_text.delta", part_place | {"logprobs": []})
                self._open[index] = Open(part, part_place, delta)
                yield self._event("response.output_item.added", {"output_index": output_index, "item": body})
                yield self._event("response.content_part.added", part_place | {"part": text_part("")})
            case Reasoning():
                part_place = place | {"summary_index": 0}
                self._open[index] = Open(part, part_place, opened("response.reasoning_summary_text.delta", part_place))
                body["summary"] = []
                yield self._event("response.output_item.added", {"output_index": output_index, "item": body})
                yield self._event("response.reasoning_summary_part.added", part_place | {"part": summary_part("")})
            case ToolCall():
                self._open[index] = Open(part, place, opened("response.function_call_arguments.delta", place))
                yield self._event("response.output_item.added", {"output_index": output_index, "item": body})
            case ToolRun():
                self._open[index] = Open(part, place)
                yield from self._start_run(place, body, part)

    def _start_run(self, place: Body, body: Body, run: ToolRun) -> Iterator[bytes]:
        """Its arguments are known at once. Of a pair, the call is over before a client could think it is to run it."""
        pair = self._style.tool_items == "function_pair"
        item = body | {"arguments": ""} | ({} if pair else {"output": None, "error": None})
        arguments = "response.function_call_arguments" if pair else "response.mcp_call_arguments"
        yield self._event("response.output_item.added", {"output_index": place["output_index"], "item": item})
        if not pair:
            yield self._event("response.mcp_call.in_progress", place)
        if run.arguments:
            yield self._event(f"{arguments}.delta", place | {"delta": run.arguments})
        named = {"name": run.name} if pair else {}
        yield self._event(f"{arguments}.done", place | named | {"arguments": run.arguments})
        if pair:
            yield self._done(place["output_index"], body | {"status": "completed"})

    def _finish(self, item: Open, part: Part, bodies: Sequence[Body]) -> Iterator[bytes]:
        place, output_index, body = item.place, item.output_index, bodies[-1]
        match part:
            case Message(text=text):
                yield self._event("response.output_text.done", place | {"text": text, "logprobs": []})
                yield self._event("response.content_part.done", place | {"part": text_part(text)})
            case Reasoning(text):
                yield self._event("response.reasoning_summary_text.done", place | {"text": text})
                yield self._event("response.reasoning_summary_part.done", place | {"part": summary_part(text)})
            case ToolCall(name=name, arguments=arguments):
                told = {"name": name, "arguments": arguments}
                yield self._event("response.function_call_arguments.done", place | told)
            case ToolRun() if len(bodies) > 1:
                output_index += 1
                begun = body | {"status": "in_progress"}
                yield self._event("response.output_item.added", {"output_index": output_index, "item": begun})
            case ToolRun(is_error=is_error):
                yield self._event(f"response.mcp_call.{'failed' if is_error else 'completed'}", place)
        yield self._done(output_index, body)

    def _done(self, output_index: int, body: Body) -> bytes:
        self._output[output_index] = body
        return self._event("response.output_item.done", {"output_index": output_index, "item": body})

    def _end(self, end: TurnFinished, cut: int) -> bytes:
        self._finished = True
        self._number = max(self._number, self._after + 1)
        if (item := self._open.get(cut)) and not isinstance(item.part, ToolRun):
            self._output[item.output_index]["status"] = "incomplete"
        status = status_of(end)
        completed_at = self._head.now() if status == "completed" else None
        response = whole(self._head, status, self._items(), end=end, completed_at=completed_at)
        return self._event(f"response.{status}", {"response": response})

    def _items(self) -> list[Body]:
        return [self._output[place] for place in sorted(self._output)]

    def _event(self, kind: str, fields: Body) -> bytes:
        number = self._number
        self._number += 1
        return event(kind, fields, number) if number > self._after else b""


def event(kind: str, fields: Body, number: int) -> bytes:
    data = json({"type": kind, **fields, "sequence_number": number})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def opened(kind: str, fields: Body) -> bytes:
    """An event up to the text of its delta; its number comes behind that."""
    return b'event: %b\ndata: %b,"delta":' % (kind.encode(), json({"type": kind, **fields})[:-1])


def text_part(text: str) -> Body:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def summary_part(text: str) -> Body:
    return {"type": "summary_text", "text": text}
