"""Answers in JSON from models that nobody holds to it: told what is wanted, looked at, and mended once."""

import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from frontdesk.turn import Batch, Event, Format, StopReason, TextDelta, ToolCallDelta, TurnFinished

FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)
MEND = "You turn an answer into JSON. Keep what it says; answer with the JSON object and nothing else."
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


async def checked(
    batches: AsyncGenerator[Batch, None], wanted: Format, mend: Callable[[str], Awaitable[str]]
) -> AsyncGenerator[Batch, None]:
    """The same turn with its text held back to the end, when it can be seen whether it is what was wanted.

    If it is not, it is mended; if that does not help, it is given as it was. Text before a tool call is no answer, and
    goes on as it is.
    """
    held: list[TextDelta] = []
    async with aclosing(batches) as turn:
        try:
            async for batch in turn:
                told: list[Event] = []
                for event in batch:
                    match event:
                        case TextDelta():
                            held.append(event)
                        case ToolCallDelta():
                            told += [*held, event]
                            held = []
                        case TurnFinished(StopReason.STOP) if held:
                            told += [TextDelta(await answer(held, wanted, mend), held[-1].part_id), event]
                            held = []
                        case TurnFinished():
                            told += [*held, event]
                            held = []
                        case _:
                            told.append(event)
                yield told
        except GeneratorExit:
            raise
        except BaseException:
            if held:
                yield held
            raise


async def answer(held: Sequence[TextDelta], wanted: Format, mend: Callable[[str], Awaitable[str]]) -> str:
    """The JSON in what was said: all of it, or the last message alone, or that mended."""
    whole = "".join(delta.text for delta in held)
    last = "".join(delta.text for delta in held if delta.part_id == held[-1].part_id)
    for text in (whole, last):
        if (found := wanted_in(text, wanted)) is not None:
            return found
    mended = wanted_in(await mend(last), wanted)
    return whole if mended is None else mended


def wanted_in(text: str, wanted: Format) -> str | None:
    """The JSON text, without what stands around it, if it is as wanted."""
    fenced = FENCE.fullmatch(text)
    bare = (fenced[1] if fenced else text).strip()
    schema = wanted.schema or ANY_OBJECT
    try:
        return bare if agrees(json.loads(bare), schema, schema) else None
    except (ValueError, RecursionError):
        return None


def repair(text: str, wanted: Format) -> str:
    """What a model is asked, to turn an answer into what was wanted."""
    asked = f"Make one JSON object of this answer:\n\n{text}"
    if wanted.schema is None:
        return asked
    return f"{asked}\n\nIt must follow this JSON Schema:\n{json.dumps(wanted.schema, ensure_ascii=False)}"


# --- JSON Schema ---------------------------------------------------------------------------------------------------
# The words of OpenAI's Structured Outputs, and some more; others say nothing, as the standard has it.
# Source: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas

Schema = Mapping[str, Any]

TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value == int(value),
}

BOUNDS: Mapping[str, Callable[[float, float], bool]] = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
    "multipleOf": lambda value, bound: abs(value / bound - round(value / bound)) < 1e-9,
}

COMBINED: Mapping[str, Callable[[int, int], bool]] = {  # how many of how many agree
    "allOf": lambda agreeing, count: agreeing == count,
    "anyOf": lambda agreeing, count: agreeing > 0,
    "oneOf": lambda agreeing, count: agreeing == 1,
}


def agrees(value: Any, schema: Any, root: Schema) -> bool:
    """Whether a value is as a schema describes it."""
    if not isinstance(schema, dict):
        return schema is not False
    schema = cast("Schema", schema)
    if "$ref" in schema and not agrees(value, pointed(str(schema["$ref"]), root), root):
        return False
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds or []
    if kinds and not any(TYPES[kind](value) for kind in kinds if kind in TYPES):
        return False
    if "enum" in schema and not any(same(value, each) for each in schema["enum"]):
        return False
    if "const" in schema and not same(value, schema["const"]):
        return False
    for name, enough in COMBINED.items():
        if name in schema:
            each = [agrees(value, one, root) for one in schema[name]]
            if not enough(sum(each), len(each)):
                return False
    match value:
        case dict():
            return agrees_object(cast("dict[str, Any]", value), schema, root)
        case list():
            return agrees_array(cast("list[Any]", value), schema, root)
        case str():
            return agrees_text(value, schema)
        case bool() | None:
            return True
        case _:
            return all(within(value, schema[name]) for name, within in BOUNDS.items() if name in schema)


def agrees_object(value: Mapping[str, Any], schema: Schema, root: Schema) -> bool:
    properties: Schema = schema.get("properties") or {}
    if any(name not in value for name in schema.get("required") or ()):
        return False
    others = schema.get("additionalProperties", True)
    return all(agrees(each, properties.get(name, others), root) for name, each in value.items())


def agrees_array(value: Sequence[Any], schema: Schema, root: Schema) -> bool:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return False
    return all(agrees(each, schema.get("items", True), root) for each in value)


def agrees_text(value: str, schema: Schema) -> bool:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        return False
    try:
        return "pattern" not in schema or re.search(schema["pattern"], value) is not None
    except re.error:  # of another dialect
        return True


def pointed(ref: str, root: Schema) -> Any:
    """What a reference within the schema points to; anything agrees with one that points elsewhere."""
    found: Any = root
    for step in ref.removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or step not in found:
            return True
        found = cast("Schema", found)[step]
    return found


def same(value: Any, other: Any) -> bool:
    """Equal as JSON: `true` is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
