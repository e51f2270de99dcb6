"""What an agent is told, as Pydantic AI's messages, and what those hold, as ours. Pure.

A thread is a list of messages that a model can be sent as it stands: each call of a tool has its result behind it, but
for those which wait for the caller.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.usage import RunUsage
from pydantic_core import PydanticSerializationError, to_json

from frontdesk.turn import (
    Content,
    File,
    Image,
    Item,
    Message,
    Part,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    ToolRun,
    Usage,
    unanswered,
)

PICTURE = 4_000
"""What a picture or a document counts, in characters."""

INTERRUPTED = "This call was cut short; whether it has had an effect is not known."

# --- told ----------------------------------------------------------------------------------------------------------


def told(
    items: Iterable[Item], pending: Mapping[str, str], *, instructions: str = "", closing: str = ""
) -> list[ModelMessage]:
    """The messages that bring these items, after a thread in which the calls `pending` (their tools by their ids) wait.

    Calls that nobody answers are told so: no model takes a history in which they are left open.
    """
    messages: list[ModelMessage] = []
    names = dict(pending)
    given = list(items)
    answered = {item.call_id for item in given if isinstance(item, ToolResult)}
    for call_id in pending:
        if call_id not in answered:
            add(messages, returned(unanswered(call_id), names))
    if instructions:
        add(messages, SystemPromptPart(instructions))
    for item in given:
        match item:
            case Message("assistant"):
                say(messages, TextPart(item.text))
            case Message("system"):
                add(messages, SystemPromptPart(item.text))
            case Message():
                add(messages, UserPromptPart(prompt(item)))
            case ToolCall(call_id, name, arguments):
                names[call_id] = name
                say(messages, ToolCallPart(name, arguments, call_id))
            case ToolResult():
                add(messages, returned(item, names))
    if closing:
        add(messages, UserPromptPart(closing))
    return messages


def add(messages: list[ModelMessage], part: ModelRequestPart) -> None:
    if messages and isinstance(messages[-1], ModelRequest):
        messages[-1] = replace(messages[-1], parts=[*messages[-1].parts, part])
    else:
        messages.append(ModelRequest([part]))


def say(messages: list[ModelMessage], part: ModelResponsePart) -> None:
    if messages and isinstance(messages[-1], ModelResponse):
        messages[-1] = replace(messages[-1], parts=[*messages[-1].parts, part])
    else:
        messages.append(ModelResponse([part]))


def returned(result: ToolResult, names: Mapping[str, str]) -> ToolReturnPart:
    content = parts_of(result.content)
    plain = content[0] if len(content) == 1 and isinstance(content[0], str) else content or ""
    outcome = "failed" if result.is_error else "success"
    return ToolReturnPart(names.get(result.call_id, "unknown"), plain, result.call_id, outcome=outcome)


def prompt(message: Message) -> str | list[UserContent]:
    """What the user says, with who that is where the caller has told: no model takes a name beside the text."""
    content = parts_of(message.content)
    if message.name:
        content = [f"{message.name}: {content[0]}", *content[1:]] if isinstance(content[0], str) else content
    return content[0] if len(content) == 1 and isinstance(content[0], str) else content


def parts_of(content: Iterable[Content]) -> list[Any]:
    parts: list[Any] = []
    for part in content:
        match part:
            case Text(text):
                parts.append(text)
            case Image():
                parts.append(BinaryContent(part.data, media_type=part.media_type))
            case File() if part.is_text:
                parts.append(f"{part.name}:\n{part.text}")
            case File():
                parts.append(BinaryContent(part.data, media_type=part.media_type))
    return parts


# --- kept ----------------------------------------------------------------------------------------------------------


def text_of(messages: Sequence[ModelMessage]) -> str:
    """As a thread keeps them: without the instructions, which are each turn's own."""
    kept = [replace(each, instructions=None) if isinstance(each, ModelRequest) else each for each in messages]
    try:
        return ModelMessagesTypeAdapter.dump_json(kept).decode()
    except PydanticSerializationError:  # half a character, from a provider
        return ModelMessagesTypeAdapter.dump_json([whole(each) for each in kept]).decode()


def whole(message: ModelMessage) -> ModelMessage:
    """The same with texts that UTF-8 can hold."""
    if isinstance(message, ModelRequest):
        return message
    return replace(message, parts=[mended(part) for part in message.parts])


def mended(part: ModelResponsePart) -> ModelResponsePart:
    match part:
        case TextPart(content=said) | ThinkingPart(content=said):
            return replace(part, content=utf8(said))
        case ToolCallPart(args=str(said)):
            return replace(part, args=utf8(said))
        case _:
            return part


def utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def messages_of(text: str) -> list[ModelMessage]:
    return ModelMessagesTypeAdapter.validate_json(text) if text else []


def open_calls(messages: Sequence[ModelMessage]) -> dict[str, ToolCallPart]:
    """The calls of the last response which have no result yet, by their ids."""
    answered: set[str] = set()
    for message in reversed(messages):
        if isinstance(message, ModelResponse):
            calls = {part.tool_call_id: part for part in message.parts if isinstance(part, ToolCallPart)}
            return {call_id: part for call_id, part in calls.items() if call_id not in answered}
        answered |= {part.tool_call_id for part in message.parts if isinstance(part, ToolReturnPart)}
    return {}


def closed(messages: Sequence[ModelMessage], outputs: Mapping[str, ToolReturnPart]) -> list[ModelMessage]:
    """A thread that was cut off in a step, made whole: with such `outputs` as there are, by the ids of their calls."""
    whole = list(messages)
    for call_id, call in open_calls(messages).items():
        lost = ToolReturnPart(call.tool_name, INTERRUPTED, call_id, outcome="failed")
        add(whole, outputs.get(call_id, lost))
    return whole


# --- shown ---------------------------------------------------------------------------------------------------------


def reply_of(messages: Sequence[ModelMessage], callers: Iterable[str]) -> tuple[Part, ...]:
    """What the agent said in these messages. The calls `callers` are the caller's, by their ids."""
    waiting = set(callers)
    outputs = {
        part.tool_call_id: part
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    }
    said = [part for message in messages if isinstance(message, ModelResponse) for part in message.parts]
    return tuple(shown for part in said if (shown := part_of(part, waiting, outputs)))


def part_of(part: ModelResponsePart, waiting: set[str], outputs: Mapping[str, ToolReturnPart]) -> Part | None:
    match part:
        case TextPart(content=text) if text:
            return Message("assistant", (Text(text),))
        case ThinkingPart(content=text) if text:
            return Reasoning(text)
        case ToolCallPart() if part.tool_call_id in waiting:
            return ToolCall(part.tool_call_id, part.tool_name, part.args_as_json_str())
        case ToolCallPart():
            output = outputs.get(part.tool_call_id)
            said, failed = (output_text(output.content), output.outcome != "success") if output else ("", True)
            return ToolRun(part.tool_call_id, part.tool_name, part.args_as_json_str(), said, failed)
        case _:
            return None


def output_text(content: Any) -> str:
    """What a tool gave, as its caller may be shown it."""
    return content if isinstance(content, str) else to_json(content, fallback=str).decode()


def sizes(messages: Iterable[ModelMessage]) -> Iterator[int]:
    """The characters of each part, and of the instructions with which a request was sent."""
    for message in messages:
        if isinstance(message, ModelRequest) and message.instructions:
            yield len(message.instructions)
        for part in message.parts:
            match part:
                case TextPart(content=text) | ThinkingPart(content=text) | SystemPromptPart(content=text):
                    yield len(text)
                case ToolCallPart():
                    yield len(part.tool_name) + len(part.args_as_json_str())
                case UserPromptPart(content=content):
                    yield sum(len(each) if isinstance(each, str) else PICTURE for each in listed(content))
                case ToolReturnPart(content=content):
                    yield sum(len(output_text(each)) if is_plain(each) else PICTURE for each in listed(content))
                case _:
                    pass


def listed(content: Any) -> Sequence[Any]:
    return cast("Sequence[Any]", content) if isinstance(content, list | tuple) else (content,)


def is_plain(content: Any) -> bool:
    return not isinstance(content, BinaryContent)


def usage_of(messages: Sequence[ModelMessage]) -> Usage:
    """Summed over the model calls which these messages hold."""
    calls = [message.usage for message in messages if isinstance(message, ModelResponse)]
    total = RunUsage()
    for call in calls:
        total.incr(call)
    return counted(total, calls[-1].input_tokens if calls else 0)


def counted(usage: RunUsage, context_tokens: int = 0) -> Usage:
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.details.get("reasoning_tokens", 0),
        context_tokens=context_tokens,
    )


def is_silent(response: ModelResponse) -> bool:
    """Whether it neither says nor calls anything."""
    said = (part for part in response.parts if not isinstance(part, ThinkingPart))
    return not any(not isinstance(part, TextPart) or part.content for part in said)


def stop_of(messages: Sequence[ModelMessage]) -> StopReason:
    """Why the last response ended, where it called nothing."""
    last = next((each for each in reversed(messages) if isinstance(each, ModelResponse)), None)
    match last.finish_reason if last else None:
        case "length":
            return StopReason.LENGTH
        case "content_filter":
            return StopReason.CONTENT_FILTER
        case _:
            return StopReason.STOP
