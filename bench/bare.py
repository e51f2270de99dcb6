"""The bare server: the same Pydantic AI run as the gateway's, as OpenAI's chunks from a plain ASGI application.

No keys, no limits, no conversations, no errors: what is asked is run, and each piece of text is sent as it comes.
"""

import argparse
import secrets
import time
from typing import Any

import msgspec
import uvicorn
from pydantic_ai import Agent
from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

from bench.processes import free_port
from bench.talker import model

AGENT = Agent(model, instructions="You talk.")
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


class Message(msgspec.Struct):
    role: str
    content: str


class Request(msgspec.Struct):
    model: str
    messages: list[Message]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/health/ready":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})
        return
    request = msgspec.json.decode(await body_of(receive), type=Request)
    await answer(request, send)


async def body_of(receive: Any) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def answer(request: Request, send: Any) -> None:
    head = {"id": f"chatcmpl-{secrets.token_hex(16)}", "created": int(time.time()), "model": request.model}

    async def chunk(delta: dict[str, str], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        data = msgspec.json.encode({**head, "object": "chat.completion.chunk", "choices": [choice]})
        await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})

    await send(HEAD)
    await chunk({"role": "assistant", "content": ""})
    async with AGENT.iter(request.messages[-1].content) as run:
        async for node in run:
            if Agent.is_model_request_node(node):
                async with node.stream(run.ctx) as stream:
                    async for event in stream:
                        match event:
                            case PartDeltaEvent(delta=TextPartDelta(content_delta=text)) if text:
                                await chunk({"content": text})
                            case PartStartEvent(part=TextPart(content=text)) if text:
                                await chunk({"content": text})
                            case _:
                                pass
    await chunk({}, "stop")
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    port = parser.parse_args().port or free_port()
    uvicorn.run(app, port=port, log_level="error", access_log=False, loop="uvloop", http="httptools")


if __name__ == "__main__":
    main()
