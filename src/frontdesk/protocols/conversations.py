"""/v1/conversations in the Responses API's shapes, and what OpenAI has not: a list, branches, and whose they are.

Source: https://platform.openai.com/docs/api-reference/conversations
"""

import re
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Request
from msgspec import Meta
from starlette.responses import JSONResponse

from frontdesk.conversations.archive import Archive, Entry
from frontdesk.errors import InvalidRequest, NotFound
from frontdesk.protocols.front import Front, visitor
from frontdesk.protocols.items import item_body, item_id_of
from frontdesk.protocols.lists import Limit, Order, list_body, page
from frontdesk.turn import Principal

T = TypeVar("T", bound=msgspec.Struct)

Metadata = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]


class Creation(msgspec.Struct):
    agent: str | None = None
    model: str | None = None  # the same, as other requests call it
    metadata: Metadata | None = None
    items: list[Any] | None = None


class Change(msgspec.Struct):
    metadata: Metadata | None


def router(archive: Archive, front: Front) -> APIRouter:
    routes = APIRouter(tags=["Conversations"])

    def who(request: Request) -> Principal:
        return visitor(request.scope).principal

    async def read(request: Request, type_: type[T]) -> tuple[T, dict[str, str]]:
        return parsed(await front.body(request.scope, request.receive), type_)

    @routes.get("/conversations", summary="Your conversations, latest used first")
    async def listed(  # type: ignore[reportUnusedFunction]
        request: Request, limit: Limit = 20, after: str = "", agent: str = ""
    ) -> dict[str, Any]:
        entries, more = await archive.page(who(request), limit, after, agent)
        return list_body([conversation_body(entry) for entry in entries], more)

    @routes.post("/conversations", summary="Begin a conversation with an agent", openapi_extra=body_of(Creation))
    async def create(request: Request) -> JSONResponse:  # type: ignore[reportUnusedFunction]
        asked, headers = await read(request, Creation)
        if asked.items:
            raise InvalidRequest(
                "A conversation begins empty here: send what was said before as the messages of its first request.",
                param="items",
                code="unsupported_parameter",
            )
        agent = asked.agent or asked.model
        if not agent:
            raise InvalidRequest(
                "Whose conversation is it to be? Say the agent's name as `agent`; GET /v1/models lists the agents.",
                param="agent",
                code="missing_required_parameter",
            )
        entry = await archive.create(who(request), agent, asked.metadata or {})
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
        conversation_id: str, request: Request, limit: Limit = 20, order: Order = "desc", after: str = ""
    ) -> dict[str, Any]:
        told = await archive.told(who(request), conversation_id)
        return page([item_body(each) for each in told], limit, order, after)

    @routes.get("/conversations/{conversation_id}/items/{item_id}", summary="One thing that was said in it")
    async def item(  # type: ignore[reportUnusedFunction]
        conversation_id: str, item_id: str, request: Request
    ) -> dict[str, Any]:
        for each in await archive.told(who(request), conversation_id):
            if item_id_of(each) == item_id:
                return item_body(each)
        raise NotFound(f"There is no item {item_id[:80]!r} in this conversation.", code="item_not_found")

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
    plain = [name for name in ignored if name.isascii() and name.isprintable()]
    return read, {"x-frontdesk-ignored-params": ", ".join(plain)[:1000]} if plain else {}


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


def body_of(type_: type[msgspec.Struct]) -> dict[str, Any]:
    """A request's body as OpenAPI has it."""
    schema = msgspec.json.schema(type_)["$defs"][type_.__name__]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


# --- answers ---------------------------------------------------------------------------------------------------------


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
