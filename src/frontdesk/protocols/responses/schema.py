"""The request as OpenAI's document has it, so that whatever is wrong is named before an agent hears of it.

Unknown fields are let through: clients send many. Tags in angle quotes mark the branches of unions, which are no part
of a field's path.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, StrictBool, StrictInt, StrictStr, Tag

from frontdesk.protocols.requests import Metadata, Model, OptionalModel, ToolName

# --- content -----------------------------------------------------------------------------------------------------


class TextPart(Model):
    type: Literal["input_text", "output_text", "text"]
    text: StrictStr


class RefusalPart(Model):
    type: Literal["refusal"]
    refusal: StrictStr


class ImagePart(Model):
    type: Literal["input_image"]
    image_url: StrictStr | None = None
    file_id: StrictStr | None = None


class FilePart(Model):
    type: Literal["input_file"]
    file_data: StrictStr | None = None
    filename: StrictStr | None = None
    file_id: StrictStr | None = None
    file_url: StrictStr | None = None


class OtherPart(Model):
    """A kind of content we know of but cannot carry, or do not know: refused by `decode`, with its place."""

    type: StrictStr


PARTS = {
    "input_text": "‹text›",
    "output_text": "‹text›",
    "text": "‹text›",
    "refusal": "‹refusal›",
    "input_image": "‹image›",
    "input_file": "‹file›",
}


def _part_tag(value: Any) -> str:
    match value:
        case str():
            return "‹string›"
        case {"type": str(kind)}:
            return PARTS.get(kind, "‹other›")
        case _:
            return "‹other›"


ContentPart = Annotated[
    Annotated[StrictStr, Tag("‹string›")]
    | Annotated[TextPart, Tag("‹text›")]
    | Annotated[RefusalPart, Tag("‹refusal›")]
    | Annotated[ImagePart, Tag("‹image›")]
    | Annotated[FilePart, Tag("‹file›")]
    | Annotated[OtherPart, Tag("‹other›")],
    Discriminator(_part_tag),
]

Content = Annotated[
    Annotated[StrictStr, Tag("‹string›")] | Annotated[list[ContentPart], Tag("‹parts›")],
    Discriminator(lambda value: "‹parts›" if isinstance(value, list) else "‹string›"),
]

# --- items -------------------------------------------------------------------------------------------------------


class InputMessage(Model):
    id: StrictStr | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Content


class FunctionCall(Model):
    id: StrictStr | None = None
    call_id: StrictStr
    name: StrictStr
    arguments: StrictStr


class FunctionCallOutput(Model):
    id: StrictStr | None = None
    call_id: StrictStr
    output: Content


class ItemReference(Model):
    id: StrictStr = Field(min_length=1)


class AgentsItem(Model):
    """What an agent did by itself. Of no use to it now, but it says that the agent has spoken here."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: Literal["reasoning", "mcp_call"]


class OtherItem(Model):
    """Of a kind that has no meaning here, or that we do not know: left out, and reported."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: StrictStr


ITEMS = {
    "message": "‹message›",
    "function_call": "‹function_call›",
    "function_call_output": "‹function_call_output›",
    "item_reference": "‹item_reference›",
    "reasoning": "‹agents›",
    "mcp_call": "‹agents›",
}


def _item_tag(value: Any) -> str:
    """A message needs no type, and nor does a reference."""
    match value:
        case {"type": str(kind)}:
            return ITEMS.get(kind, "‹other›")
        case {"type": kind} if kind is not None:
            return "‹other›"
        case {"role": _}:
            return "‹message›"
        case {"id": _}:
            return "‹item_reference›"
        case dict():
            return "‹message›"
        case _:
            return "‹other›"


InputItem = Annotated[
    Annotated[InputMessage, Tag("‹message›")]
    | Annotated[FunctionCall, Tag("‹function_call›")]
    | Annotated[FunctionCallOutput, Tag("‹function_call_output›")]
    | Annotated[ItemReference, Tag("‹item_reference›")]
    | Annotated[AgentsItem, Tag("‹agents›")]
    | Annotated[OtherItem, Tag("‹other›")],
    Discriminator(_item_tag),
]

# --- tools -------------------------------------------------------------------------------------------------------


class FunctionTool(Model):
    model_config = ConfigDict(extra="allow", frozen=True)

    type: Literal["function"]
    name: ToolName
    description: StrictStr | None = None
    parameters: dict[str, Any] | None = None
    strict: StrictBool | None = None


class OtherTool(Model):
    """One that OpenAI runs, or a client in a way of its own. An agent has tools of its own for that."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: StrictStr


def _tool_tag(value: Any) -> str:
    return "‹function›" if isinstance(value, dict) and value.get("type") == "function" else "‹other›"  # type: ignore[reportUnknownMemberType]


ToolDefinition = Annotated[
    Annotated[FunctionTool, Tag("‹function›")] | Annotated[OtherTool, Tag("‹other›")], Discriminator(_tool_tag)
]


class AllowedTool(Model):
    model_config = ConfigDict(extra="allow", frozen=True)

    type: StrictStr
    name: StrictStr | None = None


class ToolChoice(Model):
    model_config = ConfigDict(extra="allow", frozen=True)

    type: StrictStr
    name: StrictStr | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[AllowedTool] | None = None


# --- the rest ----------------------------------------------------------------------------------------------------


class TextFormat(Model):
    type: Literal["text", "json_object", "json_schema"]
    name: StrictStr | None = None
    description: StrictStr | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: StrictBool | None = None


class TextConfig(Model):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningConfig(Model):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: StrictStr | None = None
    generate_summary: StrictStr | None = None


class StreamOptions(Model):
    include_obfuscation: StrictBool | None = None


class Named(Model):
    id: StrictStr = Field(min_length=1, max_length=256)


_Name = Annotated[StrictStr, Field(min_length=1, max_length=256)]


class ResponsesRequest(Model):
    """Create a response. Fields which are left out here are accepted and ignored."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: StrictStr = Field(min_length=1)
    input: (
        Annotated[
            Annotated[StrictStr, Tag("‹string›")] | Annotated[list[InputItem], Tag("‹items›")],
            Discriminator(lambda value: "‹items›" if isinstance(value, list) else "‹string›"),
        ]
        | None
    ) = None
    instructions: StrictStr | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    previous_response_id: StrictStr | None = None
    conversation: (
        Annotated[
            Annotated[_Name, Tag("‹string›")] | Annotated[Named, Tag("‹object›")],
            Discriminator(lambda value: "‹object›" if isinstance(value, dict | Named) else "‹string›"),
        ]
        | None
    ) = None
    store: StrictBool | None = None
    background: StrictBool | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: (
        Annotated[
            Annotated[Literal["none", "auto", "required"], Tag("‹string›")] | Annotated[ToolChoice, Tag("‹object›")],
            Discriminator(lambda value: "‹object›" if isinstance(value, dict | ToolChoice) else "‹string›"),
        ]
        | None
    ) = None
    parallel_tool_calls: StrictBool | None = None
    max_tool_calls: StrictInt | None = Field(default=None, ge=1)
    max_output_tokens: StrictInt | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_logprobs: StrictInt | None = Field(default=None, ge=0, le=20)
    reasoning: ReasoningConfig | None = None
    text: TextConfig | None = None
    include: list[StrictStr] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Metadata | None = None
    user: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt: Any = None
    moderation: Any = None


class AddressedRequest(ResponsesRequest):
    """The same by an agent's own URL."""

    model_config = ConfigDict(defer_build=True)

    model: OptionalModel = ""
