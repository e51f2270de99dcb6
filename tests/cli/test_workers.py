"""`frontdesk serve --workers N`, as an operator starts it: real processes on one port, before a fake Letta."""

import json
import re
import signal
from collections.abc import AsyncGenerator, Callable, Generator
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
REQUESTS = 'frontdesk_requests_total{method="GET",route="/health/live",status="200"}'
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
        super().__init__(folder, letta_url, FRONTDESK_WORKERS=str(workers), TMPDIR=str(folder))
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
        self.popen.terminate()
        self.popen.wait(30)
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


@pytest.fixture(scope="module")
def fake() -> Generator[FakeLetta]:
    with fake_letta() as fake:

        async def waiting(_: Visit) -> AsyncGenerator[bytes, None]:
            yield say("Almost")
            await fake.wait()
            for frame in (say(" there."), stop(), usage(), DONE):
                yield frame

        fake.scripts["waiting"] = waiting
        yield fake


@pytest.fixture
def gateway(fake: FakeLetta, tmp_path: Path) -> Generator[Gateway]:
    with serving(tmp_path, fake.url, 2) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def three(fake: FakeLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    """A gateway with three workers, for tests that leave it as it was."""
    with serving(tmp_path_factory.mktemp("three"), fake.url, 3) as gateway:
        yield gateway


def calls_to(gateway: Gateway, workers: int, call: Callable[[], Call]) -> list[Call]:
    """A call to each of so many workers. Whoever is free takes the next connection, and that may be the same one for
    long: those who have answered are made to wait."""
    calls: list[Call] = []
    resting: list[psutil.Process] = []
    try:
        for _ in range(workers):
            calls.append(call())
            resting.append(psutil.Process(gateway.worker_of(calls[-1])))
            resting[-1].suspend()
    finally:
        for process in resting:
            process.resume()
    return calls


def test_all_workers_serve_and_whichever_is_asked_tells_the_metrics_of_all(three: Gateway) -> None:
    before = three.metric(TURNS)
    asked = calls_to(three, 3, lambda: three.call("/health/live"))
    for number in range(6):
        assert "[DONE]" in three.stream(f"Hello {number}").rest()
    pages = [call.rest() for call in calls_to(three, 3, lambda: three.call("/metrics"))]
    assert {series(page, REQUESTS) for page in pages} == {len(asked)}
    assert {series(page, TURNS) - before for page in pages} == {6}
    memory = sum(psutil.Process(pid).memory_info().rss for pid in three.pids[-3:])
    assert series(pages[-1], "process_resident_memory_bytes") == pytest.approx(memory, rel=0.2)


def test_a_killed_worker_is_replaced_and_what_it_counted_stays(three: Gateway, fake: FakeLetta) -> None:
    for number in range(6):
        three.stream(f"Good morning {number}").rest()
    before, serving = three.metric(TURNS), len(three.pids)
    fake.gate.clear()
    running = calls_to(three, 2, lambda: three.stream("#waiting#"))
    assert three.metric(ACTIVE) == len(running)
    doomed = three.worker_of(running[0])
    left = [call for call in running if three.worker_of(call) != doomed]
    psutil.Process(doomed).kill()
    three.wait_until_serving(serving + 1)
    assert (three.metric(ACTIVE), three.metric(TURNS)) == (len(left), before)
    fake.gate.set()
    for call in left:
        assert "[DONE]" in call.rest()
    until(lambda: (three.metric(ACTIVE), three.metric(TURNS)) == (0, before + len(left)))
    assert three.said("worker ended")[-1]["reason"] == f"a worker ended with exit code {-signal.SIGKILL}"


def test_told_to_stop_all_finish_what_they_run_and_end(gateway: Gateway, fake: FakeLetta) -> None:
    fake.gate.clear()
    family = gateway.family()
    running = calls_to(gateway, 2, lambda: gateway.stream("#waiting#"))
    gateway.popen.send_signal(signal.SIGTERM)
    until(lambda: refuses(gateway.url), lambda: "it still takes requests")
    fake.gate.set()
    for call in running:
        text = call.rest()
        assert "there." in text
        assert "[DONE]" in text
    assert gateway.popen.wait(10) == 0
    assert outlived(family) == []
    assert "Traceback" not in gateway.text


def test_no_worker_outlives_its_parent(gateway: Gateway) -> None:
    family = gateway.family()
    assert len(family) >= 2
    gateway.popen.kill()
    assert outlived(family) == []
    assert refuses(gateway.url)


def outlived(family: list[psutil.Process]) -> list[psutil.Process]:
    return psutil.wait_procs(family, 15)[1]


def refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/health/live")
    except httpx.ConnectError:
        return True
    return False


def test_a_worker_that_cannot_start_is_tried_again_while_another_serves_and_else_all_ends(
    gateway: Gateway, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("")
    psutil.Process(gateway.pids[0]).kill()
    until(lambda: len(gateway.said("worker ended")) == 3, lambda: gateway.text, START_SECONDS)
    pauses = [line["next_in_seconds"] for line in gateway.said("worker ended")]
    assert pauses == sorted(set(pauses)), "each is longer than the one before"
    assert "is empty" in gateway.said("worker ended")[-1]["reason"]
    assert httpx.get(f"{gateway.url}/v1/models").is_success
    psutil.Process(gateway.pids[1]).kill()
    assert gateway.popen.wait(START_SECONDS) == 1
    assert "error: The gateway cannot start: the secret in" in gateway.text
    assert "Traceback" not in gateway.text
