"""The request as OpenAI's document has it, so that whatever is wrong is named before an agent hears of it.

Unknown fields are let through: clients send many. Tags in angle quotes mark the branches of unions, which are no part
of a field's path.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, StrictBool, StrictInt, StrictStr, Tag

from frontdesk.protocols.requests import Metadata, Model, OptionalModel, ToolName

# --- content -----------------------------------------------------------------------------------------------------


class TextPart(Model):
    type: Literal["text"]
    text: StrictStr


class RefusalPart(Model):
    type: Literal["refusal"]
    refusal: StrictStr


class ImageUrl(Model):
    url: StrictStr
    detail: Any = None


class ImagePart(Model):
    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(lambda value: {"url": value} if isinstance(value, str) else value)]


class FileData(Model):
    file_data: StrictStr | None = None
    filename: StrictStr | None = None
    file_id: StrictStr | None = None


class FilePart(Model):
    type: Literal["file"]
    file: FileData


class OtherPart(Model):
    """A kind of content we know of but cannot carry, or do not know: refused by `decode`, with its place."""

    type: StrictStr


def _part_tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None  # type: ignore[reportUnknownMemberType]
    return f"‹{kind}›" if kind in ("text", "image_url", "file", "refusal") else "‹other›"


ContentPart = Annotated[
    Annotated[TextPart, Tag("‹text›")]
    | Annotated[ImagePart, Tag("‹image_url›")]
    | Annotated[FilePart, Tag("‹file›")]
    | Annotated[RefusalPart, Tag("‹refusal›")]
    | Annotated[OtherPart, Tag("‹other›")],
    Discriminator(_part_tag),
]

_Content = Annotated[
    Annotated[StrictStr, Tag("‹string›")] | Annotated[list[ContentPart], Tag("‹parts›")],
    Discriminator(lambda value: "‹parts›" if isinstance(value, list) else "‹string›"),
]

_Stop = Annotated[
    Annotated[StrictStr, Tag("‹string›")] | Annotated[list[StrictStr], Field(max_length=4), Tag("‹strings›")],
    Discriminator(lambda value: "‹strings›" if isinstance(value, list) else "‹string›"),
]

# --- messages ----------------------------------------------------------------------------------------------------


class SystemMessage(Model):
    role: Literal["system", "developer"]
    content: _Content


class UserMessage(Model):
    role: Literal["user"]
    content: _Content
    name: StrictStr | None = None


class CalledFunction(Model):
    name: StrictStr
    arguments: StrictStr = ""


class CalledTool(Model):
    id: StrictStr
    type: Any = "function"
    function: CalledFunction


class AssistantMessage(Model):
    role: Literal["assistant"]
    content: _Content | None = None
    refusal: StrictStr | None = None
    tool_calls: list[CalledTool] | None = None
    function_call: CalledFunction | None = None
    audio: Any = None


class ToolMessage(Model):
    role: Literal["tool"]
    content: _Content
    tool_call_id: StrictStr
    is_error: StrictBool | None = None
    status: Any = None


class FunctionMessage(Model):
    role: Literal["function"]
    name: StrictStr
    content: StrictStr | None = None


def _role_tag(value: Any) -> str:
    role = value.get("role") if isinstance(value, dict) else None  # type: ignore[reportUnknownMemberType]
    return "‹system›" if role == "developer" else f"‹{role}›"


ChatMessage = Annotated[
    Annotated[SystemMessage, Tag("‹system›")]
    | Annotated[UserMessage, Tag("‹user›")]
    | Annotated[AssistantMessage, Tag("‹assistant›")]
    | Annotated[ToolMessage, Tag("‹tool›")]
    | Annotated[FunctionMessage, Tag("‹function›")],
    Discriminator(_role_tag),
]

# --- tools -------------------------------------------------------------------------------------------------------


class FunctionDefinition(Model):
    name: ToolName
    description: StrictStr | None = None
    parameters: dict[str, Any] | None = None
    strict: StrictBool | None = None


class ToolDefinition(Model):
    type: StrictStr
    function: FunctionDefinition | None = None


class NamedFunction(Model):
    name: StrictStr


class NamedTool(Model):
    type: StrictStr = "function"
    function: NamedFunction | None = None


class AllowedTools(Model):
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class ToolChoice(Model):
    type: StrictStr
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class ResponseFormat(Model):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class StreamOptions(Model):
    include_usage: StrictBool | None = None
    include_obfuscation: StrictBool | None = None


class ChatCompletionRequest(Model):
    """Create a chat completion. Fields which are left out here are accepted and ignored."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: StrictStr = Field(min_length=1)
    messages: list[ChatMessage] = Field(min_length=1)
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    n: StrictInt | None = Field(default=None, ge=1)
    max_completion_tokens: StrictInt | None = Field(default=None, gt=0)
    max_tokens: StrictInt | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, Any] | None = None
    seed: StrictInt | None = None
    stop: _Stop | None = None
    logprobs: StrictBool | None = None
    top_logprobs: StrictInt | None = None
    response_format: ResponseFormat | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: (
        Annotated[
            Annotated[Literal["none", "auto", "required"], Tag("‹string›")] | Annotated[ToolChoice, Tag("‹object›")],
            Discriminator(lambda value: "‹object›" if isinstance(value, dict | ToolChoice) else "‹string›"),
        ]
        | None
    ) = None
    parallel_tool_calls: StrictBool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    modalities: list[StrictStr] | None = None
    metadata: Metadata | None = None
    user: Any = None
    functions: Any = None
    function_call: Any = None
    web_search_options: Any = None
    moderation: Any = None


class AddressedRequest(ChatCompletionRequest):
    """The same by an agent's own URL."""

    model_config = ConfigDict(defer_build=True)

    model: OptionalModel = ""
