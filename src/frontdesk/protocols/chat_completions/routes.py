"""POST /v1/chat/completions: decode, run, encode."""

import time
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from frontdesk.gateway import Gateway, Run
from frontdesk.protocols.chat_completions.decode import Caller, decode, parse
from frontdesk.protocols.chat_completions.encode import ChunkEncoder, Head, Style, completion
from frontdesk.protocols.chat_completions.schema import ChatCompletionRequest
from frontdesk.protocols.front import Front, model, visitor
from frontdesk.protocols.replies import Delivery, Headers, PlainReply, StreamedReply, answer_headers, new_id
from frontdesk.stream import Reply


@dataclass(frozen=True, slots=True)
class ChatCompletions:
    """The endpoint, handed what it needs. https://platform.openai.com/docs/api-reference/chat/create"""

    gateway: Gateway
    front: Front
    delivery: Delivery
    style: Style

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        who = visitor(scope)
        body = await self.front.body(scope, receive)
        request = parse(body, model(scope))
        pin, resends = self.front.pin(scope, request.metadata or {})
        caller = Caller(who.principal_of(request.user), pin, self.front.signals(scope, body, resends=resends))
        turn = decode(request, caller, f"turn_{new_id()}")
        run = self.gateway.run(turn, streaming=bool(request.stream))
        with who.turn():
            await self._reply(request, run, began)(scope, receive, send)

    def _reply(self, request: ChatCompletionRequest, run: Run, began: float) -> StreamedReply | PlainReply:
        head = Head(f"chatcmpl-{new_id()}", int(time.time()), request.model)

        def headers() -> Headers:
            return answer_headers(run, began)

        if request.stream:
            wants_usage = bool(request.stream_options and request.stream_options.include_usage)
            return StreamedReply(run, ChunkEncoder(head, self.style, include_usage=wants_usage), headers, self.delivery)

        def body(reply: Reply) -> dict[str, Any]:
            return completion(head, self.style, reply)

        return PlainReply(run, body, headers)
