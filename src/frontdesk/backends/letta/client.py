"""HTTP to a Letta server: control calls as JSON, turns as a stream of bytes. Its errors are ours from here on.

aiohttp carries the stream because it costs the least CPU for each event of the clients measured (docs/performance.md).
Nothing is ever sent twice: a repeated message would be appended twice.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from frontdesk.backends.letta.failures import refusal, timeout
from frontdesk.errors import AgentFailed, BackendUnavailable

# Without this header Letta loads every relation of every agent (5 to 20 times slower) and refuses streams.
SDK_HEADERS = {"X-Stainless-Package-Version": "1.12.1"}
Watch = Callable[[str, float, bool], object]
"""Told of every call: which, after how many seconds, and whether it was answered well."""

Query = Mapping[str, Any] | Sequence[tuple[str, str]]

ID = re.compile(r"(agent|conv|run)-[0-9a-f-]{36}")
KEEPALIVE_SECONDS = 3.0  # Letta closes idle connections after 5 s; a shorter life avoids the race
CONTROL_SECONDS = 30.0
CONNECT_SECONDS = 5.0


class LettaClient:
    def __init__(self, base_url: str, api_key: str = "", project: str = "", watch: Watch | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._watch = watch
        self._headers = dict(SDK_HEADERS)
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        if project:
            self._headers["X-Project"] = project
        self._session: aiohttp.ClientSession | None = None

    @property
    def base_url(self) -> str:
        return self._base_url

    def _open(self) -> aiohttp.ClientSession:
        """The session, made on first use because it belongs to the running event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
                read_bufsize=2**18,
            )
        return self._session

    async def get(self, path: str, params: Query | None = None) -> Any:
        return await self.call("GET", path, params=params)

    async def post(self, path: str, body: Any = None, params: Query | None = None) -> Any:
        return await self.call("POST", path, body, params)

    async def patch(self, path: str, body: Any) -> Any:
        return await self.call("PATCH", path, body)

    async def call(self, method: str, path: str, body: Any = None, params: Query | None = None) -> Any:
        """The decoded JSON answer. Raises the error for what came instead."""
        with self._watched(method, path):
            return await self._call(method, path, body, params)

    @contextmanager
    def _watched(self, method: str, path: str) -> Generator[None]:
        began = time.perf_counter()
        answered = False
        try:
            yield
            answered = True
        finally:
            if self._watch:
                self._watch(f"{method} {ID.sub('{id}', path)}", time.perf_counter() - began, answered)

    async def _call(self, method: str, path: str, body: Any, params: Query | None) -> Any:
        try:
            async with (
                asyncio.timeout(CONTROL_SECONDS),
                self._open().request(method, self._base_url + path, data=_json(body), params=params) as response,
            ):
                if response.status >= 400:
                    raise await _refused(response)
                data = await response.read()
            return msgspec.json.decode(data) if data else None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise BackendUnavailable(f"The Letta server at {self._base_url} cannot be reached.") from error
        except msgspec.DecodeError as error:
            raise BackendUnavailable(f"{self._base_url} answers, but not as a Letta server does.") from error

    async def stream(
        self, path: str, body: Any, silence_seconds: float, record: Callable[[bytes], object] | None = None
    ) -> AsyncGenerator[tuple[bytes, "Watchdog"], None]:
        """Send a message and yield what each read brings, with the watchdog which the reader must `feed` with every
        sign of work: pings are none."""
        with self._watched("POST", path):
            response = await self._send(path, body, silence_seconds)
        try:
            with Watchdog(response, silence_seconds) as watchdog:
                while data := await response.content.readany():
                    if record:
                        record(data)
                    began = watchdog.pause()
                    yield data, watchdog
                    watchdog.resume(began)
        except (aiohttp.ClientError, OSError) as error:
            raise AgentFailed("The connection to the Letta server broke while the agent was answering.") from error
        finally:
            response.close()

    async def _send(self, path: str, body: Any, silence_seconds: float) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(silence_seconds):
                response = await self._open().post(self._base_url + path, data=_json(body))
        except TimeoutError as error:
            raise timeout(silence_seconds) from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise BackendUnavailable(f"The Letta server at {self._base_url} cannot be reached.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise BackendUnavailable(
                "The Letta server closed the connection before it took the message.", retry=False
            ) from error
        if response.status >= 400:
            raise await _refused(response)
        return response

    async def aclose(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None


class Watchdog:
    """Ends a read when nothing but pings has come for a while. One timer for each stream, moved only when it fires.

    Time in which nobody reads, because the client is slow to take what it was sent, does not count.
    """

    def __init__(self, response: aiohttp.ClientResponse, seconds: float) -> None:
        self._response = response
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._fed = self._loop.time()
        self._paused = False

    def feed(self) -> None:
        self._fed = self._loop.time()

    def pause(self) -> float:
        self._paused = True
        return self._loop.time()

    def resume(self, began: float) -> None:
        self._paused = False
        self._fed += self._loop.time() - began

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(self._seconds, self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        due = self._fed + self._seconds
        if self._paused:
            self._timer = self._loop.call_later(self._seconds, self._look)
        elif self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._look)
        else:
            self._response.content.set_exception(timeout(self._seconds))


async def _refused(response: aiohttp.ClientResponse) -> Exception:
    """The error an answer stands for. The connection is not used again: after a 500 Letta drops it."""
    data = await response.content.read(65536)
    response.close()
    try:
        body = msgspec.json.decode(data)
    except msgspec.DecodeError:
        body = None
    return refusal(response.status, body)


class _Json(aiohttp.BytesPayload):
    def __init__(self, data: bytes) -> None:
        super().__init__(data, content_type="application/json")


def _json(body: Any) -> _Json | None:
    return None if body is None else _Json(msgspec.json.encode(body))
