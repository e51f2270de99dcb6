"""A provider that answers as no provider should. What it says is chosen by the first word of the last user message; to
tool results it says them again, each with the id of its call."""

import asyncio
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

STREAM = "text/event-stream"
DONE = "data: [DONE]\n\n"
SECRET = "sk-of-the-provider"


def event(delta: Any, reason: str | None = None, **more: Any) -> str:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
    return (
        f"data: {json.dumps({**chunk, 'choices': [{'index': 0, 'delta': delta, 'finish_reason': reason}], **more})}\n\n"
    )


def called(index: int | None, call_id: Any, name: str, **arguments: str) -> dict[str, Any]:
    said = {"index": index, "id": call_id, "function": {"name": name, "arguments": json.dumps(arguments)}}
    return {name: value for name, value in said.items() if value is not None}


def calls(*made: dict[str, Any]) -> str:
    return "".join(event({"tool_calls": [each]}) for each in made) + event({}, "tool_calls") + DONE


def weather(index: int | None, call_id: Any, city: str) -> dict[str, Any]:
    return called(index, call_id, "get_weather", city=city)


HALF = event({"role": "assistant", "content": "Half"})

JUNK: dict[str, tuple[int, str, str | bytes]] = {
    "html": (200, "text/html", f"<html>Bad gateway {SECRET}</html>"),
    "html-stream": (200, STREAM, f"<html>Bad gateway {SECRET}</html>"),
    "nothing": (200, STREAM, ""),
    "no-content": (204, "text/plain", ""),
    "done": (200, STREAM, DONE),
    "half-json": (200, "application/json", '{"id": "x", "choices": [{"mess'),
    "error-as-200": (200, "application/json", json.dumps({"error": {"message": SECRET}})),
    "error-event": (200, STREAM, f"data: {json.dumps({'error': {'message': SECRET, 'code': 500}})}\n\n"),
    "half-event": (200, STREAM, 'data: {"id": "x", "cho\n\n'),
    "bytes": (200, STREAM, b"data: \xff\xfe\n\n"),
    "null": (200, STREAM, f"data: null\n\n{DONE}"),
    "list": (200, STREAM, f"data: []\n\n{DONE}"),
    "text": (200, STREAM, f'data: "hey"\n\n{DONE}'),
    "choices": (200, STREAM, f'data: {{"id": "x", "choices": "x"}}\n\n{DONE}'),
    "no-choices": (200, STREAM, f'data: {{"id": "x", "choices": null}}\n\n{DONE}'),
    "redirect": (302, "text/html", "moved"),
}
"""What is no answer: status, content type, body."""

CUT = {
    "cut": HALF,
    "cut-event": HALF + 'data: {"id": "x", "cho',
    "cut-call": event(
        {"tool_calls": [{**weather(0, "c1", "Oslo"), "function": {"name": "get_weather", "arguments": "{"}}]}
    ),
    "cut-own-call": event({"tool_calls": [called(0, "c1", "note", text="cut")]}),
}
"""What begins as one, and merely ends."""

TWICE = {
    "same-id": calls(weather(0, "d1", "Oslo"), weather(1, "d1", "Rome")),
    "same-index": calls(weather(0, "d1", "Oslo"), weather(0, "d2", "Rome")),
    "no-id": calls(weather(0, None, "Oslo"), weather(1, None, "Rome")),
    "empty-id": calls(weather(0, "", "Oslo"), weather(1, "", "Rome")),
    "number": calls(weather(0, 7, "Oslo"), weather(1, 7, "Rome")),
    "name-again": calls(
        weather(0, "d1", "Oslo"),
        weather(1, "d2", "Rome"),
        {"index": 1, "id": "d2", "function": {"name": "get_weather", "arguments": ""}},
    ),
    "other-id-without-a-name": calls(
        weather(0, "d1", "Oslo"),
        weather(1, "d2", "Rome"),
        {"index": 1, "id": "d3", "function": {"arguments": " "}},
    ),
}
"""Two calls of the caller's tool, for Oslo and for Rome."""


def owns(marker: str) -> dict[str, str]:
    """Calls of the agent's own tool, alone, and beside the caller's."""
    first, second = (called(index, "d1", "note", text=f"{marker} {index}") for index in (0, 1))
    return {"own-twice": calls(first, second), "mixed": calls(first, weather(1, "d1", "Rome"))}


async def answer(request: web.Request) -> web.Response:
    messages: list[dict[str, Any]] = (await request.json())["messages"]
    last = max(place for place, each in enumerate(messages) if each["role"] == "user")
    results = [[each["tool_call_id"], each["content"]] for each in messages[last:] if each["role"] == "tool"]
    what, marker = str(messages[last]["content"]).split()
    if results:
        said = event({"role": "assistant", "content": json.dumps(results)}) + event({}, "stop") + DONE
        return web.Response(body=said.encode(), headers={"content-type": STREAM})
    told = {name: (200, STREAM, body) for name, body in (CUT | TWICE | owns(marker)).items()}
    status, kind, body = (JUNK | told)[what]
    headers = {"content-type": kind, "location": "http://127.0.0.1:9/"}
    return web.Response(status=status, body=body.encode() if isinstance(body, str) else body, headers=headers)


@contextmanager
def careless_provider() -> Generator[str]:
    """Yields its base URL."""
    loop = asyncio.new_event_loop()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(application)
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
