"""Pictures that callers name by address or as data URLs, fetched without becoming their way into our network.

The guard is in `egress`. What callers are told is one sentence for every address they do not reach.
"""

import asyncio
import importlib
from collections.abc import Collection
from typing import TYPE_CHECKING

import structlog
from yarl import URL

from frontdesk.errors import InvalidRequest
from frontdesk.policies.auth import ConfigurationError
from frontdesk.policies.files import PICTURES, base64_bytes, picture_type
from frontdesk.turn import Image

if TYPE_CHECKING:
    from aiohttp import ClientResponse

    from frontdesk.policies.egress import Client

log = structlog.get_logger(__name__)

CODE = "invalid_image_url"
MAX_BYTES = 10 * 2**20
MAX_REDIRECTS = 3
HEAD_BYTES = 12  # enough to tell the kind

_HEADERS = {"Accept": ", ".join(PICTURES), "Accept-Encoding": "identity", "User-Agent": "frontdesk"}
_UNREACHABLE = "The image cannot be fetched: its address is unknown, cannot be reached, or is not public."
_NOT_AN_IMAGE = "This is not an image in one of the formats PNG, JPEG, GIF and WebP."

# --- fetching ----------------------------------------------------------------------------------------------------


class ImageFetcher:
    """`seconds` bounds a whole fetch, redirects included. `allow_hosts`, as `host` or `host:port`, may be private.

    Raises ConfigurationError for an allowed host that cannot be one.
    """

    def __init__(self, max_bytes: int, seconds: float, allow_hosts: Collection[str] = ()) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._allowed = frozenset(_host_and_port(entry) for entry in allow_hosts)
        self._client: Client | None = None

    async def fetch(self, url: str, param: str) -> Image:
        """The image at an http(s) address, its media type told from its bytes.

        Raises InvalidRequest (`invalid_image_url`) with `param` for whatever goes wrong.
        """
        address = _address(url, param)
        # 100 ms, for which no server should wait that is never sent an address, nor anybody else's turn.
        await asyncio.to_thread(importlib.import_module, "frontdesk.policies.egress")
        from frontdesk.policies.egress import FAULTS, Client

        self._client = self._client or Client(_HEADERS)
        try:
            async with asyncio.timeout(self._seconds):
                data = await self._follow(self._client, address, param)
        except TimeoutError as error:
            raise _refusal(f"The image could not be fetched within {self._seconds:g} seconds.", param) from error
        except FAULTS as error:
            log.info("image not fetched", error=f"{type(error).__name__}: {error}")
            raise _refusal(_UNREACHABLE, param) from error
        return Image(_media_type(data, param), data, param=param)

    async def aclose(self) -> None:
        if self._client:
            await self._client.aclose()
            self._client = None

    async def _follow(self, client: "Client", url: URL, param: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            async with client.get(url, guarded=not self._is_allowed(url)) as response:
                location = response.headers.get("Location")
                if response.status not in (301, 302, 303, 307, 308) or not location:
                    return await self._read(response, param)
            url = _address(str(url.join(URL(location))), param)
        raise _refusal(f"The image's address redirects more than {MAX_REDIRECTS} times.", param)

    async def _read(self, response: "ClientResponse", param: str) -> bytes:
        if response.status != 200:
            raise _refusal(f"The image's server answered with status {response.status}.", param)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _refusal("The image's server sent it compressed although it was asked not to.", param)
        if (response.content_length or 0) > self._max_bytes:
            raise _too_large(self._max_bytes, param)
        data = bytearray()
        checked = False
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > self._max_bytes:
                raise _too_large(self._max_bytes, param)
            if not checked and len(data) >= HEAD_BYTES:
                _media_type(data, param)  # before the rest of something else is read
                checked = True
        return bytes(data)

    def _is_allowed(self, url: URL) -> bool:
        host = (url.raw_host or "").lower()
        return (host, None) in self._allowed or (host, url.port) in self._allowed


def _address(url: str, param: str) -> URL:
    """Parsed once, by the parser which the client uses too."""
    try:
        parsed = URL(url)
    except ValueError as error:
        raise _refusal("The image's address cannot be read.", param) from error
    if parsed.scheme not in ("http", "https") or not parsed.raw_host:
        raise _refusal("The image's address must begin with https://, http:// or data:.", param)
    if "@" in parsed.raw_authority:
        raise _refusal("The image's address must not hold a user name or password.", param)
    return parsed


def _host_and_port(entry: str) -> tuple[str, int | None]:
    """`host`, `host:port`, `::1` or `[::1]:port`."""
    bare_ipv6 = entry.count(":") > 1 and not entry.startswith("[")
    try:
        url = URL(f"http://[{entry}]" if bare_ipv6 else f"http://{entry}")
    except ValueError:
        url = URL()
    if not url.raw_host or url.path != "/" or "@" in url.raw_authority:
        raise ConfigurationError(f"The host {entry!r} of image_allow_hosts cannot be read. Use host or host:port.")
    return url.raw_host.lower(), url.explicit_port


# --- the bytes ---------------------------------------------------------------------------------------------------


def decode_data_url(url: str, param: str, max_bytes: int = MAX_BYTES) -> Image:
    """The image in a `data:image/…;base64,…` URL, its media type told from its bytes. Raises InvalidRequest."""
    head, comma, payload = url.partition(",")
    declared, *parameters = head[len("data:") :].lower().split(";")
    if head[: len("data:")].lower() != "data:" or not comma or not parameters or parameters[-1].strip() != "base64":
        raise _refusal("The image's data URL must look like data:image/png;base64,….", param)
    if declared.strip() not in (*PICTURES, "image/jpg"):
        raise _refusal(_NOT_AN_IMAGE, param)
    data = _base64(payload, param)
    if len(data) > max_bytes:
        raise _too_large(max_bytes, param)
    return Image(_media_type(data, param), data, param=param)


def _base64(payload: str, param: str) -> bytes:
    try:
        return base64_bytes(payload)
    except ValueError as error:
        raise _refusal("The base64 of the image's data URL cannot be decoded.", param) from error


def _media_type(data: bytes | bytearray, param: str) -> str:
    if found := picture_type(data):
        return found
    raise _refusal(_NOT_AN_IMAGE, param)


def _too_large(max_bytes: int, param: str) -> InvalidRequest:
    return _refusal(f"The image is larger than {max_bytes} bytes.", param)


def _refusal(sentence: str, param: str) -> InvalidRequest:
    return InvalidRequest(sentence, param=param, code=CODE)
