"""A real Postgres for tests: the one that Letta's own environment brings, with a folder of its own."""

import asyncio
import contextlib
import importlib
import shutil
import signal
import tempfile
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from frontdesk.demo.local_letta import MAIN, Child, inherited, install, python_of, silent

BOOT_SECONDS = 90.0


class LocalPostgres:
    """A server which can be stopped and started again. Its URL stays the same; it is a socket, so no port is taken."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="frontdesk-store-"))
        self._socket_dir = Path(tempfile.mkdtemp(prefix="frontdesk-pg-"))  # short: a socket's path has under 104 bytes
        self._keeper: Child | None = None
        self.url = f"postgresql://postgres@/postgres?host={self._socket_dir}"

    def start(self) -> None:
        self._socket_dir.mkdir(mode=0o700, exist_ok=True)  # the keeper removes it when it leaves
        command = [str(python_of(install())), "-P", str(MAIN), "postgres", str(self._folder / "data")]
        self._keeper = Child(
            [*command, str(self._socket_dir)],
            log=self._folder / "postgres.log",
            environment=inherited(),
            folder=self._folder,
        )
        self._keeper.wait_until_ready(time.monotonic() + BOOT_SECONDS, silent)

    def stop(self) -> None:
        """End the server as an administrator does: every session is cut off."""
        if self._keeper:
            self._keeper.stop(signal.SIGTERM)
            self._keeper = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self._socket_dir, ignore_errors=True)


@contextlib.contextmanager
def local_postgres() -> Generator[LocalPostgres]:
    """A server of one's own, to be stopped and started at will."""
    server = LocalPostgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@contextlib.contextmanager
def postgres() -> Generator[str]:
    """A server to share. Gives its URL, to be handed to `fresh_database`."""
    with local_postgres() as server:
        # Nothing here has to survive, and a slow disk makes seconds of it.
        execute(server.url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        yield server.url


def fresh_database(url: str, name: str) -> str:
    """Make an empty database of this name on a server, in place of what was there. Gives its URL."""
    execute(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"')
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def execute(url: str, *statements: str) -> None:
    """Run each by itself, outside of any transaction."""

    async def run() -> None:
        asyncpg: Any = importlib.import_module("asyncpg")  # it tells no types
        connection = await asyncpg.connect(url)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    with ThreadPoolExecutor(1) as thread:  # an event loop may run in this one
        thread.submit(asyncio.run, run()).result()
