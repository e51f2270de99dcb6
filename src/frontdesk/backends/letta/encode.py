"""Our items → the bodies Letta takes. Pure."""

import base64
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from frontdesk.ports import Placement
from frontdesk.turn import Content, Image, Item, Message, Text, Tool, ToolCall, ToolResult, Turn, unanswered

# Letta cuts a longer tool return itself, in the middle of its JSON wrapper (measured at 102,400 characters).
TOOL_RETURN_CHARACTERS = 100_000
SUPERSEDED = "The caller went on without running this call."


def message_body(
    turn: Turn, messages: Sequence[dict[str, Any]], prompt: str = "", *, tokens: bool = True
) -> dict[str, Any]:
    """What starts a turn. Always as a stream: Letta's plain mode loses parallel calls and takes no lock. `prompt` is
    what stands in the place of the agent's own for this turn."""
    body: dict[str, Any] = {
        "messages": with_otids(turn.id, messages),
        "streaming": True,
        "stream_tokens": tokens,
        "include_pings": True,
    }
    if turn.tools:
        body["client_tools"] = [client_tool(tool) for tool in turn.tools]
    if prompt:
        body["override_system"] = prompt
    return body


def messages(placement: Placement) -> list[dict[str, Any]]:
    """Everything to be delivered, in order: results of pending calls, the instructions, then the transcript."""
    results = [item for item in placement.deliver if isinstance(item, ToolResult)] if resumes(placement) else []
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
    outcome = "was not answered" if result is None else ("failed: " if result.is_error else "returned: ") + result.text
    return f"[The tool call {name}({arguments}) {outcome}]"


def approvals(results: Iterable[ToolResult]) -> dict[str, Any]:
    """The answer to pending client calls: Letta wants all of them in one message."""
    return {
        "type": "approval",
        "approvals": [
            {
                "type": "tool",
                "tool_call_id": result.call_id,
                "tool_return": tool_return(result.content),
                "status": "error" if result.is_error else "success",
            }
            for result in results
        ],
    }


def exactly(message: dict[str, Any], expected: Sequence[str]) -> dict[str, Any]:
    """The same answer for just the calls Letta waits for: without extra ones, and with an error for missing ones."""
    given = {item["tool_call_id"]: item for item in message["approvals"]}
    missing = approvals(unanswered(call_id) for call_id in expected if call_id not in given)
    given |= {item["tool_call_id"]: item for item in missing["approvals"]}
    return message | {"approvals": [given[call_id] for call_id in expected]}


def denials(call_ids: Iterable[str]) -> dict[str, Any]:
    """Clears calls which nobody will answer."""
    return {
        "type": "approval",
        "approvals": [
            {"type": "approval", "tool_call_id": call_id, "approve": False, "reason": SUPERSEDED}
            for call_id in call_ids
        ],
    }


def tool_return(content: Sequence[Content]) -> Any:
    if any(isinstance(part, Image) for part in content):
        return content_body(content)
    text = "".join(part.text for part in content if isinstance(part, Text))
    if len(text) <= TOOL_RETURN_CHARACTERS:
        return text
    return f"{text[:TOOL_RETURN_CHARACTERS]}\n[cut: {len(text) - TOOL_RETURN_CHARACTERS} more characters]"


def content_body(content: Sequence[Content]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) for part in content):
        return "".join(part.text for part in content if isinstance(part, Text))
    return [part_body(part) for part in content]


def part_body(part: Content) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(media_type, data):
            encoded = base64.b64encode(data).decode()
            return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": encoded}}


def client_tool(tool: Tool) -> dict[str, Any]:
    """Letta sends `null` for a missing description, which providers refuse."""
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


def with_otids(turn_id: str, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give every message an id of ours, by which it is recognised in the conversation afterwards."""
    return [message | {"otid": otid} for message, otid in zip(messages, otids(turn_id, len(messages)), strict=True)]


def otids(turn_id: str, count: int) -> list[str]:
    return [str(uuid.uuid5(uuid.NAMESPACE_OID, f"{turn_id}/{index}")) for index in range(count)]
