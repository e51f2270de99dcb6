"""The request by which Letta has an agent's model mend an answer that should have been JSON."""

from typing import Any

from frontdesk.policies import structured
from frontdesk.turn import Format

LONGEST_CHARACTERS = 100_000


def repair(text: str, wanted: Format) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": structured.repair(text, wanted),
        "system": structured.MEND,
        "max_characters": LONGEST_CHARACTERS,
    }
    if wanted.schema is None:
        return body
    has_properties = isinstance(wanted.schema.get("properties"), dict)  # all that Letta takes over of a schema
    return body | {"schema": wanted.schema if has_properties and "$defs" not in wanted.schema else None}
