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
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretStr

from frontdesk.agents.errors import AgentError
from frontdesk.app import rules
from frontdesk.cli.gateway import PIN_HEADER, Gateway, KeyRefused, Unreachable
from frontdesk.cli.letta import (
    HIDDEN,
    House,
    Row,
    awaiting_approval,
    embedding_of,
    handles,
    has_conversations,
    has_redis,
    listing,
    model_of,
    version_of,
    visit,
    without_conversations,
)
from frontdesk.cli.page import Trouble
from frontdesk.cli.serve import AGENTS_MEND, check_safe, in_url, listening, places, reachable, without_password
from frontdesk.cli.settings import unknown_names
from frontdesk.config import LettaServer, Settings, config_file
from frontdesk.demo.local_letta import VERSION as TESTED
from frontdesk.policies.abilities import lacking
from frontdesk.turn import Agent

if TYPE_CHECKING:
    from uvicorn import Server

SHORT_KEY = 16
TURN_SECONDS = 120
START_SECONDS = 20
TRIAL = "This is a test of the connection. Please answer with the one word: ready"
NO_DEMO = (3, 14)
NAMED = 3  # agents, of which the same is true

MENDS = {
    "client tools": "Make it anew as a letta_v1_agent; it can share the memory blocks.",
    "conversations": "Give it `replicas`, or make it anew as a letta_v1_agent; it can share the memory blocks.",
    "own tools": 'Name it in `allowed_tools`, or set `approvals = "surface"`, so that callers decide.',
    "system prompts": "Set FRONTDESK_SYSTEM_PROMPT, or `system_prompts` for this agent.",
}


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
    is_python: bool = False  # it serves agents written in Python, and no others


def door(settings: Settings, url: str, key: str) -> FrontDoor:
    """Look for a running gateway at `url`, else where the settings put one."""
    ours = next((key.get_secret_value() for key in settings.api_keys), "")
    place = f"http://{in_url(reachable(settings.host))}:{settings.port}"
    gateway = Gateway.at(url, key) if url else Gateway.at(place, key or ours)
    try:
        served = gateway.agents()
    except Unreachable as trouble:
        return FrontDoor(Finding("fail", "gateway", trouble.message, trouble.mend) if url else free(settings))
    except KeyRefused as trouble:
        return FrontDoor(Finding("fail" if url else "warn", "gateway", trouble.message, trouble.mend))
    except Trouble as trouble:
        mend = trouble.mend if url else f"Free the port {settings.port}, or choose another with FRONTDESK_PORT."
        return FrontDoor(Finding("fail", "gateway", trouble.message, mend))
    found = Finding("ok", "gateway", f"runs at {gateway.url} and serves {counted(len(served))}")
    return FrontDoor(found, gateway, bool(served) and all(agent.owned_by == "python" for agent in served))


def free(settings: Settings) -> Finding:
    try:
        listening(settings).close()
    except Trouble as trouble:
        return Finding("fail", "port", trouble.message, trouble.mend)
    return Finding("ok", "port", f"{settings.port} on {settings.host} is free; no gateway runs there now")


def python_agents(settings: Settings) -> tuple[list[Finding], list[Agent]]:
    """Whether the agents written in Python can be served, and who they are."""
    if not settings.has_python_agents:
        return [], []
    from frontdesk.app import python_agents as load
    from frontdesk.backends.python import Models

    try:
        names = list(load(settings, Models(settings.providers)).listed())
    except AgentError as error:
        return [Finding("fail", "agents", str(error), AGENTS_MEND)], []
    found = Finding("ok", "agents", f"{counted(len(names))} from {'; '.join(places(settings))}")
    return [found], [Agent(id=name, name=name, backend="python") for name in names]


# --- Letta -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found out about one Letta server: of itself, of its agents that are served, and of each of those what
    the server alone knows."""

    findings: Sequence[Finding]
    agents: Sequence[Agent] = ()
    rows: Mapping[str, Row] = field(default_factory=dict[str, Row])  # by the agent's id
    models: frozenset[str] = frozenset()
    embeddings: frozenset[str] = frozenset()


def letta(settings: Settings, door: FrontDoor) -> list[Seen]:
    """What there is to be found out about each server. Where none is set, and the gateway that runs has only agents
    written in Python, it was started with these by an option, and no server is missed."""
    if door.is_python and not (settings.letta or settings.letta_base_url or settings.letta_api_key.get_secret_value()):
        return []

    async def visits() -> list[Seen]:
        return await asyncio.gather(*(look_at(server, settings) for server in settings.servers))

    return asyncio.run(visits())


async def look_at(server: LettaServer, settings: Settings) -> Seen:
    try:
        async with visit(server, settings) as house:
            return await looked_at(house)
    except Trouble as trouble:
        return Seen([Finding("fail", server.name, trouble.message, trouble.mend)])


async def looked_at(house: House) -> Seen:
    client, name = house.client, house.server.name
    version = await version_of(client)
    agents = await house.backend.agents()
    total: Any = await client.get("/v1/agents/count")
    where = f"{without_password(house.server.url)}, version {version}"
    findings = [Finding("ok", name, f"{where}: {counted(len(agents))} of {total} served")]
    if aged(version):
        findings.append(Finding("warn", name, f"It is older than {TESTED}, on which all is tested.", "Update Letta."))
    if not await has_conversations(client):
        message = "This version has no conversations: everybody who talks to an agent shares one."
        findings.append(Finding("warn", name, message, "Update Letta."))
        agents = [without_conversations(agent) for agent in agents]
    elif not await has_redis(client):
        message = "It has no Redis, so it does not keep apart two programs that use one conversation."
        mend = "Fine while only Frontdesk talks to these agents. Else give it LETTA_REDIS_HOST."
        findings.append(Finding("warn", name, message, mend))
    rows = {row["id"]: row for row in await listing(client, HIDDEN)} if agents else {}
    models, embeddings = await handles(client), await handles(client, "/v1/models/embedding")
    return Seen(findings, agents, rows, models, embeddings)


def aged(version: str) -> bool:
    """Whether it is known to be from before the version on which all is tested."""
    numbers = [tuple(map(int, re.findall(r"\d+", each)[:3])) for each in (version, TESTED)]
    return len(numbers[0]) == 3 and numbers[0] < numbers[1]


# --- agents ------------------------------------------------------------------------------------------------------


def agents(seen: Sequence[Seen], settings: Settings) -> Iterator[Finding]:
    """Agents that some client will stumble over."""
    served = [agent for house in seen for agent in house.agents]
    count = Counter(agent.name for agent in served)
    for name in (name for name in count if count[name] > 1):
        ids = ", ".join(agent.id for agent in served if agent.name == name)
        yield warning(f"{count[name]} agents are called {name!r}: {ids}", "They are served by id. Rename all but one.")
    for name in count:
        if found := re.search("o1|o3|o4", name):
            message = f"{name!r} contains {found.group()}: Roo Code takes it for a model of OpenAI's o-series"
            yield warning(message, "Give it an alias without it, or another name.")
    yield from together(doubt for house in seen for agent in house.agents for doubt in doubts(agent, house, settings))
    known = {name for agent in served for name in (agent.name, agent.id, f"{agent.backend}/{agent.name}")}
    for alias, name in settings.aliases.items():
        if served and name not in known:
            yield warning(f"The alias {alias!r} means {name!r}, which is not served.", "Mend FRONTDESK_ALIASES.")


@dataclass(frozen=True, slots=True)
class Doubt:
    agent: str
    message: str
    mend: str


def doubts(agent: Agent, seen: Seen, settings: Settings) -> Iterator[Doubt]:
    """What will not work for an agent."""
    row = seen.rows.get(agent.id, {})
    kind = agent.settings.get("agent_type")
    name = f"{agent.name!r} ({kind})" if agent.bridged or not agent.client_tools else repr(agent.name)
    for ability in lacking(agent, rules(settings), awaiting_approval(row)):
        yield Doubt(name, f"{ability.name}: {ability.how}", MENDS[ability.name])
    model, embedding = model_of(row), embedding_of(row)
    if seen.models and model and model not in seen.models:
        yield Doubt(name, f"The server offers no model {model!r}.", "Does it know this provider, and its key?")
    if "embedding_config" in row and not embedding:
        yield Doubt(name, "No embedding model: archives and files cannot be searched.", "Give it one, if it has any.")
    elif seen.embeddings and embedding and embedding not in seen.embeddings:
        yield Doubt(name, f"The server offers no embedding model {embedding!r}.", "Does it know this provider?")


def together(doubts: Iterable[Doubt]) -> Iterator[Finding]:
    """One finding for all agents of which the same is true."""
    names: dict[tuple[str, str], list[str]] = {}
    for doubt in doubts:
        names.setdefault((doubt.message, doubt.mend), []).append(doubt.agent)
    for (message, mend), agents in names.items():
        yield warning(f"{several(agents)}: {message}", mend)


def several(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown


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
    except (OSError, AgentError) as error:  # such as a data folder without rights
        return Finding("fail", "turn", f"The gateway cannot start: {error}.", "Mend what is said above, and try again.")


def whom(gateway: Gateway | None, served: Sequence[Agent]) -> str:
    """The first agent with separate conversations: in the one of an older agent, a trial would stay."""
    if gateway:
        alone = {name for agent in served if not agent.conversations for name in (agent.id, agent.name)}
        listed = [agent for agent in gateway.agents() if not alone & {agent.id, agent.name}]
        able = [agent.id for agent in listed if agent.capabilities.client_tools is not False]
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
