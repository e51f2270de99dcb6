"""Letta's REST API: control calls as JSON, turns as a stream of bytes. Its errors are ours from here on.

Nothing is ever sent twice: a repeated message would be appended twice.
"""

import asyncio
import base64
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlencode, urlsplit

import msgspec

from frontdesk.backends.letta.failures import refusal, timeout
from frontdesk.backends.letta.http import HttpClient, Response, Unreachable
from frontdesk.errors import BackendUnavailable, ConnectionLost

# Without this header Letta loads every relation of every agent (5 to 20 times slower) and refuses streams.
SDK_HEADERS = {"X-Stainless-Package-Version": "1.12.1"}

Watch = Callable[[str, float, bool], object]
"""Told of every call: which, after how many seconds, and whether it was answered well."""

Query = Mapping[str, Any] | Sequence[tuple[str, str]]

ID = re.compile(r"(agent|conv|run)-[0-9a-f-]{36}")
CONTROL_SECONDS = 30.0
REFUSAL_BYTES = 65536


class LettaClient:
    def __init__(self, base_url: str, api_key: str = "", project: str = "", watch: Watch | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._place = re.sub(r"//[^/]*@", "//", self._base_url)  # as callers may see it: without a password
        self._watch = watch
        headers = dict(SDK_HEADERS)
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        elif basic := basic_authorization(self._base_url):
            headers["Authorization"] = basic
        if project:
            headers["X-Project"] = project
        self._http = HttpClient(self._base_url, headers)

    @property
    def base_url(self) -> str:
        return self._base_url

    async def get(self, path: str, params: Query | None = None) -> Any:
        return await self.call("GET", path, params=params)

    async def post(
        self, path: str, body: Any = None, params: Query | None = None, wait_seconds: float = CONTROL_SECONDS
    ) -> Any:
        return await self.call("POST", path, body, params, wait_seconds)

    async def patch(self, path: str, body: Any) -> Any:
        return await self.call("PATCH", path, body)

    async def delete(self, path: str) -> None:
        await self.call("DELETE", path)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Query | None = None,
        wait_seconds: float = CONTROL_SECONDS,
    ) -> Any:
        """The decoded JSON answer. Raises the error for what came instead."""
        with self._watched(method, path):
            return await self._call(method, path, body, params, wait_seconds)

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

    async def _call(self, method: str, path: str, body: Any, params: Query | None, wait_seconds: float) -> Any:
        target = f"{path}?{urlencode(params)}" if params else path
        try:
            async with asyncio.timeout(wait_seconds):
                with await self._http.request(method, target, encoded(body)) as response:
                    if response.status >= 400:
                        raise await refused(response)
                    data = await response.read()
            return msgspec.json.decode(data) if data else None
        except TimeoutError as error:
            raise BackendUnavailable(f"The Letta server at {self._place} does not answer in time.") from error
        except OSError as error:
            raise BackendUnavailable(f"The Letta server at {self._place} cannot be reached.") from error
        except msgspec.DecodeError as error:
            raise BackendUnavailable(f"{self._place} answers, but not as a Letta server does.") from error

    async def stream(
        self, path: str, body: Any, silence_seconds: float, record: Callable[[bytes], object] | None = None
    ) -> "Stream":
        """Send a message, and give the answer to be read as it comes."""
        with self._watched("POST", path):
            return Stream(await self._send(path, body, silence_seconds), silence_seconds, record)

    async def _send(self, path: str, body: Any, silence_seconds: float) -> Response:
        try:
            async with asyncio.timeout(silence_seconds):
                response = await self._http.request("POST", path, encoded(body))
                if response.status < 400:
                    return response
                with response:
                    raise await refused(response)
        except TimeoutError as error:
            raise timeout(silence_seconds) from error
        except Unreachable as error:
            raise BackendUnavailable(f"The Letta server at {self._place} cannot be reached.") from error
        except OSError as error:
            raise BackendUnavailable(
                "The Letta server closed the connection before it took the message.", retry=False
            ) from error

    async def aclose(self) -> None:
        await self._http.aclose()


class Stream:
    """An answer as it comes, with a watchdog: a read ends with AgentTimeout after a while of nothing but pings.

    One timer for each stream, moved only when it fires. Time in which nobody reads, because the client is slow to take
    what it was sent, does not count.
    """

    def __init__(self, response: Response, silence_seconds: float, record: Callable[[bytes], object] | None) -> None:
        self._response = response
        self._seconds = silence_seconds
        self._record = record
        self._loop = asyncio.get_running_loop()
        self._fed = self._left = self._loop.time()
        self._reading = False

    async def next(self) -> bytes:
        """What has come since the last time; empty at the end."""
        self._fed += self._loop.time() - self._left
        self._reading = True
        try:
            data = await self._response.next()
        except OSError as error:
            raise ConnectionLost("The connection to the Letta server broke while the agent was answering.") from error
        finally:
            self._reading = False
            self._left = self._loop.time()
        if self._record and data:
            self._record(data)
        return data

    def feed(self) -> None:
        """There was a sign of work: pings are none."""
        self._fed = self._left

    def done(self) -> None:
        """The stream has said that it is over; only the end of the HTTP answer is still to come."""
        self._response.drain()

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(self._seconds, self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._response.close()

    def _look(self) -> None:
        due = self._fed + self._seconds
        if not self._reading:
            self._timer = self._loop.call_later(self._seconds, self._look)
        elif self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._look)
        else:
            self._response.fail(timeout(self._seconds))


async def refused(response: Response) -> Exception:
    """The error an answer stands for."""
    data = await response.read(REFUSAL_BYTES)
    try:
        body = msgspec.json.decode(data)
    except msgspec.DecodeError:
        body = None
    return refusal(response.status, body)


def basic_authorization(base_url: str) -> str:
    """For a server behind a proxy with a password: the one in its address."""
    url = urlsplit(base_url)
    if url.username is None and url.password is None:
        return ""
    pair = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def encoded(body: Any) -> bytes | None:
    return None if body is None else msgspec.json.encode(body)
