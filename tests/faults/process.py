"""A real `frontdesk serve`, as an operator starts it."""

import os
import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.faults.watch import until
from tests.served import TLS


class Process:
    """`frontdesk serve` in a process of its own, with its log in a file."""

    def __init__(self, folder: Path, letta_url: str, **environment: str) -> None:
        self.log = folder / "log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FRONTDESK_", "LETTA_"))}
        own = {"FRONTDESK_DATA_DIR": str(folder), "LETTA_BASE_URL": letta_url, "FRONTDESK_LOG_FORMAT": "json"}
        command = [sys.executable, "-m", "frontdesk", "serve", "--port", "0"]
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                command, cwd=folder, env=kept | own | environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def url(self) -> str:
        found = re.search(r"base URL\s+(http://\S+)/v1", self.text)
        return found.group(1) if found else ""

    def wait_until_up(self) -> None:
        until(lambda: self.url or self.popen.poll() is not None, lambda: self.text)
        with httpx.Client(transport=httpx.HTTPTransport(verify=TLS, retries=20), timeout=30) as client:
            until(lambda: client.get(f"{self.url}/health/ready").status_code == 200, lambda: self.text)


@contextmanager
def serving(folder: Path, letta_url: str, **environment: str) -> Generator[Process]:
    process = Process(folder, letta_url, **environment)
    try:
        process.wait_until_up()
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()
