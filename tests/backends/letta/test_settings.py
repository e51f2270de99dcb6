"""A conversation's model settings, compiled prompts and answers in JSON: what is pure of them."""

from typing import Any

import pytest

from frontdesk.backends.letta.prompts import memory_of, shows
from frontdesk.backends.letta.settings import body, differs, honoured, limit
from frontdesk.errors import InvalidRequest
from frontdesk.policies.structured import wanted_in
from frontdesk.turn import Agent, Format, Options

OWN: dict[str, Any] = {
    "provider_type": "openai",
    "temperature": 1.0,
    "max_output_tokens": 4096,
    "parallel_tool_calls": False,
    "reasoning": {"reasoning_effort": "minimal"},
    "response_format": None,
    "strict": False,
}
MILO = Agent("agent-1", "Milo", "letta", model="openai/gpt-4o", settings={"model_settings": OWN})


@pytest.mark.parametrize(
    ("model", "own", "more"),
    [
        ("", OWN, set[str]()),
        ("openai/gpt-4o", None, set[str]()),
        ("openai/gpt-4o", OWN, {"temperature", "format"}),
        ("openai/gpt-5-mini", OWN, {"reasoning_effort", "format"}),
        ("openai/o3", OWN, {"reasoning_effort", "format"}),
        ("anthropic/claude-x", {"provider_type": "anthropic", "temperature": 1.0}, {"temperature"}),
        ("groq/llama", {"provider_type": "groq", "temperature": 1.0}, {"temperature"}),
    ],
)
def test_what_is_honoured_depends_on_the_model(model: str, own: Any, more: set[str]) -> None:
    always = {"parallel_tool_calls"}
    assert honoured(model, own) == (always | more | {"max_output_tokens", "model"} if model and own else always)


def test_settings_are_whole_and_only_the_wished_ones_differ() -> None:
    assert body(MILO, Options()) == {"model": MILO.model, "model_settings": OWN | {"parallel_tool_calls": True}}
    schema = {"type": "object"}
    options = Options(
        temperature=0.0,
        max_output_tokens=7,
        parallel_tool_calls=False,
        reasoning_effort="low",
        format=Format(schema, strict=True, enforced=True),
    )
    wanted = body(MILO, options)
    assert wanted["model_settings"] == OWN | {
        "temperature": 0.0,
        "max_output_tokens": 7,
        "parallel_tool_calls": False,
        "reasoning": {"reasoning_effort": "low"},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        },
    }
    assert limit(wanted) == 7
    told = body(MILO, Options(format=Format(schema)))
    assert told["model_settings"]["response_format"] is None


def test_an_agent_whose_settings_nobody_tells_keeps_them() -> None:
    unknown = Agent("agent-1", "Milo", "letta", model="openai/gpt-4o")
    assert body(unknown, Options(temperature=0.5)) == {}
    assert limit({}) is None


def test_an_unknown_reasoning_effort_is_refused() -> None:
    with pytest.raises(InvalidRequest) as info:
        body(MILO, Options(reasoning_effort="max", names={"reasoning_effort": "reasoning.effort"}))
    assert (info.value.param, info.value.public_code) == ("reasoning.effort", "unsupported_value")


def test_another_model_has_the_agents_settings_only_if_it_is_of_the_same_kind() -> None:
    alike = {"handle": "openai/gpt-4.1", "provider_type": "openai", "max_tokens": 1024}
    wanted = body(MILO, Options(temperature=0.5), alike)
    assert wanted["model"] == "openai/gpt-4.1"
    assert wanted["model_settings"] == OWN | {
        "temperature": 0.5,
        "max_output_tokens": 1024,
        "parallel_tool_calls": True,
    }
    foreign = {"handle": "anthropic/claude-x", "provider_type": "anthropic", "max_tokens": 8192}
    assert body(MILO, Options(), foreign)["model_settings"] == {
        "provider_type": "anthropic",
        "temperature": 1.0,
        "max_output_tokens": 8192,
        "parallel_tool_calls": True,
    }
    with pytest.raises(InvalidRequest):
        body(MILO, Options(format=Format(enforced=True)), foreign)


def test_only_other_settings_are_written() -> None:
    wanted = body(MILO, Options(temperature=0.5))
    row: dict[str, Any] = {"id": "conv-1", **wanted}
    assert not differs(row, wanted)
    assert differs(row, body(MILO, Options()))
    assert differs(row | {"model": "openai/gpt-4.1"}, wanted)
    assert differs({"id": "conv-1", "model": None, "model_settings": None}, wanted)


# --- what a prompt shows ------------------------------------------------------------------------------------------

COMPILED = """You are Milo.

<memory_blocks>
<human>
<description>
Who it is.
</description>
<metadata>
- chars_current=12
</metadata>
<value>
Likes trees.
</value>
</human>
</memory_blocks>
"""
HUMAN: dict[str, Any] = {"label": "human", "description": "Who it is.", "value": "Likes trees."}


def test_a_prompt_shows_the_memory_it_was_compiled_from() -> None:
    assert shows(COMPILED, memory_of("You are Milo.", [HUMAN], 0))
    assert shows(COMPILED, memory_of("You are Milo.\n{CORE_MEMORY}", [HUMAN], 0))


@pytest.mark.parametrize(
    ("system", "blocks"),
    [
        ("You are Otis.", [HUMAN]),
        ("You are Milo.", [HUMAN | {"value": "Likes"}]),
        ("You are Milo.", [HUMAN | {"value": "Likes trees. And rain."}]),
        ("You are Milo.", [HUMAN | {"label": "persona"}]),
        ("You are Milo.", [HUMAN | {"description": "Somebody."}]),
        ("You are Milo.", [HUMAN, HUMAN | {"label": "persona"}]),
        ("You are Milo.", []),
    ],
)
def test_a_prompt_does_not_show_another_memory(system: str, blocks: list[dict[str, Any]]) -> None:
    other = memory_of(system, blocks, 0)
    assert not shows(COMPILED, other)
    assert other.mark != memory_of("You are Milo.", [HUMAN], 0).mark


# --- answers in JSON ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('  {"a": 1}\n', '{"a": 1}'),
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('```\n{"a": 1}\n```\n', '{"a": 1}'),
        ("[1]", None),
        ('"text"', None),
        ('Here: {"a": 1}', None),
        ('{"a": 1', None),
        ("[" * 100_000, None),
        ("", None),
    ],
)
def test_an_object_is_found_in_its_fence(text: str, found: str | None) -> None:
    assert wanted_in(text, Format()) == found


NODE: dict[str, Any] = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["value", "next"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer"}, ["1", "1.0"], ["true", "1.5", '"1"', "null"]),
        ({"type": ["string", "null"]}, ['"x"', "null"], ["1", "false"]),
        ({"enum": [1, "a"]}, ["1", '"a"'], ["true", "2"]),
        ({"const": None}, ["null"], ["0", "false"]),
        ({"type": "number", "minimum": 1, "exclusiveMaximum": 3, "multipleOf": 0.5}, ["1", "2.5"], ["0.5", "3", "1.2"]),
        ({"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^a"}, ['"ab"'], ['"a"', '"abcd"', '"ba"']),
        ({"type": "string", "pattern": "(?<broken"}, ['"ab"'], ["1"]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, ["[1]"], ["[]", '["a"]']),
        ({"type": "array", "maxItems": 1}, ["[]", '["a"]'], ["[1, 2]"]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, ['{"a": 1}', "{}"], ['{"a": "b"}']),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, ["1.5"], ["1", '"a"']),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, ["1"], ["0", "3"]),
        (
            {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
            ['{"value": 1, "next": {"value": 2, "next": null}}'],
            ['{"value": 1}', '{"value": 1, "next": {"value": "x"}}', '{"value": 1, "next": null, "x": 1}'],
        ),
        ({"$ref": "#/$defs/loop", "$defs": {"loop": {"$ref": "#/$defs/loop"}}}, [], ["1"]),
        ({"$ref": "https://example.com/schema"}, ["1"], []),
        (True, ["1"], []),
    ],
)
def test_json_schema_is_understood(schema: Any, good: list[str], bad: list[str]) -> None:
    wrapped = {"type": "object", "properties": {"it": schema}, "required": ["it"]}
    if isinstance(schema, dict):
        wrapped |= {"$defs": schema.get("$defs", {})}  # pyright: ignore[reportUnknownMemberType]
    for text in good:
        assert wanted_in(f'{{"it": {text}}}', Format(wrapped)) is not None, text
    for text in bad:
        assert wanted_in(f'{{"it": {text}}}', Format(wrapped)) is None, text
