"""A connection to an MCP server which is kept up, whatever becomes of the server.

One task dials, lists the tools, hears of changes, and dials again when the server is gone: what the SDK opens must be
left in the task that entered it. Calls come from the tasks of turns, at the same time.
"""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TextIO, cast

import httpx2
import structlog
from anyio import EndOfStream
from mcp.client import Client, IncomingMessage, Transport
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_REQUEST,
    REQUEST_TIMEOUT,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    Tool,
    ToolListChangedNotification,
)

from frontdesk.agents.skills.mcp import Address, Unreachable

log = structlog.get_logger(__name__)

DIAL_SECONDS = 60.0
"""How long a server may take from being dialled to having listed its tools: a program may have to be fetched first."""

CONNECT_SECONDS = 10.0

READY_SECONDS = 5.0
"""How long a call, and the start of the app, wait for a server that is being dialled."""

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0
"""Between two attempts to dial. Each pause is twice the one before."""

REST_SECONDS = 1.0
"""How long after one listing the next may come: a server may say as often as it likes that its tools have changed."""

REFRESH_SECONDS = 300.0
"""How often the tools are listed anew although nothing was heard of a change."""

STOP_SECONDS = 8.0
"""How long a server may take to end: the SDK gives a process 4 seconds before it is killed."""

MAX_BYTES = 16 * 2**20
"""The largest answer read."""

MAX_TOOLS = 200
MAX_PAGES = 20

UNSENT = -32950
"""Our own code for what never reached the server."""


class Connection:
    def __init__(
        self, address: Address, label: str, take: Callable[[Sequence[Tool]], None], timeout_seconds: float
    ) -> None:
        self._address = address
        self._label = label
        self._take = take
        self._timeout_seconds = timeout_seconds
        self._client: Client | None = None  # while it is good
        self._news = asyncio.Event()  # something is to be looked into: the tools, or whether the server is still there
        self._wanted = asyncio.Event()  # somebody waits for the server
        self._over = asyncio.Event()  # the server has ended the connection
        self._was_up = False
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # of the next attempt to dial
        self._task = asyncio.create_task(self._keep())

    async def ready(self) -> bool:
        """Wait until the server is there, or is known not to be. Says whether it is."""
        if self._client is None:
            self._wanted.set()
            await asyncio.wait({self._outcome}, timeout=READY_SECONDS)
        return self._client is not None

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=STOP_SECONDS)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1.0)

    async def call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        """Have the server run a tool. Once more, if the first attempt is known not to have reached it.

        Raises Unreachable, TimeoutError, MCPError where the server refuses, and ValueError for what is no answer.
        """
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
        async with asyncio.timeout(READY_SECONDS + self._timeout_seconds):  # for the SDK does not time its writing
            return await self._called(request)

    async def _called(self, request: CallToolRequest) -> CallToolResult:
        for last in (False, True):
            if not await self.ready() or self._client is None:
                raise Unreachable
            client = self._client
            try:
                # Not `call_tool`: that judges the result by a schema of the server's, whose patterns may take forever.
                return await client.session.send_request(request, CallToolResult, self._timeout_seconds)
            except MCPError as error:
                if error.code == REQUEST_TIMEOUT:
                    raise TimeoutError from error
                if not (unsent(error) or error.code == CONNECTION_CLOSED):
                    raise
                self._doubt(client)
                if last or not unsent(error):
                    raise Unreachable from error
        raise Unreachable

    def _good(self, client: Client) -> None:
        if self._client is None and not self._over.is_set():
            self._client = client
            self._tell()

    def _doubt(self, client: Client) -> None:
        """This connection may be no good any more."""
        if self._client is client:
            self._client = None
            self._news.set()

    # --- the task ----------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        told = False
        while True:
            began = asyncio.get_running_loop().time()
            self._was_up = False
            try:
                await self._stay()
            except Exception as error:  # whatever a server does, its agents go on without it
                what = "MCP server is gone" if self._was_up else "MCP server cannot be reached"
                (log.debug if told else log.warning)(what, server=self._label, error=reason(error))
            self._client = None
            if not self._was_up:
                told = True
                self._tell()
            elif asyncio.get_running_loop().time() - began > LONGEST_PAUSE_SECONDS:
                pause, told = FIRST_PAUSE_SECONDS, False
            await asyncio.sleep(FIRST_PAUSE_SECONDS)
            await occurs(self._wanted, pause)
            self._wanted.clear()
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _tell(self) -> None:
        """Tell those who wait how the attempt went."""
        if not self._outcome.done():
            self._outcome.set_result(None)
        self._outcome = asyncio.get_running_loop().create_future()

    async def _stay(self) -> None:
        """Be connected. Raises what ended that."""
        self._over.clear()
        self._news.clear()
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(DIAL_SECONDS):
                client = await stack.enter_async_context(
                    Client(
                        self._transport(),
                        message_handler=self._heard,
                        client_info=Implementation(name="frontdesk", version="1"),
                        cache=None,
                    )
                )
                await self._list(client)
            log.info("MCP server connected", server=self._label)
            self._was_up = True
            self._good(client)
            listening = asyncio.create_task(self._listen(client))
            stack.callback(listening.cancel)
            while True:
                await occurs(self._news, REFRESH_SECONDS)
                self._news.clear()
                if self._over.is_set():
                    raise ConnectionResetError
                try:
                    async with asyncio.timeout(DIAL_SECONDS):
                        await self._list(client)
                except TimeoutError:
                    log.debug("MCP server is busy", server=self._label)  # perhaps with a call
                self._good(client)
                await occurs(self._over, REST_SECONDS)

    async def _list(self, client: Client) -> None:
        tools: list[Tool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            tools += page.tools
            cursor = page.next_cursor
            if not cursor or len(tools) >= MAX_TOOLS:
                break
        if len(tools) > MAX_TOOLS or cursor:
            log.warning("MCP server lists too many tools", server=self._label, kept=MAX_TOOLS)
        self._take(tools[:MAX_TOOLS])

    async def _listen(self, client: Client) -> None:
        """Hear of changes from a server which tells only those who ask, as of protocol 2026-07-28."""
        capability = client.server_capabilities.tools
        pause = REST_SECONDS
        while capability and capability.list_changed:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    self._news.set()  # what changed before this, nobody has told
                    async for _ in changes:
                        pause = REST_SECONDS
                        self._news.set()
            except ListenNotSupportedError:
                return
            except Exception as error:
                log.debug("MCP server does not tell of changes", server=self._label, error=reason(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, REFRESH_SECONDS)

    async def _heard(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification | Exception):
            self._news.set()

    def _gone(self) -> None:
        self._client = None
        self._over.set()
        self._news.set()

    # --- the wire ----------------------------------------------------------------------------------------------------

    def _transport(self) -> Transport:
        address = self._address
        if address.command:
            command, *arguments = address.command
            server = StdioServerParameters(command=command, args=arguments, env=dict(address.env), cwd=address.cwd)
            return until(stdio_client(server, errlog=stderr()), self._gone)
        if address.sse:
            return until(
                sse_client(
                    address.url,
                    timeout=CONNECT_SECONDS,
                    sse_read_timeout=REFRESH_SECONDS,
                    httpx_client_factory=self._http,
                ),
                self._gone,
            )
        return until(self._streamable(), self._gone)

    @asynccontextmanager
    async def _streamable(self) -> AsyncGenerator[Any]:
        async with (
            self._http() as http,
            streamable_http_client(self._address.url, http_client=http, max_sse_event_size=MAX_BYTES) as streams,
        ):
            yield streams

    def _http(self, *_: object, **__: object) -> httpx2.AsyncClient:
        timeout = httpx2.Timeout(CONNECT_SECONDS, read=max(REFRESH_SECONDS, self._timeout_seconds), pool=None)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
        wire = Wire(httpx2.AsyncHTTPTransport(limits=limits), self._news.set)
        headers = {"Accept-Encoding": "identity", **self._address.headers}
        return httpx2.AsyncClient(headers=headers, timeout=timeout, transport=wire)


class Wire(httpx2.AsyncBaseTransport):
    """HTTP on which a request that fails, fails alone: the SDK would end the connection, and all calls with it.

    `trouble` is called when the network fails. An answer that is larger than MAX_BYTES, or breaks off, is cut there,
    and then is no JSON.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, trouble: Callable[[], None]) -> None:
        self._inner = inner
        self._trouble = trouble

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            self._trouble()
            return refusal(request, UNSENT)
        except httpx2.TransportError:
            self._trouble()
            return refusal(request, CONNECTION_CLOSED)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        if response.headers.get("content-encoding", "identity") != "identity":  # who knows how large that is?
            await response.stream.aclose()
            return refusal(request, CONNECTION_CLOSED)
        endless = response.headers.get("content-type", "").startswith("text/event-stream")
        response.stream = Body(response.stream, None if endless else MAX_BYTES, self._trouble)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class Body(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, max_bytes: int | None, trouble: Callable[[], None]) -> None:
        self._inner = inner
        self._left = max_bytes
        self._trouble = trouble

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._inner:
                if self._left is not None:
                    self._left -= len(piece)
                    if self._left < 0:
                        return
                yield piece
        except httpx2.TransportError:
            self._trouble()

    async def aclose(self) -> None:
        await self._inner.aclose()


def refusal(request: httpx2.Request, code: int) -> httpx2.Response:
    """What the SDK takes for the server's own answer to this one request."""
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": "The server cannot be reached."}}
    return httpx2.Response(503, json=error, request=request)


@asynccontextmanager
async def until(transport: Any, gone: Callable[[], None]) -> AsyncGenerator[Any]:
    """The same transport, whose end is told."""
    async with transport as (reading, writing):
        yield Reading(reading, gone), writing


class Reading:
    """A stream of what the server says, whose end is told. `last_context` is what the SDK reads beside each item."""

    def __init__(self, inner: Any, gone: Callable[[], None]) -> None:
        self._inner = inner
        self._gone = gone

    @property
    def last_context(self) -> Any:
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        try:
            return await self._inner.receive()
        except EndOfStream:
            self._gone()
            raise

    def __aiter__(self) -> "Reading":
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> "Reading":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


async def occurs(event: asyncio.Event, within_seconds: float) -> None:
    """Wait for it, but no longer than this."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_seconds):
            await event.wait()


def unsent(error: MCPError) -> bool:
    """Whether what failed so never reached a tool: no connection, or a session which the server does not know."""
    return error.code == UNSENT or (error.code == INVALID_REQUEST and error.message == "Session terminated")


def reason(error: BaseException) -> str:
    """The kinds of errors, without their texts, which may hold an address with a key in it."""
    if isinstance(error, BaseExceptionGroup):
        several = cast("BaseExceptionGroup[BaseException]", error)
        return ", ".join(sorted({reason(each) for each in several.exceptions}))
    if isinstance(error, httpx2.HTTPStatusError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, MCPError) and error.code == UNSENT:
        return "no connection"
    return f"MCP error {error.code}" if isinstance(error, MCPError) else type(error).__name__


def stderr() -> TextIO:
    """Where a server's own complaints go: with ours."""
    return sys.__stderr__ or sys.stderr
