"""One SQLite file. It has a write-ahead log, so that reading never waits for writing."""

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import structlog
from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from frontdesk.store import migrations
from frontdesk.store.place import NotNow, Purpose, said
from frontdesk.store.statements import DriverTransaction
from frontdesk.store.transaction import Transaction

T = TypeVar("T")
log = structlog.get_logger(__name__)

BUSY_SECONDS = 5.0  # how long to stand in line behind another process that writes
MIGRATION_SECONDS = 120.0  # and behind one that migrates
CLOSE_SECONDS = 5.0
HANDOVER_SECONDS = 0.001
LOOK_AGAIN_SECONDS = 0.01

CHECKPOINT_EVERY = 256
"""Transactions on the event loop's connection, after which what they wrote is taken from the log into the file."""

KEEPER_SECONDS = 0.05
"""For how long that may wait for readers, while nobody can write."""

STATEMENTS = 256  # that a connection keeps prepared


@dataclass(frozen=True, slots=True)
class Sqlite:
    """Where the file is."""

    path: Path
    dialect: Literal["sqlite"] = "sqlite"
    hint: str = "Is there room on the disk, and may this user write there?"

    @property
    def name(self) -> str:
        return str(self.path)

    async def prepare(self) -> None:
        await asyncio.to_thread(self.make)
        await asyncio.to_thread(self.migrate)

    def make(self) -> None:
        """Make the file ourselves, so that nobody else may read it. Those which SQLite puts beside it are alike."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with making, contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def migrate(self) -> None:
        with self.engine("BEGIN").begin() as connection:
            if migrations.is_current(connection):
                return
        with self.engine("BEGIN IMMEDIATE", wait_seconds=MIGRATION_SECONDS).begin() as connection:
            migrations.upgrade(connection)

    def connections(self, purpose: Purpose) -> "SqliteConnections":
        return SqliteConnections(self, purpose)

    def public(self, error: Exception) -> str:
        return said(error)

    def identity(self) -> Hashable:
        """SQLite itself would go on writing to a file that was removed, and nobody would ever read that."""
        stat = self.path.stat()
        return stat.st_dev, stat.st_ino

    def connect(self, wait_seconds: float, *, read_only: bool) -> sqlite3.Connection:
        """Never make a file here: an empty one in the place of one that vanished would hide the loss."""
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=wait_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS,
        )
        try:
            write_ahead(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA query_only = {int(read_only)}")
        except BaseException:
            connection.close()
            raise
        return connection

    def engine(self, begin: str, wait_seconds: float = BUSY_SECONDS) -> Engine:
        """Connections to the file as SQLAlchemy has them, one for each use."""

        def connect() -> sqlite3.Connection:
            return self.connect(wait_seconds, read_only=begin == "BEGIN")

        engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)

        @event.listens_for(engine, "begin")
        def begin_so(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
            """The driver is told to begin nothing by itself."""
            connection.exec_driver_sql(begin)

        return engine


making = threading.Lock()  # closing a file drops every lock this process has on it, also those of its other stores


def write_ahead(connection: sqlite3.Connection) -> None:
    """Keep a write-ahead log. For this alone SQLite does not stand in line."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")


class Link:
    """A connection to the file, made anew when the file is another. One transaction runs on it at a time."""

    def __init__(self, file: Sqlite, purpose: Purpose, wait_seconds: float) -> None:
        self._file = file
        self._read_only = purpose == "read"
        self._begin = "BEGIN" if self._read_only else "BEGIN IMMEDIATE"
        self._wait_seconds = wait_seconds
        self._driver: sqlite3.Connection | None = None
        self._identity: Hashable = None  # of the file that it is a connection to

    def transact(self, work: Callable[[Transaction], T], identity: Hashable) -> T:
        """Do it on the file of this identity. Raises what SQLAlchemy raises, OSError, and NotNow if it may not wait."""
        try:
            driver = self._connected(identity)
            driver.execute(self._begin)
            try:
                result = work(DriverTransaction(driver))
                driver.execute("COMMIT")
            except BaseException:
                if driver.in_transaction:  # else SQLite has undone it by itself
                    driver.execute("ROLLBACK")
                raise
            return result
        except sqlite3.IntegrityError as error:
            raise IntegrityError(None, None, error) from error
        except sqlite3.DataError as error:
            raise DataError(None, None, error) from error
        except sqlite3.Error as error:
            if is_busy(error) and not self._wait_seconds:
                raise NotNow from error
            self.close()  # so that the next one begins anew
            raise OSError(str(error)) from error

    def _connected(self, identity: Hashable) -> sqlite3.Connection:
        if self._driver is None or identity != self._identity:
            self.close()
            self._driver, self._identity = self._connect(), identity
        return self._driver

    def _connect(self) -> sqlite3.Connection:
        driver = self._file.connect(self._wait_seconds, read_only=self._read_only)
        if not self._wait_seconds:  # nor may it wait for the disk: somebody else takes over what is in the log
            driver.execute("PRAGMA wal_autocheckpoint = 0")
        return driver

    def checkpoint(self, identity: Hashable, how: Literal["PASSIVE", "RESTART"]) -> None:
        """Take over into the file what is in the log. Raises sqlite3.Error."""
        self._connected(identity).execute(f"PRAGMA wal_checkpoint({how})").fetchall()

    def close(self) -> None:
        if self._driver:
            self._driver.close()
            self._driver = None


class SqliteConnections:
    """The event loop has a connection for what is done in a moment. A thread has one for what may take long, and for
    what has to wait until another process has written; and one more to keep the log short.

    A hop to a thread and back costs more than a whole transaction, and a busy event loop lets the thread wait (see
    docs/why/0011).
    """

    number = 1

    def __init__(self, file: Sqlite, purpose: Purpose) -> None:
        self._file = file
        self._here = Link(file, purpose, wait_seconds=0.0)
        self._there = Link(file, purpose, wait_seconds=BUSY_SECONDS)
        self._keeper = Link(file, purpose, wait_seconds=KEEPER_SECONDS)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._ready: Hashable = None  # the file that was found to have our tables
        self._purpose: Purpose = purpose
        self._held = False  # the thread waits for a moment without writers
        self._written = 0  # transactions since the log was taken over into the file

    def at_once(self, work: Callable[[Transaction], T]) -> T:
        """Raises NotNow if another process writes just now, or if the file is not the one we know."""
        identity = self._file.identity()
        if self._held or identity != self._ready:
            raise NotNow
        result = self._here.transact(work, identity)
        self._written += self._purpose == "write"
        if self._written >= CHECKPOINT_EVERY:
            self._written = 0
            self._thread.submit(self._checkpoint)
        return result

    async def run(self, work: Callable[[Transaction], T]) -> T:
        """Wait for the thread, and let it have the interpreter meanwhile.

        A busy event loop gives that up only for moments, and has it back before a thread wakes up: seconds can pass
        until the thread gets anywhere (measured). So we stand still for a moment, and if that is not enough, then again
        now and then.
        """
        future = self._thread.submit(self._transact, work)
        if finished(future):
            return future.result()
        outcome = asyncio.wrap_future(future)
        while not finished(future):
            await asyncio.wait([outcome], timeout=LOOK_AGAIN_SECONDS)
        return await outcome

    async def aclose(self) -> None:
        self._here.close()
        closed = asyncio.wrap_future(self._thread.submit(self._close))
        self._thread.shutdown(wait=False)
        await asyncio.wait([closed], timeout=CLOSE_SECONDS)

    def _transact(self, work: Callable[[Transaction], T]) -> T:
        """On the file as it is. Another in its place, restored from a copy say, is migrated too."""
        try:
            identity = self._file.identity()
            if identity != self._ready:
                self._there.close()
                self._file.migrate()
                self._ready = identity
            return self._there.transact(work, identity)
        except (IntegrityError, DataError):
            raise
        except (DBAPIError, OSError):
            self._ready = None
            raise

    def _checkpoint(self) -> None:
        """Nearly all of it while others go on, then the rest, so that the log is written from its start again."""
        try:
            self._keeper.checkpoint(self._ready, "PASSIVE")
            self._held = True
            self._keeper.checkpoint(self._ready, "RESTART")
        except sqlite3.Error as error:  # there is always another
            log.warning("the store's log was not taken over", error=str(error))
        finally:
            self._held = False

    def _close(self) -> None:
        self._there.close()
        self._keeper.close()


def finished(future: Future[Any]) -> bool:
    """Stand still for it, a moment at most."""
    with contextlib.suppress(TimeoutError):
        future.exception(HANDOVER_SECONDS)
    return future.done()
