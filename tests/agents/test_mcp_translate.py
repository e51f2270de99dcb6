"""What MCP servers say, made safe to show: schemas that are small and written out are not, and odd results."""

import time
from typing import Any

import pytest
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
from pydantic_ai import BinaryContent

from frontdesk.agents.skills.mcp_translate import complaint, fault_of, told


def schema(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {}, **fields}


def nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        made = schema(properties={"a": made})
    return made


def laughing(levels: int, width: int) -> dict[str, Any]:
    """A small schema that is a large one when its references are written out."""
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for n in range(1, levels):
        inner = {"$ref": f"#/$defs/d{n - 1}"}
        definitions[f"d{n}"] = schema(properties={str(k): inner for k in range(width)})
    return schema(properties={"a": {"$ref": f"#/$defs/d{levels - 1}"}}, **{"$defs": definitions})


TREE = schema(
    properties={"root": {"$ref": "#/$defs/node"}},
    **{"$defs": {"node": schema(properties={"children": {"type": "array", "items": {"$ref": "#/$defs/node"}}})}},
)


@pytest.mark.parametrize(
    "good",
    [
        schema(),
        schema(properties={"a": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}}, required=["a"]),
        schema(properties={"b": {"$ref": "#/properties/c"}, "c": {"type": "integer"}}),
        TREE,
        nested(10),
        laughing(3, 3),
    ],
    ids=["empty", "union", "pointer", "tree", "nested", "defs"],
)
def test_a_schema_as_servers_have_it_is_taken(good: dict[str, Any]) -> None:
    assert fault_of(good) == ""


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (nested(40), "too deeply"),
        (nested(3000), "too deeply"),
        (laughing(12, 10), "too deeply, or too large"),
        (laughing(200, 1), "too deeply"),
        (schema(description="x" * 100_000), "too large"),
        (schema(properties={str(n): {"type": "string"} for n in range(10_000)}), "too large"),
        (schema(properties={"a": {"$ref": "#/$defs/nowhere"}}), "cannot be read"),
        (schema(properties={"a": {"$ref": "https://example.com/schema"}}), "cannot be read"),
        (schema(properties=["a"]), "cannot be read"),
        (schema(properties={"a": {"type": 7}}), "cannot be read"),
        ({"type": "string"}, "not describe an object"),
        ({}, "not describe an object"),
    ],
    ids=[
        "deep",
        "deeper",
        "wide defs",
        "long defs",
        "long",
        "many",
        "dangling",
        "far",
        "list",
        "odd",
        "scalar",
        "none",
    ],
)
def test_a_schema_that_would_trouble_a_turn_is_not_and_that_is_known_at_once(bad: dict[str, Any], fault: str) -> None:
    began = time.process_time()
    assert fault in fault_of(bad)
    assert time.process_time() - began < 1


def result(*content: ContentBlock, **fields: Any) -> CallToolResult:
    return CallToolResult(content=list(content), **fields)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (result(TextContent(text="Hello.")), "Hello."),
        (result(TextContent(text="One."), TextContent(text="Two.")), ["One.", "Two."]),
        (result(TextContent(text='{"a": 1}'), structured_content={"a": 1}), {"a": 1}),
        (result(TextContent(text="7"), structured_content={"result": 7}), 7),
        (result(ImageContent(data="YWJj", mime_type="image/png")), BinaryContent(b"abc", media_type="image/png")),
        (result(ImageContent(data="!", mime_type="image/png")), "[image/png: cannot be read]"),
        (result(ImageContent(data="YWJj", mime_type="image/svg+xml")), "[image/svg+xml: not shown]"),
        (result(AudioContent(data="YWJj", mime_type="audio/wav")), "[audio/wav: not shown]"),
        (result(ResourceLink(name="page\u202e", uri="https://example.com/")), "page: https://example.com/"),
        (result(EmbeddedResource(resource=TextResourceContents(uri="file:///a", text="abc"))), "abc"),
        (
            result(EmbeddedResource(resource=BlobResourceContents(uri="file:///a", blob="YWJj", mime_type="a/b"))),
            "[a/b, file:///a: not shown]",
        ),
    ],
)
def test_each_kind_of_result_is_shown_as_what_it_is(given: CallToolResult, shown: Any) -> None:
    assert told(given) == shown


def test_what_is_too_much_is_left_out_and_the_rest_shown() -> None:
    texts = told(result(*(TextContent(text="x" * 60_000) for _ in range(5))))
    assert sum(map(len, texts)) == 100_000
    large = ImageContent(data="YWJj" * 4_000_000, mime_type="image/png")
    small = ImageContent(data="YWJj", mime_type="image/png")
    first, second = told(result(large, small))
    assert "too large" in first
    assert second == BinaryContent(b"abc", media_type="image/png")
    assert len(told(result(structured_content=["x" * 200_000]))) == 100_000


def test_a_failure_says_what_it_can() -> None:
    assert complaint(result(TextContent(text="No."), is_error=True)) == "No."
    assert complaint(result(structured_content={"reason": "no"}, is_error=True)) == '{"reason":"no"}'
    assert complaint(result(is_error=True)) == "The tool failed, and did not say why."
