"""Pictures that callers name by address or as data URLs, fetched without becoming their way into our network.

The guard stands where sockets are made: whatever name, notation or redirect led there, the address about to be
connected to is the one that is judged. So no second look-up can swap it (DNS rebinding), and IP literals, for which
aiohttp asks no resolver, cannot pass by. What callers are told is one sentence for every address they do not reach.
"""

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from frontdesk.errors import InvalidRequest
from frontdesk.policies.auth import ConfigurationError
from frontdesk.policies.files import PICTURES, base64_bytes, picture_type
from frontdesk.turn import Image

log = structlog.get_logger(__name__)

CODE = "invalid_image_url"
MAX_BYTES = 10 * 2**20
MAX_REDIRECTS = 3
MAX_CONNECTIONS = 16
HEAD_BYTES = 12  # enough to tell the kind

_HEADERS = {"Accept": ", ".join(PICTURES), "Accept-Encoding": "identity", "User-Agent": "frontdesk"}
_UNREACHABLE = "The image cannot be fetched: its address is unknown, cannot be reached, or is not public."
_NOT_AN_IMAGE = "This is not an image in one of the formats PNG, JPEG, GIF and WebP."

# Not public, although some versions of Python say they are. The IPv4 entry without a name is Azure's own host agent.
_CLOSED = [
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2001:db8::/32", "3fff::/20")
]
_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


# --- what is public ----------------------------------------------------------------------------------------------


def is_public(address: str) -> bool:
    """Whether this is a unicast address of the open internet, also by the IPv4 address it carries inside."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or _nat64(ip)
        if inner is None:
            return ip in _UNICAST and ip.is_global and not _is_closed(ip)
        ip = inner
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or _is_closed(ip))


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None


def _is_closed(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(ip in network for network in _CLOSED)


def _public_socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket for this address, as aiohttp asks for one. Raises PermissionError if it is not public."""
    family, kind, protocol, _, where = info
    if not is_public(where[0]):
        raise PermissionError(errno.EACCES, "not a public address; image_allow_hosts can open it")
    return socket.socket(family=family, type=kind, proto=protocol)


class _Resolver(AbstractResolver):
    """The system's resolver on threads of its own: names that are slow to resolve hold up nobody but images."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="image-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        infos = await loop.run_in_executor(
            self._threads, socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, socket.IPPROTO_TCP
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(where[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, where in infos
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


# --- fetching ----------------------------------------------------------------------------------------------------


class ImageFetcher:
    """`seconds` bounds a whole fetch, redirects included. `allow_hosts`, as `host` or `host:port`, may be private.

    Raises ConfigurationError for an allowed host that cannot be one.
    """

    def __init__(self, max_bytes: int, seconds: float, allow_hosts: Collection[str] = ()) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._allowed = frozenset(_host_and_port(entry) for entry in allow_hosts)
        self._resolver: _Resolver | None = None
        self._sessions: dict[bool, aiohttp.ClientSession] = {}  # by whether they are guarded

    async def fetch(self, url: str, param: str) -> Image:
        """The image at an http(s) address, its media type told from its bytes.

        Raises InvalidRequest (`invalid_image_url`) with `param` for whatever goes wrong.
        """
        try:
            async with asyncio.timeout(self._seconds):
                data = await self._follow(_address(url, param), param)
        except TimeoutError as error:
            raise _refusal(f"The image could not be fetched within {self._seconds:g} seconds.", param) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            log.info("image not fetched", error=f"{type(error).__name__}: {error}")
            raise _refusal(_UNREACHABLE, param) from error
        return Image(_media_type(data, param), data, param=param)

    async def aclose(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        if self._resolver:
            await self._resolver.close()
            self._resolver = None

    async def _follow(self, url: URL, param: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            session = self._session(guarded=not self._is_allowed(url))
            async with session.get(url, allow_redirects=False) as response:
                location = response.headers.get("Location")
                if response.status not in (301, 302, 303, 307, 308) or not location:
                    return await self._read(response, param)
            url = _address(str(url.join(URL(location))), param)
        raise _refusal(f"The image's address redirects more than {MAX_REDIRECTS} times.", param)

    async def _read(self, response: aiohttp.ClientResponse, param: str) -> bytes:
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

    def _session(self, *, guarded: bool) -> aiohttp.ClientSession:
        """Made on first use because it belongs to the running event loop. Nothing is kept between two requests."""
        if guarded not in self._sessions:
            self._resolver = self._resolver or _Resolver()
            self._sessions[guarded] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=self._resolver,
                    use_dns_cache=False,
                    force_close=True,
                    limit=MAX_CONNECTIONS,
                    socket_factory=_public_socket if guarded else None,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._sessions[guarded]


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
