"""A Chat Completions request → a `Turn`. Pure: no I/O, no clock. Everything wrong with a request is said here."""

from collections.abc import Sequence
from typing import Any

from frontdesk.errors import InvalidRequest
from frontdesk.protocols.chat_completions.schema import (
    AddressedRequest,
    AllowedTools,
    AssistantMessage,
    ChatCompletionRequest,
    ContentPart,
    FilePart,
    FunctionMessage,
    ImagePart,
    NamedTool,
    OtherPart,
    RefusalPart,
    ResponseFormat,
    SystemMessage,
    TextPart,
    ToolChoice,
    ToolMessage,
    UserMessage,
)
from frontdesk.protocols.requests import (
    Caller,
    attached,
    check_names,
    chosen,
    is_empty,
    missing,
    not_a_message,
    read,
    reads_as_error,
    text_only,
    unsupported,
    unsupported_content,
)
from frontdesk.turn import (
    Content,
    Format,
    Image,
    Item,
    Message,
    Options,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)

NAMES = {"input": "messages", "format": "response_format", "must_call": "tool_choice"}
"""What is called otherwise in a chat."""

REPORTED = ("web_search_options", "moderation")
"""Accepted, but for the agent itself to decide: listed in `x-frontdesk-ignored-params`."""


def parse(body: bytes, model: str = "") -> ChatCompletionRequest:
    """Validate a body. `model` is whom it is for, where that may be left out.

    Raises InvalidRequest with `param` for the first thing that is wrong.
    """
    if not model:
        return read(ChatCompletionRequest, body, not_a_message)
    request = read(AddressedRequest, body, not_a_message)
    return request if request.model else request.model_copy(update={"model": model})


def decode(request: ChatCompletionRequest, caller: Caller, turn_id: str) -> Turn:
    """The turn a request asks for. Raises InvalidRequest where ignoring a parameter would break the caller's logic."""
    refuse(request)
    items, instructions, split = transcript(request)
    return Turn(
        id=turn_id,
        agent=request.model,
        input=items[split:],
        history=items[:split],
        instructions="\n\n".join(instructions),
        tools=tools(request),
        options=options(request),
        conversation=caller.conversation,
        signals=caller.signals,
        principal=caller.principal,
        metadata=request.metadata or {},
    )


# --- parameters --------------------------------------------------------------------------------------------------


def refuse(request: ChatCompletionRequest) -> None:
    """Parameters whose silent loss would break the caller."""
    if request.n is not None and request.n > 1:
        raise unsupported("n", "An agent has one memory and gives one answer: only n=1 is supported.")
    if request.logprobs or request.top_logprobs:
        param = "logprobs" if request.logprobs else "top_logprobs"
        raise unsupported(param, "Agents give no log probabilities.", "unsupported_parameter")
    if request.modalities and "audio" in request.modalities:
        raise unsupported("modalities", "Agents answer in text: audio is not supported.")
    for name in ("functions", "function_call"):
        if getattr(request, name) is not None:
            raise unsupported(name, f"{name!r} is not supported; use 'tools' instead.", "unsupported_parameter")
    wanted = request.response_format
    if wanted and wanted.type == "json_schema" and not isinstance((wanted.json_schema or {}).get("schema"), dict):
        param = "response_format.json_schema"
        raise InvalidRequest(f"Missing required parameter: '{param}.schema'.", param=param, code="invalid_value")


def options(request: ChatCompletionRequest) -> Options:
    limit = "max_completion_tokens" if request.max_completion_tokens is not None else "max_tokens"
    return Options(
        temperature=request.temperature,
        top_p=request.top_p,
        max_output_tokens=getattr(request, limit),
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        logit_bias=request.logit_bias,
        seed=request.seed,
        stop=strings(request.stop),
        reasoning_effort=request.reasoning_effort,
        verbosity=request.verbosity,
        format=json_format(request.response_format),
        parallel_tool_calls=request.parallel_tool_calls,
        must_call=must_call(request.tool_choice),
        names={**NAMES, "max_output_tokens": limit},
        ignored=reported(request),
    )


def strings(value: str | list[str] | None) -> tuple[str, ...] | None:
    return (value,) if isinstance(value, str) else tuple(value) if value is not None else None


def json_format(wanted: ResponseFormat | None) -> Format | None:
    match wanted:
        case ResponseFormat(type="json_object"):
            return Format()
        case ResponseFormat(type="json_schema", json_schema=dict(asked)):
            return Format(asked["schema"], str(asked.get("name") or ""), bool(asked.get("strict")))
        case _:
            return None


def must_call(choice: str | ToolChoice | None) -> bool | None:
    match choice:
        case "required" | ToolChoice(type="function" | "custom"):
            return True
        case ToolChoice(allowed_tools=AllowedTools(mode="required")):
            return True
        case _:
            return None


def reported(request: ChatCompletionRequest) -> tuple[str, ...]:
    """What was asked for and has no meaning here."""
    names = [name for name in REPORTED if getattr(request, name) is not None]
    if any(isinstance(message, AssistantMessage) and message.audio for message in request.messages):
        names.append("messages.audio")
    if any(each.function and each.function.strict for each in request.tools or ()):
        names.append("tools.strict")
    return tuple(names)


def tools(request: ChatCompletionRequest) -> tuple[Tool, ...]:
    """The tools the agent may call in this turn, after `tool_choice`."""
    offered = [tool(definition, index) for index, definition in enumerate(request.tools or ())]
    check_names(offered)
    match request.tool_choice:
        case "none":
            return ()
        case ToolChoice() as choice:
            return chosen(names(choice), offered)
        case _:
            return tuple(offered)


def tool(definition: Any, index: int) -> Tool:
    if definition.type != "function":
        raise unsupported(f"tools[{index}].type", f"Tools of type {definition.type[:60]!r} are not supported.")
    function = definition.function
    if function is None:
        raise missing(f"tools[{index}].function")
    param = f"tools[{index}].function.name"
    return Tool(function.name, function.description or "", function.parameters or {}, bool(function.strict), param)


def names(choice: ToolChoice) -> set[str]:
    """The functions a choice names."""
    named = choice.allowed_tools.tools if choice.allowed_tools else [NamedTool(function=choice.function)]
    return {each.function.name for each in named if each.function}


# --- messages ----------------------------------------------------------------------------------------------------


def transcript(request: ChatCompletionRequest) -> tuple[tuple[Item, ...], list[str], int]:
    """The items of the conversation, the caller's instructions in their order, and how many of the items are past:
    what comes after the agent's last message is new."""
    items: list[Item] = []
    instructions: list[str] = []
    past = 0
    calls: dict[str, str] = {}  # name → latest call id, for results that name no call
    for index, message in enumerate(request.messages):
        where = f"messages[{index}]"
        match message:
            case SystemMessage(content=content):
                instructions += [text for text in [text_only(parts(content, where), where)] if text]
            case UserMessage(content=content, name=name):
                if not is_empty(said := parts(content, where)):
                    items.append(Message("user", said, name or ""))
            case AssistantMessage():
                said = assistant(message, where)
                calls |= {item.name: item.call_id for item in said if isinstance(item, ToolCall)}
                items += said
                past = len(items)
            case ToolMessage(tool_call_id=call_id, content=content):
                result = parts(content, where)
                failed = bool(message.is_error) or message.status == "error" or reads_as_error(result)
                items.append(ToolResult(call_id, result, failed, f"{where}.tool_call_id"))
            case FunctionMessage(name=name, content=content):
                items.append(ToolResult(calls.get(name, name), (Text(content or ""),), param=f"{where}.name"))
    return tuple(items), instructions, past


def assistant(message: AssistantMessage, where: str) -> list[Item]:
    said: list[Item] = []
    content = parts(message.content, where) if message.content else ()
    if message.refusal:
        content = (*content, Text(message.refusal))
    if not is_empty(content):
        said.append(Message("assistant", content))
    said += [ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
    if message.function_call:
        said.append(ToolCall(message.function_call.name, message.function_call.name, message.function_call.arguments))
    return said


def parts(content: str | Sequence[ContentPart], where: str) -> tuple[Content, ...]:
    if isinstance(content, str):
        return (Text(content),)
    return tuple(part(each, f"{where}.content[{index}]") for index, each in enumerate(content))


def part(each: ContentPart, where: str) -> Content:
    match each:
        case TextPart(text=text):
            return Text(text)
        case RefusalPart(refusal=text):
            return Text(text)
        case ImagePart(image_url=image):
            return Image(url=image.url, param=f"{where}.image_url.url")
        case FilePart(file=file):
            return attached(file.file_data, file.filename, f"{where}.file", by_id=file.file_id is not None)
        case OtherPart(type=kind):
            raise unsupported_content(kind, where)
