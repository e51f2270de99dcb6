"""/a2a/{name}, and where an agent's card is found: below that, below /agents/{name}, and at the well-known path itself.

Whoever may not use an agent has no card of it either. The library is loaded with the first request: that takes half a
second.
"""

import asyncio
import importlib
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from frontdesk.conversations.receipts import Receipts
from frontdesk.directory import Directory
from frontdesk.errors import EndpointNotFound, MethodNotAllowed, NotFound
from frontdesk.gateway import Gateway
from frontdesk.protocols.a2a.paths import CARD, ROOT, a2a_path
from frontdesk.protocols.agent_paths import AGENTS, addressed, parted, within
from frontdesk.protocols.front import Address, Front, address, visitor
from frontdesk.protocols.replies import send_json
from frontdesk.scopes import check
from frontdesk.turn import Principal

if TYPE_CHECKING:
    from frontdesk.protocols.a2a.service import Service

FOR_ANYBODY = frozenset({"SendMessage", "SendStreamingMessage", "message/send", "message/stream"})
"""What needs nothing that has been kept of its caller."""

UNREADABLE = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Invalid JSON payload"}}'
NO_REQUEST = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid Request"}}'


class Envelope(msgspec.Struct):
    """What is read of a request before the library reads it."""

    method: str = ""


class A2A:
    """The endpoints, handed what they need."""

    def __init__(
        self,
        gateway: Gateway,
        receipts: Receipts,
        front: Front,
        *,
        keyed: bool,
        public_url: str = "",
        card_agent: str = "",
    ) -> None:
        """`keyed`: whether callers need a key. `public_url`: where clients reach this server, if not where they say.
        `card_agent`: whose card is at the well-known path; nobody's, if there are several to choose from."""
        self._gateway = gateway
        self._receipts = receipts
        self._front = front
        self._keyed = keyed
        self._public_url = public_url.rstrip("/")
        self._card_agent = card_agent
        self._loading: asyncio.Task[Service] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        there, path = await self._meant(scope)
        allowed = "GET" if path == CARD else "POST"
        if scope["method"] != allowed:
            raise MethodNotAllowed(f"{scope['method']} is not allowed on {scope['path'][:200]}. Use {allowed}.")
        service = await self._loaded()
        if path == CARD:
            await service.card(there.agent, self._url(scope, there), keyed=self._keyed)(scope, receive, send)
            return
        body = await self._front.body(scope, receive)
        try:
            method = msgspec.json.decode(body, type=Envelope).method
        except msgspec.ValidationError:
            await send_json(send, 200, NO_REQUEST)
            return
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            await send_json(send, 200, UNREADABLE)
            return
        if method not in FOR_ANYBODY:
            check("user", visitor(scope).principal)
        await service.answer(within(scope, there, scope["path"]), body, receive, send)

    async def _meant(self, scope: Scope) -> tuple[Address, str]:
        """The agent a path means, and the path below that agent's. Raises NotFound, Forbidden, Unauthenticated."""
        principal = visitor(scope).principal
        if there := address(scope):  # by the agent's own URL, of which this has one thing
            if scope["path"].endswith(CARD):
                return there, CARD
            raise unknown(scope)
        if scope["path"] == CARD:
            return await addressed(self._directory, self._only(principal), principal), CARD
        raw: bytes = scope["raw_path"]
        if not raw.startswith(f"{ROOT}/".encode()):
            raise unknown(scope)
        name, path = parted(AGENTS.encode() + raw.removeprefix(ROOT.encode()))
        if not name or path not in ("", CARD):
            raise unknown(scope)
        return await addressed(self._directory, name, principal), path

    def _only(self, principal: Principal) -> str:
        """The agent whose card stands for this server."""
        if self._card_agent:
            return self._card_agent
        agents = {(agent.backend, agent.id): name for name, agent in reversed(self._directory.advertised(principal))}
        if len(agents) != 1:
            raise NotFound(
                f"More than one agent is here, or none. The card of each is at {ROOT}/{{name}}{CARD}, and GET /agents"
                " lists them."
            )
        return agents.popitem()[1]

    @property
    def _directory(self) -> Directory:
        return self._gateway.directory

    def _url(self, scope: Scope, there: Address) -> str:
        base = self._public_url or str(Request(scope).base_url).rstrip("/")
        return base + a2a_path(self._directory.called(there.agent))

    async def _loaded(self) -> "Service":
        if self._loading is None or (self._loading.done() and self._loading.exception()):
            self._loading = asyncio.create_task(self._load())
        return await asyncio.shield(self._loading)

    async def _load(self) -> "Service":
        await asyncio.to_thread(importlib.import_module, "frontdesk.protocols.a2a.service")
        from frontdesk.protocols.a2a.service import Service

        return Service(self._gateway, self._receipts)

    async def stop(self) -> None:
        """This process ends: stop the turns of strangers, for whom nobody else will find out their end."""
        if self._loading:
            await asyncio.wait({self._loading})
            if not self._loading.exception():
                self._loading.result().stop()


def unknown(scope: Scope) -> EndpointNotFound:
    return EndpointNotFound(
        f"There is no endpoint {scope['method']} {scope['path'][:200]}. An agent's is {ROOT}/{{name}}, and a slash in"
        " the name is written %2F."
    )
