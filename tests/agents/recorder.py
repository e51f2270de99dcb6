"""A server that speaks like each provider of models, as far as one short answer goes, and keeps what it was sent."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

SAID = "Hello."
WHOLE: dict[str, Any] = {"id": "1", "created": 1, "model": "recorded"}
CHOICE = {
    "index": 0,
    "finish_reason": "stop",
    "native_finish_reason": "stop",
    "message": {"role": "assistant", "content": SAID},
}
CHAT = {
    **WHOLE,
    "object": "chat.completion",
    "provider": "recorded",
    "choices": [CHOICE],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
CHUNK = {
    **WHOLE,
    "object": "chat.completion.chunk",
    "choices": [{"index": 0, "finish_reason": "stop", "delta": {"role": "assistant", "content": SAID}}],
}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "recorded",
    "content": [{"type": "text", "text": SAID}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
MESSAGE_EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": SAID}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
]
GENERATED = {
    "candidates": [{"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": [{"text": SAID}]}}],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
}
CONVERSED = {
    "output": {"message": {"role": "assistant", "content": [{"text": SAID}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
    "metrics": {"latencyMs": 1},
}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "recorded",
    "status": "completed",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": SAID, "annotations": []}],
        }
    ],
    "usage": {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 2,
    },
}
ANSWERS: dict[str, Any] = {
    "/chat/completions": CHAT,
    "/responses": RESPONSE,
    "/v1/messages": MESSAGE,
    ":generateContent": GENERATED,
    "/converse": CONVERSED,
}


def stream(path: str) -> str:
    if not path.endswith("/v1/messages"):
        return f"data: {json.dumps(CHUNK)}\n\ndata: [DONE]\n\n"
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in MESSAGE_EVENTS)


@dataclass(frozen=True)
class Seen:
    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def text(self) -> str:
        """All of it, to look for something that must not be there."""
        return "\n".join([self.path, *map(str, self.headers.items()), json.dumps(self.body)])


@dataclass
class Recorder:
    url: str = ""
    seen: list[Seen] = field(default_factory=list[Seen])
    elsewhere: str = ""  # where to send those who come, instead of an answer
    status: int = 200

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    async def answer(self, http: web.Request) -> web.Response:
        body = await http.json()
        self.seen.append(Seen(http.path_qs, dict(http.headers), body))
        if self.elsewhere:
            raise web.HTTPTemporaryRedirect(f"{self.elsewhere}{http.path_qs}")
        if self.status != 200:
            return web.json_response({"error": {"message": "No."}}, status=self.status)
        if body.get("stream"):
            return web.Response(text=stream(http.path), content_type="text/event-stream")
        return web.json_response(next(answer for end, answer in ANSWERS.items() if http.path.endswith(end)))


@asynccontextmanager
async def recorder() -> AsyncGenerator[Recorder]:
    recording = Recorder()
    application = web.Application()
    application.router.add_post("/{path:.*}", recording.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        recording.url = f"http://{host}:{port}"
        yield recording
    finally:
        await runner.cleanup()
