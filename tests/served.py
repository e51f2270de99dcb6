"""A gateway on a real socket, in a thread of its own: an in-process transport buffers, and cannot show streaming."""

import asyncio
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvloop
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI

from frontdesk.config import Settings
from frontdesk.serving import listen, loop_that_closes, server, sockets_of

TLS = ssl.create_default_context()
"""Shared by all clients here: each would take 25 ms to read every authority anew, and nothing of ours is encrypted."""


@dataclass(frozen=True)
class Served:
    """A running gateway."""

    url: str

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def client(self, **options: Any) -> AsyncOpenAI:
        http = {} if "http_client" in options else {"http_client": DefaultAsyncHttpxClient(verify=TLS)}
        return AsyncOpenAI(**self._options(http | options))

    def blocking_client(self, **options: Any) -> OpenAI:
        http = {} if "http_client" in options else {"http_client": DefaultHttpxClient(verify=TLS)}
        return OpenAI(**self._options(http | options))

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"base_url": self.base_url, "api_key": "none", "max_retries": 0} | options


@contextmanager
def served(data_dir: Path, **settings: Any) -> Generator[Served]:
    """Serve with these settings until the block ends. Ready when every backend has been listed, or has failed to be."""
    with in_a_thread(data_dir, settings, uvloop.new_event_loop()) as url:
        wait_until_listed(url, {"authorization": f"Bearer {key}"} if (key := settings.get("probe_key")) else {})
        yield Served(url)


@contextmanager
def in_a_thread(data_dir: Path, settings: dict[str, Any], loop: asyncio.AbstractEventLoop) -> Generator[str]:
    """A gateway that runs on this loop, in a thread of its own, until the block ends. Yields its URL."""
    values: dict[str, Any] = {"data_dir": data_dir, "port": 0, "models_refresh_seconds": 5.0} | settings
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    running = server(Settings(_env_file=None, **values))  # pyright: ignore[reportCallIssue]

    def run() -> None:
        with loop_that_closes(), asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(running.serve(sockets=sockets_of(listener)))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield url
    finally:
        running.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive(), "the gateway did not stop"


def wait_until_listed(url: str, headers: dict[str, str]) -> None:
    """Poll until the first listing is in; the door is open before that."""
    with httpx.Client(transport=httpx.HTTPTransport(verify=TLS, retries=20)) as client:
        for _ in range(600):
            response = client.get(f"{url}/health", headers=headers)
            if response.status_code == 401 or "not asked yet" not in response.text:
                return
            threading.Event().wait(0.02)
    raise TimeoutError(f"the gateway at {url} never listed its backends")
