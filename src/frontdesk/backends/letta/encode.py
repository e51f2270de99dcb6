"""Our items → the bodies Letta takes. Pure."""

import base64
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any
from xml.sax.saxutils import quoteattr

from frontdesk.ports import Placement
from frontdesk.turn import Content, File, Image, Item, Message, Text, Tool, ToolCall, ToolResult, Turn, unanswered

# Letta cuts a longer tool return itself, in the middle of its JSON wrapper (measured at 102,400 characters).
TOOL_RETURN_CHARACTERS = 100_000
SUPERSEDED = "The caller went on without running this call."
NOBODY = "Nobody here may approve of this tool. Do without it, and say so if that matters."
BESIDE = "A person can approve of this tool only when it is called by itself. Call it again without any other tool."


def message_body(
    turn: Turn, messages: Sequence[dict[str, Any]], prompt: str = "", *, tokens: bool = True, stretch: int = 0
) -> dict[str, Any]:
    """What starts a turn. Always as a stream: Letta's plain mode loses parallel calls and takes no lock. `prompt` is
    what stands in the place of the agent's own for this turn; `stretch` counts how often the turn was taken on."""
    body: dict[str, Any] = {
        "messages": with_otids(f"{turn.id}/on/{stretch}" if stretch else turn.id, messages),
        "streaming": True,
        "stream_tokens": tokens,
        "include_pings": True,
    }
    if turn.tools:
        body["client_tools"] = [client_tool(tool) for tool in turn.tools]
    if prompt:
        body["override_system"] = prompt
    return body


def messages(placement: Placement, own: Iterable[ToolResult] = ()) -> list[dict[str, Any]]:
    """Everything to be delivered, in order: results of pending calls, the instructions, then the transcript. `own` are
    decisions on the agent's own calls, which stand in place of what the caller says of them."""
    decided = {each.call_id: each for each in own}
    given = [item for item in placement.deliver if isinstance(item, ToolResult)] if resumes(placement) else []
    results = [decided.get(each.call_id, each) for each in given]
    rest = [item for item in placement.deliver if not (results and isinstance(item, ToolResult))]
    system = [{"role": "system", "content": placement.instructions}] if placement.instructions else []
    closing = [{"role": "system", "content": placement.closing}] if placement.closing else []
    return ([approvals(results)] if results else []) + system + transcript(rest) + closing


def resumes(placement: Placement) -> bool:
    """Whether the turn answers calls the agent waits for: then the results come without the calls themselves."""
    called = {item.call_id for item in placement.deliver if isinstance(item, ToolCall)}
    return any(isinstance(item, ToolResult) and item.call_id not in called for item in placement.deliver)


def transcript(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Messages for the agent to read. Letta takes no tool history, so past calls and results are told as text."""
    told: list[dict[str, Any]] = []
    results = {item.call_id: item for item in items if isinstance(item, ToolResult)}
    for item in items:
        match item:
            case Message(role, content, name):
                if content:
                    told.append({"role": role, "content": content_body(content)} | ({"name": name} if name else {}))
            case ToolCall(call_id, name, arguments):
                told.append({"role": "assistant", "content": called(name, arguments, results.get(call_id))})
            case ToolResult():
                pass
    return told


def called(name: str, arguments: str, result: ToolResult | None) -> str:
    outcome = (
        "was not answered"
        if result is None
        else ("failed: " if result.is_error else "returned: ") + text(result.content)
    )
    return f"[The tool call {name}({arguments}) {outcome}]"


def approvals(results: Iterable[ToolResult]) -> dict[str, Any]:
    """The answer to pending calls: Letta wants all of them in one message."""
    return {"type": "approval", "approvals": [answer(result) for result in results]}


def answer(result: ToolResult) -> dict[str, Any]:
    """What the client's tool gave; or whether the agent may run its own."""
    if result.approved is not None:
        return decision(result.call_id, result.text, approve=result.approved)
    return {
        "type": "tool",
        "tool_call_id": result.call_id,
        "tool_return": tool_return(result.content),
        "status": "error" if result.is_error else "success",
    }


def decision(call_id: str, reason: str, *, approve: bool) -> dict[str, Any]:
    return {"type": "approval", "tool_call_id": call_id, "approve": approve, "reason": reason}


def decisions(results: Sequence[ToolResult], *, older: bool) -> dict[str, Any]:
    """Which of the agent's own calls it may run. The `older` loop makes one call in a step, and reads older fields."""
    message = approvals(results)
    if not older:
        return message
    return message | {"approve": all(each.approved for each in results), "reason": results[0].text}


def exactly(message: dict[str, Any], expected: Sequence[str], own: Iterable[ToolResult] = ()) -> dict[str, Any]:
    """The same answer for just the calls Letta waits for: without extra ones, and with an error for missing ones. `own`
    are decisions on the agent's own, which go before whatever else is said of them."""
    given = {item["tool_call_id"]: item for item in [*message["approvals"], *map(answer, own)]}
    missing = approvals(unanswered(call_id) for call_id in expected if call_id not in given)
    given |= {item["tool_call_id"]: item for item in missing["approvals"]}
    return message | {"approvals": [given[call_id] for call_id in expected]}


def denials(call_ids: Iterable[str]) -> dict[str, Any]:
    """Clears calls which nobody will answer."""
    return {
        "type": "approval",
        "approvals": [decision(call_id, SUPERSEDED, approve=False) for call_id in call_ids],
    }


def tool_return(content: Sequence[Content]) -> Any:
    if any(isinstance(part, Image) for part in content):
        return content_body(content)
    told = text(content)
    if len(told) <= TOOL_RETURN_CHARACTERS:
        return told
    return f"{told[:TOOL_RETURN_CHARACTERS]}\n[cut: {len(told) - TOOL_RETURN_CHARACTERS} more characters]"


def content_body(content: Sequence[Content]) -> str | list[dict[str, Any]]:
    if any(isinstance(part, Image) for part in content):
        return [part_body(part) for part in content]
    return text(content)


def text(content: Sequence[Content]) -> str:
    """Texts as one, byte for byte; each file on lines of its own."""
    return "\n\n".join(filter(None, _passages(content)))


def _passages(content: Sequence[Content]) -> Iterator[str]:
    for kind, parts in groupby(content, key=type):
        if kind is Text:
            yield "".join(part.text for part in parts if isinstance(part, Text))
        else:
            yield from (framed(part) for part in parts if isinstance(part, File))


def framed(file: File) -> str:
    """A text with its name, so that a model knows where it begins and ends: Letta takes no files."""
    named = f" name={quoteattr(file.name)}" if file.name else ""
    return f"<file{named}>\n{file.text}\n</file>"


def part_body(part: Content) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(media_type, data):
            encoded = base64.b64encode(data).decode()
            return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": encoded}}
        case File():
            return {"type": "text", "text": framed(part)}


def client_tool(tool: Tool) -> dict[str, Any]:
    """Letta sends `null` for a missing description, which providers refuse."""
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


def with_otids(turn_id: str, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give every message an id of ours, by which it is recognised in the conversation afterwards."""
    return [message | {"otid": otid} for message, otid in zip(messages, otids(turn_id, len(messages)), strict=True)]


def otids(turn_id: str, count: int) -> list[str]:
    return [str(uuid.uuid5(uuid.NAMESPACE_OID, f"{turn_id}/{index}")) for index in range(count)]
