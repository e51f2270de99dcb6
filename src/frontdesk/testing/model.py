"""A scripted language model: OpenAI's Chat Completions protocol on a real socket, and no model behind it.

Put it behind a real Letta server (or anything else that speaks to OpenAI), and the one random part of your set-up
becomes deterministic. The script is in the conversation itself, so tests which run at the same time share nothing:

    with ScriptedModel() as model:
        client = OpenAI(base_url=model.base_url, api_key="any")
        client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "@say Hello!"}])
        model.requests[-1].messages

From a shell: `python -m frontdesk.testing --port 9001`. Letta lists the model as `openai-proxy/scripted`.
What it says is decided by scripts: see `script.py`.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import TracebackType
from typing import Self, TypeVar, cast

from aiohttp import web

from frontdesk.testing.play import Document, Failures, Outcome, Performance, body_of, error_json
from frontdesk.testing.script import Json, functions, text_of

T = TypeVar("T")

# --- remembering requests ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Request:
    """One call of the model, as it came in, and what has become of it so far.

    `outcome` is `playing`, then `finished`, `failed` (an error was sent), `broken` (the model closed the connection),
    or `gone` (the client did).
    """

    number: int
    body: Json
    headers: Mapping[str, str] = field(repr=False)  # names in lower case
    outcome: Outcome = "playing"

    @property
    def messages(self) -> list[Json]:
        return cast("list[Json]", self.body["messages"])

    @property
    def tools(self) -> list[Json]:
        return cast("list[Json]", self.body.get("tools") or [])

    @property
    def tool_names(self) -> list[str]:
        return list(functions(self.body))

    @property
    def texts(self) -> list[str]:
        """The text of each message."""
        return [text_of(message.get("content")) for message in self.messages]

    @cached_property
    def json_text(self) -> str:
        """The body as JSON text, with characters as they are."""
        return json.dumps(self.body, ensure_ascii=False)

    def has(self, marker: str) -> bool:
        """Does the marker stand anywhere in this request?"""
        return marker in self.json_text or json.dumps(marker, ensure_ascii=False)[1:-1] in self.json_text


class Ledger:
    """The latest requests, oldest first; safe to read from any thread."""

    def __init__(self, max_requests: int) -> None:
        self._max_requests = max_requests
        self._requests: dict[int, Request] = {}
        self._last = 0
        self._changed = threading.Condition()

    def add(self, body: Json, headers: Mapping[str, str]) -> int:
        with self._changed:
            self._last += 1
            self._requests[self._last] = Request(self._last, body, headers)
            if len(self._requests) > self._max_requests:
                del self._requests[next(iter(self._requests))]
            self._changed.notify_all()
            return self._last

    def close(self, number: int, outcome: Outcome) -> None:
        with self._changed:
            if number in self._requests:
                self._requests[number] = replace(self._requests[number], outcome=outcome)
                self._changed.notify_all()

    def all(self) -> list[Request]:
        with self._changed:
            return list(self._requests.values())

    def clear(self) -> None:
        with self._changed:
            self._requests.clear()

    def wait_for(self, predicate: Callable[[list[Request]], T], timeout: float) -> T:
        with self._changed:
            value = self._changed.wait_for(lambda: predicate(list(self._requests.values())), timeout)
            if not value:
                seen = [f"{request.number}: {request.outcome}" for request in self._requests.values()][-10:]
                raise TimeoutError(f"not within {timeout} s; the latest requests are {', '.join(seen) or 'none'}")
            return value


# --- serving -----------------------------------------------------------------------------------------------------


class Stagehand:
    """The web application: takes requests, plays their scripts."""

    def __init__(self, ledger: Ledger, models: Sequence[str], pace_seconds: float) -> None:
        self.ledger = ledger
        self.failures: Failures = Failures()
        self._models = models
        self._pace_seconds = pace_seconds

    def application(self) -> web.Application:
        application = web.Application(client_max_size=256 * 1024 * 1024)
        application.router.add_get("/v1/models", self.models)
        application.router.add_post("/v1/chat/completions", self.complete)
        application.router.add_get("/_requests", self.requests)
        application.router.add_delete("/_requests", self.forget)
        application.router.add_route("*", "/{path:.*}", self.nothing)
        return application

    async def models(self, _http: web.Request) -> web.Response:
        common = {"object": "model", "created": 1_700_000_000, "owned_by": "frontdesk"}
        return web.json_response({"object": "list", "data": [{"id": name, **common} for name in self._models]})

    async def requests(self, http: web.Request) -> web.Response:
        """The requests so far; `?marker=` for those which hold it."""
        marker = http.query.get("marker", "")
        seen = [request for request in self.ledger.all() if request.has(marker)]
        return web.json_response({"data": [_recorded(request) for request in seen]})

    async def forget(self, _http: web.Request) -> web.Response:
        self.ledger.clear()
        self.failures.clear()
        return web.Response(status=204)

    async def nothing(self, http: web.Request) -> web.Response:
        return web.json_response(error_json(f"Invalid URL ({http.method} {http.path})", code="unknown_url"), status=404)

    async def complete(self, http: web.Request) -> web.StreamResponse:
        body = body_of(await http.read())
        if isinstance(body, str):
            return web.json_response(error_json(body), status=400)
        number = self.ledger.add(body, {name.lower(): value for name, value in http.headers.items()})
        performance = Performance(body, self._pace_seconds, self.failures)
        outcome: Outcome = "failed"
        try:
            response = await carried(performance, http)
            outcome = performance.outcome
        except (asyncio.CancelledError, ConnectionError):
            outcome = "gone"
            raise
        finally:
            self.ledger.close(number, outcome)
        return response


async def carried(performance: Performance, http: web.Request) -> web.StreamResponse:
    """The answer, once the client has it."""
    response: web.StreamResponse | None = None
    async with contextlib.aclosing(performance.pieces()) as pieces:
        async for piece in pieces:
            match piece:
                case Document(body, status, headers):
                    response = web.Response(
                        body=body, status=status, headers=headers, content_type="application/json", charset="utf-8"
                    )
                case bytes():
                    response = response or await opened(http)
                    await response.write(piece)
                    await asyncio.sleep(0)  # a fast writer never waits, and would keep other streams waiting
    if performance.outcome == "broken" and http.transport:
        http.transport.close()
    return response or web.Response()


async def opened(http: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(http)
    return response


def _recorded(request: Request) -> Json:
    return {
        "number": request.number,
        "outcome": request.outcome,
        "headers": dict(request.headers),
        "body": request.body,
    }


class ScriptedModel:
    """A scripted model on a socket of its own, in a thread of its own. Use it as a context manager.

    `port` 0 takes a free one. `pace_seconds` is the time between tokens unless a script sets its own; without a pace
    tokens leave in bursts, as fast as the socket takes them. Names beginning with o1, o3 or gpt-5 make Letta use the
    Responses API, which is not served here.
    """

    def __init__(
        self,
        port: int = 0,
        pace_seconds: float = 0.0,
        *,
        models: Sequence[str] = ("scripted",),
        host: str = "127.0.0.1",
        max_requests: int = 10_000,
    ) -> None:
        self.port = port
        self.host = host
        self._ledger = Ledger(max_requests)
        self._stagehand = Stagehand(self._ledger, models, pace_seconds)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    @property
    def requests(self) -> list[Request]:
        """The requests so far, oldest first (at most `max_requests`)."""
        return self._ledger.all()

    def requests_with(self, marker: str) -> list[Request]:
        """The requests in which the marker stands, anywhere: give each test its own."""
        return [request for request in self.requests if request.has(marker)]

    def wait_for(self, predicate: Callable[[list[Request]], T], timeout: float = 10.0) -> T:
        """Block until the predicate holds for the requests so far, and return what it returned.

        In async code: `await asyncio.to_thread(model.wait_for, predicate)`. Raises TimeoutError.
        """
        return self._ledger.wait_for(predicate, timeout)

    def clear(self) -> None:
        """Forget the requests so far, and how often `@fail-times` failed."""
        self._ledger.clear()
        self._stagehand.failures.clear()

    def start(self) -> None:
        """Serve. Raises OSError if the port is taken."""
        started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="scripted-model", daemon=True)
        self._thread.start()
        self.port = started.result()

    def stop(self) -> None:
        """Close every connection and the port."""
        if self._loop and self._closing:
            self._loop.call_soon_threadsafe(self._closing.set)
        if self._thread:
            self._thread.join()
        self._thread = self._loop = self._closing = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, started: "Future[int]") -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: "Future[int]") -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(
            self._stagehand.application(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port, backlog=4096).start()
            started.set_result(runner.addresses[0][1])
            await self._closing.wait()
        finally:
            await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m frontdesk.testing", description="A scripted language model.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001, help="0 takes a free one")
    parser.add_argument("--pace", type=float, default=0.0, metavar="SECONDS", help="between tokens")
    parser.add_argument("--model", action="append", metavar="ID", help="a name to serve; may be given several times")
    options = parser.parse_args(arguments)
    with (
        ScriptedModel(options.port, options.pace, models=options.model or ("scripted",), host=options.host) as model,
        contextlib.suppress(KeyboardInterrupt),
    ):
        sys.stdout.write(f"The scripted model listens on {model.base_url}\n")
        sys.stdout.flush()
        threading.Event().wait()
