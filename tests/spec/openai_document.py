"""OpenAI's own OpenAPI document as a judge, and any other: its schemas by name.

The environment variable OPENAPI_SPEC is the path of the document, as YAML or JSON. It is published at
https://github.com/openai/openai-openapi. No package is known that ships it; where the variable is not set, the types of
the `openai` package, which are made from the same document, judge alone.
"""

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from jsonschema_rs import Draft202012Validator, ValidationError

VARIABLE = "OPENAPI_SPEC"

Schema = Mapping[str, Any]


class Document:
    """An OpenAPI 3.1 document, whose schemas are JSON Schema: but OpenAI's says `nullable`, as 3.0 did."""

    def __init__(self, content: Schema) -> None:
        self._components = nullable(content["components"])
        self._validators: dict[str, Draft202012Validator] = {}

    def complaints(self, name: str, body: Any) -> list[str]:
        """What is wrong with a body, by the schema of this name. Empty where nothing is."""
        return [line for error in self._validator(name).iter_errors(body) for line in self._told(error, body)]

    def fields(self, name: str) -> set[str]:
        """The fields of an object."""
        return self._fields({"$ref": f"#/components/schemas/{name}"})

    def _fields(self, schema: Schema) -> set[str]:
        if "$ref" in schema:
            return self._fields(self._components["schemas"][schema["$ref"].rpartition("/")[2]])
        return set(schema.get("properties", ())).union(*(self._fields(part) for part in schema.get("allOf", ())))

    def _validator(self, name: str) -> Draft202012Validator:
        if name not in self._validators:
            if name not in self._components["schemas"]:
                raise LookupError(f"the document has no schema {name!r}")
            schema = {"$ref": f"#/components/schemas/{name}", "components": self._components}
            self._validators[name] = Draft202012Validator(schema)
        return self._validators[name]

    def _told(self, error: ValidationError, body: Any) -> Iterator[str]:
        """Of a union of many kinds, say what is wrong with the kind which it says it is."""
        instance = body
        for step in error.instance_path:
            instance = instance[step]
        where = "".join(f"[{step!r}]" for step in error.instance_path)
        deeper = [line for kind in self._kinds(error, instance) for line in self.complaints(kind, instance)]
        if deeper:
            yield from (f"{where}{line}" for line in deeper)
        else:
            yield f"{where}: {error.message[:300]}"

    def _kinds(self, error: ValidationError, instance: Any) -> Iterator[str]:
        """The members of the union which have the `type` of the instance."""
        if not isinstance(instance, dict) or error.schema_path[-1] not in ("oneOf", "anyOf"):
            return
        node: Any = {"components": self._components}
        for step in error.schema_path:
            node = node[step]
        kind = cast("Schema", instance).get("type")
        for member in node:
            if "$ref" in member and kind in self._types(member):
                yield member["$ref"].rpartition("/")[2]

    def _types(self, schema: Schema) -> set[str]:
        """What the field `type` may be."""
        if "$ref" in schema:
            return self._types(self._components["schemas"][schema["$ref"].rpartition("/")[2]])
        own = schema.get("properties", {}).get("type", {})
        parts = [part for word in ("allOf", "anyOf", "oneOf") for part in schema.get(word, ())]
        return {*own.get("enum", ()), own.get("const", "")}.union(*(self._types(part) for part in parts)) - {""}


def nullable(schema: Any) -> Any:
    """The same in words of JSON Schema."""
    match schema:
        case {"nullable": True, **rest}:
            return {"anyOf": [nullable(rest), {"type": "null"}]}
        case dict():
            fields = cast("dict[str, Any]", schema)
            return {name: nullable(each) for name, each in fields.items()}
        case list():
            return [nullable(each) for each in cast("list[Any]", schema)]
        case _:
            return schema


def closed(schema: Any) -> Any:
    """A document whose objects have no other fields than the ones which it names."""
    match schema:
        case dict():
            fields = cast("dict[str, Any]", schema)
            more = {"additionalProperties": False} if isinstance(fields.get("properties"), dict) else {}
            return more | {name: closed(each) for name, each in fields.items()}
        case list():
            return [closed(each) for each in cast("list[Any]", schema)]
        case _:
            return schema


def from_yaml(text: str) -> Any:
    """YAML as JSON has it, where a date is a text."""
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in base.yaml_implicit_resolvers.items()
    }
    return yaml.load(text, Loader=type("Loader", (base,), {"yaml_implicit_resolvers": resolvers}))


@cache
def openai_document() -> Document | None:
    """The document, or nothing where the environment names none."""
    if not (path := os.environ.get(VARIABLE)):
        return None
    text = Path(path).read_text(encoding="utf-8")
    if text.lstrip().startswith("{"):
        return Document(json.loads(text))
    return Document(from_yaml(text))
