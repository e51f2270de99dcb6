"""The composition root: the only module that knows every part, and the only one that constructs them."""

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
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
from frontdesk.protocols.openapi import describe
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


def create_app(settings: Settings) -> ASGIApp:
    """The whole server as an ASGI application."""
    metrics = Metrics()
    database = Database.at(settings.store_url)
    letta = [letta_backend(server, settings, metrics) for server in settings.servers]
    python = python_backend(settings, database) if settings.has_python_agents else None
    backends: list[Backend] = [*letta, python] if python else [*letta]
    directory = Directory(backends, settings.aliases, settings.models_refresh_seconds)
    images = ImageFetcher(settings.max_image_bytes, settings.image_seconds, settings.image_allow_hosts)
    entrance = front(settings, images)
    ledger = Ledger(database)
    customs = Customs(
        settings.conversation_mode, settings.modes, settings.unknown_history, settings.grace_seconds is not None
    )
    ids = Ids(secret(settings))
    desk = Desk(ids, ledger, customs, entrance.with_images)
    line = Line(settings.queue_wait_seconds, settings.max_waiting)
    accounts = StoredAccounts(database, ledger.owner)
    limits = [each.budget for each in settings.budgets]
    budgets = Budgets(accounts, limits, metrics.spent, payments=X402Payments())
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
    archive = Archive(database, ids, directory, housekeeping)
    gateway = Gateway(
        Parts(
            directory=directory,
            desk=desk,
            ledger=ledger,
            owners=owners,
            line=line,
            snapshots=Snapshots(ledger),
            background=Background(
                settings.background_tasks, settings.task_patterns, utility(settings), metrics.background_task
            ),
            admission={
                backend.name: Admission(settings.max_turns, settings.max_waiting, settings.queue_wait_seconds)
                for backend in backends
            },
            budgets=budgets,
            tap=lambda turn, agent: metrics.turn(agent.backend, agent.name),
            count_repeat=metrics.repeat,
            rules=rules(settings),
            grace_seconds=settings.grace_seconds,
        )
    )
    metrics.waiting(lambda: gateway.waiting)
    heartbeat = Heartbeat(settings.keepalive_seconds)
    delivery = Delivery(settings.commit_wait_seconds, heartbeat, settings.silence_seconds, metrics.error)
    chat = ChatCompletions(
        gateway,
        entrance,
        delivery,
        Style(settings.reasoning_field, settings.tool_activity == "reasoning", settings.keepalive),
    )

    receipts = Receipts(database, ids, directory)
    responses = Responses(
        gateway,
        receipts,
        entrance,
        delivery,
        responses_encode.Style(settings.tool_items, settings.reasoning_field != "off", settings.keepalive),
    )

    mcp = MCP(gateway, entrance)
    a2a = A2A(
        gateway,
        receipts,
        entrance,
        keyed=not settings.open_to_all,
        public_url=settings.public_url,
        card_agent=settings.card_agent,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        await database.start()
        if python:
            await python.start(services(database, Asking(gateway, directory, ids, python.name)))
        await owners.start()
        directory.start()
        housekeeping.start()
        yield
        await housekeeping.stop()
        await mcp.stop()
        await a2a.stop()
        await gateway.close()
        if python:
            await python.rest()
        await budgets.aclose()
        await owners.stop()
        await database.aclose()
        await heartbeat.stop()
        await directory.stop()
        await images.aclose()

    app = FastAPI(title="Frontdesk", version=__version__, lifespan=lifespan, redirect_slashes=False, redoc_url=None)
    for prefix in ("/v1", ""):
        app.router.routes.append(Route(f"{prefix}/chat/completions", chat, methods=["POST"]))
        app.router.routes.append(Route(f"{prefix}/responses", responses, methods=["POST"]))
        app.include_router(responses_routes.router(responses), prefix=prefix, include_in_schema=bool(prefix))
        app.include_router(models.router(directory, rules(settings)), prefix=prefix, include_in_schema=bool(prefix))
        app.include_router(
            conversations.router(archive, entrance, responses), prefix=prefix, include_in_schema=bool(prefix)
        )
        app.include_router(about.router(directory, gateway, metrics), prefix=prefix, include_in_schema=not prefix)
    own = endpoints(python, entrance) if python else Nothing()
    app.include_router(agents.router(directory, rules(settings), desk.mode_for, own))
    app.router.routes.append(Route("/mcp", mcp, methods=["POST"]))
    for path in ("/a2a/{rest:path}", CARD, f"/agents/{{rest:path}}{CARD}"):
        app.router.routes.append(Route(path, a2a, methods=["GET", "POST"]))
    describe(app)
    add_error_handlers(app, metrics)
    busiest: dict[str, ASGIApp] = {}
    for prefix in ("/v1", ""):
        busiest |= {f"{prefix}/chat/completions": chat, f"{prefix}/responses": responses}
    shared = ShortCut(app, busiest)
    entry = ShortCut(AgentPaths(shared, directory, own), busiest)  # these need not pass agents' own URLs
    door = Door(entry, Keyring(settings), Limits(settings), metrics)
    if not settings.cors_origins:
        return door
    return CORSMiddleware(  # around the door: else a page could not read why it was refused
        door,
        allow_origins=list(settings.cors_origins),
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=EXPOSED_HEADERS,
    )


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
