"""The least HTTP/1.1 that the fake Letta and the floor need: one request at a time per connection, keep-alive."""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import cast

import httptools
import uvloop

HOST = "127.0.0.1"
LISTENERS = 16  # uvloop accepts one connection per iteration and listener, so the same socket is registered often
CHUNKED_END = b"0\r\n\r\n"
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
REASONS = {200: b"OK", 404: b"Not Found", 409: b"Conflict", 422: b"Unprocessable Entity", 502: b"Bad Gateway"}


def json_response(body: bytes, status: int = 200) -> bytes:
    """A whole response with a JSON body."""
    head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (status, REASONS.get(status, b"Status"), len(body)) + body


def json_request(method: bytes, path: bytes, body: bytes = b"") -> bytes:
    """A whole request with a JSON body."""
    head = b"%b %b HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (method, path, len(body)) + body


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Connection(asyncio.Protocol):
    """The server's side of one connection: parses requests and hands each to `answer`."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self.target = b""
        self.body = b""

    def answer(self, method: bytes, target: bytes, body: bytes) -> None:
        """Answer one request; called once it has arrived whole."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.parser = None

    def data_received(self, data: bytes) -> None:
        if self.parser is None:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_message_begin(self) -> None:
        self.target = self.body = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.parser is not None:
            self.answer(self.parser.get_method(), self.target, self.body)


async def _serve(connection: Callable[[], asyncio.BaseProtocol], port: int) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    with socket.create_server((HOST, port), backlog=4096) as listener:
        for _ in range(LISTENERS):
            await loop.create_server(connection, sock=listener.dup(), backlog=4096)
        sys.stdout.write(f"PORT {listener.getsockname()[1]}\n")
        sys.stdout.flush()
        _stop_with_parent(loop, stopped)
        gc.collect()
        gc.freeze()
        await stopped.wait()


def _stop_with_parent(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    """Stop when our stdin ends, if `BENCH_CHILD` says that a parent holds its other end."""
    if os.environ.get("BENCH_CHILD"):
        loop.add_reader(0, lambda: stopped.set() if not os.read(0, 1024) else None)


def serve(connection: Callable[[], asyncio.BaseProtocol], port: int, started: Callable[[], None] | None = None) -> None:
    """Serve on loopback until SIGTERM, or until the parent process is gone; prints `PORT <n>` once listening."""

    async def run() -> None:
        if started is not None:
            started()
        await _serve(connection, port)

    uvloop.run(run())
