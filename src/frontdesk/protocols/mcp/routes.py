"""/mcp: the agents of this desk as the tools of an MCP server, by streamable HTTP.

Each request stands alone, whichever process it comes to: there are no sessions. Clients of the protocol's versions
before 2026 are given a session id all the same, and nothing is kept of it; it tells one client's calls from another's
when they cancel one, which they do with a request of its own. Later clients hang up.

The library is loaded with the first request: that takes most of a second.
"""

import asyncio
import importlib
import re
import secrets
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.types import Message, Receive, Scope, Send

from frontdesk.gateway import Gateway
from frontdesk.protocols.front import Front, again, header, visitor

if TYPE_CHECKING:
    from frontdesk.protocols.mcp.server import Server

SESSION = b"mcp-session-id"
SESSION_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Envelope(msgspec.Struct):
    """What is read of a message before the library reads it."""

    method: str = ""
    params: msgspec.Raw = msgspec.Raw(b"{}")


class Cancelled(msgspec.Struct, rename="camel"):
    request_id: str | int


class MCP:
    """The endpoint, handed what it needs. https://modelcontextprotocol.io/specification"""

    def __init__(self, gateway: Gateway, front: Front) -> None:
        self._gateway = gateway
        self._front = front
        self._starting: asyncio.Task[Server] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self._front.body(scope, receive)
        message = envelope(body)
        if message.method == "notifications/cancelled" and (session := session_of(scope)):
            if cancelled := cancellation(message.params):
                who = visitor(scope).principal
                self._gateway.later(self._gateway.cancel_keyed(who, call_key(session, cancelled.request_id)))
            await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        server = await self._served()
        answer = beginning_session(send) if message.method == "initialize" else send
        await server(scope, again(body, receive), answer)

    async def _served(self) -> "Server":
        if self._starting is None or (self._starting.done() and self._starting.exception()):
            self._starting = asyncio.create_task(self._start())
        return await asyncio.shield(self._starting)

    async def _start(self) -> "Server":
        await asyncio.to_thread(importlib.import_module, "frontdesk.protocols.mcp.server")
        from frontdesk.protocols.mcp.server import Server

        server = Server(self._gateway, self._front.max_body_bytes)
        await server.start()
        return server

    async def stop(self) -> None:
        """This process ends: stop the turns of calls that are still waited for."""
        if self._starting:
            await asyncio.wait({self._starting})
            if not self._starting.exception():
                await self._starting.result().stop()


def envelope(body: bytes) -> Envelope:
    try:
        return msgspec.json.decode(body, type=Envelope)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return Envelope()  # the library says what is wrong with it


def cancellation(params: bytes) -> Cancelled | None:
    try:
        return msgspec.json.decode(params, type=Cancelled)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def session_of(scope: Scope) -> str:
    """The session that a client says it is in; nothing for what can be none."""
    session = header(scope, SESSION)
    return session if SESSION_ID.fullmatch(session) else ""


def call_key(session: str, request_id: Any) -> str:
    """What tells a call from all others of its caller."""
    return f"mcp {session} {request_id}"


def beginning_session(send: Send) -> Send:
    async def named(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            message["headers"] = [*message.get("headers", ()), (SESSION, secrets.token_hex(16).encode())]
        await send(message)

    return named
