"""The composition root: the only module that knows every part, and the only one that constructs them."""

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from frontdesk import __version__
from frontdesk.asking import Asking
from frontdesk.backends.letta import LettaBackend, LettaSettings
from frontdesk.backends.letta.client import LettaClient
from frontdesk.config import LettaServer, Settings
from frontdesk.conversations.archive import Archive
from frontdesk.conversations.background import Background, Utility
from frontdesk.conversations.desk import Customs, Desk
from frontdesk.conversations.housekeeping import Housekeeping
from frontdesk.conversations.ids import Ids
from frontdesk.conversations.ledger import Ledger
from frontdesk.conversations.owners import Line, Owners
from frontdesk.conversations.receipts import Receipts
from frontdesk.conversations.recovery import Recovery
from frontdesk.conversations.snapshots import Snapshots
from frontdesk.directory import Directory
from frontdesk.door import Door, ShortCut
from frontdesk.errors import EndpointNotFound, GatewayError, InvalidRequest, MethodNotAllowed
from frontdesk.gateway import Gateway, Parts
from frontdesk.observe.metrics import Metrics
from frontdesk.observe.recorder import Recorder
from frontdesk.policies.admission import Admission
from frontdesk.policies.auth import Keyring
from frontdesk.policies.budgets import Budgets, unpriced
from frontdesk.policies.images import ImageFetcher, decode_data_url
from frontdesk.policies.limits import Limits
from frontdesk.policies.options import Rules
from frontdesk.policies.payments import X402Payments
from frontdesk.ports import Backend
from frontdesk.protocols import about, agents, conversations, models
from frontdesk.protocols.a2a.paths import CARD
from frontdesk.protocols.a2a.routes import A2A
from frontdesk.protocols.agent_paths import AgentPaths, Nothing, Own
from frontdesk.protocols.chat_completions.encode import Style
from frontdesk.protocols.chat_completions.routes import ChatCompletions
from frontdesk.protocols.front import Front
from frontdesk.protocols.mcp.routes import MCP
from frontdesk.protocols.openai_errors import body_of, headers_of, status_of
from frontdesk.protocols.replies import Delivery, Heartbeat
from frontdesk.protocols.responses import encode as responses_encode
from frontdesk.protocols.responses import routes as responses_routes
from frontdesk.protocols.responses.routes import Responses
from frontdesk.store.budgets import StoredAccounts
from frontdesk.store.database import Database
from frontdesk.store.memories import StoredMemories
from frontdesk.store.threads import StoredThreads
from frontdesk.turn import Agent, Image

if TYPE_CHECKING:
    from frontdesk.agents.agent import Agent as PythonAgent
    from frontdesk.agents.loading import Agents
    from frontdesk.agents.services import Services
    from frontdesk.backends.python import Models, PythonBackend

EXPOSED_HEADERS = [
    "mcp-session-id",
    "openai-processing-ms",
    "payment-required",
    "retry-after",
    "retry-after-ms",
    "x-frontdesk-conversation",
    "x-frontdesk-identity",
    "x-frontdesk-ignored-params",
    "x-frontdesk-turn",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-request-id",
    "x-should-retry",
]


@dataclass(frozen=True, slots=True)
class House:
    """What serves every protocol alike."""

    metrics: Metrics
    database: Database
    python: "PythonBackend | None"
    directory: Directory
    images: ImageFetcher
    front: Front
    ids: Ids
    desk: Desk
    owners: Owners
    budgets: Budgets
    housekeeping: Housekeeping
    archive: Archive
    receipts: Receipts
    gateway: Gateway


@dataclass(frozen=True, slots=True)
class Protocols:
    """Who is asked, in each protocol's words."""

    heartbeat: Heartbeat
    chat: ChatCompletions
    responses: Responses
    mcp: MCP
    a2a: A2A
    own: Own  # agents' own endpoints


def create_app(settings: Settings) -> ASGIApp:
    """The whole server as an ASGI application."""
    house = build(settings)
    protocols = protocols_of(house, settings)
    app = FastAPI(
        title="Frontdesk",
        version=__version__,
        lifespan=lambda _: lifespan(house, protocols),
        redirect_slashes=False,
        redoc_url=None,
    )
    mount(app, house, protocols, settings)
    app.openapi = partial(document, app)
    add_error_handlers(app, house.metrics)
    return behind_the_door(app, house, protocols, settings)


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document. Imported here: it declares the shape of every answer, and few ask for it."""
    from frontdesk.protocols.openapi import document_of

    return document_of(app)


def build(settings: Settings) -> House:
    """Everything from the store to the gateway. Nothing of it is at work yet."""
    metrics = Metrics()
    database = Database.at(settings.store_url)
    letta = [letta_backend(server, settings, metrics) for server in settings.servers]
    python = python_backend(settings, database) if settings.has_python_agents else None
    backends: list[Backend] = [*letta, python] if python else [*letta]
    directory = Directory(backends, settings.aliases, settings.models_refresh_seconds)
    images = ImageFetcher(settings.max_image_bytes, settings.image_seconds, settings.image_allow_hosts)
    entrance = front(settings, images)
    ledger = Ledger(database)
    ids = Ids(secret(settings))
    desk = Desk(ids, ledger, customs(settings), entrance.with_images)
    line = Line(settings.queue_wait_seconds, settings.max_waiting)
    limits = [each.budget for each in settings.budgets]
    budgets = Budgets(StoredAccounts(database, ledger.owner), limits, metrics.spent, payments=X402Payments())
    recovery = Recovery(directory, ledger, desk, line, budgets.settle)
    owners = Owners(database, ledger.owner, lambda: ledger.mine, recovery, cancel=lambda turn_id: gateway.stop(turn_id))
    housekeeping = Housekeeping(
        database,
        ledger,
        directory,
        settings.retention_days,
        settings.unused_days,
        responses_days=settings.responses_days,
        chores=[budgets.tidy],
    )
    gateway = Gateway(
        Parts(
            directory=directory,
            desk=desk,
            ledger=ledger,
            owners=owners,
            line=line,
            snapshots=Snapshots(ledger),
            background=background(settings, metrics),
            admission={backend.name: admission(settings) for backend in backends},
            budgets=budgets,
            tap=lambda turn, agent: metrics.turn(agent.backend, agent.name),
            count_repeat=metrics.repeat,
            rules=rules(settings),
            grace_seconds=settings.grace_seconds,
        )
    )
    metrics.waiting(lambda: gateway.waiting)
    return House(
        metrics=metrics,
        database=database,
        python=python,
        directory=directory,
        images=images,
        front=entrance,
        ids=ids,
        desk=desk,
        owners=owners,
        budgets=budgets,
        housekeeping=housekeeping,
        archive=Archive(database, ids, directory, housekeeping),
        receipts=Receipts(database, ids, directory),
        gateway=gateway,
    )


def protocols_of(house: House, settings: Settings) -> Protocols:
    """What decodes and encodes, in front of the gateway."""
    gateway, receipts, entrance = house.gateway, house.receipts, house.front
    heartbeat = Heartbeat(settings.keepalive_seconds)
    delivery = Delivery(settings.commit_wait_seconds, heartbeat, settings.silence_seconds, house.metrics.error)
    chat_style = Style(settings.reasoning_field, settings.tool_activity == "reasoning", settings.keepalive)
    style = responses_encode.Style(settings.tool_items, settings.reasoning_field != "off", settings.keepalive)
    a2a = A2A(
        gateway,
        receipts,
        entrance,
        keyed=not settings.open_to_all,
        public_url=settings.public_url,
        card_agent=settings.card_agent,
    )
    return Protocols(
        heartbeat=heartbeat,
        chat=ChatCompletions(gateway, entrance, delivery, chat_style),
        responses=Responses(gateway, receipts, entrance, delivery, style),
        mcp=MCP(gateway, entrance),
        a2a=a2a,
        own=endpoints(house.python, entrance) if house.python else Nothing(),
    )


@asynccontextmanager
async def lifespan(house: House, protocols: Protocols) -> AsyncGenerator[None, None]:
    """What starts with the server and stops with it."""
    await house.database.start()
    if house.python:
        desk = Asking(house.gateway, house.directory, house.ids, house.python.name)
        await house.python.start(services(house.database, desk))
    await house.owners.start()
    house.directory.start()
    house.housekeeping.start()
    yield
    await house.housekeeping.stop()
    await protocols.mcp.stop()
    await protocols.a2a.stop()
    await house.gateway.close()
    if house.python:
        await house.python.rest()
    await house.budgets.aclose()
    await house.owners.stop()
    await house.database.aclose()
    await protocols.heartbeat.stop()
    await house.directory.stop()
    await house.images.aclose()


def mount(app: FastAPI, house: House, protocols: Protocols, settings: Settings) -> None:
    """Give every endpoint its paths: OpenAI's also without `/v1`."""
    directory, answered = house.directory, rules(settings)
    of_openai = [
        responses_routes.router(protocols.responses),
        models.router(directory, answered),
        conversations.router(house.archive, house.front, protocols.responses),
    ]
    of_ours = about.router(directory, house.gateway, house.metrics)
    for prefix in ("/v1", ""):
        for path, entrance in busiest(protocols, prefix).items():
            app.router.routes.append(Route(path, entrance, methods=["POST"]))
        for router in of_openai:
            app.include_router(router, prefix=prefix, include_in_schema=bool(prefix))
        app.include_router(of_ours, prefix=prefix, include_in_schema=not prefix)
    app.include_router(agents.router(directory, answered, house.desk.mode_for, protocols.own))
    app.router.routes.append(Route("/mcp", protocols.mcp, methods=["POST"]))
    for path in ("/a2a/{rest:path}", CARD, f"/agents/{{rest:path}}{CARD}"):
        app.router.routes.append(Route(path, protocols.a2a, methods=["GET", "POST"]))


def busiest(protocols: Protocols, prefix: str) -> dict[str, ASGIApp]:
    """The endpoints to which most requests go, by path."""
    return {f"{prefix}/chat/completions": protocols.chat, f"{prefix}/responses": protocols.responses}


def behind_the_door(app: FastAPI, house: House, protocols: Protocols, settings: Settings) -> ASGIApp:
    """With short cuts to where most requests go, agents' own paths, and the door, which every request passes."""
    short = busiest(protocols, "/v1") | busiest(protocols, "")
    shared = ShortCut(app, short)
    entry = ShortCut(AgentPaths(shared, house.directory, protocols.own), short)  # these need not pass agents' own URLs
    door = Door(entry, Keyring(settings), Limits(settings), house.metrics)
    if not settings.cors_origins:
        return door
    return CORSMiddleware(  # around the door: else a page could not read why it was refused
        door,
        allow_origins=list(settings.cors_origins),
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=EXPOSED_HEADERS,
    )


def customs(settings: Settings) -> Customs:
    """Which conversation a request belongs to, as far as that may be chosen."""
    return Customs(
        settings.conversation_mode, settings.modes, settings.unknown_history, settings.grace_seconds is not None
    )


def background(settings: Settings, metrics: Metrics) -> Background:
    """What becomes of what clients ask for themselves, as titles."""
    return Background(settings.background_tasks, settings.task_patterns, utility(settings), metrics.background_task)


def admission(settings: Settings) -> Admission:
    """How many turns one backend runs at a time."""
    return Admission(settings.max_turns, settings.max_waiting, settings.queue_wait_seconds)


def rules(settings: Settings) -> Rules:
    """What of callers' wishes is carried out here."""
    return Rules(
        settings.strict_params,
        settings.remove_system_prompt,
        settings.system_prompt,
        settings.system_prompts,
        settings.model_choices,
    )


def letta_backend(server: LettaServer, settings: Settings, metrics: Metrics | None = None) -> LettaBackend:
    watch = partial(metrics.backend_call, server.name) if metrics else None
    return LettaBackend(
        LettaSettings(
            name=server.name,
            base_url=server.url,
            project=server.project,
            tags=server.tags,
            names=server.names,
            include_hidden=server.include_hidden or settings.include_hidden,
            include_sleeptime=server.include_sleeptime or settings.include_sleeptime,
            silence_seconds=settings.silence_seconds,
            busy_seconds=settings.queue_wait_seconds,
            bridge=server.bridge,
            approvals=server.approvals,
            allowed_tools=server.allowed_tools,
            replicas=settings.replicas,
            scopes=settings.letta_scopes,
            kept_seconds=settings.retention_days * 86_400,
            memory_seconds=settings.memory_refresh_seconds if settings.memory_refresh == "changed" else None,
            alone=settings.workers == 1 and not settings.database_url,
        ),
        LettaClient(server.url, server.api_key.get_secret_value(), server.project, watch),
        Recorder(settings.record_dir),
    )


def python_backend(settings: Settings, database: Database) -> "PythonBackend":
    """Imported here: Pydantic AI takes more than a second, and many servers have no such agents."""
    import pydantic_ai

    from frontdesk.backends.python import Models, PythonBackend

    pydantic_ai.BANNER_ENABLED = False  # it would print one on a terminal, amid our log
    models = Models(settings.providers)
    source = python_agents(settings, models)
    return PythonBackend(
        source,
        StoredThreads(database),
        models,
        silence_seconds=settings.silence_seconds,
        durable_url=settings.durable_url,
    )


def python_agents(settings: Settings, models: "Models") -> "Agents":
    """The agents written in Python. Raises AgentError for what is wrong with one of them."""
    from frontdesk.agents.errors import AgentError
    from frontdesk.agents.loading import Agents
    from frontdesk.protocols.endpoints import mounted

    def check(agent: "PythonAgent") -> None:
        models.check(agent)
        mounted(agent.parts.endpoints)
        described = Agent(agent.name, agent.name, "python", model=models.name(agent))
        if trouble := unpriced([each.budget for each in settings.budgets], described):
            raise AgentError(trouble)

    return Agents(
        settings.agents,
        settings.agents_dir,
        settings.agents_resolver,
        settings.agents_resolver_seconds,
        scopes=settings.scopes,
        check=check,
    )


def endpoints(python: "PythonBackend", entrance: Front) -> Own:
    """The HTTP endpoints of Python agents."""
    from frontdesk.protocols.endpoints import Endpoints

    return Endpoints({python.name: python.endpoints}, entrance)


def services(database: Database, desk: Asking) -> "Services":
    """What the skills of Python agents are lent."""
    from frontdesk.agents.services import Services

    return Services(memories=StoredMemories(database), desk=desk)


def front(settings: Settings, images: ImageFetcher) -> Front:
    async def fetch(url: str, param: str) -> Image:
        if url[:5].lower() == "data:":
            return decode_data_url(url, param, settings.max_image_bytes)
        return await images.fetch(url, param)

    return Front(
        settings.max_body_bytes,
        tuple(name.lower().encode() for name in settings.conversation_headers),
        tuple(name.lower().encode() for name in settings.chat_headers),
        settings.conversation_metadata,
        fetch,
        images_seconds=max(60.0, settings.image_seconds),
    )


def utility(settings: Settings) -> Utility | None:
    """The model for background tasks, if one is set."""
    if not settings.utility_model:
        return None
    base_url = settings.utility_base_url or "https://api.openai.com/v1"
    return Utility(base_url, settings.utility_model, settings.utility_api_key.get_secret_value())


def secret(settings: Settings) -> bytes:
    """What signs our ids: as set, else made once and kept, so that ids outlive a restart.

    Raises OSError if it cannot be kept, or is empty: then anybody could sign.
    """
    if value := settings.secret.get_secret_value():
        return value.encode()
    path = settings.data_dir / "secret"
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_hex(32).encode())
    except FileExistsError:
        pass
    kept = path.read_bytes()
    if not kept.strip():
        raise OSError(f"the secret in {path} is empty; delete this file, and a new one is made")
    return kept


def add_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    """One envelope for every error of every path: never `{"detail": …}`, never HTML."""

    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)
        metrics.error(error.public_code)
        return JSONResponse(body_of(error), status_of(error)[0], headers_of(error))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = await ours(request, from_http(error, request.method, request.url.path))
        response.headers.update(error.headers or {})
        return response

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first: dict[str, Any] = error.errors()[0]
        return await ours(request, InvalidRequest(str(first["msg"]), param=str(first["loc"][-1])))

    async def unforeseen(request: Request, _: Exception) -> Response:
        return await ours(request, GatewayError("The gateway failed. Its log has the reason under this request id."))

    app.add_exception_handler(GatewayError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unforeseen)


def from_http(error: HTTPException, method: str, path: str) -> GatewayError:
    if error.status_code == 405:
        return MethodNotAllowed(f"{method} is not allowed on {path[:200]}.")
    if error.status_code == 404:
        return EndpointNotFound(f"There is no endpoint {method} {path[:200]}. GET / tells what there is.")
    return InvalidRequest(str(error.detail))
