"""Each agent's own URLs: `/agents/{name}/v1/…` is `/v1/…` where there is no other agent, and needs no model.

A plain ASGI layer before the routes. It finds the agent, makes the shared path of an agent's own, and says in the
scope whose URL it was; the caller is then somebody who knows that agent alone. What is no path of ours is given to the
agent's own endpoints. Only paths that are named here are made shared ones, so that nothing else can be reached so.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, TypedDict
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from frontdesk.directory import Directory
from frontdesk.errors import AgentNotFound, EndpointNotFound, Forbidden, MethodNotAllowed
from frontdesk.protocols.front import Address, Visitor, visitor
from frontdesk.turn import Agent, Principal

AGENTS = "/agents"
PREFIX = f"{AGENTS}/"
V1 = "/v1"
WELL_KNOWN = "/.well-known/"

SHARED = ("/chat/completions", "/responses", "/models", "/conversations")
"""What an agent has as all of them have, with /v1 before it or not."""
WITH_MORE = tuple(f"{path}/" for path in SHARED[1:])
"""… and those which go on."""


class Described(TypedDict):
    """An agent's own endpoint, as it is shown. `description` is the beginning of its docstring."""

    path: str
    methods: list[str]
    scope: str
    description: str


class Own(Protocol):
    """The endpoints of agents' own."""

    async def told(self, agent: Agent, principal: Principal) -> Sequence[Described]:
        """Those which this caller may use."""
        ...

    async def __call__(self, there: Address, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request to one, at this path below that of the agent. Raises GatewayError."""
        ...


class Nothing:
    """Where no agent has endpoints of its own."""

    async def told(self, agent: Agent, principal: Principal) -> Sequence[Described]:
        return ()

    async def __call__(self, there: Address, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        raise no_endpoint(scope["method"], path)


class AgentPaths:
    def __init__(self, app: ASGIApp, directory: Directory, own: Own) -> None:
        self._app = app
        self._directory = directory
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        name, path = parted(scope["raw_path"])
        if scope["method"] == "OPTIONS":  # which the door lets in without asking who it is
            raise MethodNotAllowed(f"OPTIONS is not allowed on {scope['path'][:200]}.")
        who = visitor(scope)
        common = shared(path)
        if common:
            who.come_to(common)
        there = await self._address(name, who.principal)
        if not path:
            await self._app(within(scope, there, PREFIX + quote(name, safe="")), receive, send)
        elif path.startswith(WELL_KNOWN):
            await self._app(within(scope, there, scope["path"]), receive, send)
        elif common:
            await self._app(within(scope, there, V1 + common), receive, send)
        else:
            await self._own(there, path, scope, receive, send)

    async def _address(self, name: str, principal: Principal) -> Address:
        """Raises AgentNotFound, Forbidden; EndpointNotFound for what can be no name in a URL."""
        if name in ("", ".", ".."):
            raise EndpointNotFound("An agent's URL is /agents/{name}. GET /agents lists the agents.")
        return await addressed(self._directory, name, principal)


async def addressed(directory: Directory, name: str, principal: Principal) -> Address:
    """The agent which a URL names. Raises AgentNotFound, Forbidden: of no parameter, as the name is none."""
    try:
        agent, _, _ = await directory.find_for_turn(name, principal)
    except (AgentNotFound, Forbidden) as error:
        error.param = None
        raise
    return Address(agent, name)


def parted(raw_path: bytes) -> tuple[str, str]:
    """The name in an agent's URL, and the path below it, which is empty or begins with a slash.

    The name is one segment: a slash in it is written `%2F`. Raises EndpointNotFound, AgentNotFound for one that is no
    text.
    """
    agents, _, below = raw_path.decode("ascii", "replace")[1:].partition("/")
    name, slash, path = below.partition("/")
    if unquote(agents) != AGENTS[1:]:
        raise EndpointNotFound("An agent's URL is /agents/{name}. A slash in the name is written %2F.")
    try:
        return unquote(name, errors="strict"), unquote(slash + path).rstrip("/\n")
    except UnicodeDecodeError:
        raise AgentNotFound("An agent's name is UTF-8, and percent-encoded in its URL.") from None


def shared(path: str) -> str:
    """The path without /v1 that an agent's own means, if it is one which all agents have."""
    found = path.removeprefix(V1)
    return found if found in SHARED or found.startswith(WITH_MORE) else ""


def is_taken(path: str) -> bool:
    """Whether an agent cannot have an endpoint of its own there."""
    return f"{path}/".startswith((f"{V1}/", WELL_KNOWN)) or bool(shared(path))


def url_of(name: str) -> str:
    """The path of an agent's own URL, not quoted."""
    return PREFIX + name


def no_endpoint(method: str, path: str) -> EndpointNotFound:
    return EndpointNotFound(
        f"There is no endpoint {method} {path[:200]} of this agent. GET /agents/{{name}} tells what it has."
    )


def within(scope: Scope, there: Address, path: str) -> Scope:
    """The request as one to another path, of somebody who knows this agent alone."""
    state: dict[str, Any] = scope["state"]
    known = {**state, "address": there, "visitor": knowing(there.agent, visitor(scope))}
    return {**scope, "path": path, "raw_path": quote(path).encode(), "state": known}


def knowing(agent: Agent, who: Visitor) -> Visitor:
    """Somebody for whom there is no other agent."""

    def principal_of(user: Any) -> Principal:
        return replace(who.principal_of(user), at=(agent.backend, agent.id))

    return replace(who, principal=replace(who.principal, at=(agent.backend, agent.id)), principal_of=principal_of)
