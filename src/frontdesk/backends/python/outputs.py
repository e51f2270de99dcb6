"""What tools give, as it can be kept and told. Pure.

A thread is JSON text, and is read again with each turn: one value in it that cannot be written or read would be the end
of the conversation.
"""

import json
from collections.abc import Sequence
from typing import Any, cast

from pydantic_ai.messages import BinaryContent, DocumentUrl, ImageUrl, ToolReturn
from pydantic_core import to_json

MOST_CHARACTERS = 1_000_000
CUT = "\n[The rest, {left} characters, was left out.]"
DIGITS = 18  # of an integer that every reader of JSON takes

WHOLE = (ToolReturn, BinaryContent, ImageUrl, DocumentUrl)
"""What the engine has words of its own for."""


def tellable(output: Any) -> Any:
    """The same as plain JSON values, and text of a bounded length. Raises ValueError for what cannot be told."""
    if isinstance(output, str):
        return text(output)
    if is_whole(output):
        return output
    try:
        written = to_json(output, fallback=name_of, bytes_mode="base64", inf_nan_mode="strings").decode()
        if len(written) > MOST_CHARACTERS:
            return text(written)
        return json.loads(written, parse_int=number)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"it gave {type(output).__name__}, which cannot be told") from error


def is_whole(output: Any) -> bool:
    parts = cast("Sequence[Any]", output) if isinstance(output, list | tuple) else (output,)
    return any(isinstance(part, WHOLE) for part in parts)


def name_of(value: Any) -> str:
    """Of an object of the author's own its type alone: what it says of itself may be no caller's business."""
    return f"<{type(value).__name__}>"


def number(digits: str) -> int | str:
    return int(digits) if len(digits) <= DIGITS else digits


def text(value: str) -> str:
    """Without half characters, which no UTF-8 holds, and cut where it has no end."""
    whole = value.encode("utf-8", "replace").decode()
    return whole if len(whole) <= MOST_CHARACTERS else cut(whole)


def cut(whole: str) -> str:
    return whole[:MOST_CHARACTERS] + CUT.format(left=len(whole) - MOST_CHARACTERS)
