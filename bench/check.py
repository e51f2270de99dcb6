"""Whether a streamed chat reply has the shape that clients need."""

import re
from typing import Any

import msgspec

KEYS = {"id", "object", "created", "model", "choices"}


def problems(body: bytes, *, reasoning: int, text: int) -> list[str]:
    """What is wrong with a stream of chunks that should hold so many of the fake's tokens; empty if nothing."""
    events = [event.removeprefix(b"data: ") for event in body.strip().split(b"\n\n")]
    if events[-1] != b"[DONE]":
        return ["it does not end with [DONE]"]
    chunks = [msgspec.json.decode(event, type=dict[str, Any]) for event in events[:-1] if not event.startswith(b":")]
    found = [f"a chunk lacks {sorted(KEYS - chunk.keys())}" for chunk in chunks if not chunk.keys() >= KEYS]
    if found:
        return found[:1]
    if len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) != 1:
        found.append("id, created, model or object change")
    choices: list[dict[str, Any]] = [choice for chunk in chunks for choice in chunk["choices"]]
    if choices[0]["delta"].get("role") != "assistant":
        found.append("it does not begin with the role")
    if [choice["finish_reason"] for choice in choices if choice["finish_reason"]] != ["stop"]:
        found.append("it does not finish with stop, exactly once")
    if _indexes(choices, "reasoning_content") != [f"r{index:03d}" for index in range(reasoning)]:
        found.append("the reasoning is not whole")
    if _indexes(choices, "content") != [f"t{index:03d}" for index in range(text)]:
        found.append("the text is not whole")
    return found


def _indexes(choices: list[dict[str, Any]], field: str) -> list[str]:
    whole = "".join(choice["delta"].get(field) or "" for choice in choices)
    return re.findall(r"~\w+ ([rt]\d{3}) \d{16}x*;", whole)
