"""HTTP/1.1 to one server, as cheap as Python does it: an asyncio protocol around httptools (Node's parser).

The token stream is the hot path of this product, and a general client spends more on each event than all of the
translation does (docs/why/0005-own-http-client.md has what was measured). This one knows what Letta needs and no more:
keep-alive, TLS, chunked answers, back-pressure, cancellation. It never sends anything twice.
"""

import asyncio
import ssl
from collections import deque
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit
from weakref import WeakSet

import httptools

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 3.0  # Letta closes idle connections after 5 s; a shorter life of ours avoids the race
HIGH_WATER_BYTES = 2**18
MAX_IDLE = 256
DRAIN_SECONDS = 1.0


class Unreachable(ConnectionError):
    """No connection could be made: nothing was sent."""


class Broken(ConnectionError):
    """The connection ended before the answer did."""


class HttpClient:
    """Connections to one origin. Belongs to the event loop in which it is first used."""

    def __init__(self, base_url: str, headers: dict[str, str]) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"not an http or https URL: {base_url!r}")
        self._host = url.hostname
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self.tls = ssl.create_default_context() if url.scheme == "https" else None
        self._path = url.path.rstrip("/")
        lines = {"Host": url.netloc.rpartition("@")[2], "Accept": "*/*"} | headers
        self._head = "".join(f"{name}: {one_line(value)}\r\n" for name, value in lines.items()).encode()
        self.idle: deque[tuple[float, Connection]] = deque()
        self._open: WeakSet[Connection] = WeakSet()

    async def request(self, method: str, target: str, body: bytes | None = None) -> "Response":
        """Send a request, and give the answer when its head is here. Read or close it.

        Raises Unreachable if no connection could be made, Broken if it ended before the head was complete.
        """
        head = f"{method} {self._path}{target} HTTP/1.1\r\n".encode("ascii") + self._head
        if body is not None:
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        connection = self._idle_connection() or await self._connect()
        response = Response(self, connection)
        try:
            connection.send(response, head + b"\r\n" + (body or b""))
            await response.head()
        except BaseException:
            response.close()
            raise
        return response

    def _idle_connection(self) -> "Connection | None":
        """The connection used last, if it is young enough; older ones go."""
        loop = asyncio.get_running_loop()
        while self.idle:
            since, connection = self.idle.pop()
            if loop.time() - since < IDLE_SECONDS and connection.usable:
                return connection
            connection.close()
        return None

    async def _connect(self) -> "Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    Connection, self._host, self._port, ssl=self.tls, server_hostname=self._host if self.tls else None
                )
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"{self._host}:{self._port} cannot be reached") from error
        self._open.add(connection)
        return connection

    def release(self, connection: "Connection") -> None:
        """Take back a connection whose answer has been read to its end."""
        if connection.usable and len(self.idle) < MAX_IDLE:
            self.idle.append((asyncio.get_running_loop().time(), connection))
        else:
            connection.close()

    async def aclose(self) -> None:
        """Close every connection, also those whose answer is still being read."""
        self.idle.clear()
        for connection in list(self._open):
            connection.close()


class Connection(asyncio.Protocol):
    """One socket. It serves one response at a time, and is told by the parser what came."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._response: Response | None = None
        self._keep_alive = False
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    @property
    def usable(self) -> bool:
        return not self._lost and not self._transport.is_closing()

    @property
    def keep_alive(self) -> bool:
        return self._keep_alive and self.usable

    def send(self, response: "Response", data: bytes) -> None:
        self._response = response
        self._keep_alive = False
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(data)

    def detach(self) -> None:
        self._response = None

    def data_received(self, data: bytes) -> None:
        if self._response is None:  # nobody asked: the server says good-bye, or worse
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._response.fail(Broken(f"not an HTTP answer: {error}"))
            self.close()
            return
        self._response.wake()

    def eof_received(self) -> None:
        return None  # and so the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._response is not None:
            self._response.ended(in_order=exc is None)

    def pause(self) -> None:
        if self.usable:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.usable:
            self._transport.resume_reading()

    def close(self) -> None:
        if self._response:
            self._transport.abort()
        else:
            self._transport.close()

    # --- what the parser calls -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._response and self._response.complete:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response and name.lower() in (b"content-length", b"transfer-encoding"):
            self._response.framed = True

    def on_headers_complete(self) -> None:
        if self._response:
            self._response.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._response:
            self._response.feed(body)

    def on_message_complete(self) -> None:
        if self._response and self._response.status >= 200:
            self._keep_alive = self._parser.should_keep_alive()
            self._response.complete = True


class Response:
    """An answer as it comes: `status`, then `read` or `next`. Close it, or use it in `with`."""

    def __init__(self, client: HttpClient, connection: Connection) -> None:
        self._client = client
        self._connection: Connection | None = connection
        self._pieces: list[bytes] = []
        self._size = 0
        self._paused = False
        self._draining = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self.status = 0
        self.framed = False  # whether the server says where the answer ends; else it ends with the connection
        self.complete = False

    async def head(self) -> None:
        while self.status < 200:
            await self._more()

    async def next(self) -> bytes:
        """What has come since the last time, waiting for some; empty at the end."""
        while not self._pieces:
            if self.complete:
                self._release()
                return b""
            await self._more()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._paused and self._connection:
            self._paused = False
            self._connection.resume()
        return data

    async def read(self, max_bytes: int | None = None) -> bytes:
        """The body; no more of it than `max_bytes`, after which the response must be closed."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.next():
            pieces.append(piece)
            size += len(piece)
            if max_bytes is not None and size >= max_bytes:
                break
        return b"".join(pieces)[:max_bytes]

    async def _more(self) -> None:
        if self._error:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._error and not self._pieces:
            raise self._error

    def _release(self) -> None:
        if connection := self._connection:
            self._connection = None
            connection.detach()
            if connection.keep_alive and self.status < 500:  # after a 500 Letta drops the connection
                self._client.release(connection)
            else:
                connection.close()

    def drain(self) -> None:
        """Done with it, and its end is about to come: then the connection serves again."""
        if self.complete:
            self._pieces.clear()
            self._release()
        else:
            self._draining = True
            asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._cut)

    def close(self) -> None:
        """Done with it. What was not read to its end is cut off."""
        if self.complete and not self._pieces:
            self._release()
        elif not self._draining:
            self._cut()

    def _cut(self) -> None:
        if connection := self._connection:
            self._connection = None
            connection.close()
            connection.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what the connection calls -------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        if self._draining:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER_BYTES and not self._paused and self._connection:
            self._paused = True
            self._connection.pause()

    def ended(self, *, in_order: bool) -> None:
        """The connection is gone."""
        if not self.complete and self.status >= 200 and not self.framed and in_order:
            self.complete = True
        elif not self.complete:
            self._error = self._error or Broken("the connection ended before the answer did")
        self.wake()

    def fail(self, error: BaseException) -> None:
        """Let the reader have this error, now."""
        self._error = self._error or error
        self.wake()

    def wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)
        elif self._draining and self.complete:
            self._release()


def one_line(value: str) -> str:
    """A header's value cannot bring other headers with it."""
    if "\r" in value or "\n" in value or "\0" in value:
        raise ValueError("a header value with a line break")
    return value
