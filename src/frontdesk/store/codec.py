"""Items and replies as JSON text, as the ledger keeps them. Pure."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, cast

import msgspec

from frontdesk.turn import (
    Batch,
    Content,
    Event,
    File,
    Image,
    Item,
    Message,
    Part,
    Reasoning,
    ReasoningDelta,
    StopReason,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    ToolRun,
    ToolRunFinished,
    ToolRunStarted,
    TurnFinished,
    Usage,
)

MAX_IMAGE_CHARACTERS = 64 * 1024
"""A larger picture, within the message itself, is not kept: it stays with the backend, and with the client."""


def items_text(items: Sequence[Item]) -> str:
    return dumped([item_body(item) for item in items])


def items_of(text: str) -> tuple[Item, ...]:
    return tuple(cast("Item", item_of(body)) for body in loaded(text))


@dataclass(frozen=True, slots=True)
class Saved:
    """A reply as it is kept. Without `end` it was cut short. `calls`: the backend's id of each tool call by ours."""

    parts: tuple[Part, ...] = ()
    end: TurnFinished | None = None
    calls: Mapping[str, str] = field(default_factory=dict[str, str])


def reply_text(reply: Saved) -> str:
    body: dict[str, Any] = {"parts": [item_body(part) for part in reply.parts]}
    if end := reply.end:
        body |= {"stop": str(end.stop_reason), "usage": msgspec.to_builtins(end.usage), "mark": end.mark}
    return dumped(body | ({"calls": dict(reply.calls)} if reply.calls else {}))


def reply_of(text: str) -> Saved:
    if not text:
        return Saved()
    body: dict[str, Any] = loaded(text)
    parts = tuple(cast("Part", item_of(part)) for part in body["parts"])
    if "stop" not in body:
        return Saved(parts)
    end = TurnFinished(StopReason(body["stop"]), Usage(**body["usage"]), body["mark"])
    return Saved(parts, end, body.get("calls", {}))


def events_text(batches: Sequence[Batch]) -> str:
    """A turn as it was said, batch by batch."""
    return dumped([[[type(event).__name__, *astuple(event)] for event in batch] for batch in batches])


def events_of(text: str) -> tuple[Batch, ...]:
    return tuple(tuple(event_of(event) for event in batch) for batch in loaded(text)) if text else ()


def event_of(body: list[Any]) -> Event:
    name, *values = body
    if name == TurnFinished.__name__:
        stop, usage, mark, condensed = values
        return TurnFinished(StopReason(stop), Usage(*usage), mark, condensed)
    return EVENTS[name](*values)


EVENTS: dict[str, Callable[..., Event]] = {
    kind.__name__: kind for kind in (TextDelta, ReasoningDelta, ToolCallDelta, ToolRunStarted, ToolRunFinished)
}


def item_body(item: Item | Part) -> dict[str, Any]:
    match item:
        case Message(role, content, name):
            body = {"type": "message", "role": role, "content": content_body(content)}
            return body | {"name": name} if name else body
        case Reasoning(text):
            return {"type": "reasoning", "text": text}
        case ToolCall(call_id, name, arguments):
            return {"type": "call", "id": call_id, "name": name, "arguments": arguments}
        case ToolRun(call_id, name, arguments, output, is_error):
            run = {"type": "run", "id": call_id, "name": name, "arguments": arguments}
            return run | {"output": output, "is_error": is_error}
        case ToolResult(call_id, content, is_error):
            return {"type": "result", "id": call_id, "content": content_body(content), "is_error": is_error}


def item_of(body: dict[str, Any]) -> Item | Part:
    match body["type"]:
        case "message":
            return Message(body["role"], content_of(body["content"]), body.get("name", ""))
        case "reasoning":
            return Reasoning(body["text"])
        case "call":
            return ToolCall(body["id"], body["name"], body["arguments"])
        case "run":
            return ToolRun(body["id"], body["name"], body["arguments"], body["output"], body["is_error"])
        case _:
            return ToolResult(body["id"], content_of(body["content"]), body["is_error"])


def content_body(content: Sequence[Content]) -> list[Any]:
    """Texts as strings, pictures by their address. A file of text is kept whole, as texts are: it may be told again."""
    told: list[Any] = []
    for part in content:
        match part:
            case Text(text):
                told.append(text)
            case Image(url=url) if url and len(url) <= MAX_IMAGE_CHARACTERS:
                told.append({"image": url})
            case Image():
                told.append("[an image]")
            case File(name, media_type, data) if part.is_text:
                told.append({"file": name, "media_type": media_type, "text": data.decode()})
            case File(name, media_type, data) if len(data) <= MAX_IMAGE_CHARACTERS:
                told.append({"file": name, "media_type": media_type, "data": base64.b64encode(data).decode()})
            case File(name):
                told.append(f"[a file: {name}]")
    return told


def content_of(body: Sequence[Any]) -> tuple[Content, ...]:
    return tuple(map(part_of, body))


def part_of(body: Any) -> Content:
    match body:
        case str():
            return Text(body)
        case {"file": name, "media_type": media_type, "text": text}:
            return File(name, media_type, text.encode())
        case {"file": name, "media_type": media_type, "data": data}:
            return File(name, media_type, base64.b64decode(data))
        case _:
            return Image(url=body["image"])


def dumped(value: Any) -> str:
    """A lone surrogate, which JSON allows in a request and no database takes, becomes a question mark."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(_mended(value)).decode()


def _mended(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case list():
            return [_mended(each) for each in cast("list[Any]", value)]
        case dict():
            return {key: _mended(each) for key, each in cast("dict[str, Any]", value).items()}
        case _:
            return value


def loaded(text: str) -> Any:
    return msgspec.json.decode(text)
