"""A gateway on a real socket with agents written in Python, for their tests: a scripted model answers for theirs.

with serving("weather:agent") as desk, desk.client() as client:
    client.chat.completions.create(model="weather", messages=[{"role": "user", "content": "@say Hello!"}])
"""

import sys
import threading
import time
import uuid
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import httpx
import structlog
import uvicorn
from openai import OpenAI

from frontdesk.agents.agent import Agent, reachable
from frontdesk.agents.importing import load_agents
from frontdesk.config import GivenSettings, Settings
from frontdesk.serving import listen, loop_that_closes, server, sockets_of
from frontdesk.testing.model import ScriptedModel

ALIKE = ("openai", "xai", "openrouter", "ollama", "litellm", "openai-compatible")
"""Providers with OpenAI's API, which the scripted model speaks too."""
MODEL = "openai/scripted"

START_SECONDS = 30.0
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Served:
    """A running gateway. What its agents' model was asked is in `model.requests`."""

    url: str
    model: ScriptedModel

    @property
    def base_url(self) -> str:
        """What OpenAI's clients want to know."""
        return f"{self.url}/v1"

    def client(self, **options: Any) -> OpenAI:
        """A client of OpenAI's own; close it."""
        local = httpx.Client(trust_env=False)  # no proxy between us and ourselves
        given: dict[str, Any] = {"api_key": "none", "max_retries": 0, "http_client": local}
        return OpenAI(base_url=self.base_url, **given | options)


@contextmanager
def serving(*agents: Agent | str, **settings: Any) -> Generator[Served]:
    """Serve agents until the block ends, with a scripted model in place of each of their own. Nothing of it stays.

    agents: themselves, or import paths as for `frontdesk serve --agents`. Their keys and addresses are not used.
    settings: more of them, as in `frontdesk.toml`. The environment and files are not looked at.

    Raises AgentError for agents that cannot be served, and RuntimeError if the gateway does not start.
    """
    found = [each for given in agents for each in (load_agents(given) if isinstance(given, str) else [given])]
    with (
        TemporaryDirectory(prefix="frontdesk-") as folder,
        ScriptedModel() as model,
        scripted(found),
        at(found) as path,
    ):
        account = {"api_key": "scripted", "base_url": model.base_url}
        given: dict[str, Any] = {
            "agents": (path,),
            "providers": dict.fromkeys(ALIKE, account),
            "data_dir": Path(folder),
            "models_refresh_seconds": 2.0,
        }
        with running(GivenSettings(**given | settings)) as url:
            yield Served(url, model)


@contextmanager
def scripted(agents: Iterable[Agent]) -> Generator[None]:
    """Until the block ends, these think with a model that the scripted one can stand in for, and so do those to which
    they hand over."""
    every = dict.fromkeys(each for agent in agents for each in reachable(agent))
    before = {agent: vars(agent).copy() for agent in every}
    for agent in every:
        models = agent.models if agent.models and all(map(is_alike, agent.models)) else (MODEL,)
        vars(agent).update(models=models, api_key="", base_url="")
    try:
        yield
    finally:
        for agent, values in before.items():
            vars(agent).clear()
            vars(agent).update(values)


def is_alike(model: object) -> bool:
    return isinstance(model, str) and model.partition("/")[0] in ALIKE


@contextmanager
def at(agents: list[Agent]) -> Generator[str]:
    """An import path at which these are found."""
    module = ModuleType(f"frontdesk_testing_{uuid.uuid4().hex}")
    vars(module)["agents"] = agents
    sys.modules[module.__name__] = module
    try:
        yield f"{module.__name__}:agents"
    finally:
        del sys.modules[module.__name__]


@contextmanager
def running(settings: Settings) -> Generator[str]:
    """A gateway in a thread of its own, on any free port of this machine. Yields its URL once it knows its agents."""
    spare_tracebacks()
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener:
        gateway = server(settings)

        def run() -> None:
            with suppress(SystemExit), loop_that_closes():
                gateway.run(sockets=sockets_of(listener))

        thread = threading.Thread(target=run, name="gateway", daemon=True)
        thread.start()
        try:
            wait_until_ready(gateway, thread, url)
            yield url
        finally:
            gateway.should_exit = True
            thread.join(STOP_SECONDS)


def spare_tracebacks() -> None:
    """Where nobody has said how to log: structlog would add all local variables to a traceback, which holds what was
    said, and takes seconds in which the gateway answers nobody."""
    if not structlog.is_configured():
        *before, _ = structlog.get_config()["processors"]
        plain = structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        structlog.configure(processors=[*before, plain])


def wait_until_ready(gateway: uvicorn.Server, thread: threading.Thread, url: str) -> None:
    """Raises RuntimeError."""
    pause, deadline = threading.Event(), time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False) as client:
        while not gateway.started or client.get(f"{url}/health/ready").status_code == 503:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("The gateway did not start. What it has logged says why.")
            pause.wait(0.01)
