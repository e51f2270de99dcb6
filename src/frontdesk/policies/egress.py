"""Requests to the public internet, which are no caller's way into our network.

The guard stands where sockets are made: whatever name, notation or redirect led there, the address about to be
connected to is the one that is judged. So no second look-up can swap it (DNS rebinding), and IP literals, for which
aiohttp asks no resolver, cannot pass by.
"""

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

FAULTS = (aiohttp.ClientError, OSError, ValueError)
"""What a request raises, beside TimeoutError, which is an OSError."""

MAX_CONNECTIONS = 16

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


# --- requests ----------------------------------------------------------------------------------------------------


class Client:
    """Belongs to the event loop in which it is first used. Keeps nothing between two requests."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._resolver = _Resolver()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}  # by whether they are guarded

    def get(self, url: URL, *, guarded: bool) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Redirects are not followed, and nothing is decompressed. Raises FAULTS; `guarded`, for private addresses."""
        return self._session(guarded=guarded).get(url, allow_redirects=False)

    async def aclose(self) -> None:
        for session in self._sessions.values():
            await session.close()
        await self._resolver.close()

    def _session(self, *, guarded: bool) -> aiohttp.ClientSession:
        if guarded not in self._sessions:
            self._sessions[guarded] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=self._resolver,
                    use_dns_cache=False,
                    force_close=True,
                    limit=MAX_CONNECTIONS,
                    socket_factory=_public_socket if guarded else None,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._sessions[guarded]
