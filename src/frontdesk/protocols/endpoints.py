"""Agents' own endpoints, `@http`, below their URLs: `/agents/{name}/…`, with FastAPI's types and our rules.

In this order: whether there is such an endpoint, whether this caller may use it, whether what was sent fits; then the
function runs, with a context as tools have. Endpoints are looked up for each request: agents come and go meanwhile.
"""

import inspect
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, cast

import structlog
from fastapi import Depends
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from frontdesk import scopes
from frontdesk.agents.authors import contained
from frontdesk.agents.context import Context, context, entered, left
from frontdesk.agents.endpoints import Endpoint
from frontdesk.agents.errors import AgentError
from frontdesk.agents.methods import Function, plain, told
from frontdesk.agents.tools import hints_of, is_context
from frontdesk.errors import AgentFailed, GatewayError, InvalidRequest, MethodNotAllowed
from frontdesk.protocols.agent_paths import Described, is_taken, no_endpoint, url_of
from frontdesk.protocols.front import Address, Front, visitor
from frontdesk.protocols.openai_errors import kind_of
from frontdesk.protocols.replies import new_id
from frontdesk.protocols.requests import invalid
from frontdesk.turn import Agent, Principal, Turn

log = structlog.get_logger(__name__)

MAX_MOUNTED = 1000
"""Agents whose routes are kept ready; to make them anew takes about a millisecond for each."""

UNREADABLE = "There was an error parsing the body"
"""FastAPI's words for whatever went wrong while it read the body, which is their cause."""

Lend = Callable[[Agent], AbstractAsyncContextManager[Sequence[Endpoint]]]
"""Gives the endpoints which an agent has at this moment, and keeps up what they work with as long as they are used."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """An endpoint, and what answers its requests."""

    endpoint: Endpoint
    route: APIRoute
    app: ASGIApp


class Endpoints:
    """Answers requests to all agents' endpoints."""

    def __init__(self, lend: Mapping[str, Lend], front: Front) -> None:
        """`lend`: by the backends whose agents may have any."""
        self._lenders = lend
        self._front = front
        self._mounted: OrderedDict[tuple[str, str], tuple[Mounted, ...]] = OrderedDict()  # by backend and id

    async def told(self, agent: Agent, principal: Principal) -> list[Described]:
        """Those which this caller may use, as they are described."""
        async with self._lend(agent) as endpoints:
            return [described(each) for each in endpoints if principal.holds(each.scope)]

    async def __call__(self, there: Address, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        who = visitor(scope).principal
        root = url_of(there.model)
        inner: Scope = {**scope, "path": f"{root}{path}", "root_path": root}
        async with self._lend(there.agent) as endpoints:
            found = chosen(self._ready(there.agent, endpoints), inner, path)
            scopes.check(found.endpoint.scope, who, f"{scope['method']} {found.endpoint.path} of {there.agent.name!r}")
            turn = Turn(f"turn_{new_id()}", there.agent.name, (), principal=who)
            token = entered(Context(there.agent.name, turn))
            try:
                with contained():
                    await answer(found.app, inner, self._front.bounded(scope, receive), send)
            finally:
                left(token)

    def _lend(self, agent: Agent) -> AbstractAsyncContextManager[Sequence[Endpoint]]:
        lend = self._lenders.get(agent.backend)
        return lend(agent) if lend else nullcontext(())

    def _ready(self, agent: Agent, endpoints: Sequence[Endpoint]) -> tuple[Mounted, ...]:
        """Raises AgentFailed where they cannot be served, which is known at the start of agents that are known then."""
        key = agent.backend, agent.id
        known = self._mounted.get(key)
        if known is None or [each.endpoint for each in known] != list(endpoints):
            try:
                known = self._mounted[key] = mounted(endpoints)
            except AgentError as error:
                log.error("endpoints cannot be served", agent=agent.name, error=str(error))
                raise AgentFailed(f"The endpoints of {agent.name!r} cannot be served. The log says why.") from error
        self._mounted.move_to_end(key)
        if len(self._mounted) > MAX_MOUNTED:
            self._mounted.popitem(last=False)
        return known


# --- making routes -----------------------------------------------------------------------------------------------


def mounted(endpoints: Sequence[Endpoint]) -> tuple[Mounted, ...]:
    """Routes for the endpoints of one agent.

    Raises AgentError for one at a path that every agent has, for two in one place, and for what FastAPI cannot take.
    """
    seen: dict[tuple[str, str], Endpoint] = {}
    for each in endpoints:
        if is_taken(each.path):
            raise AgentError(
                f"{told(each.function)} cannot answer at {each.path!r}: there every agent has OpenAI's API. Choose"
                " another path."
            )
        for method in each.methods:
            if other := seen.get((method, each.path)):
                raise AgentError(
                    f"{told(each.function)} and {told(other.function)} both answer to {method} {each.path}. Give one of"
                    " them another path."
                )
            seen[method, each.path] = each
    return tuple(map(mount, endpoints))


def mount(endpoint: Endpoint) -> Mounted:
    try:
        route = APIRoute(endpoint.path, with_context(endpoint.function), methods=list(endpoint.methods))
    except AgentError:
        raise
    except Exception as error:  # FastAPI raises what comes to hand: assertions, its own, pydantic's
        reason = str(error).partition("\n")[0]
        raise AgentError(f"{told(endpoint.function)} cannot be an endpoint: {reason}") from error
    return Mounted(endpoint, route, AsyncExitStackMiddleware(route.app))


def with_context(function: Function) -> Function:
    """The function as FastAPI is to see it, which knows how to get what is of type Context."""
    hints = hints_of(plain(function))
    signature = inspect.signature(function)
    if not any(is_context(hints.get(name)) for name in signature.parameters):
        return function
    shown = partial(function)
    cast("Any", shown).__signature__ = inspect.Signature(
        [
            parameter.replace(
                annotation=GIVEN if is_context(hints.get(name)) else hints.get(name, parameter.annotation)
            )
            for name, parameter in signature.parameters.items()
        ],
        return_annotation=hints.get("return", signature.return_annotation),
    )
    return shown


async def current() -> Context:
    return context()


GIVEN = Annotated[Context, Depends(current)]


def described(endpoint: Endpoint) -> Described:
    doc = inspect.getdoc(plain(endpoint.function)) or ""
    return {
        "path": endpoint.path,
        "methods": list(endpoint.methods),
        "scope": endpoint.scope,
        "description": doc.partition("\n\n")[0].replace("\n", " "),
    }


# --- answering ---------------------------------------------------------------------------------------------------


def chosen(routes: Sequence[Mounted], scope: Scope, path: str) -> Mounted:
    """The endpoint which is meant; what its path holds is put into the scope.

    Raises EndpointNotFound, MethodNotAllowed.
    """
    others: list[str] = []
    for each in routes:
        match, child = each.route.matches(scope)
        if match is Match.FULL:
            scope.update(child)
            return each
        if match is Match.PARTIAL:
            others += each.endpoint.methods
    if others:
        takes = ", ".join(dict.fromkeys(others))
        raise MethodNotAllowed(f"{scope['method']} is not allowed on {path[:200]} of this agent, which takes {takes}.")
    raise no_endpoint(scope["method"], path)


async def answer(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let an endpoint answer. What it raises on purpose is put into our envelope; all else is the door's to tell.

    Raises GatewayError.
    """
    try:
        await app(scope, receive, send)
    except RequestValidationError as error:
        raise misfit(error.errors()[0]) from error
    except HTTPException as error:
        if error.detail == UNREADABLE and error.__cause__:
            raise unread(error.__cause__) from error
        await refusal(error)(scope, receive, send)


def unread(reason: BaseException) -> GatewayError:
    return reason if isinstance(reason, GatewayError) else InvalidRequest("The request body cannot be read.")


def misfit(found: dict[str, Any]) -> InvalidRequest:
    """What of a request does not fit the function's types, in OpenAI's terms."""
    where = tuple(found["loc"])
    details = cast("ErrorDetails", {**found, "loc": where[1:] or where})
    return invalid(
        details, lambda _, param: InvalidRequest(f"Invalid value for {param!r}: {found['msg']}", param=param)
    )


def refusal(error: HTTPException) -> JSONResponse:
    """An author's own `HTTPException`, with its status and its words."""
    detail: Any = error.detail  # FastAPI's may be anything JSON can say
    message = detail if isinstance(detail, str) else json.dumps(detail)
    body = {"message": message, "type": kind_of(error.status_code), "param": None, "code": None}
    return JSONResponse({"error": body}, error.status_code, error.headers)
