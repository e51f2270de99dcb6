"""What `frontdesk doctor` looks at. A check gives findings and raises nothing."""

import asyncio
import os
import platform
import re
import secrets
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretStr

from frontdesk.app import letta_backend
from frontdesk.backends.letta.client import LettaClient
from frontdesk.cli.gateway import PIN_HEADER, Gateway, KeyRefused, Unreachable
from frontdesk.cli.page import Trouble
from frontdesk.cli.serve import check_safe, in_url, listening, reachable, without_password
from frontdesk.cli.settings import unknown_names
from frontdesk.config import LettaServer, Settings, config_file
from frontdesk.errors import BackendRejectedKey, BackendUnavailable, EndpointNotFound, GatewayError
from frontdesk.turn import Agent

if TYPE_CHECKING:
    from uvicorn import Server

SHORT_KEY = 16
TURN_SECONDS = 120
START_SECONDS = 20
TRIAL = "This is a test of the connection. Please answer with the one word: ready"
NO_DEMO = (3, 14)


@dataclass(frozen=True, slots=True)
class Finding:
    mark: Literal["ok", "warn", "fail"]
    subject: str
    message: str
    mend: str = ""


# --- this machine ------------------------------------------------------------------------------------------------


def python() -> Finding:
    version = platform.python_version()
    if sys.version_info >= NO_DEMO:
        return Finding("warn", "python", version, "The Letta server of `frontdesk demo` needs Python 3.11 to 3.13.")
    return Finding("ok", "python", version)


def settings(settings: Settings) -> Iterator[Finding]:
    file = config_file()
    source = f"the environment and {file}" if file.is_file() else "the environment; no settings file"
    yield Finding("ok", "settings", f"from {source}")
    try:
        check_safe(settings)
    except Trouble as trouble:
        yield Finding("fail", "settings", trouble.message, trouble.mend)
    for message, mend in risks(settings):
        yield Finding("warn", "settings", message, mend)


def risks(settings: Settings) -> Iterator[tuple[str, str]]:
    """Settings which work and may not be what was meant."""
    for name in unknown_names():
        yield f"{name} is not a setting.", "Mend its name, or remove it."
    if settings.open_to_all and "FRONTDESK_API_KEY" in os.environ:
        yield "FRONTDESK_API_KEY is what clients send.", "The server's own keys are FRONTDESK_API_KEYS."
    if any(len(key.get_secret_value()) < SHORT_KEY for key in settings.api_keys):
        yield (
            f"A key is shorter than {SHORT_KEY} characters, so it could be guessed.",
            "Make one: `openssl rand -hex 24`",
        )
    if settings.open_to_all and "*" in settings.cors_origins:
        yield "Every web page you visit may use the agents.", "Name the pages in FRONTDESK_CORS_ORIGINS, or set keys."
    if settings.record_dir:
        yield f"What is said is recorded in {settings.record_dir}.", "Unset FRONTDESK_RECORD_DIR when done."
    for server in settings.servers:
        if server.api_key.get_secret_value() and server.url.startswith("http:") and not Gateway.at(server.url).local:
            yield f"The key for {server.name} travels unencrypted.", "Use https:// in its address."


def data_folder(folder: Path) -> Finding:
    """Whether the folder can be written, or made if it is not there yet."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        if nearest != folder and nearest.is_dir():
            writable = os.access(nearest, os.W_OK)
        else:
            with tempfile.TemporaryFile(dir=folder):
                writable = True
    except OSError:
        writable = False
    if writable:
        return Finding("ok", "data", str(folder))
    return Finding("fail", "data", f"{folder} cannot be written.", "Mend its rights, or set FRONTDESK_DATA_DIR.")


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """What is where the gateway should be; `gateway` if it is one that lets us in."""

    finding: Finding
    gateway: Gateway | None = None


def door(settings: Settings, url: str, key: str) -> FrontDoor:
    """Look for a running gateway at `url`, else where the settings put one."""
    ours = next((key.get_secret_value() for key in settings.api_keys), "")
    place = f"http://{in_url(reachable(settings.host))}:{settings.port}"
    gateway = Gateway.at(url, key) if url else Gateway.at(place, key or ours)
    try:
        count = len(gateway.agents())
    except Unreachable as trouble:
        return FrontDoor(Finding("fail", "gateway", trouble.message, trouble.mend) if url else free(settings))
    except KeyRefused as trouble:
        return FrontDoor(Finding("fail" if url else "warn", "gateway", trouble.message, trouble.mend))
    except Trouble as trouble:
        mend = trouble.mend if url else f"Free the port {settings.port}, or choose another with FRONTDESK_PORT."
        return FrontDoor(Finding("fail", "gateway", trouble.message, mend))
    return FrontDoor(Finding("ok", "gateway", f"runs at {gateway.url} and serves {counted(count)}"), gateway)


def free(settings: Settings) -> Finding:
    try:
        listening(settings).close()
    except Trouble as trouble:
        return Finding("fail", "port", trouble.message, trouble.mend)
    return Finding("ok", "port", f"{settings.port} on {settings.host} is free; no gateway runs there now")


# --- Letta -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class House:
    """What was found out about one Letta server."""

    findings: Sequence[Finding]
    agents: Sequence[Agent] = ()


def letta(settings: Settings) -> list[House]:
    async def visits() -> list[House]:
        return await asyncio.gather(*(visit(server, settings) for server in settings.servers))

    return asyncio.run(visits())


async def visit(server: LettaServer, settings: Settings) -> House:
    client = LettaClient(server.url, server.api_key.get_secret_value(), server.project)
    backend = letta_backend(server, settings)
    subject = server.name
    try:
        version = await version_of(client)
        findings = [*await conversations(client, subject)]
        agents = await backend.agents()
        total: Any = await client.get("/v1/agents/count")
    except GatewayError as error:
        return House([unwell(server, error)])
    finally:
        await client.aclose()
        await backend.aclose()
    where = f"{without_password(server.url)}, version {version}"
    return House([Finding("ok", subject, f"{where}: {counted(len(agents))} of {total} served"), *findings], agents)


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


async def conversations(client: LettaClient, subject: str) -> list[Finding]:
    """A warning for a server from before conversations."""
    try:
        await client.get("/v1/conversations/", {"limit": 1})
    except EndpointNotFound:
        message = "This version has no conversations: everybody who talks to an agent shares one."
        return [Finding("warn", subject, message, "Update Letta.")]
    except (BackendRejectedKey, BackendUnavailable):
        raise
    except GatewayError:
        pass  # it knows them, and only wants to be asked otherwise
    return []


def unwell(server: LettaServer, error: GatewayError) -> Finding:
    where = f"{server.name} at {without_password(server.url)}"
    if isinstance(error, BackendRejectedKey):
        mend = "Set LETTA_API_KEY (or `api_key` in its `[[letta]]`) to the server's key or password."
        return Finding("fail", server.name, f"{where} rejects the key.", mend)
    if isinstance(error, BackendUnavailable) and "cannot be reached" in error.message:
        mend = "Start it, or set LETTA_BASE_URL. No Letta yet? `frontdesk demo` brings one."
        return Finding("fail", server.name, f"{where} cannot be reached{because(error)}.", mend)
    if isinstance(error, BackendUnavailable):
        return Finding("fail", server.name, f"{where}: {error.message}", "Is LETTA_BASE_URL right?")
    return Finding("fail", server.name, f"{where}: {error.message}", "Letta's own log may say more.")


def because(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, TimeoutError):
        return ": it does not answer in time"
    number = getattr(cause, "errno", None) or 0
    reason = os.strerror(number) if number > 0 else getattr(cause, "strerror", None)
    return f": {reason}" if reason else ""


# --- agents ------------------------------------------------------------------------------------------------------


def agents(served: Sequence[Agent], aliases: Mapping[str, str]) -> Iterator[Finding]:
    """Agents that some client will stumble over."""
    count = Counter(agent.name for agent in served)
    for name in (name for name in count if count[name] > 1):
        ids = ", ".join(agent.id for agent in served if agent.name == name)
        yield warning(f"{count[name]} agents are called {name!r}: {ids}", "They are served by id. Rename all but one.")
    for name in count:
        if found := re.search("o1|o3|o4", name):
            message = f"{name!r} contains {found.group()}: Roo Code takes it for a model of OpenAI's o-series"
            yield warning(message, "Give it an alias without it, or another name.")
    for agent in served:
        if not agent.client_tools:
            kind = agent.settings.get("agent_type") or "an older type"
            message = f"{agent.name!r} is a {kind}: no client tools, and one conversation for everybody"
            yield warning(message, "Make it anew as a letta_v1_agent; it can share the memory blocks.")
    known = {name for agent in served for name in (agent.name, agent.id, f"{agent.backend}/{agent.name}")}
    for alias, name in aliases.items():
        if served and name not in known:
            yield warning(f"The alias {alias!r} means {name!r}, which is not served.", "Mend FRONTDESK_ALIASES.")


def warning(message: str, mend: str) -> Finding:
    return Finding("warn", "agents", message, mend)


def counted(count: int) -> str:
    return "1 agent" if count == 1 else f"{count} agents"


# --- a turn ------------------------------------------------------------------------------------------------------


def turn(settings: Settings, gateway: Gateway | None, served: Sequence[Agent], wanted: str) -> Finding:
    """Send a message through the running gateway, or through one made for it."""
    try:
        name = wanted or whom(gateway, served)
        if gateway:
            return trial(gateway, name)
        if not served:
            return Finding("warn", "turn", "not tried: there is no agent to send it to")
        with running(settings) as made:
            return trial(made, name)
    except Trouble as trouble:
        return Finding("fail", "turn", trouble.message, trouble.mend)
    except OSError as error:  # such as a data folder without rights
        return Finding("fail", "turn", f"The gateway cannot start: {error}.", "Mend what is said above, and try again.")


def whom(gateway: Gateway | None, served: Sequence[Agent]) -> str:
    """The first agent with separate conversations: in the one of an older agent, a trial would stay."""
    if gateway:
        able = [agent.id for agent in gateway.agents() if agent.capabilities.client_tools is not False]
    else:
        count = Counter(agent.name for agent in served)
        able = [agent.name if count[agent.name] == 1 else agent.id for agent in served if agent.conversations]
    if not able and (gateway or served):
        raise Trouble("There is no agent with conversations of its own.", "Name the one to try with `--agent`.")
    return able[0] if able else ""


def trial(gateway: Gateway, name: str) -> Finding:
    """One turn in a new conversation. Raises Trouble."""
    import openai

    from frontdesk.cli.reply import pieces

    began = time.monotonic()
    first = 0.0
    said = ""
    pin = f"doctor-{secrets.token_hex(6)}"
    with gateway.openai(TURN_SECONDS) as client:
        try:
            chunks = client.chat.completions.create(
                model=name,
                messages=[{"role": "user", "content": TRIAL}],
                stream=True,
                extra_headers={PIN_HEADER: pin},
            )
            for piece in pieces(chunks):
                first = first or time.monotonic() - began
                said += piece.text if piece.kind == "text" else ""
        except openai.OpenAIError as error:
            raise gateway.trouble(error) from error
    if not said.strip():
        return Finding("warn", "turn", f"{name} answered without a word.", "Is its model a capable one?")
    took = time.monotonic() - began
    return Finding("ok", "turn", f"{name} answered in {took:.1f} s, beginning after {first:.1f} s")


@contextmanager
def running(settings: Settings) -> Generator[Gateway, None, None]:
    """A gateway with these settings on a free port of loopback, with a key that nobody else has."""
    from frontdesk.observe import logs
    from frontdesk.serving import listen, server

    key = secrets.token_hex(24)
    own = {"host": "127.0.0.1", "api_keys": (SecretStr(key),), "keys": (), "record_dir": None}
    with listen("127.0.0.1", 0) as listener:
        uvicorn = server(settings.model_copy(update=own))
        logs.configure("error", "console")
        thread = threading.Thread(target=uvicorn.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            wait_until_started(uvicorn, thread)
            yield Gateway(f"http://127.0.0.1:{listener.getsockname()[1]}", key)
        finally:
            uvicorn.should_exit = True
            thread.join(15)


def wait_until_started(server: "Server", thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise Trouble("The gateway does not start.", "`frontdesk serve` says why.")
        time.sleep(0.01)
