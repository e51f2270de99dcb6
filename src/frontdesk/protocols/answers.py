"""The shapes of answers, for the OpenAPI document.

Nothing is built of these when a request is answered. The tests hold every answer against them: a field which is not
here fails there.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

Seconds = int
"""Since 1970."""


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, defer_build=True)


# --- errors ------------------------------------------------------------------------------------------------------


class ErrorObject(_Answer):
    message: str
    """For people; it may change."""
    type: str
    """OpenAI's class of the error."""
    param: str | None
    """The part of the request that is wrong, as a path."""
    code: str | None
    """For programs; it does not change."""
    accepts: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    """What would do as a payment for the turn, as x402 has it. Only where one may pay."""


class Error(_Answer):
    error: ErrorObject


# --- agents ------------------------------------------------------------------------------------------------------


class Architecture(_Answer):
    input_modalities: list[str]
    output_modalities: list[str]


class Capabilities(_Answer):
    vision: bool
    tools: bool
    client_tools: bool
    reasoning: bool
    structured_output: bool
    stateful: bool


class AgentMetadata(_Answer):
    agent_id: str
    backend: str
    model: str
    """The language model behind the agent."""
    tags: list[str]


class Agent(_Answer):
    id: str
    """What to send as `model`."""
    object: Literal["model"]
    created: Seconds
    owned_by: str
    """The backend it is on."""
    name: str
    description: str
    context_length: int | None
    max_context_length: int | None
    max_model_len: int | None
    architecture: Architecture
    supported_parameters: list[str]
    capabilities: Capabilities
    metadata: AgentMetadata


class Agents(_Answer):
    object: Literal["list"]
    data: list[Agent]


class AgentSkill(_Answer):
    name: str
    description: str


class AgentEntry(_Answer):
    id: str
    """What to send as `model`."""
    object: Literal["agent"]
    name: str
    agent_id: str
    backend: str
    created: Seconds
    description: str
    tags: list[str]
    model: str
    """The language model behind it."""
    scope: str
    """What a caller must hold to use it."""
    context_window: int | None
    skills: list[AgentSkill]
    """What it can do: its tools, where they are known."""
    url: str
    """Where it is, on this server."""
    base_url: str
    """The same for OpenAI's clients: there `model` may be left out."""
    a2a_url: str
    """The same for A2A's; its card is below, at `/.well-known/agent-card.json`."""


class AgentEntries(_Answer):
    object: Literal["list"]
    data: list[AgentEntry]


class AgentAbility(_Answer):
    name: str
    works: Literal["yes", "partly", "no"]
    how: str
    """How, or why not."""


class AgentEndpoint(_Answer):
    """An endpoint of the agent's own."""

    path: str
    methods: list[str]
    scope: str
    """What a caller must hold to use it."""
    description: str
    url: str
    """Its path on this server; what stands in braces is to be filled in."""


class AgentDescription(AgentEntry):
    abilities: list[AgentAbility]
    urls: dict[str, str]
    """OpenAI's endpoints for this agent alone."""
    endpoints: list[AgentEndpoint]
    """Its own endpoints, those which the caller may use."""


# --- chat completions --------------------------------------------------------------------------------------------


class Function(_Answer):
    name: str
    arguments: str
    """JSON text, as the model wrote it."""


class ToolCall(_Answer):
    id: str
    type: Literal["function"]
    function: Function


class AssistantAnswer(_Answer):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCall] = Field(default_factory=list[ToolCall])
    """Calls of the tools in the request: run them, and send the results as the next request."""
    reasoning_content: str = ""
    """What the agent thought, and the tools which it ran itself."""
    reasoning: str = ""
    """The same, where the operator has chosen this name."""


FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Choice(_Answer):
    index: int
    message: AssistantAnswer
    logprobs: None
    finish_reason: FinishReason


class PromptTokens(_Answer):
    cached_tokens: int
    cache_write_tokens: int


class CompletionTokens(_Answer):
    reasoning_tokens: int


class CompletionUsage(_Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens
    completion_tokens_details: CompletionTokens


class ChatCompletion(_Answer):
    id: str
    object: Literal["chat.completion"]
    created: Seconds
    model: str
    """As the request has it."""
    choices: list[Choice]
    usage: CompletionUsage


class FunctionPiece(_Answer):
    name: str = ""
    """In the first piece only."""
    arguments: str


class ToolCallPiece(_Answer):
    index: int
    id: str = ""
    """In the first piece only."""
    type: Literal["function"] = "function"
    function: FunctionPiece


class Delta(_Answer):
    """Empty where the stream only shows that it lives, and in its last chunk."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    reasoning_content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCallPiece] = Field(default_factory=list[ToolCallPiece])


class ChunkChoice(_Answer):
    index: int
    delta: Delta
    logprobs: None
    finish_reason: FinishReason | None


class ChatCompletionChunk(_Answer):
    id: str
    object: Literal["chat.completion.chunk"]
    created: Seconds
    model: str
    choices: list[ChunkChoice]
    """None in the chunk that holds the usage."""
    usage: CompletionUsage | None = None
    """With `stream_options.include_usage` only, and null but in the last chunk."""


# --- items -------------------------------------------------------------------------------------------------------

Status = Literal["in_progress", "completed", "incomplete"]


class InputText(_Answer):
    type: Literal["input_text"]
    text: str


class InputImage(_Answer):
    type: Literal["input_image"]
    detail: str
    image_url: str
    file_id: None


class InputFile(_Answer):
    type: Literal["input_file"]
    filename: str
    file_data: str


class OutputText(_Answer):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class MessageItem(_Answer):
    type: Literal["message"]
    id: str
    status: Status
    role: Literal["user", "assistant", "system", "developer"]
    content: list[InputText | InputImage | InputFile | OutputText]


class SummaryText(_Answer):
    type: Literal["summary_text"]
    text: str


class ReasoningItem(_Answer):
    type: Literal["reasoning"]
    id: str
    status: Status = "completed"
    summary: list[SummaryText]
    encrypted_content: None = None
    """Where `include` asks for it: there is none."""


class FunctionCallItem(_Answer):
    type: Literal["function_call"]
    id: str
    status: Status
    call_id: str
    name: str
    arguments: str


class FunctionCallOutputItem(_Answer):
    type: Literal["function_call_output"]
    id: str
    status: Status
    call_id: str
    output: str | list[InputText | InputImage | InputFile]


class ToolText(_Answer):
    type: Literal["text"]
    text: str


class ToolError(_Answer):
    type: Literal["mcp_tool_execution_error"]
    content: list[ToolText]


class ToolRunItem(_Answer):
    """A tool of the agent's own, which ran on its side."""

    type: Literal["mcp_call"]
    id: str
    status: Status | Literal["failed"]
    server_label: str
    name: str
    arguments: str
    output: str | None
    error: ToolError | None


AnyItem = MessageItem | ReasoningItem | FunctionCallItem | FunctionCallOutputItem | ToolRunItem


class Item(RootModel[Annotated[AnyItem, Field(discriminator="type")]]):
    """Something that was said, thought or done in a conversation."""


class Items(_Answer):
    object: Literal["list"]
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


# --- responses ---------------------------------------------------------------------------------------------------

ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


class ResponseError(_Answer):
    code: str
    message: str


class IncompleteDetails(_Answer):
    reason: Literal["max_output_tokens", "content_filter"]


class InputTokens(_Answer):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokens(_Answer):
    reasoning_tokens: int


class ResponseUsage(_Answer):
    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    output_tokens_details: OutputTokens
    total_tokens: int


class ConversationReference(_Answer):
    id: str


class ReasoningSettings(_Answer):
    effort: str | None
    summary: str | None


class TextSettings(_Answer):
    format: dict[str, Any]
    verbosity: str


class Response(_Answer):
    """What an agent answered, and the settings it was asked with."""

    id: str
    object: Literal["response"]
    created_at: Seconds
    status: ResponseStatus
    completed_at: Seconds | None
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    output: list[Item]
    usage: ResponseUsage | None
    conversation: ConversationReference | None
    model: str
    background: bool
    frequency_penalty: float
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    presence_penalty: float
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ReasoningSettings
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    text: TextSettings
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: str
    user: str = ""


class DeletedResponse(_Answer):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


# --- what a response's stream holds ------------------------------------------------------------------------------


class _Event(_Answer):
    sequence_number: int


class ResponseEvent(_Event):
    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: Response


class OutputItemEvent(_Event):
    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: Item


class _PartEvent(_Event):
    item_id: str
    output_index: int


class _ContentEvent(_PartEvent):
    content_index: int


class ContentPartEvent(_ContentEvent):
    type: Literal["response.content_part.added", "response.content_part.done"]
    part: OutputText


class TextDeltaEvent(_ContentEvent):
    type: Literal["response.output_text.delta"]
    delta: str
    logprobs: list[Any]


class TextDoneEvent(_ContentEvent):
    type: Literal["response.output_text.done"]
    text: str
    logprobs: list[Any]


class _SummaryEvent(_PartEvent):
    summary_index: int


class SummaryPartEvent(_SummaryEvent):
    type: Literal["response.reasoning_summary_part.added", "response.reasoning_summary_part.done"]
    part: SummaryText


class SummaryDeltaEvent(_SummaryEvent):
    type: Literal["response.reasoning_summary_text.delta"]
    delta: str


class SummaryDoneEvent(_SummaryEvent):
    type: Literal["response.reasoning_summary_text.done"]
    text: str


class ArgumentsDeltaEvent(_PartEvent):
    type: Literal["response.function_call_arguments.delta", "response.mcp_call_arguments.delta"]
    delta: str


class ArgumentsDoneEvent(_PartEvent):
    type: Literal["response.function_call_arguments.done"]
    name: str
    arguments: str


class RunArgumentsDoneEvent(_PartEvent):
    type: Literal["response.mcp_call_arguments.done"]
    arguments: str


class RunEvent(_PartEvent):
    type: Literal["response.mcp_call.in_progress", "response.mcp_call.completed", "response.mcp_call.failed"]


class ErrorEvent(_Event):
    type: Literal["error"]
    code: str | None
    message: str
    param: str | None


AnyEvent = (
    ResponseEvent
    | OutputItemEvent
    | ContentPartEvent
    | TextDeltaEvent
    | TextDoneEvent
    | SummaryPartEvent
    | SummaryDeltaEvent
    | SummaryDoneEvent
    | ArgumentsDeltaEvent
    | ArgumentsDoneEvent
    | RunArgumentsDoneEvent
    | RunEvent
    | ErrorEvent
)


class ResponseStreamEvent(RootModel[Annotated[AnyEvent, Field(discriminator="type")]]):
    """One event of a response's stream."""


# --- conversations -----------------------------------------------------------------------------------------------


class Conversation(_Answer):
    id: str
    object: Literal["conversation"]
    created_at: Seconds
    metadata: dict[str, str]
    agent: str
    agent_id: str
    name: str | None
    """The name by which a request pinned it."""
    title: str | None
    turns: int
    last_used_at: Seconds


class Conversations(_Answer):
    object: Literal["list"]
    data: list[Conversation]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Approval(_Answer):
    """A call of the agent's own that waits for approval."""

    id: str
    object: Literal["approval"]
    name: str
    arguments: str


class Approvals(_Answer):
    object: Literal["list"]
    data: list[Approval]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedConversation(_Answer):
    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


# --- about -------------------------------------------------------------------------------------------------------


class Places(_Answer):
    name: Literal["frontdesk"]
    version: str
    endpoints: dict[str, str]


class BackendHealth(_Answer):
    status: Literal["ok", "unreachable"]
    agents: int
    version: str = ""
    latency_ms: float = 0
    error: str = ""


class TurnCounts(_Answer):
    in_flight: int
    waiting: int


class Health(_Answer):
    status: Literal["ok", "degraded", "down"]
    version: str
    turns: TurnCounts
    backends: dict[str, BackendHealth]


class Alive(_Answer):
    status: Literal["ok"]


class Ready(_Answer):
    status: Literal["ok", "unavailable"]


class Document(_Answer):
    """An OpenAPI document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]
