"""Small servers on real sockets: a gateway as the commands see it, and a Letta server as the doctor does."""

import asyncio
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEY = "a-key-of-the-stub"


@contextmanager
def listening(app: web.Application) -> Generator[str, None, None]:
    """The app on a free port, in a thread. Yields its URL."""
    loop = asyncio.new_event_loop()
    url: list[str] = []

    async def start() -> web.AppRunner:
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        return runner

    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield url[0]
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def served(name: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 1_795_000_000,
        "owned_by": "letta",
        "name": name,
        "context_length": 128_000,
        "capabilities": {"client_tools": True},
        **more,
    }


@dataclass
class StubGateway:
    """Speaks the gateway's API. The message says what happens: `slow`, `cut`, `fail`, `inband`; others are echoed."""

    agents: list[dict[str, Any]] = field(default_factory=lambda: [served("Milo")])
    key: str = ""
    url: str = ""
    pins: list[str] = field(default_factory=list[str])
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    left: threading.Event = field(default_factory=threading.Event)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name}", self._model)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    @property
    def messages(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]

    def _refused(self, request: web.Request) -> web.Response | None:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return error(401, "This API key is not valid here.", "invalid_api_key")
        return None

    async def _models(self, request: web.Request) -> web.Response:
        return self._refused(request) or web.json_response({"object": "list", "data": self.agents})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        found = next((agent for agent in self.agents if agent["id"] == name), None)
        if refused := self._refused(request):
            return refused
        return web.json_response(found) if found else error(404, f"There is no agent {name!r}.", "model_not_found")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        body = await request.json()
        self.bodies.append(body)
        self.pins.append(request.headers.get("x-frontdesk-conversation", ""))
        message = body["messages"][-1]["content"]
        if message == "fail":
            return error(502, "The Letta server cannot be reached.", "backend_unavailable")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await self._answer(response, message)
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        return response

    async def _answer(self, response: web.StreamResponse, message: str) -> None:
        await send(response, {"role": "assistant", "content": ""})
        await send(response, {"reasoning_content": "Let me think."})
        if message == "slow":
            for number in range(1000):
                await send(response, {"content": f"word{number} "})
                await asyncio.sleep(0.05)
        if message == "inband":
            await response.write(frame({"error": {"message": "The agent's run failed.", "code": "agent_error"}}))
            return
        for piece in ("You said: ", f"**{message}**", "\n\nAnd that is ", "all."):
            await send(response, {"content": piece})
        if message != "cut":
            await send(response, {}, "stop")
            await response.write(b"data: [DONE]\n\n")


def frame(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


async def send(response: web.StreamResponse, delta: dict[str, Any], finish: str | None = None) -> None:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    kind = "chat.completion.chunk"
    await response.write(frame({"id": "c", "object": kind, "created": 1, "model": "Milo", "choices": [choice]}))


def error(status: int, message: str, code: str) -> web.Response:
    body = {"error": {"message": message, "type": "server_error", "param": None, "code": code}}
    return web.json_response(body, status=status)


def row(number: int, name: str, agent_type: str = "letta_v1_agent") -> dict[str, Any]:
    """An agent as Letta lists it."""
    return {
        "id": f"agent-00000000-0000-4000-8000-{number:012d}",
        "name": name,
        "agent_type": agent_type,
        "created_at": "2026-11-20T10:00:00+00:00",
        "llm_config": {"context_window": 128000, "handle": "openai-proxy/scripted"},
    }


@dataclass
class StubLetta:
    """What the doctor and `agents show` ask of a Letta server."""

    rows: list[dict[str, Any]] = field(default_factory=lambda: [row(1, "Milo")])
    password: str = ""
    conversations: bool = True
    redis: bool = True
    health: Any = field(default_factory=lambda: {"version": "0.16.7", "status": "ok"})
    models: list[str] = field(default_factory=lambda: ["openai-proxy/scripted"])
    embeddings: list[str] = field(default_factory=lambda: ["letta/letta-free"])
    summaries: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """The summaries of conversations, by agent."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/health/", self._health)
        app.router.add_get("/v1/agents/", self._agents)
        app.router.add_get("/v1/agents/count", self._count)
        app.router.add_get("/v1/agents/{id}", self._agent)
        app.router.add_get("/v1/blocks/{id}/agents", self._sharing)
        app.router.add_get("/v1/conversations/", self._conversations)
        app.router.add_post("/v1/conversations/{id}/stream", self._stream)
        app.router.add_get("/v1/models/", self._models)
        app.router.add_get("/v1/models/embedding", self._embeddings)
        return app

    def _check(self, request: web.Request) -> None:
        if self.password and request.headers.get("Authorization") != f"Bearer {self.password}":
            raise web.HTTPUnauthorized(text='{"detail":"Unauthorized"}', content_type="application/json")

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response(self.health)

    async def _agents(self, request: web.Request) -> web.Response:
        self._check(request)
        name, tags = request.query.get("name"), set(request.query.getall("tags", ()))
        hidden = "show_hidden_agents" in request.query
        rows = [row for row in self.rows if name in (None, row["name"]) and (hidden or not row.get("hidden"))]
        rows = [row for row in rows if not tags or tags & set(row.get("tags") or ())]
        return web.json_response([] if "after" in request.query else rows)

    async def _count(self, request: web.Request) -> web.Response:
        self._check(request)
        return web.json_response(len(self.rows))

    async def _agent(self, request: web.Request) -> web.Response:
        self._check(request)
        found = next((row for row in self.rows if row["id"] == request.match_info["id"]), None)
        if found is None:
            return web.json_response({"detail": "Agent with that ID not found"}, status=404)
        return web.json_response({"blocks": [], "tools": [], "tags": [], "tool_rules": []} | found)

    async def _sharing(self, request: web.Request) -> web.Response:
        block = request.match_info["id"]
        return web.json_response([row for row in self.rows if block in [each["id"] for each in row.get("blocks", ())]])

    async def _conversations(self, request: web.Request) -> web.Response:
        self._check(request)
        if not self.conversations:
            return web.json_response({"detail": "Not Found"}, status=404)
        return web.json_response(
            [{"summary": each} for each in self.summaries.get(request.query.get("agent_id", ""), ())]
        )

    async def _stream(self, request: web.Request) -> web.Response:
        detail = "No active runs found." if self.redis else "Background streaming requires Redis to be running."
        return web.json_response({"detail": detail}, status=400 if self.redis else 503)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response([{"handle": each} for each in self.models])

    async def _embeddings(self, request: web.Request) -> web.Response:
        return web.json_response([{"handle": each} for each in self.embeddings])
