"""`frontdesk serve --workers N`, as an operator starts it: real processes on one port, before a fake Letta."""

import json
import re
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.faults.fake import DONE, FakeLetta, Visit, fake_letta, say, stop, usage
from tests.faults.process import Process
from tests.faults.watch import until

START_SECONDS = 60.0
MODELS = 'frontdesk_requests_total{method="GET",route="/v1/models",status="200"}'
TURNS = 'frontdesk_turns_total{agent="Milo",backend="letta",outcome="stop"}'
ACTIVE = 'frontdesk_active_turns{backend="letta"}'


class Call:
    """A request on a connection of its own, which stays open, so that one can see which process has it."""

    def __init__(self, url: str, path: str, body: dict[str, Any] | None = None) -> None:
        self._connection = HTTPConnection(url.removeprefix("http://"), timeout=30)
        self._connection.connect()
        self.port: int = self._connection.sock.getsockname()[1]
        sent = json.dumps(body) if body else None
        self._connection.request("POST" if body else "GET", path, sent, {"content-type": "application/json"})
        self._response = self._connection.getresponse()

    def rest(self) -> str:
        return self._response.read().decode()

    def close(self) -> None:
        self._response.close()
        self._connection.close()


class Gateway(Process):
    """A gateway of several processes."""

    def __init__(self, folder: Path, letta_url: str, workers: int) -> None:
        super().__init__(folder, letta_url, FRONTDESK_WORKERS=str(workers))
        self._calls: list[Call] = []

    def wait_until_serving(self, times: int) -> None:
        """Until workers have begun to serve so many times."""
        until(lambda: len(self.pids) >= times or self.popen.poll() is not None, lambda: self.text, START_SECONDS)
        assert self.popen.poll() is None, self.text
        until(lambda: httpx.get(f"{self.url}/health/ready").is_success)

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of the log that tell of this."""
        lines = [json.loads(line) for line in self.text.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == event]

    @property
    def pids(self) -> list[int]:
        """Of every worker there was, in the order in which they began to serve."""
        return [line["pid"] for line in self.said("worker serves")]

    def call(self, path: str, body: dict[str, Any] | None = None) -> Call:
        self._calls.append(Call(self.url, path, body))
        return self._calls[-1]

    def stream(self, text: str) -> Call:
        """A streamed turn that has begun."""
        message = {"role": "user", "content": text}
        return self.call("/v1/chat/completions", {"model": "Milo", "messages": [message], "stream": True})

    def worker_of(self, call: Call) -> int:
        """Who has the other end."""
        return next(pid for pid in self.pids if call.port in ports_of(pid))

    def metric(self, name: str) -> float:
        return series(httpx.get(f"{self.url}/metrics").text, name)

    def end(self) -> None:
        for call in self._calls:
            call.close()
        family = self.family()
        self.popen.kill()
        self.popen.wait()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(family, 10)

    def family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.popen.pid).children(recursive=True)
        return []


def series(page: str, name: str) -> float:
    """A series of the metrics by its whole name; 0 if it is not there."""
    return next((float(found[1]) for found in re.finditer(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)), 0.0)


def ports_of(pid: int) -> set[int]:
    """The other ends of a process's connections; none if it is no more."""
    with suppress(psutil.NoSuchProcess):
        return {each.raddr.port for each in psutil.Process(pid).net_connections("tcp") if each.raddr}
    return set()


@contextmanager
def serving(folder: Path, letta_url: str, workers: int) -> Generator[Gateway]:
    gateway = Gateway(folder, letta_url, workers)
    try:
        gateway.wait_until_serving(workers)
        yield gateway
    finally:
        gateway.end()


@pytest.fixture
def fake() -> Generator[FakeLetta]:
    with fake_letta() as fake:

        async def waiting(_: Visit) -> AsyncGenerator[bytes, None]:
            yield say("Almost")
            await fake.wait()
            for frame in (say(" there."), stop(), usage(), DONE):
                yield frame

        fake.scripts["waiting"] = waiting
        yield fake


def test_all_of_them_serve_and_whichever_is_asked_tells_the_metrics_of_all(fake: FakeLetta, tmp_path: Path) -> None:
    with serving(tmp_path, fake.url, 3) as gateway:
        served: set[int] = set()
        asked: list[int] = []
        until(lambda: served.add(gateway.worker_of(gateway.call("/v1/models"))) or asked.append(1) or len(served) == 3)
        for number in range(6):
            assert "[DONE]" in gateway.stream(f"Hello {number}").rest()
        told: dict[int, tuple[float, float]] = {}

        def ask_one() -> None:
            call = gateway.call("/metrics")
            page = call.rest()
            told[gateway.worker_of(call)] = series(page, MODELS), series(page, TURNS)

        until(lambda: ask_one() or len(told) == 3)
        assert set(told.values()) == {(len(asked), 6)}
        memory = sum(psutil.Process(pid).memory_info().rss for pid in gateway.pids)
        assert gateway.metric("process_resident_memory_bytes") == pytest.approx(memory, rel=0.2)


def test_a_killed_worker_is_replaced_and_what_it_counted_stays(fake: FakeLetta, tmp_path: Path) -> None:
    with serving(tmp_path, fake.url, 2) as gateway:
        for number in range(6):
            gateway.stream(f"Hello {number}").rest()
        running = [gateway.stream("#waiting# one")]
        doomed = gateway.worker_of(running[0])
        until(
            lambda: (
                running.append(gateway.stream(f"#waiting# {len(running)}")) or gateway.worker_of(running[-1]) != doomed
            )
        )
        assert gateway.metric(ACTIVE) == len(running)
        psutil.Process(doomed).kill()
        gateway.wait_until_serving(3)
        assert (gateway.metric(ACTIVE), gateway.metric(TURNS)) == (1, 6)
        fake.gate.set()
        assert "[DONE]" in running[-1].rest()
        until(lambda: (gateway.metric(ACTIVE), gateway.metric(TURNS)) == (0, 7))
        ended = gateway.said("worker ended")
        assert [line["reason"] for line in ended] == [f"a worker ended with exit code {-signal.SIGKILL}"]


def test_told_to_stop_all_finish_what_they_run_and_end(fake: FakeLetta, tmp_path: Path) -> None:
    with serving(tmp_path, fake.url, 2) as gateway:
        family = gateway.family()
        running = [gateway.stream("#waiting# one")]
        until(
            lambda: (
                running.append(gateway.stream(f"#waiting# {len(running)}"))
                or len({gateway.worker_of(call) for call in running}) == 2
            )
        )
        gateway.popen.send_signal(signal.SIGTERM)
        until(lambda: refuses(gateway.url), lambda: "it still takes requests")
        fake.gate.set()
        for call in running:
            text = call.rest()
            assert "there." in text
            assert "[DONE]" in text
        assert gateway.popen.wait(10) == 0
        _, alive = psutil.wait_procs(family, 5)
        assert alive == []
        assert "Traceback" not in gateway.text


def refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/health/live")
    except httpx.ConnectError:
        return True
    return False


def test_no_worker_outlives_its_parent(fake: FakeLetta, tmp_path: Path) -> None:
    with serving(tmp_path, fake.url, 2) as gateway:
        family = gateway.family()
        assert len(family) >= 2
        gateway.popen.kill()
        _, alive = psutil.wait_procs(family, 15)
        assert alive == []
        assert refuses(gateway.url)


def test_a_worker_that_cannot_start_is_tried_again_later_as_long_as_another_serves(
    fake: FakeLetta, tmp_path: Path
) -> None:
    with serving(tmp_path, fake.url, 2) as gateway:
        secret = (tmp_path / "secret").read_text()
        (tmp_path / "secret").write_text("")
        psutil.Process(gateway.pids[0]).kill()
        until(lambda: len(gateway.said("worker ended")) == 3, lambda: gateway.text, START_SECONDS)
        killed, first, second = gateway.said("worker ended")
        assert killed["next_in_seconds"] < first["next_in_seconds"] < second["next_in_seconds"]
        assert "is empty" in second["reason"]
        assert httpx.get(f"{gateway.url}/v1/models").is_success
        (tmp_path / "secret").write_text(secret)
        gateway.wait_until_serving(3)


def test_it_ends_when_none_serves_and_none_can(fake: FakeLetta, tmp_path: Path) -> None:
    with serving(tmp_path, fake.url, 2) as gateway:
        (tmp_path / "secret").write_text("")
        for pid in gateway.pids:
            psutil.Process(pid).kill()
        assert gateway.popen.wait(START_SECONDS) == 1
        assert "error: The gateway cannot start: the secret in" in gateway.text
        assert "Traceback" not in gateway.text
