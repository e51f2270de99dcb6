"""The door: every request passes it once, before any route. Request ids, keys, rates, the log line, the last resort.

A plain ASGI wrapper, so that a streamed chunk costs one more function call and nothing else.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import Any

import msgspec
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontdesk.errors import Forbidden, GatewayError, NotFound, ShuttingDown, Unauthenticated
from frontdesk.observe.metrics import Metrics
from frontdesk.policies.auth import Caller, Keyring
from frontdesk.policies.limits import Limits, RateState, RequestRateExceeded
from frontdesk.protocols.agent_paths import PREFIX, parted, shared
from frontdesk.protocols.front import Visitor, header
from frontdesk.protocols.openai_errors import body_of, headers_of, status_of
from frontdesk.protocols.replies import send_json
from frontdesk.scopes import KEY_NEEDED

log = structlog.get_logger(__name__)

OPEN_PATHS = frozenset({f"{prefix}/health/{probe}" for prefix in ("", "/v1") for probe in ("live", "ready")})
"""Open to all, also when keys exist: probes have none."""

OPERATORS_PATHS = frozenset({"/health", "/metrics"})
"""They name all agents and backends."""

STRANGERS_PATHS = frozenset(
    {
        "/models",
        "/chat/completions",
        "/responses",
        "/agents",
        "/mcp",
        "/.well-known/agent-card.json",
    }
)
"""Where callers without a key may come, if any may: each answers with, and for, public agents alone."""

STRANGERS_PLACES = ("/models/", "/agents/", "/a2a/")
"""The same for what is under these."""

ROUTES = frozenset(
    {
        "/",
        "/agents",
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/models",
        "/chat/completions",
        "/conversations",
        "/responses",
        "/docs",
        "/mcp",
        "/openapi.json",
        "/.well-known/agent-card.json",
    }
)


class Door:
    def __init__(self, app: ASGIApp, keyring: Keyring, limits: Limits, metrics: Metrics) -> None:
        self.app = app
        self._keyring = keyring
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = _Visit(scope, send, self._metrics)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=visit.request_id)
        try:
            await self._admit(scope, visit)
            # HEAD is GET whose body the server leaves away.
            asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self.app(asked, receive, visit.send)
        except RequestRateExceeded as error:
            visit.rate = error.state
            await visit.refuse(error)
        except GatewayError as error:
            await visit.refuse(error)
        except asyncio.CancelledError:  # by the server, which ends
            await visit.refuse(ShuttingDown("The gateway is shutting down."))
        except Exception:
            log.exception("request failed", path=scope["path"])
            await visit.refuse(GatewayError("The gateway failed. Its log has the reason under this request id."))
        finally:
            self._note(scope, visit)

    async def _admit(self, scope: Scope, visit: "_Visit") -> None:
        # A route's pattern takes a line break at its end for the end: it must not make another path of one with rules.
        scope["path"] = scope["path"].rstrip("/\n") or "/"
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        if scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS":
            return
        caller = await self._keyring.admit(scope["headers"])
        visit.rate = await self._limits.hit(caller.allowance)
        come_to = partial(check_place, caller)
        come_to(scope["path"].removeprefix("/v1"))
        state["visitor"] = Visitor(caller.principal, self._turn_of(caller), caller.principal_of, come_to)

    def _turn_of(self, caller: Caller) -> Callable[[], Any]:
        return lambda: self._limits.turn(caller.allowance)

    def _note(self, scope: Scope, visit: "_Visit") -> None:
        seconds = time.perf_counter() - visit.began
        path = scope["path"].removeprefix("/v1") or "/"
        route = path if path in ROUTES else route_of(path, scope.get("raw_path", b""))
        self._metrics.request(scope["method"], route, visit.status, seconds)
        level = log.debug if scope["path"] in OPEN_PATHS else log.info
        level("request", method=scope["method"], path=scope["path"], status=visit.status, ms=round(seconds * 1000, 1))


def check_place(caller: Caller, path: str) -> None:
    """Whether they may come to a path at all. What is there looks at what it gives them, and does for them.

    Raises Unauthenticated, Forbidden.
    """
    if caller.principal.stranger and path not in STRANGERS_PATHS and not path.startswith(STRANGERS_PLACES):
        raise Unauthenticated(KEY_NEEDED)
    if path in OPERATORS_PATHS and not caller.may_look_around:
        raise Forbidden(
            "This page shows all agents. You need the scope 'metrics' to see it.", code="insufficient_scope"
        )


def route_of(path: str, raw_path: bytes = b"") -> str:
    """The template of a path that holds ids. An agent's name, which may hold slashes, is told by the raw path alone."""
    if path.startswith(PREFIX):
        return agents_route(raw_path)
    match path.split("/")[1:]:
        case ["models", *_]:
            return "/models/{id}"
        case ["a2a", *_, ".well-known", "agent-card.json"]:
            return "/a2a/{name}/.well-known/agent-card.json"
        case ["a2a", *_]:
            return "/a2a/{name}"
        case ["responses", _]:
            return "/responses/{id}"
        case ["responses", _, "cancel" | "input_items" as what]:
            return f"/responses/{{id}}/{what}"
        case ["conversations", _]:
            return "/conversations/{id}"
        case ["conversations", _, "fork" | "items" as what]:
            return f"/conversations/{{id}}/{what}"
        case ["conversations", _, "items", _]:
            return "/conversations/{id}/items/{item}"
        case _:
            return "other"


def agents_route(raw_path: bytes) -> str:
    """The same of a path below an agent's own URL."""
    try:
        _, path = parted(raw_path)
    except NotFound:
        return "other"
    common = shared(path)
    found = common if common in ROUTES or not common else route_of(common)
    return "/agents/{name}" + (found or ("/{endpoint}" if path else ""))


class ShortCut:
    """Hands the busiest endpoints their requests directly; all others go to the framework.

    A web framework's layers cost more on every request, and on every chunk sent through them, than decoding does.
    """

    def __init__(self, app: ASGIApp, posts: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._posts = posts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._posts.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        await (endpoint or self._app)(scope, receive, send)


class _Visit:
    """One request and its answer's head."""

    def __init__(self, scope: Scope, send: Send, metrics: Metrics) -> None:
        self.began = time.perf_counter()
        self.request_id = new_request_id()
        self.status = 0  # 0: the client went away before there was an answer
        self.rate: RateState | None = None
        self._client_id = header(scope, b"x-client-request-id")[:512]
        self._send = send
        self._metrics = metrics

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])  # which libraries may give as an enum
            own: dict[str, str] = {"x-request-id": self.request_id}
            if self._client_id.isascii() and self._client_id.isprintable() and self._client_id:
                own["x-client-request-id"] = self._client_id
            if self.rate:
                own |= self.rate.headers()
            message["headers"] = [*message.get("headers", ()), *encoded(own)]
        await self._send(message)

    async def refuse(self, error: GatewayError) -> None:
        """Answer with an error, unless an answer has begun."""
        if not self.status:
            self._metrics.error(error.public_code)
            await send_error(self.send, error)


def new_request_id() -> str:
    return f"req_{secrets.token_hex(16)}"


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]


async def send_error(send: Send, error: GatewayError) -> None:
    await send_json(send, status_of(error)[0], msgspec.json.encode(body_of(error)), encoded(headers_of(error)))
