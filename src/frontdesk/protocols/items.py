"""What was said, as the items of OpenAI's Responses and Conversations. Pure.

An item's id says in which turn it stands and where: `msg_<turn>i0` is the first thing a turn was told, `msg_<turn>o0`
the first it answered.
"""

import base64
import re
from typing import Any, Literal

from frontdesk.conversations.archive import Told
from frontdesk.turn import (
    Content,
    File,
    Image,
    Item,
    Message,
    Part,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
    ToolRun,
)

TURN = "turn_"
ITEM_ID = re.compile(r"(?:msg|rs|fc|fco|mcp)_([0-9a-f]+)([io])(\d{1,6})")
RUN_CALL = re.compile(r"run_([0-9a-f]+)o(\d{1,6})")


def item_id(item: Item | Part, turn_id: str, side: Literal["i", "o"], index: int) -> str:
    """`side`: whether it was told (i) or answered (o)."""
    match item:
        case Message():
            kind = "msg"
        case Reasoning():
            kind = "rs"
        case ToolCall():
            kind = "fc"
        case ToolRun():
            kind = "mcp"
        case ToolResult():
            kind = "fco"
    return f"{kind}_{turn_id.removeprefix(TURN)}{side}{index}"


def item_id_of(told: Told) -> str:
    return item_id(told.item, told.turn_id, told.side, told.index)


def place_in_turn(id: str) -> tuple[str, Literal["i", "o"], int] | None:
    """The turn, the side and the place an item's id speaks of; None if it is none of ours."""
    found = ITEM_ID.fullmatch(id)
    return (TURN + found[1], "i" if found[2] == "i" else "o", int(found[3])) if found else None


def place_of_run(call_id: str) -> tuple[str, int] | None:
    """The turn and the place of a tool run that was shown as a call and its result; None if it is none of ours."""
    found = RUN_CALL.fullmatch(call_id)
    return (TURN + found[1], int(found[2])) if found else None


def item_body(told: Told) -> dict[str, Any]:
    return body_of(told.item, item_id_of(told), "completed" if told.complete else "incomplete")


def body_of(item: Item | Part, id: str, status: str = "completed") -> dict[str, Any]:
    head = {"id": id, "status": status}
    match item:
        case Message(role, content):
            parts = [part_body(part, role) for part in content]
            return {"type": "message", **head, "role": role, "content": parts}
        case Reasoning(text):
            return {"type": "reasoning", **head, "summary": [{"type": "summary_text", "text": text}]}
        case ToolCall(call_id, name, arguments):
            return {"type": "function_call", **head, "call_id": call_id, "name": name, "arguments": arguments}
        case ToolResult(call_id, content):
            return {"type": "function_call_output", **head, "call_id": call_id, "output": output(content)}
        case ToolRun() as run:
            return {"type": "mcp_call", **head, **run_body(run)}


def run_body(run: ToolRun) -> dict[str, Any]:
    """The agent's own tool, as one that ran on a server: a client takes every `function_call` for one to be run."""
    failure = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": run.output}]}
    body = {
        "server_label": SERVER,
        "name": run.name,
        "arguments": run.arguments,
        "output": None if run.is_error else run.output,
        "error": failure if run.is_error else None,
    }
    return body | ({"status": "failed"} if run.is_error else {})


def pair_bodies(run: ToolRun, turn_id: str, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The agent's own tool as a call and its result, for clients that show no other kind.

    Its call id is of a form of its own, by which it is known when it comes back: no caller ever has to answer it.
    """
    place = f"{turn_id.removeprefix(TURN)}o{index}"
    call = ToolCall(f"run_{place}", run.name, run.arguments)
    answer = ToolResult(call.call_id, (Text(run.output),))
    return body_of(call, f"fc_{place}"), body_of(answer, f"fco_{place}")


SERVER = "agent"
"""Where an agent's own tools run."""


SHOWN_CHARACTERS = 64 * 1024
"""A larger picture or file is not shown again: whoever sent it has it."""


def part_body(part: Content, role: Role) -> dict[str, Any]:
    match part:
        case Text(text) if role == "assistant":
            return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        case Text(text):
            return {"type": "input_text", "text": text}
        case Image(url=url) if len(url) <= SHOWN_CHARACTERS:
            return {"type": "input_image", "detail": "auto", "image_url": url, "file_id": None}
        case Image():
            return {"type": "input_text", "text": "[an image]"}
        case File(name, media_type, data) if len(data) <= SHOWN_CHARACTERS:
            encoded = base64.b64encode(data).decode()
            return {"type": "input_file", "filename": name, "file_data": f"data:{media_type};base64,{encoded}"}
        case File(name):
            return {"type": "input_text", "text": f"[a file: {name}]"}


def output(content: tuple[Content, ...]) -> str | list[dict[str, Any]]:
    """A result as the text it is, or with its pictures and files as parts."""
    if all(isinstance(part, Text) for part in content):
        return "".join(part.text for part in content if isinstance(part, Text))
    return [part_body(part, "user") for part in content]
