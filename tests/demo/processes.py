"""Watching programs from outside: what they print, and what they leave behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import psutil


def until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    wait = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        wait.wait(0.05)
    return True


def running_on(folder: Path) -> list[str]:
    """The processes that have to do with a folder: they work in it, or their command or environment names it."""
    found: list[str] = []
    for process in psutil.process_iter():
        try:
            traces = [*process.cmdline(), process.cwd(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(folder) in trace for trace in traces):
            found.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
    return found


class Running:
    """A program, and what it has printed so far, errors included."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        self.printed = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.printed += line

    def wait_for(self, text: str, seconds: float = 120) -> None:
        assert until(lambda: text in self.printed or self.process.poll() is not None, seconds), self.printed
        assert text in self.printed, self.printed

    def wait(self, seconds: float = 120) -> int:
        """Its exit code, once it has ended."""
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code

    def close(self) -> None:
        """End it in any case: Letta and its database end with it."""
        self.process.kill()
        self.process.wait(10)
        self._reader.join(5)
        assert self.process.stdout
        self.process.stdout.close()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextmanager
def running(*command: str, environment: dict[str, str], folder: Path) -> Generator[Running]:
    """Run `python` with these arguments until the block ends."""
    program = Running([sys.executable, *command], environment, folder)
    try:
        yield program
    finally:
        program.close()
