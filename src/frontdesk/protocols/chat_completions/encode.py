"""Events → Chat Completions. Pure. The chunks of a stream and the body of a plain reply say the same.

A chunk is a template rendered once per stream, around the JSON text of a delta: most of what is sent never changes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import msgspec

from frontdesk.errors import AgentFailed, GatewayError
from frontdesk.protocols.openai_errors import body_of
from frontdesk.stream import Frame, Frames, PartDelta, PartFinished, PartStarted, Reply
from frontdesk.turn import Batch, Message, Reasoning, ToolCall, ToolRun, TurnFinished, Usage

json = msgspec.json.encode

ReasoningField = Literal["reasoning_content", "reasoning", "both", "think", "off"]

BETWEEN_MESSAGES = "\n\n"
"""An agent may say several things in one turn; a chat reply has one text, in which they must not run together."""

OUTCOME_CHARACTERS = 500
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Style:
    """What a reply shows, beside its text."""

    reasoning_field: ReasoningField = "reasoning_content"
    show_tool_runs: bool = True
    keepalive: Literal["chunk", "comment", "off"] = "chunk"


@dataclass(frozen=True, slots=True)
class Head:
    """What is the same in every chunk. `created` is in seconds since 1970."""

    id: str
    created: int
    model: str  # as the caller wrote it


class Show:
    """Frames → text and reasoning, as a chat reply shows them. One object per turn.

    Yields `(field, text)` with field `content` or `reasoning`; tool calls are the encoders' own affair.
    """

    def __init__(self, style: Style) -> None:
        self._style = style
        self._messages = 0
        self._thoughts = 0

    def __call__(self, frame: Frame) -> Iterable[tuple[Literal["content", "reasoning"], str]]:
        match frame:
            case PartStarted(part=Message()):
                self._messages += 1
                if self._messages > 1:
                    yield "content", BETWEEN_MESSAGES
            case PartStarted(part=Reasoning()):
                self._thoughts += 1
                if self._thoughts > 1:
                    yield "reasoning", "\n\n"
            case PartStarted(part=ToolRun() as run):
                if self._style.show_tool_runs:
                    lead = "\n\n" if self._thoughts else ""
                    self._thoughts += 1
                    yield "reasoning", f"{lead}[{run.name}] {run.arguments}"
            case PartFinished(part=ToolRun() as run):
                if self._style.show_tool_runs:
                    yield "reasoning", f"\n[{run.name}] {outcome(run)}"
            case PartDelta(part=Message(), delta=text):
                yield "content", text
            case PartDelta(part=Reasoning(), delta=text):
                yield "reasoning", text
            case _:
                pass


def outcome(run: ToolRun) -> str:
    text = run.output if len(run.output) <= OUTCOME_CHARACTERS else run.output[:OUTCOME_CHARACTERS] + "…"
    return f"{'failed' if run.is_error else 'done'}: {text}" if text else ("failed" if run.is_error else "done")


class ChunkEncoder:
    """The chunks of one stream, batch by batch."""

    def __init__(self, head: Head, style: Style, *, include_usage: bool) -> None:
        self._frames = Frames()
        self._show = Show(style)
        self._style = style
        self._include_usage = include_usage
        self._calls: dict[int, int] = {}  # part index → index among the calls
        self._thinking = False
        self._finished = False
        head_json = json({"id": head.id, "object": "chat.completion.chunk", "created": head.created})[:-1]
        self._head = b"data: " + head_json + b',"model":' + json(head.model)
        usage = b',"usage":null' if include_usage else b""
        self._open = self._head + b',"choices":[{"index":0,"delta":'
        self._close = b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        self._text = self._open + b'{"content":'
        self._text_close = b"}" + self._close
        fields = ("reasoning_content", "reasoning") if style.reasoning_field == "both" else (style.reasoning_field,)
        self._reasoning = [field.encode() for field in fields]
        self._hot: dict[type, bytes] = {}  # what comes before one more piece of a text
        if style.reasoning_field != "think":
            self._hot[Message] = self._text
        if style.reasoning_field in ("reasoning_content", "reasoning"):
            self._hot[Reasoning] = self._open + b'{"' + self._reasoning[0] + b'":'

    def begin(self) -> bytes:
        return self._chunk(b'{"role":"assistant","content":""}')

    def keepalive(self) -> bytes:
        match self._style.keepalive:
            case "chunk":
                return self._chunk(b"{}")
            case "comment":
                return b": keepalive\n\n"
            case "off":
                return b""

    def error(self, error: GatewayError) -> bytes:
        return b"data: " + json(body_of(error)) + b"\n\n" + DONE

    def end(self) -> bytes:
        return DONE if self._finished else self.error(AgentFailed("The agent's answer broke off."))

    def batch(self, events: Batch) -> bytes:
        out: list[bytes] = []
        for frame in self._frames(events):
            if type(frame) is PartDelta and (open := self._hot.get(type(frame.part))):
                out.append(open + json(frame.delta) + self._text_close)
            else:
                out += self._rare(frame)
        return b"".join(out)

    def _rare(self, frame: Frame) -> Iterable[bytes]:
        for field, text in self._show(frame):
            yield from self._content(text) if field == "content" else self._thought(text)
        match frame:
            case PartStarted(index=index, part=ToolCall() as call):
                self._calls[index] = len(self._calls)
                yield self._chunk(json({"tool_calls": [first_delta(self._calls[index], call)]}))
            case PartDelta(index=index, part=ToolCall(), delta=text):
                later = {"index": self._calls[index], "function": {"arguments": text}}
                yield self._chunk(json({"tool_calls": [later]}))
            case TurnFinished():
                self._finished = True
                yield from self._stop_thinking()
                yield from self._last(frame)
            case _:
                pass

    def _content(self, text: str) -> Iterable[bytes]:
        yield from self._stop_thinking()
        yield self._text + json(text) + self._text_close

    def _thought(self, text: str) -> Iterable[bytes]:
        match self._style.reasoning_field:
            case "off":
                return
            case "think":
                lead = "" if self._thinking else "<think>"
                self._thinking = True
                yield self._text + json(lead + text) + self._text_close
            case _:
                encoded = json(text)
                delta = b",".join(b'"' + field + b'":' + encoded for field in self._reasoning)
                yield self._open + b"{" + delta + b"}" + self._close

    def _stop_thinking(self) -> Iterable[bytes]:
        if self._thinking:
            self._thinking = False
            yield self._text + json("</think>\n\n") + self._text_close

    def _last(self, end: TurnFinished) -> Iterable[bytes]:
        choice: dict[str, Any] = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": str(end.stop_reason)}
        usage = b',"usage":null' if self._include_usage else b""
        yield self._head + b',"choices":' + json([choice]) + usage + b"}\n\n"
        if self._include_usage:
            yield self._head + b',"choices":[],"usage":' + json(usage_body(end.usage)) + b"}\n\n"

    def _chunk(self, delta: bytes) -> bytes:
        return self._open + delta + self._close


class FunctionBody(TypedDict):
    name: str
    arguments: str


class ToolCallBody(TypedDict):
    id: str
    type: Literal["function"]
    function: FunctionBody


def tool_call_body(call: ToolCall) -> ToolCallBody:
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def first_delta(index: int, call: ToolCall) -> dict[str, Any]:
    """`id` and `name` come once and never change: openai-node throws otherwise."""
    return {"index": index, **tool_call_body(call)}


def completion(head: Head, style: Style, reply: Reply) -> dict[str, Any]:
    """The whole reply as a `chat.completion`."""
    content: list[str] = []
    thoughts: list[str] = []
    show = Show(style)
    for frame in frames_of(reply):
        for field, text in show(frame):
            (content if field == "content" else thoughts).append(text)
    text, thought = "".join(content), "".join(thoughts)
    calls = [tool_call_body(part) for part in reply.parts if isinstance(part, ToolCall)]
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message |= {"content": text or None, "tool_calls": calls}
    message |= shown_thought(style, thought, message)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": str(reply.end.stop_reason)}
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": [choice],
        "usage": usage_body(reply.end.usage),
    }


def shown_thought(style: Style, thought: str, message: dict[str, Any]) -> dict[str, Any]:
    """The fields which show the reasoning."""
    match style.reasoning_field:
        case "reasoning_content" | "reasoning" if thought:
            return {style.reasoning_field: thought}
        case "both" if thought:
            return {"reasoning_content": thought, "reasoning": thought}
        case "think" if thought:
            return {"content": f"<think>{thought}</think>\n\n{message['content'] or ''}"}
        case _:
            return {}


def frames_of(reply: Reply) -> Iterable[Frame]:
    """The frames of a stream in which each text came in one piece."""
    for frame in reply.frames:
        match frame:
            case PartFinished(index=index, part=Message() | Reasoning() as part):
                yield PartDelta(index, part, part.text)
            case _:
                yield frame


def usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
