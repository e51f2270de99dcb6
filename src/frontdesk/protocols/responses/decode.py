"""A Responses request → a `Turn`. Pure: no I/O, no clock. Everything wrong with a request is said here.

A request with `previous_response_id` or `conversation` says only what is new. Any other has the whole transcript, or
references to it: what comes after the agent's last item is new.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from frontdesk.errors import InvalidRequest, PreviousNotFound
from frontdesk.protocols.items import TURN, body_of, place_in_turn, place_of_run
from frontdesk.protocols.requests import (
    Caller,
    attached,
    check_names,
    checked,
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
from frontdesk.protocols.responses.schema import (
    AddressedRequest,
    AgentsItem,
    ContentPart,
    FilePart,
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    ImagePart,
    InputItem,
    InputMessage,
    ItemReference,
    OtherItem,
    OtherPart,
    OtherTool,
    RefusalPart,
    ResponsesRequest,
    TextFormat,
    TextPart,
    ToolChoice,
    ToolDefinition,
)
from frontdesk.turn import (
    Content,
    Format,
    Image,
    Item,
    Message,
    Options,
    Part,
    Reasoning,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    ToolRun,
    Turn,
)

REPORTED = ("max_tool_calls", "moderation")
"""Accepted, but for the agent itself to decide: listed in `x-frontdesk-ignored-params`."""

KINDS_REPORTED = 20
"""How many kinds of tools, and of items, are named there. Their names are the caller's."""

RESPONSE = "resp_"

ITEM: TypeAdapter[InputItem] = TypeAdapter(InputItem)

KIND = re.compile(r"[a-z0-9_.-]{1,40}")
RESPONSE_ID = re.compile(RESPONSE + r"([0-9a-f]{1,64})")


def parse(body: bytes, model: str = "") -> ResponsesRequest:
    """Validate a body. `model` is whom it is for, where that may be left out.

    Raises InvalidRequest with `param` for the first thing that is wrong.
    """
    if not model:
        return read(ResponsesRequest, body, not_a_message)
    request = read(AddressedRequest, body, not_a_message)
    return request if request.model else request.model_copy(update={"model": model})


def references(request: ResponsesRequest) -> dict[str, str]:
    """The ids of items which the input names instead of holding them, and where each stands."""
    named = enumerate(request.input) if isinstance(request.input, list) else ()
    return {each.id: f"input[{index}].id" for index, each in named if isinstance(each, ItemReference)}


def decode(request: ResponsesRequest, caller: Caller, turn_id: str, referenced: Mapping[str, Item | Part]) -> Turn:
    """The turn a request asks for. `referenced` are the items it names, by their ids.

    Raises InvalidRequest where ignoring a parameter would break the caller's logic, and PreviousNotFound.
    """
    refuse(request)
    history, new = transcript(request, referenced)
    previous = request.previous_response_id
    return Turn(
        id=turn_id,
        agent=request.model,
        input=new,
        history=history,
        instructions="\n\n".join(instructions(request)),
        tools=tools(request),
        options=options(request),
        conversation=conversation(request) or caller.conversation,
        after=turn_of(previous) if previous is not None else "",
        background=bool(request.background),
        signals=caller.signals,
        principal=caller.principal,
        metadata=request.metadata or {},
    )


# --- responses and their turns -----------------------------------------------------------------------------------


def turn_of(response_id: str) -> str:
    """The turn of a response. Raises PreviousNotFound for what is no id of ours."""
    found = RESPONSE_ID.fullmatch(response_id)
    if not found:
        raise PreviousNotFound(
            f"Previous response with id {response_id[:80]!r} not found.", param="previous_response_id"
        )
    return TURN + found[1]


def response_id(turn_id: str) -> str:
    return RESPONSE + turn_id.removeprefix(TURN)


def conversation(request: ResponsesRequest) -> str:
    named = request.conversation
    return checked(named if isinstance(named, str) else named.id if named else "", "conversation")


def stores(request: ResponsesRequest) -> bool:
    """Whether the response can be asked for later."""
    return request.store is not False


def wants_encrypted_content(include: Sequence[str] | None) -> bool:
    return "reasoning.encrypted_content" in (include or ())


# --- parameters --------------------------------------------------------------------------------------------------


def refuse(request: ResponsesRequest) -> None:
    """Parameters whose silent loss would break the caller."""
    if request.prompt is not None:
        raise unsupported(
            "prompt", "There are no prompt templates here: an agent has its own.", "unsupported_parameter"
        )
    if request.previous_response_id is not None and request.conversation is not None:
        raise unsupported(
            "previous_response_id", "Use either 'previous_response_id' or 'conversation', not both.", "invalid_value"
        )
    if request.background and not stores(request):
        raise unsupported("background", "A background response has to be stored: 'store' must not be false.")
    if request.top_logprobs:
        raise unsupported("top_logprobs", "Agents give no log probabilities.", "unsupported_parameter")
    if request.input is None and not goes_on(request):
        raise missing("input")
    if request.input == [] and not goes_on(request):
        raise unsupported("input", "'input' holds nothing.", "invalid_value")
    wanted = request.text.format if request.text else None
    if wanted and wanted.type == "json_schema":
        if not wanted.name:
            raise missing("text.format.name")
        if wanted.json_schema is None:
            raise missing("text.format.schema")


def goes_on(request: ResponsesRequest) -> bool:
    """Whether it says where it goes on, so that its input is all new."""
    return request.previous_response_id is not None or request.conversation is not None


def options(request: ResponsesRequest) -> Options:
    return Options(
        temperature=request.temperature,
        top_p=request.top_p,
        max_output_tokens=request.max_output_tokens,
        reasoning_effort=request.reasoning.effort if request.reasoning else None,
        verbosity=request.text.verbosity if request.text else None,
        format=json_format(request.text.format if request.text else None),
        parallel_tool_calls=request.parallel_tool_calls,
        must_call=must_call(request.tool_choice),
        names={
            "reasoning_effort": "reasoning.effort",
            "verbosity": "text.verbosity",
            "format": "text.format",
            "must_call": "tool_choice",
        },
        ignored=tuple(reported(request)),
    )


def json_format(wanted: TextFormat | None) -> Format | None:
    match wanted:
        case TextFormat(type="json_object"):
            return Format()
        case TextFormat(type="json_schema", json_schema=dict(schema)):
            return Format(schema, wanted.name or "", bool(wanted.strict))
        case _:
            return None


def must_call(choice: str | ToolChoice | None) -> bool | None:
    match choice:
        case "required" | ToolChoice(type="function") | ToolChoice(type="allowed_tools", mode="required"):
            return True
        case _:
            return None


def reported(request: ResponsesRequest) -> Iterator[str]:
    """What was asked for and has no meaning here."""
    yield from (name for name in REPORTED if getattr(request, name) is not None)
    offered = request.tools or ()
    if any(isinstance(each, FunctionTool) and each.strict for each in offered):
        yield "tools.strict"
    yield from kinds("tools", [each.type for each in offered if isinstance(each, OtherTool)])
    if isinstance(request.input, list):
        yield from kinds("input", [each.type for each in request.input if isinstance(each, OtherItem)])


def kinds(where: str, found: Sequence[str]) -> list[str]:
    """Each kind once, as it may stand in a header."""
    names = dict.fromkeys(kind if KIND.fullmatch(kind) else "other" for kind in found)
    return [f"{where}.{name}" for name in list(names)[:KINDS_REPORTED]]


def tools(request: ResponsesRequest) -> tuple[Tool, ...]:
    """The tools the agent may call in this turn, after `tool_choice`."""
    offered = [
        Tool(each.name, each.description or "", each.parameters or {}, bool(each.strict), f"tools[{index}].name")
        for index, each in enumerate(request.tools or ())
        if isinstance(each, FunctionTool)
    ]
    check_names(offered)
    match request.tool_choice:
        case "none":
            return ()
        case ToolChoice(type="function", name=name):
            return chosen({name} if name else (), offered)
        case ToolChoice(type="allowed_tools", mode=mode, tools=allowed):
            names = {each.name for each in allowed or () if each.type == "function" and each.name}
            return chosen(names, offered) if names or mode == "required" else ()
        case ToolChoice(type=kind):
            raise unsupported("tool_choice", f"Tools of type {kind[:60]!r} are not supported.")
        case _:
            return tuple(offered)


# --- input -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Piece:
    """An element of the input, as it counts here: the item it is in a transcript, if it is one."""

    item: Item | None
    agents: bool = False  # whether the agent said it
    turn: str = ""  # … in which turn, if its id is one of ours


def transcript(
    request: ResponsesRequest, referenced: Mapping[str, Item | Part]
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """What went before, and what is new."""
    return split(request, list(pieces(request, referenced)))


def split(request: ResponsesRequest, found: Sequence[Piece]) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    if goes_on(request):
        return (), only_new(found)
    past = max((index + 1 for index, each in enumerate(found) if each.agents), default=0)
    late = late_results(found[:past])
    new = {id(item) for item in late}
    history = [each.item for each in found[:past] if each.item and id(each.item) not in new]
    return tuple(history), (*late, *(each.item for each in found[past:] if each.item))


def only_new(found: Sequence[Piece]) -> tuple[Item, ...]:
    """Without what the conversation has already: the agent's own items, and calls that stand beside their results."""
    answered = {each.item.call_id for each in found if isinstance(each.item, ToolResult)}
    return tuple(
        each.item
        for each in found
        if each.item
        and not (each.agents and each.turn)
        and not (isinstance(each.item, ToolCall) and each.item.call_id in answered)
    )


def late_results(past: Sequence[Piece]) -> list[Item]:
    """Results which stand before the agent's last item, but answer calls of the same turn: they are new.

    Some clients put each result next to its call, also where the agent made several calls at once.
    """
    if not past or not isinstance(past[-1].item, ToolCall) or not past[-1].turn:
        return []
    turn = past[-1].turn
    calls = {each.item.call_id for each in past if isinstance(each.item, ToolCall) and each.turn == turn}
    return [each.item for each in past if isinstance(each.item, ToolResult) and each.item.call_id in calls]


def item_of(body: Mapping[str, Any]) -> Item | None:
    """An item of an earlier input, as `given` shows it, for what it says."""
    return piece(ITEM.validate_python(body), "input", {}).item


def pieces(request: ResponsesRequest, referenced: Mapping[str, Item | Part]) -> Iterator[Piece]:
    if isinstance(request.input, str):
        yield Piece(message("user", (Text(request.input),)))
    else:
        for index, each in enumerate(request.input or ()):
            yield piece(each, f"input[{index}]", referenced)


def piece(each: InputItem, where: str, referenced: Mapping[str, Item | Part]) -> Piece:
    match each:
        case InputMessage(role="user"):
            return Piece(message("user", parts(each.content, f"{where}.content")))
        case InputMessage(role="assistant", id=id):
            return Piece(message("assistant", parts(each.content, f"{where}.content")), True, answered_in(id))
        case InputMessage():  # instructions
            return Piece(None)
        case FunctionCall(id=id, call_id=call_id):
            own = place_of_run(call_id) is not None
            return Piece(None if own else ToolCall(call_id, each.name, each.arguments), True, answered_in(id))
        case FunctionCallOutput(call_id=call_id, output=output):
            own = place_of_run(call_id) is not None
            return Piece(None, True) if own else Piece(result(call_id, output, where))
        case ItemReference(id=id):
            return referenced_piece(id, referenced.get(id), f"{where}.id")
        case AgentsItem():
            return Piece(None, True)
        case OtherItem():
            return Piece(None)


def referenced_piece(id: str, found: Item | Part | None, param: str) -> Piece:
    match found:
        case None:
            raise InvalidRequest(f"Item with id {id[:80]!r} not found.", param=param, code="item_not_found")
        case Message(role="user"):
            return Piece(found)
        case ToolResult():
            return Piece(replace(found, param=param))
        case Message() | ToolCall():
            return Piece(found, True, answered_in(id))
        case Reasoning() | ToolRun():
            return Piece(None, True, answered_in(id))


def answered_in(id: str | None) -> str:
    """The turn in which the agent said this, if the id is one of ours."""
    place = place_in_turn(id or "")
    return place[0] if place and place[1] == "o" else ""


def message(role: Role, content: tuple[Content, ...]) -> Message | None:
    return None if is_empty(content) else Message(role, content)


def result(call_id: str, output: str | Sequence[ContentPart], where: str) -> ToolResult:
    said = parts(output, f"{where}.output")
    return ToolResult(call_id, said, reads_as_error(said), f"{where}.call_id")


def instructions(request: ResponsesRequest) -> Iterator[str]:
    """The caller's instructions, then its system and developer messages, in their order."""
    if request.instructions:
        yield request.instructions
    if isinstance(request.input, list):
        for index, each in enumerate(request.input):
            if isinstance(each, InputMessage) and each.role in ("system", "developer"):
                where = f"input[{index}]"
                if text := text_only(parts(each.content, f"{where}.content"), where):
                    yield text


def parts(content: str | Sequence[ContentPart], where: str) -> tuple[Content, ...]:
    if isinstance(content, str):
        return (Text(content),)
    return tuple(part(each, f"{where}[{index}]") for index, each in enumerate(content))


def part(each: ContentPart, where: str) -> Content:
    match each:
        case str(text) | TextPart(text=text) | RefusalPart(refusal=text):
            return Text(text)
        case ImagePart(image_url=str(url)):
            return Image(url=url, param=f"{where}.image_url")
        case ImagePart(file_id=str()):
            raise unsupported(
                f"{where}.file_id", "There are no files here: send 'image_url'.", "unsupported_content_type"
            )
        case ImagePart():
            raise missing(f"{where}.image_url")
        case FilePart(file_data=data, filename=name):
            elsewhere = {"by_id": each.file_id is not None, "by_address": each.file_url is not None}
            return attached(data, name, where, **elsewhere)
        case OtherPart(type=kind):
            raise unsupported_content(kind, where)


# --- the request, as it is shown ---------------------------------------------------------------------------------


def echo(request: ResponsesRequest) -> dict[str, Any]:
    """The request's settings as the response shows them, with what is assumed where nothing was said. JSON-able."""
    shown: dict[str, Any] = {
        "model": request.model,
        "background": bool(request.background),
        "frequency_penalty": 0.0,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": dict(request.metadata or {}),
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "presence_penalty": 0.0,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": text_or_none(request.prompt_cache_key),
        "reasoning": shown_reasoning(request),
        "safety_identifier": text_or_none(request.safety_identifier),
        "service_tier": "default",
        "store": stores(request),
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": shown_text(request),
        "tool_choice": shown_choice(request.tool_choice),
        "tools": [shown_tool(each) for each in request.tools or ()],
        "top_logprobs": 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": request.truncation or "disabled",
    }
    if isinstance(request.user, str):  # which must not be null
        shown["user"] = request.user
    return shown


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def shown_reasoning(request: ResponsesRequest) -> dict[str, Any]:
    asked = request.reasoning
    return {
        "effort": asked.effort if asked else None,
        "summary": (asked.summary or asked.generate_summary) if asked else None,
    }


def shown_text(request: ResponsesRequest) -> dict[str, Any]:
    asked = request.text
    shown: dict[str, Any] = {"format": {"type": "text"}}
    if asked and asked.format:
        shown = {"format": shown_format(asked.format)}
    return shown | {"verbosity": (asked.verbosity if asked else None) or "medium"}


def shown_format(wanted: TextFormat) -> dict[str, Any]:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    return {
        "type": "json_schema",
        "name": wanted.name,
        "description": wanted.description,
        "schema": wanted.json_schema,
        "strict": bool(wanted.strict),
    }


def shown_choice(choice: str | ToolChoice | None) -> str | dict[str, Any]:
    return choice.model_dump(mode="json", exclude_unset=True) if isinstance(choice, ToolChoice) else choice or "auto"


def shown_tool(each: ToolDefinition) -> dict[str, Any]:
    """As it was sent, but for the keys to other people's servers: this is kept."""
    shown = each.model_dump(mode="json", exclude_unset=True)
    if isinstance(each, FunctionTool):
        return {"description": None, **shown, "parameters": each.parameters, "strict": bool(each.strict)}
    return {name: value for name, value in shown.items() if name not in ("authorization", "headers")}


# --- the input, as it is shown -----------------------------------------------------------------------------------


def given(request: ResponsesRequest, turn_id: str, referenced: Mapping[str, Item | Part]) -> list[dict[str, Any]]:
    """The input as items that have an id and are complete, in the order in which they were sent.

    An item keeps the id it has. Else what is new is numbered first, as it is in the conversation, where what went
    before is not told again.
    """
    turn = turn_id.removeprefix(TURN)
    if isinstance(request.input, str):
        return [body_of(Message("user", (Text(request.input),)), f"msg_{turn}i0")]
    found = list(pieces(request, referenced))
    history, new = split(request, found)
    places = {id(item): index for index, item in enumerate((*new, *history))}
    bodies: list[dict[str, Any]] = []
    for index, (each, counted) in enumerate(zip(request.input or (), found, strict=True)):
        place = f"{turn}i{places.get(id(counted.item), len(places) + index)}"
        bodies += given_body(each, place, referenced)
    return bodies


def given_body(each: InputItem, place: str, referenced: Mapping[str, Item | Part]) -> Iterator[dict[str, Any]]:
    match each:
        case InputMessage(id=id, role=role, content=content):
            shown = Message("assistant" if role == "assistant" else "user", parts(content, ""))
            yield body_of(shown, id or f"msg_{place}") | {"role": role}
        case FunctionCall(id=id, call_id=call_id):
            yield body_of(ToolCall(call_id, each.name, each.arguments), id or f"fc_{place}")
        case FunctionCallOutput(id=id, call_id=call_id, output=output):
            yield body_of(ToolResult(call_id, parts(output, "")), id or f"fco_{place}")
        case ItemReference(id=id):
            yield body_of(referenced[id], id)
        case AgentsItem() | OtherItem():
            shown = each.model_dump(mode="json", exclude_unset=True)
            if isinstance(shown.get("id"), str):
                yield shown
