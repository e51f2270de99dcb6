"""What an MCP server says → what a model is shown. Pure.

Names, descriptions, schemas and results come from the server, and nobody here has read them: each is bounded, and
what does not fit is left out, or says that it was cut.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from mcp_types import Tool as Offered
from pydantic_ai import BinaryContent, InlineDefsJsonSchemaTransformer
from pydantic_core import to_json

from frontdesk.agents.skills.outward import CUT, cut, visible

MAX_NAME_CHARACTERS = 64  # the most that model providers take
MAX_DESCRIPTION_CHARACTERS = 1024  # as above
MAX_SCHEMA_CHARACTERS = 32_000
MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_VALUES = 5_000
MAX_TEXT_CHARACTERS = 100_000
MAX_BINARY_BYTES = 10 * 2**20

PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""What models take as an image."""

_ODD = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Listed:
    """A tool as a model is to be shown it; `original` is what the server calls it."""

    original: str
    name: str
    description: str
    schema: dict[str, Any]


def listed(tools: Sequence[Offered], prefix: str, allow: Collection[str]) -> tuple[list[Listed], list[str]]:
    """The tools that are allowed, each under a name of its own, and why others were left out."""
    found: dict[str, Listed] = {}
    faults: list[str] = []
    for tool in tools:
        if not any(fnmatchcase(tool.name, pattern) for pattern in allow):
            continue
        name = named(prefix, tool.name)
        if name in found:
            name = named(prefix, tool.name, marked=True)
        if name in found:
            faults.append(f"{name}: listed twice")
        elif fault := fault_of(tool.input_schema):
            faults.append(f"{name}: {fault}")
        else:
            description = cut(visible(tool.description or tool.title or ""), MAX_DESCRIPTION_CHARACTERS)
            found[name] = Listed(tool.name, name, description, tool.input_schema)
    return list(found.values()), faults


def named(prefix: str, name: str, *, marked: bool = False) -> str:
    """`prefix_name` in characters that every provider takes. One that had to be shortened, or is `marked`, ends in a
    digest of the whole, so that two never become one."""
    plain = f"{prefix}_{_ODD.sub('_', name)}"
    if len(plain) <= MAX_NAME_CHARACTERS and not marked:
        return plain
    digest = hashlib.sha256(f"{prefix}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[: MAX_NAME_CHARACTERS - 9]}_{digest}"


def fault_of(schema: dict[str, Any]) -> str:
    """Why a tool with this schema would trouble a model's provider, or us on the way there; empty if it does not."""
    if not all(depth <= MAX_SCHEMA_DEPTH for depth in depths(schema)):
        return "its schema is nested too deeply, or too large"
    if len(json.dumps(schema)) > MAX_SCHEMA_CHARACTERS:
        return "its schema is too large"
    if schema.get("type") != "object":
        return "its schema does not describe an object"
    try:
        inlined = InlineDefsJsonSchemaTransformer(schema).walk()
    except Exception:  # whatever it is that the engine cannot read, it must not be met in a turn
        return "its schema cannot be read"
    return "its schema is too large" if len(json.dumps(inlined)) > MAX_SCHEMA_CHARACTERS else ""


def depths(schema: dict[str, Any]) -> Iterator[int]:
    """How deep each value of a schema lies when its references are written out, as they are for some models; one too
    deep where there are too many values. Not by recursion, of which a document may have more than we."""
    waiting: list[tuple[Any, int, tuple[str, ...]]] = [(schema, 1, ())]
    for _ in range(MAX_SCHEMA_VALUES):
        if not waiting:
            return
        value, depth, followed = waiting.pop()
        yield depth
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            waiting += [(each, depth + 1, followed) for name, each in fields.items() if (depth, name) != (1, "$defs")]
            ref = fields.get("$ref")
            if isinstance(ref, str) and ref not in followed:
                waiting.append((pointed_at(schema, ref), depth, (*followed, ref)))
        elif isinstance(value, list):
            waiting += [(each, depth + 1, followed) for each in cast("list[Any]", value)]
    yield MAX_SCHEMA_DEPTH + 1


def pointed_at(schema: dict[str, Any], ref: str) -> Any:
    """What a reference within a schema means; None if that is nothing, or elsewhere."""
    value: Any = schema
    for token in ref.removeprefix("#").split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and name.isdecimal():
            listed = cast("list[Any]", value)
            value = listed[int(name)] if int(name) < len(listed) else None
        else:
            value = cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None
    return value if ref.startswith("#") else None


# --- results -----------------------------------------------------------------------------------------------------


def told(result: CallToolResult) -> Any:
    """What the model is given: structured content where that is all, else text, pictures and files in order."""
    structured = result.structured_content
    if structured is not None and all(isinstance(block, TextContent) for block in result.content):
        text = to_json(structured).decode()
        if len(text) > MAX_TEXT_CHARACTERS:
            return cut(text, MAX_TEXT_CHARACTERS)
        match structured:
            case {"result": value} if len(cast("dict[str, Any]", structured)) == 1:
                return value  # so servers wrap what is no object
            case _:
                return structured
    parts = list(bounded(result.content))
    return parts[0] if len(parts) == 1 else parts


def complaint(result: CallToolResult) -> str:
    """What a tool says that failed."""
    text = "\n".join(part for part in bounded(result.content) if isinstance(part, str))
    if not text and result.structured_content is not None:
        text = cut(to_json(result.structured_content).decode(), MAX_TEXT_CHARACTERS)
    return text or "The tool failed, and did not say why."


def bounded(blocks: Sequence[ContentBlock]) -> Iterator[str | BinaryContent]:
    """The parts of a result, as long as there is room for them."""
    characters, size = MAX_TEXT_CHARACTERS, MAX_BINARY_BYTES
    for block in blocks:
        part = shown(block)
        if isinstance(part, str):
            if characters <= 0:
                return
            yield cut(part, max(characters, len(CUT)))
            characters -= len(part)
        elif len(part.data) > size:
            yield f"[{part.media_type}, {len(part.data)} bytes: too large to be shown]"
        else:
            yield part
            size -= len(part.data)


def shown(block: ContentBlock) -> str | BinaryContent:
    match block:
        case TextContent():
            return block.text
        case ImageContent() if block.mime_type in PICTURES:
            return binary(block.data, block.mime_type)
        case ImageContent() | AudioContent():
            return f"[{kind(block.mime_type)}: not shown]"
        case ResourceLink():
            return f"{visible(block.name)}: {block.uri}"
        case EmbeddedResource(resource=TextResourceContents() as resource):
            return resource.text
        case EmbeddedResource(resource=BlobResourceContents() as resource):
            media_type = resource.mime_type or ""
            if media_type in PICTURES:
                return binary(resource.blob, media_type)
            return f"[{kind(media_type)}, {resource.uri}: not shown]"
        case _:
            raise AssertionError("the union is closed")


def binary(data: str, media_type: str) -> str | BinaryContent:
    try:
        return BinaryContent(base64.b64decode(data, validate=True), media_type=media_type)
    except (binascii.Error, ValueError):
        return f"[{media_type}: cannot be read]"


def kind(media_type: str) -> str:
    return cut(visible(media_type), 100) or "a file"
