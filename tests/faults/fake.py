"""A Letta server that does as it is told: what a real one does only on a bad day.

The last user message names the script of its turn: `#name#`. A script is an async generator of bytes; it may also cut
the connection or wait until it is let go.
"""

import asyncio
import json
import re
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.cli.servers import row

Script = Callable[["Visit"], AsyncGenerator[bytes, None]]
Answer = Callable[[web.Request], web.StreamResponse]


class Cut(Exception):
    """A script raises this to break the connection."""


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def ping() -> bytes:
    return event(message_type="ping", run_id="run-1")


def say(text: str) -> bytes:
    return event(message_type="assistant_message", id="message-1", content=text)


def stop(reason: str = "end_turn") -> bytes:
    return event(message_type="stop_reason", stop_reason=reason)


def usage() -> bytes:
    return event(message_type="usage_statistics", prompt_tokens=7, completion_tokens=3)


def failed(kind: str, detail: str = "", message: str = "") -> bytes:
    error = {"message_type": "error_message", "error_type": kind, "detail": detail, "message": message}
    return b"event: error\n" + event(**error, run_id="run-1")


DONE = b"data: [DONE]\n\n"


@dataclass
class Visit:
    """One turn at the fake."""

    conversation: str
    body: dict[str, Any]
    cancelled: asyncio.Event

    @property
    def texts(self) -> list[str]:
        return [message.get("content", "") for message in self.body["messages"]]


@dataclass
class FakeLetta:
    rows: list[dict[str, Any]] = field(default_factory=lambda: [row(1, "Milo"), row(2, "Otis")])
    password: str = ""
    url: str = ""
    scripts: dict[str, Script] = field(default_factory=dict[str, Script])
    answers: dict[str, Answer] = field(default_factory=dict[str, Answer])
    """Other answers: by `METHOD /path`, the longest beginning wins."""
    visits: list[Visit] = field(default_factory=list["Visit"])
    cancels: list[str] = field(default_factory=list[str])
    calls: list[str] = field(default_factory=list[str])
    open_streams: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    """What `wait` waits for."""
    _conversations: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    _running: dict[str, Visit] = field(default_factory=dict[str, "Visit"])

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._front])
        app.router.add_get("/v1/health/", self._health)
        app.router.add_get("/v1/agents/", self._agents)
        app.router.add_get("/v1/agents/{id}", self._agent)
        app.router.add_get("/v1/conversations/", self._find)
        app.router.add_post("/v1/conversations/", self._open)
        app.router.add_get("/v1/conversations/{id}", self._conversation)
        app.router.add_patch("/v1/conversations/{id}", self._conversation)
        app.router.add_get("/v1/conversations/{id}/messages", self._messages)
        app.router.add_post("/v1/conversations/{id}/cancel", self._cancel)
        app.router.add_post("/v1/conversations/{id}/messages", self._turn)
        return app

    @web.middleware
    async def _front(self, request: web.Request, handler: Any) -> web.StreamResponse:
        call = f"{request.method} {request.path}"
        self.calls.append(call if not request.query_string else f"{call}?{request.query_string}")
        if self.password and request.headers.get("Authorization") != f"Bearer {self.password}":
            return web.json_response({"detail": "Unauthorized"}, status=401)
        for beginning in sorted(self.answers, key=len, reverse=True):
            if call.startswith(beginning):
                return self.answers[beginning](request)
        return await handler(request)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.16.7", "status": "ok"})

    async def _messages(self, _: web.Request) -> web.Response:
        return web.json_response([])

    async def _agents(self, request: web.Request) -> web.Response:
        name = request.query.get("name")
        rows = [row for row in self.rows if name in (None, row["name"])]
        return web.json_response([] if "after" in request.query else rows)

    async def _agent(self, request: web.Request) -> web.Response:
        found = [row for row in self.rows if row["id"] == request.match_info["id"]]
        return web.json_response(found[0]) if found else not_found(f"Agent with ID {request.match_info['id']}")

    async def _find(self, request: web.Request) -> web.Response:
        wanted, agent = request.query["summary_search"], request.query["agent_id"]
        known = [one for one in self._conversations.values() if wanted in one["summary"] and one["agent_id"] == agent]
        return web.json_response(known[:1])

    async def _open(self, request: web.Request) -> web.Response:
        agent = request.query["agent_id"]
        if all(row["id"] != agent for row in self.rows):
            return not_found(f"Agent with ID {agent}")
        made = {"id": f"conv-{uuid.uuid4()}", "agent_id": agent, "summary": (await request.json())["summary"]}
        self._conversations[made["id"]] = made
        return web.json_response(made)

    async def _conversation(self, request: web.Request) -> web.Response:
        found = self._conversations.get(request.match_info["id"])
        if found and request.method == "PATCH":
            found |= await request.json()
        return web.json_response(found) if found else not_found("Conversation")

    async def _cancel(self, request: web.Request) -> web.Response:
        conversation = request.match_info["id"]
        self.cancels.append(conversation)
        if visit := self._running.get(conversation):
            visit.cancelled.set()
            return web.json_response({"run-1": "cancelled"})
        return web.json_response({"detail": "CONFLICT: No active runs to cancel"}, status=409)

    async def _turn(self, request: web.Request) -> web.StreamResponse:
        visit = Visit(request.match_info["id"], await request.json(), asyncio.Event())
        self.visits.append(visit)
        self._running[visit.conversation] = visit
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        self.open_streams += 1
        try:
            async for data in self._script(visit)(visit):
                if not response.prepared:
                    await response.prepare(request)
                if data:
                    await response.write(data)
        except Cut:
            if request.transport:
                request.transport.abort()
        finally:
            self.open_streams -= 1
            self._running.pop(visit.conversation, None)
        return response

    def _script(self, visit: Visit) -> Script:
        names = re.findall(r"#([\w.-]+)#", visit.texts[-1])
        return self.scripts.get(names[-1], echo) if names else echo

    async def wait(self) -> None:
        """Until the test opens the gate."""
        await asyncio.to_thread(self.gate.wait, 30)

    def texts(self, marker: str) -> list[list[str]]:
        """What each turn whose messages hold the marker was given."""
        return [visit.texts for visit in self.visits if any(marker in text for text in visit.texts)]


async def echo(visit: Visit) -> AsyncGenerator[bytes, None]:
    for data in (ping(), say("You said: "), say(visit.texts[-1]), stop(), usage(), DONE):
        yield data


def not_found(what: str) -> web.Response:
    return web.json_response({"detail": f"{what} not found"}, status=404)


@contextmanager
def listening(app: web.Application) -> Generator[str]:
    """The app on a free port, in a thread with a loop of its own. Yields its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)

    async def start() -> str:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def fake_letta(**fields: Any) -> Generator[FakeLetta]:
    fake = FakeLetta(**fields)
    with listening(fake.app()) as fake.url:
        try:
            yield fake
        finally:
            fake.gate.set()
