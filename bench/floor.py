"""The floor: the least a gateway can do. OpenAI chat requests in, Letta's token stream out as chat chunks.

uvloop, httptools and orjson on bare protocols, the same bytes per chunk as the product sends; no keys, no limits, no
pins, no errors beyond a status, no back-pressure. The product's cost is divided by it; it is no product.
"""

import argparse
import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import httptools
import msgspec
import orjson

from bench.http1 import CHUNKED_END, SSE_HEAD, Connection, chunk, json_request, json_response, serve
from bench.processes import fetch

DONE = b"data: [DONE]\n\n"
FIELDS = {"reasoning_message": b'"reasoning_content":', "assistant_message": b'"content":'}
FINISH = {"end_turn": b"stop", "requires_approval": b"tool_calls"}


class Message(msgspec.Struct):
    """A message of the client's transcript."""

    role: str
    content: str


class ChatRequest(msgspec.Struct):
    """What the floor reads of a chat request."""

    model: str
    messages: list[Message]
    stream: bool = False


class Conversation(msgspec.Struct):
    """What the floor reads of a conversation just made."""

    id: str


decode_request = msgspec.json.Decoder(ChatRequest).decode
decode_conversation = msgspec.json.Decoder(Conversation).decode
decode_event: Callable[[bytes], dict[str, Any]] = orjson.loads
encode: Callable[[Any], bytes] = orjson.dumps


class Letta:
    """Where upstream is, whom it serves, and its idle connections."""

    host = ""
    port = 0
    agents: dict[str, str]
    idle: list["Upstream"]

    def __init__(self) -> None:
        self.agents = {}
        self.idle = []

    def find(self, url: str) -> None:
        """Read the list of agents once."""
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)
        listed = msgspec.json.decode(fetch(f"{url}/v1/agents/?limit=1000"), type=list[dict[str, Any]])
        self.agents = {agent["name"]: agent["id"] for agent in listed}


LETTA = Letta()
NUMBERS = itertools.count(1)


class Streamed:
    """A turn whose events go out as chunks as they come."""

    def __init__(self, transport: asyncio.Transport, model: str) -> None:
        self.transport = transport
        created = int(time.time())
        head = f'data: {{"id":"chatcmpl-{next(NUMBERS):032x}","object":"chat.completion.chunk","created":{created},'
        choice = f'"model":{encode(model).decode()},"choices":[{{"index":0,"delta":{{'
        self.head = (head + choice).encode()
        self.role = self.chunk(b'"role":"assistant","content":""')
        self.begun = False

    def chunk(self, delta: bytes, finish: bytes = b"null") -> bytes:
        return self.head + delta + b'},"logprobs":null,"finish_reason":' + finish + b"}]}\n\n"

    def read(self, events: list[bytes]) -> None:
        """Everything that one upstream read brought, in one write."""
        if out := b"".join(self.chunks(events)):
            self.transport.write(chunk(out) if self.begun else SSE_HEAD + chunk(self.role + out))
            self.begun = True

    def chunks(self, events: list[bytes]) -> Iterable[bytes]:
        return [made for event in events if (made := self.translate(event))]

    def translate(self, event: bytes) -> bytes | None:
        if not event.startswith(b"data: {"):
            return DONE if event == b"data: [DONE]" else None
        message = decode_event(event[6:])
        match message["message_type"]:
            case "reasoning_message":
                return self.chunk(b'"reasoning_content":' + encode(message["reasoning"]))
            case "assistant_message":
                return self.chunk(b'"content":' + encode(message["content"]))
            case "stop_reason":
                return self.chunk(b"", b'"' + FINISH[message["stop_reason"]] + b'"')
            case _:
                return None

    def end(self) -> None:
        self.transport.write(CHUNKED_END)

    def fail(self, status: int) -> None:
        self.transport.write(json_response(b'{"error":{"message":"Letta failed."}}', status))


class Merged(Streamed):
    """The same, with tokens of one kind that came in one read in one chunk."""

    def chunks(self, events: list[bytes]) -> Iterable[bytes]:
        field, pieces = b"", list[str]()
        for event in events:
            message = decode_event(event[6:]) if event.startswith(b"data: {") else None
            found = FIELDS.get(message["message_type"], b"") if message else b""
            if pieces and found != field:
                yield self.chunk(field + encode("".join(pieces)))
                pieces.clear()
            field = found
            if message and found:
                pieces.append(message.get("reasoning") or message["content"])
            elif other := self.translate(event):
                yield other
        if pieces:
            yield self.chunk(field + encode("".join(pieces)))


class Plain(Streamed):
    """A turn whose events are collected into one reply."""

    def __init__(self, transport: asyncio.Transport, model: str) -> None:
        super().__init__(transport, model)
        self.model = model
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.finish = "stop"
        self.usage = (0, 0)

    def read(self, events: list[bytes]) -> None:
        for event in events:
            if not event.startswith(b"data: {"):
                continue
            message = decode_event(event[6:])
            match message["message_type"]:
                case "reasoning_message":
                    self.reasoning.append(message["reasoning"])
                case "assistant_message":
                    self.text.append(message["content"])
                case "stop_reason":
                    self.finish = FINISH[message["stop_reason"]].decode()
                case "usage_statistics":
                    self.usage = message["prompt_tokens"], message["completion_tokens"]
                case _:
                    pass

    def end(self) -> None:
        message = {"role": "assistant", "content": "".join(self.text), "refusal": None}
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        prompt, completion = self.usage
        reply: dict[str, Any] = {
            "id": f"chatcmpl-{next(NUMBERS):032x}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
        }
        self.transport.write(json_response(encode(reply)))


class Opening:
    """What comes before a turn: its conversation is made. The gateway has to do so too."""

    def __init__(self, then: Streamed, sent: bytes) -> None:
        self.then = then
        self.sent = sent
        self.transport = then.transport

    def read(self, events: list[bytes]) -> None:
        pass

    def fail(self, status: int) -> None:
        self.then.fail(status)


class Upstream(asyncio.Protocol):
    """One connection to Letta; runs one turn at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.turn: Streamed | Opening | None = None
        self.parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.arrived: list[bytes] = []
        self.rest = b""
        self.status = 200
        self.complete = False

    def run(self, request: bytes, turn: Streamed | Opening) -> None:
        self.turn = turn
        self.complete = False
        self.rest = b""
        self.transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.parser = None
        if self in LETTA.idle:
            LETTA.idle.remove(self)
        if self.turn is not None:
            self.turn.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.parser is None:
            return
        self.parser.feed_data(data)
        if self.turn is None:
            return
        if self.arrived and self.status == 200:
            *events, self.rest = (self.rest + b"".join(self.arrived)).split(b"\n\n")
            self.turn.read(events)
        self.arrived.clear()
        if self.complete:
            self.finish(self.turn)

    def finish(self, turn: Streamed | Opening) -> None:
        if self.status != 200:
            turn.fail(502)
        elif isinstance(turn, Opening):
            made = decode_conversation(self.rest).id.encode()
            self.run(json_request(b"POST", b"/v1/conversations/" + made + b"/messages", turn.sent), turn.then)
            return
        else:
            turn.end()
        self.turn = None
        LETTA.idle.append(self)

    def on_headers_complete(self) -> None:
        if self.parser is not None:
            self.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.arrived.append(body)

    def on_message_complete(self) -> None:
        self.complete = True


class Door(Connection):
    """A client's connection."""

    streamed: type[Streamed] = Streamed
    upstream: Upstream | None = None
    task: asyncio.Task[None] | None = None

    def answer(self, method: bytes, target: bytes, body: bytes) -> None:
        if target != b"/v1/chat/completions":
            self.transport.write(json_response(b"{}", 404))
            return
        request = decode_request(body)
        if (agent := LETTA.agents.get(request.model)) is None:
            self.transport.write(json_response(b'{"error":{"message":"No such model."}}', 404))
            return
        last = request.messages[-1]
        sent = encode({"messages": [{"role": "user", "content": last.content}], "stream_tokens": True})
        upstream_request = json_request(b"POST", f"/v1/conversations/?agent_id={agent}".encode(), b"{}")
        turn = Opening((self.streamed if request.stream else Plain)(self.transport, request.model), sent)
        if LETTA.idle:
            self.upstream = LETTA.idle.pop()
            self.upstream.run(upstream_request, turn)
        else:
            self.task = asyncio.get_running_loop().create_task(self.connect(upstream_request, turn))

    async def connect(self, request: bytes, turn: Opening) -> None:
        loop = asyncio.get_running_loop()
        _, self.upstream = await loop.create_connection(Upstream, LETTA.host, LETTA.port)
        self.upstream.run(request, turn)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        upstream = self.upstream
        if upstream is not None and upstream.turn is not None and upstream.turn.transport is self.transport:
            upstream.transport.abort()


def main() -> None:
    """Serve until the end."""
    parser = argparse.ArgumentParser(prog="python -m bench.floor", description="The least translator there can be.")
    parser.add_argument("--letta", required=True, help="where the fake Letta is: http://127.0.0.1:<port>")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; printed as PORT <n>")
    parser.add_argument("--merge", action="store_true", help="one chunk for the tokens that came in one read")
    options = parser.parse_args()
    Door.streamed = Merged if options.merge else Streamed
    LETTA.find(options.letta)
    serve(Door, options.port)


if __name__ == "__main__":
    main()
