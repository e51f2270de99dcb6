"""HTTP to one server elsewhere, whose address and key an agent's author has written down.

What is sent goes to that server alone: no redirect is followed, and a request for another host is not sent. What comes
back is bounded, in size and in time.
"""

import re
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import httpx

from frontdesk import __version__
from frontdesk.agents.errors import AgentError

MAX_BYTES = 4 * 2**20
CONNECT_SECONDS = 10.0
CUT = " … [cut]"

_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


class TooLarge(httpx.RequestError):
    """The answer is larger than MAX_BYTES, or compressed, so that nobody knows how large it is."""


class Elsewhere(httpx.RequestError):
    """A request for another server than the one that was written down."""


def address(url: str, what: str) -> str:
    """A URL, checked. Raises AgentError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AgentError(f"The URL of {what} begins with https:// or http://, not {url[:100]!r}.")
    if parts.username or parts.password:
        raise AgentError(f"The URL of {what} holds a password. Give it as `api_key`, or in `headers`.")
    return url.rstrip("/")


def headers_of(api_key: str, headers: Mapping[str, str] | None, what: str) -> dict[str, str]:
    """What is sent with every request. Raises AgentError."""
    sent = dict(headers or {})
    if api_key and any(name.lower() == "authorization" for name in sent):
        raise AgentError(
            f"{what[:1].upper()}{what[1:]} was given both `api_key` and an Authorization header. Leave one of them out."
        )
    if not all(text.isascii() and text.isprintable() for text in (api_key, *sent, *sent.values())):
        raise AgentError(f"The headers and the key of {what} must be one line each, in ASCII.")
    return sent | ({"Authorization": f"Bearer {api_key}"} if api_key else {})


def client(url: str, headers: Mapping[str, str], timeout_seconds: float) -> httpx.AsyncClient:
    """For this server, and no other."""
    return httpx.AsyncClient(
        headers={"User-Agent": f"frontdesk/{__version__}", "Accept-Encoding": "identity", **headers},
        timeout=httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds), pool=None),
        transport=Bound(httpx.URL(url)),
    )


class Bound(httpx.AsyncBaseTransport):
    def __init__(self, home: httpx.URL) -> None:
        self._home = origin(home)
        self._inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None, max_keepalive_connections=20))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if origin(request.url) != self._home:
            raise Elsewhere(f"{request.url.host} is not the server that was written down.", request=request)
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.stream.aclose()
            raise TooLarge("The answer is compressed, which was not asked for.", request=request)
        response.stream = Body(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class Body(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner
        self._left = MAX_BYTES

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._left -= len(piece)
            if self._left < 0:
                raise TooLarge(f"The answer is larger than {MAX_BYTES} bytes.")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def label(url: str) -> str:
    """An address for logs: without its query, in which there may be a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def visible(text: str) -> str:
    """Without characters that nobody sees: they break the lines of a log, or hide words from whoever reads a text."""
    return _UNSEEN.sub("", text)


def cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - len(CUT)] + CUT
