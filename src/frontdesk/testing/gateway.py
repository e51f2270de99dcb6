"""A gateway on a real socket with agents written in Python, for their tests: a scripted model answers for theirs.

with serving("weather:agent") as desk, desk.client() as client:
    client.chat.completions.create(model="weather", messages=[{"role": "user", "content": "@say Hello!"}])
"""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import uvicorn
from openai import OpenAI
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from frontdesk.config import Settings
from frontdesk.serving import listen, loop_that_closes, server, sockets_of
from frontdesk.testing.model import ScriptedModel

ALIKE = ("openai", "xai", "openrouter", "ollama", "litellm", "openai-compatible")
"""Providers with OpenAI's API, which the scripted model speaks too."""

START_SECONDS = 30.0
STOP_SECONDS = 30.0


class GivenSettings(Settings):
    """Only what is given here: nothing of the environment, and of no file."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


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
def serving(*agents: str, **settings: Any) -> Generator[Served]:
    """Serve agents, by their import paths, until the block ends. Nothing of it stays.

    agents: as for `frontdesk serve --agents`. Those whose model is `scripted/…`, or of a provider with OpenAI's API,
    are answered by a scripted model; keys are not needed. Others really ask their provider.
    settings: more of them, as in `frontdesk.toml`. The environment and files are not looked at.

    Raises AgentError for agents that cannot be served, and RuntimeError if the gateway does not start.
    """
    with TemporaryDirectory(prefix="frontdesk-") as folder, ScriptedModel() as model:
        account = {"api_key": "scripted", "base_url": model.base_url}
        given: dict[str, Any] = {
            "agents": agents,
            "providers": dict.fromkeys(ALIKE, account),
            "data_dir": Path(folder),
            "models_refresh_seconds": 2.0,
        }
        with running(GivenSettings(**given | settings)) as url:
            yield Served(url, model)


@contextmanager
def running(settings: Settings) -> Generator[str]:
    """A gateway in a thread of its own, on any free port of this machine. Yields its URL once it knows its agents."""
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


def wait_until_ready(gateway: uvicorn.Server, thread: threading.Thread, url: str) -> None:
    """Raises RuntimeError."""
    pause, deadline = threading.Event(), time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False) as client:
        while not gateway.started or client.get(f"{url}/health/ready").status_code == 503:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("The gateway did not start. What it has logged says why.")
            pause.wait(0.01)
