"""/v1/conversations in the Responses API's shapes, and what OpenAI has not: a list, branches, and whose they are.

Source: https://platform.openai.com/docs/api-reference/conversations
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Query, Request
from msgspec import Meta
from pydantic import Field
from starlette.responses import JSONResponse, Response

from frontdesk.conversations.archive import Archive, Asked, Entry, Told
from frontdesk.errors import InvalidRequest, NotFound
from frontdesk.policies.options import check_files
from frontdesk.protocols.front import Front, content, model, visitor
from frontdesk.protocols.items import item_body, item_id_of
from frontdesk.protocols.lists import Limit, Order, list_body, page
from frontdesk.protocols.requests import Model, is_empty, not_a_message, text_only, unsupported
from frontdesk.protocols.requests import read as read_model
from frontdesk.protocols.responses.decode import kinds, parts, result
from frontdesk.protocols.responses.routes import Responses, Streamed
from frontdesk.protocols.responses.schema import (
    AgentsItem,
    FunctionCall,
    FunctionCallOutput,
    InputItem,
    InputMessage,
    ItemReference,
    OtherItem,
)
from frontdesk.turn import TEXT_FILES, Image, Item, Message, Principal, Text, ToolCall, ToolResult

T = TypeVar("T", bound=msgspec.Struct)

IGNORED = "x-frontdesk-ignored-params"

Metadata = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]


Items = Annotated[list[dict[str, Any]], Meta(max_length=20)]

Include = Annotated[Sequence[str], Query(alias="include[]", description="Accepted; there is nothing more to show.")]


class Creation(msgspec.Struct):
    agent: str | None = None
    model: str | None = None  # the same, as other requests call it
    metadata: Metadata | None = None
    items: Items | None = None


class Change(msgspec.Struct):
    metadata: Metadata | None


class Addition(msgspec.Struct):
    items: Items


class Approval(msgspec.Struct):
    id: str
    approve: bool
    reason: str = ""


class Approvals(msgspec.Struct):
    """Beside it may stand what a request for a response may hold, as `stream`, `tools` and `instructions`."""

    approvals: list[Approval]
    stream: bool | None = None


ELSEWHERE = frozenset({"model", "input", "conversation", "previous_response_id"})
"""What a response is asked for, and where: here the path and the approvals say that."""


class Given(Model):
    """The items of either, one by one."""

    items: list[InputItem] | None = Field(default=None)


def router(archive: Archive, front: Front, responses: Responses) -> APIRouter:
    routes = APIRouter(tags=["Conversations"])

    def who(request: Request) -> Principal:
        return visitor(request.scope).principal

    async def read(request: Request, type_: type[T]) -> tuple[T, dict[str, str]]:
        return parsed(await front.body(request.scope, request.receive), type_)

    async def read_items(request: Request, type_: type[T]) -> tuple[T, list[Item], dict[str, str]]:
        body = await front.body(request.scope, request.receive)
        asked, headers = parsed(body, type_)
        items, left_out = told(read_model(Given, body, not_a_message).items or ())
        check_files(items, TEXT_FILES)
        for image in (part for item in items for part in content(item) if isinstance(part, Image)):
            await check_address(front, image)
        return asked, items, reported(headers, left_out)

    async def found(request: Request, conversation_id: str, item_id: str) -> Told:
        for each in await archive.told(who(request), conversation_id):
            if item_id_of(each) == item_id:
                return each
        raise NotFound(f"There is no item {item_id[:80]!r} in this conversation.", code="item_not_found")

    @routes.get("/conversations", summary="Your conversations, latest used first")
    async def listed(  # type: ignore[reportUnusedFunction]
        request: Request, limit: Limit = 20, after: str = "", agent: str = ""
    ) -> dict[str, Any]:
        entries, more = await archive.page(who(request), limit, after, agent or model(request.scope))
        return list_body([conversation_body(entry) for entry in entries], more)

    @routes.post("/conversations", summary="Begin a conversation", openapi_extra=body_of(Creation))
    async def create(request: Request) -> JSONResponse:  # type: ignore[reportUnusedFunction]
        asked, items, headers = await read_items(request, Creation)
        agent = asked.agent or asked.model or model(request.scope)
        entry = await archive.create(who(request), agent, asked.metadata or {}, items)
        return JSONResponse(conversation_body(entry), headers=headers)

    @routes.get("/conversations/{conversation_id}", summary="One conversation")
    async def get(conversation_id: str, request: Request) -> dict[str, Any]:  # type: ignore[reportUnusedFunction]
        return conversation_body(await archive.get(who(request), conversation_id))

    @routes.post("/conversations/{conversation_id}", summary="Set its metadata", openapi_extra=body_of(Change))
    async def update(conversation_id: str, request: Request) -> JSONResponse:  # type: ignore[reportUnusedFunction]
        asked, headers = await read(request, Change)
        entry = await archive.describe(who(request), conversation_id, asked.metadata or {})
        return JSONResponse(conversation_body(entry), headers=headers)

    @routes.delete("/conversations/{conversation_id}", summary="Delete it, here and at the agent's server")
    async def delete(conversation_id: str, request: Request) -> dict[str, Any]:  # type: ignore[reportUnusedFunction]
        await archive.delete(who(request), conversation_id)
        return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}

    @routes.post("/conversations/{conversation_id}/fork", status_code=201, summary="Branch it where it stands")
    async def fork(conversation_id: str, request: Request) -> dict[str, Any]:  # type: ignore[reportUnusedFunction]
        return conversation_body(await archive.fork(who(request), conversation_id))

    @routes.get("/conversations/{conversation_id}/items", summary="What was said in it")
    async def items(  # type: ignore[reportUnusedFunction]
        conversation_id: str,
        request: Request,
        limit: Limit = 20,
        order: Order = "desc",
        after: str = "",
        include: Include = (),
    ) -> dict[str, Any]:
        told = await archive.told(who(request), conversation_id)
        return page([item_body(each) for each in told], limit, order, after)

    @routes.post(
        "/conversations/{conversation_id}/items",
        summary="Put something into it, for its agent to be told with the next turn",
        openapi_extra=body_of(Addition),
    )
    async def add(  # type: ignore[reportUnusedFunction]
        conversation_id: str, request: Request, include: Include = ()
    ) -> JSONResponse:
        _, items, headers = await read_items(request, Addition)
        added = await archive.add(who(request), conversation_id, items)
        return JSONResponse(list_body([item_body(each) for each in added], more=False), headers=headers)

    @routes.get("/conversations/{conversation_id}/items/{item_id}", summary="One thing that was said in it")
    async def item(  # type: ignore[reportUnusedFunction]
        conversation_id: str, item_id: str, request: Request, include: Include = ()
    ) -> dict[str, Any]:
        return item_body(await found(request, conversation_id, item_id))

    @routes.delete("/conversations/{conversation_id}/items/{item_id}", summary="Take something back that was said")
    async def strike(  # type: ignore[reportUnusedFunction]
        conversation_id: str, item_id: str, request: Request
    ) -> dict[str, Any]:
        told = await found(request, conversation_id, item_id)
        return conversation_body(await archive.strike(who(request), conversation_id, told))

    @routes.get("/conversations/{conversation_id}/approvals", summary="What its agent asks your approval for")
    async def approvals(conversation_id: str, request: Request) -> dict[str, Any]:  # type: ignore[reportUnusedFunction]
        _, asked = await archive.asked(who(request), conversation_id)
        return list_body([asked_body(each) for each in asked], more=False)

    @routes.post(
        "/conversations/{conversation_id}/approvals",
        summary="Answer that, and hear how the agent goes on: as a response",
        openapi_extra=body_of(Approvals, Approval),
    )
    async def approve(conversation_id: str, request: Request) -> Response:  # type: ignore[reportUnusedFunction]
        body = await front.body(request.scope, request.receive)
        given, _ = parsed(body, Approvals)
        fields: dict[str, Any] = msgspec.json.decode(body)
        if beside := sorted(fields.keys() & ELSEWHERE):
            raise unsupported(beside[0], f"{beside[0]!r} means nothing here.", "unsupported_parameter")
        entry, asked = await archive.asked(who(request), conversation_id)
        results = decided(given.approvals, asked)
        rest = {name: value for name, value in fields.items() if name != "approvals"}
        answers = [{"type": "function_call_output", "call_id": each.call_id, "output": each.text} for each in results]
        asks = rest | {"model": entry.agent, "conversation": conversation_id, "input": answers}
        return Streamed(responses.answering(body, msgspec.json.encode(asks), results))

    return routes


# --- requests --------------------------------------------------------------------------------------------------------


def parsed(body: bytes, type_: type[T]) -> tuple[T, dict[str, str]]:
    """A body, and a header that names what of it means nothing here. Raises InvalidRequest."""
    try:
        read = msgspec.json.decode(body or b"{}", type=type_)
        fields = msgspec.json.decode(body or b"{}", type=dict[str, msgspec.Raw])
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.", code="invalid_json") from None
    ignored = sorted(fields.keys() - set(type_.__struct_fields__))
    return read, reported({}, [name for name in ignored if name.isascii() and name.isprintable()])


def reported(headers: dict[str, str], names: Sequence[str]) -> dict[str, str]:
    """The headers that say what means nothing here, with these names, too."""
    known = [headers[IGNORED]] if IGNORED in headers else []
    return {IGNORED: ", ".join([*known, *names])[:1000]} if known or names else {}


def decided(given: Sequence[Approval], asked: Sequence[Asked]) -> list[ToolResult]:
    """The answers, one for each call that waits. Raises InvalidRequest for one too few, too many, or given twice."""
    waiting: Mapping[str, Asked] = {each.call_id: each for each in asked}
    for index, each in enumerate(given):
        if each.id not in waiting:
            message = f"No call {each.id[:80]!r} waits for approval in this conversation."
            raise unsupported(f"approvals[{index}].id", message, "approval_not_pending")
        if any(before.id == each.id for before in given[:index]):
            raise unsupported(f"approvals[{index}].id", f"{each.id[:80]!r} is answered twice.", "invalid_value")
    if missing := waiting.keys() - {each.id for each in given}:
        named = ", ".join(f"{waiting[each].name} ({each})" for each in sorted(missing))
        raise unsupported("approvals", f"All that waits has to be answered at once; also: {named}.", "invalid_value")
    if not given:
        raise unsupported("approvals", "Nothing waits for approval in this conversation.", "approval_not_pending")
    return [ToolResult(each.id, (Text(each.reason or SAYS[each.approve]),), approved=each.approve) for each in given]


SAYS = {True: "Approved.", False: "Denied."}


def told(items: Sequence[InputItem]) -> tuple[list[Item], list[str]]:
    """What an agent can be told of these, and the kinds of those that it cannot. Raises InvalidRequest."""
    told = [item for index, each in enumerate(items) if (item := item_of(each, f"items[{index}]"))]
    return told, kinds("items", [each.type for each in items if isinstance(each, AgentsItem | OtherItem)])


def item_of(each: InputItem, where: str) -> Item | None:
    match each:
        case InputMessage(role=role, content=said):
            heard = parts(said, f"{where}.content")
            if is_empty(heard):
                raise unsupported(f"{where}.content", "A message needs content.", "invalid_value")
            if role == "user" or role == "assistant":
                return Message(role, heard)
            return Message("system", (Text(text_only(heard, where)),))
        case FunctionCall(call_id=call_id, name=name, arguments=arguments):
            return ToolCall(call_id, name, arguments)
        case FunctionCallOutput(call_id=call_id, output=output):
            return result(call_id, output, where)
        case ItemReference():
            raise unsupported(f"{where}.type", "Put the item itself here: references are not followed.")
        case AgentsItem() | OtherItem():
            return None


async def check_address(front: Front, image: Image) -> None:
    """A picture elsewhere is fetched when the agent is told of it. Raises InvalidRequest."""
    scheme = image.url.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        await front.fetch_image(image.url, image.param)


def invalid(message: str) -> InvalidRequest:
    """``Expected `str`, got `int` - at `$.metadata[...]` `` in OpenAI's terms."""
    what, _, where = message.partition(" - at ")
    if missing := re.search(r"missing required field `(\w+)`", what):
        param = missing[1]
        return InvalidRequest(f"Missing required parameter: {param!r}.", param=param, code="missing_required_parameter")
    param = named[1] if (named := re.search(r"\$\.(\w+)", where)) else None
    code = "invalid_type" if ", got " in what else "invalid_value"
    place = f" for {param!r}" if param else ""
    return InvalidRequest(f"Invalid value{place}: {what}.", param=param, code=code)


def body_of(type_: type[msgspec.Struct], inner: type[msgspec.Struct] | None = None) -> dict[str, Any]:
    """A request's body as OpenAPI has it. `inner`: of what its one list is, for it has no place of its own there."""
    schema = msgspec.json.schema(type_)["$defs"][type_.__name__]
    if inner:
        (listed,) = (each for each in schema["properties"].values() if each.get("type") == "array")
        listed["items"] = msgspec.json.schema(inner)["$defs"][inner.__name__]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


# --- answers ---------------------------------------------------------------------------------------------------------


def asked_body(asked: Asked) -> dict[str, Any]:
    return {"id": asked.call_id, "object": "approval", "name": asked.name, "arguments": asked.arguments}


def conversation_body(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "object": "conversation",
        "created_at": int(entry.created),
        "metadata": dict(entry.metadata),
        "agent": entry.agent,
        "agent_id": entry.agent_id,
        "name": entry.name or None,
        "title": entry.title or None,
        "turns": entry.turns,
        "last_used_at": int(entry.used),
    }
