"""The processes of a measurement: begun with a port on stdout, watched for CPU time and memory, ended by their id."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

ROOT = Path(__file__).parent.parent
START_SECONDS = 30.0


class StartError(Exception):
    """A process did not come up; the message holds the end of its log."""


class RefusedError(OSError):
    """An answer that is an error; the message holds it."""


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with our interpreter."""
    return [sys.executable, "-m", module, *arguments]


def fetch(url: str, body: bytes | None = None) -> bytes:
    """GET, or POST with a JSON body. Raises RefusedError, an OSError, for a status that is not 2xx."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        raise RefusedError(f"{url} answers {error.code}: {error.read(2000).decode(errors='replace')}") from error


def free_port() -> int:
    """A port which nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Child:
    """A server in a process of its own.

    With `port` 0 the process must say `PORT <n>` on stdout; otherwise it is waited for at `ready`.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        port: int = 0,
        ready: str = "",
        env: dict[str, str] | None = None,
        cwd: str | Path = ROOT,
    ) -> None:
        self.name = name
        self.command = command
        self.port = port
        self.ready = ready
        self.env = env or {}
        self.cwd = cwd
        self.start_seconds = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._popen.pid

    def __enter__(self) -> Self:
        began = time.monotonic()
        self._log = tempfile.TemporaryFile()  # closed in __exit__
        self._popen = subprocess.Popen(
            self.command,
            cwd=self.cwd,
            env={**_clean_environment(), "BENCH_CHILD": "1", **self.env},
            stdin=subprocess.PIPE,
            stdout=self._log if self.port else subprocess.PIPE,
            stderr=self._log,
        )
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.start_seconds = time.monotonic() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._popen.terminate()
        try:
            self._popen.wait(timeout=8)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout, self._log):
            if pipe is not None:
                pipe.close()

    def _wait(self) -> None:
        if self.port:
            self._wait_ready()
            return
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline().split()
        if len(line) != 2 or line[0] != b"PORT":
            raise StartError(f"{self.name} did not start:\n{self.log()}")
        self.port = int(line[1])

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._popen.poll() is None:
            try:
                fetch(self.url + self.ready)
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise StartError(f"{self.name} did not answer at {self.url}{self.ready}:\n{self.log()}")

    def log(self, last: int = 3000) -> str:
        """The end of what the process wrote."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - last))
        return self._log.read().decode(errors="replace")

    def tree(self) -> list[psutil.Process]:
        """The process and its descendants."""
        try:
            parent = psutil.Process(self.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess as error:
            raise StartError(f"{self.name} has died:\n{self.log()}") from error

    def cpu_seconds(self) -> float:
        """User and system time of the process tree."""
        return sum(_cpu_seconds(process) for process in self.tree())

    def rss_mb(self) -> float:
        """Resident memory of the process tree."""
        return sum(process.memory_info().rss for process in self.tree()) / 2**20


def _clean_environment() -> dict[str, str]:
    """Ours, without the settings of a gateway that may be used on this machine."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("FRONTDESK_", "LETTA_"))}


def _cpu_seconds(process: psutil.Process) -> float:
    """Linux knows the nanoseconds through the process's own clock; elsewhere, steps of 10 ms have to do."""
    if sys.platform == "linux":
        return time.clock_gettime(~process.pid << 3 | 2)  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)
    times = process.cpu_times()
    return times.user + times.system


class PeakMemory:
    """The highest resident memory of a process tree while the `with` block runs."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.mb = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stopped.wait(0.25):
            self.mb = max(self.mb, self.child.rss_mb())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
