"""/v1/responses: decode, run, encode; and asking about a response later.

Source: https://platform.openai.com/docs/api-reference/responses
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from frontdesk.conversations.receipts import Receipt, Receipts
from frontdesk.errors import InvalidRequest, PreviousNotFound, TurnNotFound
from frontdesk.gateway import Gateway, Run
from frontdesk.protocols.front import Front, Visitor, model, visitor
from frontdesk.protocols.items import place_in_turn
from frontdesk.protocols.lists import Limit, Order, page
from frontdesk.protocols.replies import (
    Delivery,
    Headers,
    PlainReply,
    Speech,
    StreamedReply,
    answer_headers,
    new_id,
    text_headers,
)
from frontdesk.protocols.requests import Caller
from frontdesk.protocols.responses.decode import (
    decode,
    echo,
    given,
    item_of,
    parse,
    references,
    refuse,
    response_id,
    stores,
    turn_of,
    wants_encrypted_content,
)
from frontdesk.protocols.responses.encode import (
    EventEncoder,
    Head,
    Style,
    failure,
    reply_body,
    response_body,
    status_of,
)
from frontdesk.protocols.responses.schema import ResponsesRequest
from frontdesk.turn import Item, Part, Principal, ToolResult, Turn

MAX_TURNS_NAMED = 1000
"""By item references, in one request: each is a look into the store."""

Include = Annotated[Sequence[str], Query(alias="include[]")]


class Asked(msgspec.Struct):
    """What is kept of a request, to show its response later: its settings as they are shown, and its input as items."""

    created_at: int
    echo: dict[str, Any]
    input: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Responses:
    """The endpoint, handed what it needs. https://platform.openai.com/docs/api-reference/responses/create"""

    gateway: Gateway
    receipts: Receipts
    front: Front
    delivery: Delivery
    style: Style

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self.front.body(scope, receive)
        await self._answer(scope, receive, send, body, parse(body, model(scope)))

    def answering(self, body: bytes, asks: bytes, approvals: Sequence[ToolResult]) -> ASGIApp:
        """The response to a request of another form: `body` is its own, `asks` the same as one for a response. The
        outputs there are these approvals."""
        request = parse(asks)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await self._answer(scope, receive, send, body, request, approvals)

        return answer

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        body: bytes,
        request: ResponsesRequest,
        approvals: Sequence[ToolResult] = (),
    ) -> None:
        began = time.perf_counter()
        who = visitor(scope)
        refuse(request)
        turn, asked = await self._turn(scope, who, body, request)
        turn = replace(turn, input=tuple(approvals)) if approvals else turn
        run = self.gateway.run(turn, streaming=bool(request.stream))
        head = head_of(asked, run.id, lambda: run.answered_by, lambda: run.conversation_id, request.include or ())
        if request.background:
            await self.gateway.begin(run, who.turn())
            await (await self._begun(run, head, request, began))(scope, receive, send)
            return
        with who.turn():
            await self._reply(run, run, head, request, began)(scope, receive, send)

    async def _turn(self, scope: Scope, who: Visitor, body: bytes, request: ResponsesRequest) -> tuple[Turn, Asked]:
        pin, resends = self.front.pin(scope, request.metadata or {})
        resends = resends and not (request.conversation or request.previous_response_id)
        principal = who.principal_of(request.user)
        caller = Caller(principal, pin, self.front.signals(scope, body, resends=resends))
        turn_id, referenced = f"turn_{new_id()}", await self._referenced(principal, request)
        turn = decode(request, caller, turn_id, referenced)
        kept = stores(request) and not principal.stranger
        told = given(request, turn_id, referenced) if kept else []
        asked = Asked(now(), echo(request) | {"store": kept}, told)
        return (replace(turn, receipt=msgspec.structs.asdict(asked)) if kept else turn), asked

    async def _referenced(self, principal: Principal, request: ResponsesRequest) -> dict[str, Item | Part]:
        """The items which a request names by their ids, of those that are the caller's."""
        places = {item_id: place for item_id in references(request) if (place := place_in_turn(item_id))}
        turns = {turn for turn, _, _ in places.values()}
        if len(turns) > MAX_TURNS_NAMED:
            raise InvalidRequest(f"The input names items of more than {MAX_TURNS_NAMED} responses.", param="input")
        told = await self.receipts.told(principal, turns) if turns else ()
        by_place = {(each.turn_id, each.side, each.index): each.item for each in told}
        found = {item_id: by_place[place] for item_id, place in places.items() if place in by_place}
        asked = [turn for turn, side, _ in places.values() if side == "i"]
        given = [body for turn in dict.fromkeys(asked) for body in await self._given(principal, turn)]
        return found | {body["id"]: item for body in given if body["id"] in places and (item := item_of(body))}

    async def _given(self, principal: Principal, turn_id: str) -> list[dict[str, Any]]:
        """The input of a response, as it is shown; nothing of a turn that was asked for in another way."""
        try:
            return asked_of(await self.receipts.get(principal, turn_id)).input
        except TurnNotFound:
            return []

    def _reply(self, run: Run, heard: Speech, head: Head, request: ResponsesRequest, began: float) -> ASGIApp:
        """`heard`: the run, or whoever has come to hear it."""

        def headers() -> Headers:
            return answer_headers(run, began)

        if request.stream:
            encoder = EventEncoder(head, self.style)
            return StreamedReply(heard, encoder, headers, self.delivery, at_once=heard is not run)
        return PlainReply(heard, lambda reply: reply_body(head, self.style, reply), headers)

    async def _begun(self, run: Run, head: Head, request: ResponsesRequest, began: float) -> ASGIApp:
        """The answer to a request whose turn runs by itself."""
        if request.stream:
            return self._reply(run, self.gateway.hear(run.answered_by), head, request, began)
        receipt = await self.receipts.get(run.turn.principal, run.id)
        return JSONResponse(self.body(receipt), headers=text_headers(answer_headers(run, began)))

    # --- asked about later ---------------------------------------------------------------------------------------

    def body(self, receipt: Receipt, include: Sequence[str] = ()) -> dict[str, Any]:
        """A response as it stands."""
        head, style, reply = head_of_receipt(receipt, include), self.style, receipt.reply
        match receipt.state:
            case "queued":
                return response_body(head, style, "queued")
            case "running":
                return response_body(head, style, "in_progress")
            case "cancelled":
                return response_body(head, style, "cancelled", reply.parts)
            case "failed":
                return response_body(head, style, "failed", error=failure(receipt.code, receipt.trouble))
            case "completed":
                assert reply.end, "a completed turn has ended"
                done = int(receipt.ended)
                status = status_of(reply.end)
                return response_body(head, style, status, reply.parts, end=reply.end, completed_at=done)

    def replay(self, receipt: Receipt, after: int | None, include: Sequence[str]) -> ASGIApp:
        """A response as a stream, from its beginning or after an event."""
        head = head_of_receipt(receipt, include)
        if receipt.ended:
            head = replace(head, now=lambda: int(receipt.ended))
        encoder = EventEncoder(head, self.style, after=after)
        return StreamedReply(self.gateway.hear(receipt.answered_by), encoder, list, self.delivery, at_once=True)

    async def cancel(self, principal: Principal, turn_id: str) -> dict[str, Any]:
        """Raises TurnNotFound, InvalidRequest for a response which its client waits for."""
        receipt = await self.receipts.get(principal, turn_id)
        if not asked_of(receipt).echo.get("background"):
            raise InvalidRequest("Only responses created with 'background' can be cancelled.", param="response_id")
        if receipt.state in ("queued", "running"):
            await self.gateway.cancel(receipt.answered_by)
            receipt = await self.receipts.get(principal, turn_id)
        return self.body(receipt)


def asked_of(receipt: Receipt) -> Asked:
    """Raises TurnNotFound for a turn that was asked for by another protocol."""
    try:
        return msgspec.convert(receipt.body, Asked)
    except msgspec.ValidationError:
        raise TurnNotFound("There is no such response.") from None


def head_of(
    asked: Asked,
    turn_id: str,
    answered_by: Callable[[], str],
    conversation: Callable[[], str],
    include: Sequence[str],
) -> Head:
    return Head(
        id=response_id(turn_id),
        created_at=asked.created_at,
        echo=asked.echo,
        turn_id=answered_by,
        conversation=conversation,
        now=now,
        encrypted_content=wants_encrypted_content(include),
    )


def head_of_receipt(receipt: Receipt, include: Sequence[str] = ()) -> Head:
    asked = asked_of(receipt)
    return head_of(asked, receipt.turn_id, lambda: receipt.answered_by, lambda: receipt.conversation, include)


def now() -> int:
    return int(time.time())


def router(responses: Responses) -> APIRouter:
    """All but the creation of responses, which has a way of its own."""
    routes = APIRouter(tags=["Responses"])

    async def found(request: Request, response_id: str) -> Receipt:
        return await responses.receipts.get(visitor(request.scope).principal, asked_for(response_id))

    @routes.get("/responses/{response_id}", summary="A response as it stands, or as a stream")
    async def get(  # type: ignore[reportUnusedFunction]
        response_id: str,
        request: Request,
        include: Include = (),
        stream: bool = False,
        starting_after: Annotated[int | None, Query(ge=0)] = None,
    ) -> Response:
        receipt = await found(request, response_id)
        if stream:
            return Streamed(responses.replay(receipt, starting_after, include))
        return JSONResponse(responses.body(receipt, include))

    @routes.delete("/responses/{response_id}", summary="Forget a response; the agent's conversation keeps it")
    async def delete(response_id: str, request: Request) -> dict[str, Any]:  # type: ignore[reportUnusedFunction]
        await responses.receipts.delete(visitor(request.scope).principal, asked_for(response_id))
        return {"id": response_id, "object": "response", "deleted": True}

    @routes.post("/responses/{response_id}/cancel", summary="Cancel a response in the background")
    async def cancel(response_id: str, request: Request) -> dict[str, Any]:  # type: ignore[reportUnusedFunction]
        return await responses.cancel(visitor(request.scope).principal, asked_for(response_id))

    @routes.get("/responses/{response_id}/input_items", summary="What a response was asked with")
    async def input_items(  # type: ignore[reportUnusedFunction]
        response_id: str, request: Request, limit: Limit = 20, order: Order = "desc", after: str = ""
    ) -> dict[str, Any]:
        return page(asked_of(await found(request, response_id)).input, limit, order, after)

    return routes


def asked_for(response_id: str) -> str:
    """The turn of a response's id. Raises TurnNotFound."""
    try:
        return turn_of(response_id)
    except PreviousNotFound as error:
        raise TurnNotFound("There is no such response.") from error


class Streamed(Response):
    """An ASGI application, where the framework wants a response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
