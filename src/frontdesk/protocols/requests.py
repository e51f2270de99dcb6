"""What the requests of all protocols have in common: who sends them, and how what is wrong with a body is said. Pure.

Validation is pydantic's work; here its findings are put in OpenAI's terms, with the path of the field.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, ValidationError
from pydantic_core import ErrorDetails

from frontdesk.errors import InvalidRequest
from frontdesk.policies.files import file
from frontdesk.turn import Content, Principal, Signals, Text, Tool

TAG = "‹"
"""Begins the names of the branches of unions, which are no part of a field's path."""

NO_SIGNALS = Signals()

PIN_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """What the request's envelope says: who asks, and which conversation it names."""

    principal: Principal
    conversation: str = ""
    signals: Signals = NO_SIGNALS


# --- fields ------------------------------------------------------------------------------------------------------


class Model(BaseModel):
    """Unknown fields are let through: clients send many."""

    model_config = ConfigDict(extra="ignore", frozen=True)


Scalar = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float | bool) else value)]

Metadata = Annotated[dict[str, Scalar], Field(max_length=16)]

OptionalModel = Annotated[StrictStr, BeforeValidator(lambda value: "" if value is None else value)]
"""The model, where the URL says which agent is asked."""

ToolName = Annotated[StrictStr, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]

# --- what is wrong -----------------------------------------------------------------------------------------------

M = TypeVar("M", bound=BaseModel)

Stranger = Callable[[Any, str], InvalidRequest]
"""Says what is wrong with a member of a union which is none of its kinds, and where it stands."""


def read(model: type[M], body: bytes, stranger: Stranger) -> M:
    """Validate a body. Raises InvalidRequest with `param` for the first thing that is wrong."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False)[0], stranger) from None


def invalid(error: ErrorDetails, stranger: Stranger) -> InvalidRequest:
    """A validation error in OpenAI's terms."""
    kind, message, param = error["type"], error["msg"], path(error["loc"])
    if kind == "json_invalid":
        return InvalidRequest(f"The request body is not valid JSON: {message}.", code="invalid_json")
    if kind == "missing":
        return missing(param)
    if kind == "union_tag_invalid":
        return stranger(error["input"], param)
    code = "invalid_type" if kind.endswith(("_type", "_parsing")) else "invalid_value"
    if not param:
        return InvalidRequest("The request body must be a JSON object.", code="invalid_type")
    return InvalidRequest(f"Invalid value for {param!r}: {message}.", param=param, code=code)


def not_a_message(value: Any, param: str) -> InvalidRequest:
    """What is wrong with a message whose role tells us nothing."""
    if not isinstance(value, dict):
        return InvalidRequest(
            f"Invalid value for {param!r}: Input should be an object.", param=param, code="invalid_type"
        )
    param = f"{param}.role"
    if "role" not in value:
        return missing(param)
    message = f"Invalid value for {param!r}: use system, developer, user, assistant or tool."
    return InvalidRequest(message, param=param, code="invalid_value")


def missing(param: str) -> InvalidRequest:
    return InvalidRequest(f"Missing required parameter: {param!r}.", param=param, code="missing_required_parameter")


def unsupported(param: str, message: str, code: str = "unsupported_value") -> InvalidRequest:
    return InvalidRequest(message, param=param, code=code)


def path(loc: Sequence[str | int]) -> str:
    """`("messages", 0, "‹user›", "content")` → `messages[0].content`."""
    text = ""
    for step in loc:
        if isinstance(step, int):
            text += f"[{step}]"
        elif not step.startswith(TAG):
            text += f".{step}" if text else step
    return text


# --- tools -------------------------------------------------------------------------------------------------------


def check_names(tools: Sequence[Tool]) -> None:
    """Raises InvalidRequest for the second of two tools that have one name."""
    seen: set[str] = set()
    for tool in tools:
        if tool.name in seen:
            raise InvalidRequest(f"Two tools are called {tool.name!r}.", param=tool.param, code="invalid_value")
        seen.add(tool.name)


def chosen(names: Collection[str], offered: Sequence[Tool]) -> tuple[Tool, ...]:
    """The tools which a choice names. Raises InvalidRequest for one that is not offered, and for none."""
    left = tuple(tool for tool in offered if tool.name in names)
    if len(left) < len(names) or not names:
        raise unsupported("tool_choice", "'tool_choice' names a tool which is not among the 'tools'.", "invalid_value")
    return left


# --- content -----------------------------------------------------------------------------------------------------


def is_empty(content: Sequence[Content]) -> bool:
    """Agents take no message without content."""
    return not any(not isinstance(part, Text) or part.text for part in content)


def text_only(content: Sequence[Content], where: str) -> str:
    """The text of instructions. Raises InvalidRequest for anything else in them."""
    for index, each in enumerate(content):
        if not isinstance(each, Text):
            param = f"{where}.content[{index}].type"
            raise unsupported(param, "Instructions are text only.", "unsupported_content_type")
    return "".join(each.text for each in content if isinstance(each, Text))


def attached(data: str | None, name: str | None, where: str, *, by_id: bool, by_address: bool = False) -> Content:
    """The file that a part holds. Raises InvalidRequest for one that is somewhere else."""
    if data:
        return file(data, name or "", f"{where}.file_data")
    for is_elsewhere, param in ((by_id, "file_id"), (by_address, "file_url")):
        if is_elsewhere:
            raise unsupported(
                f"{where}.{param}",
                "Files are taken within a request only: send 'file_data'.",
                "unsupported_content_type",
            )
    raise missing(f"{where}.file_data")


def unsupported_content(kind: str, where: str) -> InvalidRequest:
    return unsupported(f"{where}.type", f"Content of type {kind[:60]!r} is not supported.", "unsupported_content_type")


def reads_as_error(content: Sequence[Content]) -> bool:
    """OpenAI's protocols have no flag for a failed tool. Clients write `Error: …` or `{"error": …}`, and mean it."""
    text = "".join(each.text for each in content if isinstance(each, Text)).lstrip()
    if text[:6].lower() == "error:":
        return True
    if not text.startswith('{"error"') or len(text) > 100_000:
        return False
    try:
        return bool(json.loads(text).get("error"))
    except (ValueError, RecursionError):
        return False


def checked(value: str, name: str) -> str:
    if len(value) > PIN_CHARACTERS:
        raise InvalidRequest(f"{name} is longer than {PIN_CHARACTERS} characters.", param=name)
    if "\0" in value:
        raise InvalidRequest(f"{name} holds a NUL character.", param=name)
    return value
