"""A small reverse proxy before a real Letta server, which spoils what it is told to spoil and notes all that passes."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp import web

from tests.faults.fake import listening

Frames = AsyncGenerator[bytes, None]
Body = dict[str, Any]

END = b"\n\n"
TURN = "POST /v1/conversations/"
HOP_BY_HOP = frozenset({"host", "content-length", "connection", "transfer-encoding", "keep-alive", "date", "server"})


class Reset(Exception):
    """The connection breaks here."""


@dataclass
class Passage:
    """A request that has passed, and the status of its answer."""

    call: str
    headers: Mapping[str, str]
    text: str
    status: int = 0

    @property
    def body(self) -> Body:
        return json.loads(self.text)

    @property
    def is_turn(self) -> bool:
        return self.call.startswith("POST ") and self.call.endswith(("/messages", "/messages/stream"))


@dataclass
class Spoiling:
    """What is done to requests whose call begins so and whose body holds the marker."""

    marker: str = ""
    call: str = TURN
    body: Callable[[Body], Body] | None = None
    frames: Callable[[Frames], Frames] | None = None  # of a stream, each with the blank line at its end
    resets: bool = False  # the connection breaks before the server has heard of the request
    times: int = 1
    done: int = 0

    def concerns(self, passage: Passage) -> bool:
        return self.done < self.times and passage.call.startswith(self.call) and self.marker in passage.text


@dataclass
class Proxy:
    letta_url: str
    url: str = ""
    seen: list[Passage] = field(default_factory=list[Passage])
    spoilings: list[Spoiling] = field(default_factory=list[Spoiling])
    _connections: "WeakSet[asyncio.Transport]" = field(default_factory=WeakSet[asyncio.Transport])
    _loop: asyncio.AbstractEventLoop | None = None

    def spoil(self, marker: str = "", **how: Any) -> Spoiling:
        """Spoil the next request like that, or so many `times`."""
        spoiling = Spoiling(marker, **how)
        self.spoilings.append(spoiling)
        return spoiling

    def turns(self, marker: str, status: int | None = None) -> list[Passage]:
        """The turns that brought the marker, or those of them that were answered so."""
        found = [passage for passage in self.seen if passage.is_turn and marker in passage.text]
        return [passage for passage in found if status in (None, passage.status)]

    def hang_up(self) -> int:
        """Close every connection, as Letta does with those that have been idle for five seconds. Gives how many."""

        async def close() -> int:
            there = [each for each in self._connections if not each.is_closing()]
            for connection in there:
                connection.close()
            return len(there)

        assert self._loop
        return asyncio.run_coroutine_threadsafe(close(), self._loop).result(5)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**26)
        app.cleanup_ctx.append(self._client)
        app.router.add_route("*", "/{path:.*}", self._pass)
        return app

    async def _client(self, _: web.Application) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(self.letta_url, timeout=timeout, auto_decompress=False) as self._session:
            yield

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        assert request.transport
        self._connections.add(request.transport)
        text = (await request.read()).decode()
        passage = Passage(f"{request.method} {request.path}", dict(request.headers), text)
        self.seen.append(passage)
        spoiling = next((each for each in self.spoilings if each.concerns(passage)), Spoiling())
        spoiling.done += 1
        if spoiling.resets:
            request.transport.abort()
            return web.Response()
        if spoiling.body:
            text = json.dumps(spoiling.body(json.loads(text)))
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        try:
            return await self._forward(request, passage, spoiling, headers, text)
        except aiohttp.ClientError:  # as proxies say that nobody is there
            return web.Response(status=502)

    async def _forward(
        self, request: web.Request, passage: Passage, spoiling: Spoiling, headers: Mapping[str, str], text: str
    ) -> web.StreamResponse:
        async with self._session.request(
            request.method, request.path_qs, headers=headers, data=text or None
        ) as upstream:
            passage.status = upstream.status
            passed = {name: value for name, value in upstream.headers.items() if name.lower() not in HOP_BY_HOP}
            if upstream.content_type != "text/event-stream":
                return web.Response(status=upstream.status, headers=passed, body=await upstream.read())
            answer = web.StreamResponse(status=upstream.status, headers=passed)
            await answer.prepare(request)
            frames = frames_of(upstream)
            try:
                async for frame in spoiling.frames(frames) if spoiling.frames else frames:
                    await answer.write(frame)
            except (Reset, aiohttp.ClientError):
                assert request.transport
                request.transport.abort()
            return answer


async def frames_of(upstream: aiohttp.ClientResponse) -> Frames:
    while each := await upstream.content.readuntil(END):
        yield each


@contextmanager
def proxied(letta_url: str) -> Generator[Proxy]:
    proxy = Proxy(letta_url)
    with listening(proxy.app()) as proxy.url:
        yield proxy


# --- frames ------------------------------------------------------------------------------------------------------


def message(frame: bytes) -> Body:
    """What a frame says; empty for `[DONE]` and the like."""
    data = b"".join(line[6:] for line in frame.splitlines() if line.startswith(b"data: "))
    return json.loads(data) if data.startswith(b"{") else {}


def frame(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + END


def kind(of: bytes) -> str:
    return str(message(of).get("message_type", ""))
