"""Sending a turn's answer: as server-sent events, or folded into one body. Shared by every protocol.

A stream is committed (status 200, first chunk) at the agent's first event, or when `commit_wait_seconds` have passed;
an error before that is a status, after it a frame. From then on silence is bounded. What one read from upstream brought
goes out in one `send`.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import structlog
from starlette.types import Receive, Scope, Send

from frontdesk.errors import GatewayError, ShuttingDown
from frontdesk.gateway import Run
from frontdesk.stream import Collector, Reply
from frontdesk.turn import Batch

log = structlog.get_logger(__name__)

Headers = list[tuple[bytes, bytes]]

ABORT = "frontdesk.abort"
"""Our server's extension to ASGI: cuts the connection, also where the client does not take what it was sent."""

SSE_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Encoder(Protocol):
    """A protocol's own bytes for each moment of a stream."""

    def begin(self) -> bytes: ...
    def batch(self, events: Batch) -> bytes: ...
    def keepalive(self) -> bytes: ...
    def error(self, error: GatewayError) -> bytes: ...
    def end(self) -> bytes: ...


class Speech(Protocol):
    """A turn to be heard. `leave` tells it that its client went away; `stopped`, whether it was cut short for that."""

    @property
    def id(self) -> str: ...
    @property
    def stopped(self) -> bool: ...
    def batches(self) -> AsyncGenerator[Batch, None]: ...
    def leave(self) -> None: ...


class Heartbeat:
    """Looks after the silence of all streams with one task."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._streams: set[StreamedReply] = set()
        self._beats: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def watch(self, stream: "StreamedReply") -> None:
        self._streams.add(stream)
        if self._task is None:
            self._task = asyncio.create_task(self._beat())

    def forget(self, stream: "StreamedReply") -> None:
        self._streams.discard(stream)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._seconds / 5))
            due = time.monotonic() - self._seconds
            for stream in [stream for stream in self._streams if stream.sent < due]:
                beat = asyncio.create_task(stream.keep_alive())  # one client that does not read must not hold up others
                self._beats.add(beat)
                beat.add_done_callback(self._beats.discard)

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What every reply of this server has in common."""

    commit_wait_seconds: float
    heartbeat: Heartbeat
    stalled_seconds: float  # a client that takes nothing for so long is as good as gone
    count_error: Callable[[str], object]  # told of the code of each error that is sent within a stream


async def pump(run: Speech, receive: Receive, hear: Callable[[Batch], Awaitable[None]]) -> bool:
    """Read a turn to its end, also when the client leaves, within the grace. False if it left."""
    left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        run.leave()

    watcher = asyncio.create_task(watch())
    try:
        async with aclosing(run.batches()) as batches:
            async for batch in batches:
                if not left:
                    await hear(batch)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not run.stopped or task is None:
            raise
        task.uncancel()
    finally:
        watcher.cancel()
    return not left and not run.stopped


class StreamedReply:
    """An ASGI application that sends one turn as server-sent events."""

    def __init__(
        self,
        run: Speech,
        encoder: Encoder,
        headers: Callable[[], Headers],
        delivery: Delivery,
        *,
        at_once: bool = False,
    ) -> None:
        """`at_once`: that there is such a turn is known, and how it goes is for the stream to tell."""
        self._run = run
        self._encoder = encoder
        self._headers = headers
        self._delivery = delivery
        self._at_once = at_once
        self._committed = False
        self._commit_task: asyncio.Task[None] | None = None
        self._writing = 0
        self._ended = False
        self.sent = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        self._abort = scope.get("extensions", {}).get(ABORT, {}).get("abort", lambda: None)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._delivery.commit_wait_seconds, self._commit_late)
        try:
            if self._at_once:
                await self._write(b"")
            stayed = await pump(self._run, receive, self._hear)
            if stayed:
                await self._write(self._encoder.end(), more=False)
        except GatewayError as error:
            if not self._committed:
                raise
            log.warning("turn failed in mid-stream", turn=self._run.id, code=error.public_code)
            await self._fail(error)
        except asyncio.CancelledError:  # by the server, which ends: a client that sees no reason takes this for all
            if not self._committed:
                raise
            await self._fail(ShuttingDown("The gateway is shutting down."))
        except Exception:
            if not self._committed:
                raise
            log.exception("turn failed in mid-stream", turn=self._run.id)
            await self._fail(GatewayError("The gateway failed."))
        finally:
            self._ended = True
            timer.cancel()
            self._delivery.heartbeat.forget(self)

    async def _fail(self, error: GatewayError) -> None:
        self._delivery.count_error(error.public_code)
        await self._write(self._encoder.error(error), more=False)

    async def _hear(self, batch: Batch) -> None:
        if batch:
            await self._write(self._encoder.batch(batch))

    def _commit_late(self) -> None:
        """The agent is slow to begin: say that we are here."""
        if not self._committed:
            self._commit_task = asyncio.ensure_future(self._write(b""))

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        if self._ended:  # a keep-alive, or the late commit, that was about to be sent when the turn ended
            return
        self._ended = not more
        self._writing += 1
        try:
            if not self._committed:
                self._committed = True
                headers = SSE_HEADERS + self._headers()
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
                data = self._encoder.begin() + data
                self._delivery.heartbeat.watch(self)
            self.sent = time.monotonic()
            if data or not more:
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
        finally:
            self._writing -= 1

    async def keep_alive(self) -> None:
        if self._writing:  # the client does not read what it was sent before
            if time.monotonic() - self.sent > self._delivery.stalled_seconds:
                log.warning("client reads no more", turn=self._run.id)
                self._abort()  # which is noticed as a client that has left
            return
        if noop := self._encoder.keepalive():
            with suppress(OSError):
                await self._write(noop)


class PlainReply:
    """An ASGI application that sends one turn as one JSON body: the fold of the same events."""

    def __init__(self, run: Speech, body: Callable[[Reply], Any], headers: Callable[[], Headers]) -> None:
        self._run = run
        self._body = body
        self._headers = headers
        self._collector = Collector()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await pump(self._run, receive, self._hear):
            return
        data = msgspec.json.encode(self._body(self._collector.reply()))
        await send_json(send, 200, data, self._headers())

    async def _hear(self, batch: Batch) -> None:
        self._collector.add(batch)


async def send_json(send: Send, status: int, data: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    length = str(len(data)).encode()
    head: Headers = [(b"content-type", b"application/json"), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": data})


def new_id() -> str:
    """Sortable by time, and not to be guessed."""
    return f"{time.time_ns() // 1_000_000:011x}{secrets.token_hex(8)}"


def answer_headers(run: Run, began: float) -> Headers:
    """What an answer says of itself; the conversation is known once the turn has been placed."""
    turn = run.turn
    headers = {
        "x-frontdesk-turn": turn.id,
        "openai-processing-ms": str(round((time.perf_counter() - began) * 1000)),
        "openai-version": "2020-10-01",
    }
    if run.identity:
        headers |= {"x-frontdesk-conversation": run.conversation_id, "x-frontdesk-identity": str(run.identity)}
    if run.replayed:
        headers["idempotency-replayed"] = "true"
    if turn.options.ignored:
        headers["x-frontdesk-ignored-params"] = ",".join(turn.options.ignored)
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def text_headers(headers: Headers) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}
