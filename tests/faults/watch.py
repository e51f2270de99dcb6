"""A gateway one can look into: its health, its metrics, and what runs on its event loop."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvloop

from tests.served import TLS, Served, in_a_thread, wait_until_listed

PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Watched(Served):
    loop: asyncio.AbstractEventLoop
    key: str = ""

    def client(self, **options: Any) -> Any:
        return super().client(**({"api_key": self.key} if self.key else {}) | options)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    def health(self) -> dict[str, Any]:
        return httpx.get(f"{self.url}/health", headers=self.headers, verify=TLS).json()

    def status(self, path: str) -> int:
        return httpx.get(self.url + path, headers=self.headers, verify=TLS).status_code

    def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        page = httpx.get(f"{self.url}/metrics", headers=self.headers, verify=TLS).text
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE))

    def busy(self) -> tuple[int, int, float, list[str]]:
        """Turns in flight and waiting, active turns by the metrics, and tasks of turns. All nothing when idle."""
        turns = self.health()["turns"]
        return turns["in_flight"], turns["waiting"], self.metric("frontdesk_active_turns"), self.turn_tasks()

    def turn_tasks(self) -> list[str]:
        """Tasks which belong to a turn: everything but the server's and the background's."""
        future = asyncio.run_coroutine_threadsafe(task_names(), self.loop)
        ours = re.compile(r"pump|watch(?!er)|_write|_stop_agent|StreamedReply")
        return [name for name in future.result(5) if ours.search(name)]

    async def idle(self) -> None:
        """Wait until nothing is left of any turn."""
        await eventually(lambda: self.busy() == (0, 0, 0.0, []), lambda: f"still busy: {self.busy()}")


async def task_names() -> list[str]:
    return [repr(task.get_coro()) for task in asyncio.all_tasks()]


def until(
    condition: Callable[[], object], complaint: Callable[[], str] = lambda: "it never came", seconds: float = 0
) -> None:
    """Wait for a condition, for a bounded time."""
    deadline = time.monotonic() + (seconds or PATIENCE_SECONDS)
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(complaint())
        threading.Event().wait(0.05)


async def eventually(condition: Callable[[], object], complaint: Callable[[], str] = lambda: "it never came") -> None:
    """The same in a test whose own tasks must go on meanwhile."""
    await asyncio.to_thread(until, condition, complaint)


@contextmanager
def watched(data_dir: Path, **settings: Any) -> Generator[Watched]:
    """As `tests.served.served`, with a view inside."""
    loop = uvloop.new_event_loop()  # as in production
    with in_a_thread(data_dir, settings, loop) as url:
        keys = settings.get("api_keys", "")
        key = keys.split(",")[0] if isinstance(keys, str) else ""
        gateway = Watched(url, loop, key)
        wait_until_listed(url, gateway.headers)
        yield gateway
