"""Runs the server: uvicorn on uvloop and httptools."""

import errno
import gc
import socket
from collections.abc import Generator
from contextlib import contextmanager

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from frontdesk.app import create_app
from frontdesk.config import Settings
from frontdesk.door import new_request_id
from frontdesk.errors import InvalidRequest
from frontdesk.observe import logs
from frontdesk.protocols.openai_errors import body_of
from frontdesk.protocols.replies import ABORT

ACCEPTS = 16
"""uvloop accepts one connection per turn of its loop and listening socket; under load new clients then wait for
seconds. The same socket registered several times is accepted from several times (docs/performance.md)."""

BACKLOG = 4096
MAX_HEAD_BYTES = 64 * 1024


class Wire(HttpToolsProtocol):
    """HTTP as uvicorn reads it, with a bound on a request's head, which anybody can send, and JSON for its refusals."""

    _in_head = True
    _head_bytes = 0
    _heads = 0  # read on this connection

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}

    def data_received(self, data: bytes) -> None:
        was_in_head, heads = self._in_head, self._heads
        super().data_received(data)
        # A whole request, with a body of any size, may come in one read.
        if was_in_head and self._in_head and heads == self._heads:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response(f"The request's head is larger than {MAX_HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes, self._heads = False, 0, self._heads + 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot read never reaches the door."""
        body = msgspec.json.encode(body_of(InvalidRequest(msg, code="invalid_http")))
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"x-request-id: {new_request_id()}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError, with the address, if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol named, asyncio does not switch off Nagle's algorithm: 40 ms on every answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def server(settings: Settings) -> uvicorn.Server:
    """A server not yet started; give `sockets_of(listener)` to its `serve` or `run`."""
    config = uvicorn.Config(
        create_app(settings),
        http=Wire,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    return uvicorn.Server(config)


def secrets_of(settings: Settings) -> list[str]:
    """What must never be seen in a log."""
    secrets = [*settings.api_keys, settings.letta_api_key, settings.secret, *(each.api_key for each in settings.letta)]
    return [value for secret in secrets if (value := secret.get_secret_value())]


def sockets_of(listener: socket.socket) -> list[socket.socket]:
    return [listener, *(listener.dup() for _ in range(ACCEPTS - 1))]


@contextmanager
def loop_that_closes() -> Generator[None]:
    """uvloop now and then finds its loop busy when it closes it, after everything in it has ended: no harm done."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise


def serve(settings: Settings, listener: socket.socket | None = None) -> None:
    """Serve until told to stop."""
    logs.configure(settings.log_level, settings.log_format, secrets=secrets_of(settings))
    listener = listener or listen(settings.host, settings.port)
    gc.freeze()  # what was imported stays; the collector need not look at it again and again
    with loop_that_closes():
        server(settings).run(sockets=sockets_of(listener))
