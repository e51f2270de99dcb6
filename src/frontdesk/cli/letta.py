"""A Letta server, asked directly: what the gateway's own view of it leaves out."""

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from frontdesk.app import letta_backend
from frontdesk.backends.letta.backend import LettaBackend
from frontdesk.backends.letta.client import LettaClient
from frontdesk.cli.page import Trouble
from frontdesk.cli.serve import without_password
from frontdesk.config import LettaServer, Settings
from frontdesk.errors import BackendRejectedKey, BackendUnavailable, EndpointNotFound, GatewayError
from frontdesk.turn import Agent

Row = Mapping[str, Any]

PAGE = 200
APPROVAL = "requires_approval"
HIDDEN = [("show_hidden_agents", "true")]


@dataclass(frozen=True, slots=True)
class House:
    """One Letta server: `client` asks it anything, `backend` sees it as the gateway does."""

    server: LettaServer
    client: LettaClient
    backend: LettaBackend


@asynccontextmanager
async def visit(server: LettaServer, settings: Settings) -> AsyncGenerator[House]:
    """Raises Trouble for what goes wrong there."""
    client = LettaClient(server.url, server.api_key.get_secret_value(), server.project)
    backend = letta_backend(server, settings)
    try:
        yield House(server, client, backend)
    except GatewayError as error:
        raise unwell(server, error) from error
    finally:
        await client.aclose()
        await backend.aclose()


# --- questions -------------------------------------------------------------------------------------------------------


async def version_of(client: LettaClient) -> str:
    """Letta's version. Raises BackendUnavailable for a server of another kind."""
    try:
        health = await client.get("/v1/health/")
    except (BackendUnavailable, BackendRejectedKey):
        raise
    except GatewayError as error:
        raise BackendUnavailable("It answers, but not as a Letta server does.") from error
    match health:
        case {"version": str(version)}:
            return version
        case _:
            raise BackendUnavailable("It answers, but not as a Letta server does.")


async def has_conversations(client: LettaClient) -> bool:
    """False for a server from before conversations."""
    try:
        await client.get("/v1/conversations/", {"limit": 1})
    except EndpointNotFound:
        return False
    except (BackendRejectedKey, BackendUnavailable):
        raise
    except GatewayError:
        pass  # it knows them, and only wants to be asked otherwise
    return True


async def has_redis(client: LettaClient) -> bool:
    """Whether the server keeps two turns in one conversation apart. It says so when it is asked for a stream that
    nobody has begun."""
    try:
        await client.post("/v1/conversations/conv-00000000-0000-4000-8000-000000000000/stream", {})
    except BackendUnavailable:
        return False
    except GatewayError:
        pass
    return True


async def handles(client: LettaClient, path: str = "/v1/models/") -> frozenset[str]:
    """The models that a server offers; empty if it does not tell."""
    try:
        rows: Any = await client.get(path)
        return frozenset(row["handle"] for row in rows)
    except (GatewayError, KeyError, TypeError):
        return frozenset()


async def listing(client: LettaClient, query: Sequence[tuple[str, str]] = ()) -> list[Row]:
    """Every agent that the query finds."""
    found: dict[str, Row] = {}
    after: list[tuple[str, str]] = []
    while True:
        page: Sequence[Row] = await client.get("/v1/agents/", [("limit", str(PAGE)), *query, *after])
        before = len(found)
        found.update({row["id"]: row for row in page})
        if len(found) == before or len(page) < PAGE:
            return list(found.values())
        after = [("after", page[-1]["id"])]


# --- answers ---------------------------------------------------------------------------------------------------------


def without_conversations(agent: Agent) -> Agent:
    """The agent as it is on a server that has none: the gateway finds that out with the first turn."""
    return replace(agent, client_tools=agent.client_tools and agent.tools_alone, conversations=False, bridged=False)


def awaiting_approval(row: Row) -> tuple[str, ...]:
    """Tools of an agent that a person must approve of, each time."""
    return tuple(sorted(rule["tool_name"] for rule in row.get("tool_rules") or () if rule["type"] == APPROVAL))


def model_of(row: Row) -> str:
    config: Row = row.get("llm_config") or {}
    return row.get("model") or config.get("handle") or ""


def embedding_of(row: Row) -> str:
    config: Row = row.get("embedding_config") or {}
    return row.get("embedding") or config.get("handle") or config.get("embedding_model") or ""


def unwell(server: LettaServer, error: GatewayError) -> Trouble:
    where = f"{server.name} at {without_password(server.url)}"
    if isinstance(error, BackendRejectedKey):
        mend = "Set LETTA_API_KEY (or `api_key` in its `[[letta]]`) to the server's key or password."
        return Trouble(f"{where} rejects the key.", mend)
    if isinstance(error, BackendUnavailable) and "cannot be reached" in error.message:
        mend = "Start it, or set LETTA_BASE_URL. No Letta yet? `frontdesk demo` brings one."
        return Trouble(f"{where} cannot be reached{because(error)}.", mend)
    if isinstance(error, BackendUnavailable):
        return Trouble(f"{where}: {error.message}", "Is LETTA_BASE_URL right?")
    return Trouble(f"{where}: {error.message}", "Letta's own log may say more.")


def because(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, TimeoutError):
        return ": it does not answer in time"
    number = getattr(cause, "errno", None) or 0
    reason = os.strerror(number) if number > 0 else getattr(cause, "strerror", None)
    return f": {reason}" if reason else ""
