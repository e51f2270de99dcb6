"""One SQLite file or a Postgres server, behind one method.

A transaction is a plain function over a SQLAlchemy Core connection, so that every query is written once. It runs whole
in a thread of the store's own: one hop there and back, however many statements. SQLite has one thread that writes and
one that reads; Postgres has a few of each, every one with a connection.
"""

import asyncio
import contextlib
import os
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError

from frontdesk.errors import StoreUnavailable
from frontdesk.store import migrations

T = TypeVar("T")
Dialect = Literal["sqlite", "postgresql"]
Purpose = Literal["write", "read", "migrate"]

ANSWER_SECONDS = 20.0  # a database that is silent for longer counts as one that is not there
BUSY_SECONDS = 5.0  # SQLite: how long to stand in line behind another process that writes
MIGRATION_SECONDS = 120.0  # and behind one that migrates
THREADS = {"write": 8, "read": 4}  # Postgres: transactions at a time
TRIES = 10
ROLLED_BACK = {"40001", "40P01"}  # serialization failure, deadlock: Postgres undid all of it, and asks to try again


class Database:
    """Transactions on a database that has our tables.

    Every method raises StoreUnavailable when the database cannot be used, and works again once it can. What is wrong
    with a query rather than with the database reaches the caller as it is: IntegrityError (a key is taken), DataError.
    """

    def __init__(self, place: "Place") -> None:
        self._place = place
        self.dialect: Dialect = place.dialect
        self._writing = Lane(place, "write")
        self._reading = Lane(place, "read")

    @classmethod
    async def open(cls, url: str) -> "Database":
        """Open `sqlite:///<path>` or `postgresql://…`. Makes what is not there, and migrates what is older than we are.

        Several processes may do this at once. The error's message is for whoever runs the gateway.
        """
        database = cls.at(url)
        await database.start()
        return database

    @classmethod
    def at(cls, url: str) -> "Database":
        """The same, before it is opened by `start`. Raises StoreUnavailable for an address that is none."""
        return cls(place_of(url))

    async def start(self) -> None:
        """Open it: make what is not there, and migrate."""
        place = self._place
        try:
            await asyncio.to_thread(place.make)
            await asyncio.to_thread(migrate, place)
        except (DBAPIError, OSError) as error:
            raise StoreUnavailable(f"Cannot open the store {place.name}: {said(error)}. {place.hint}") from error

    async def do(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction, which is committed at its end, and rolled back if it raises.

        Every other transaction comes wholly before it or wholly after it. For that Postgres may undo it and `work` is
        called again, so it must change nothing but the database. When the caller is cancelled, a transaction that has
        begun is still finished. And StoreUnavailable does not promise that nothing was written: a connection can break
        after the commit was asked for and before the answer came.
        """
        return await self._writing.run(work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads, on the database as it is at one moment. Never waits for who writes."""
        return await self._reading.run(work)

    async def aclose(self) -> None:
        """Finish what has begun, and close every connection."""
        await self._writing.aclose()
        await self._reading.aclose()


class Lane:
    """Threads with a connection each. Work waits for a thread, and then runs to its end in it."""

    def __init__(self, place: "Place", purpose: Literal["write", "read"]) -> None:
        self._place = place
        threads = place.threads(purpose)
        self._engine = place.engine(purpose)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"store-{purpose}")
        self._ready: Hashable = None  # which database was found to have our tables
        self._preparing = threading.Lock()
        self._closed = False

    async def run(self, work: Callable[[Connection], T]) -> T:
        if self._closed:
            raise StoreUnavailable("The store is closed.")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                # Cancelled in the queue, it never begins. Later it can only be left alone, and finishes.
                return await loop.run_in_executor(self._threads, self._run, work)
        except TimeoutError as error:
            raise StoreUnavailable(f"The store did not answer in {ANSWER_SECONDS:g} seconds.") from error

    async def aclose(self) -> None:
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        self._engine.dispose()

    def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            self._prepare()
            return repeated(self._engine, work)
        except (IntegrityError, DataError):
            raise
        except (DBAPIError, OSError) as error:
            self._engine.dispose()  # begin anew: with a file put back in its place, or a server on its feet again
            self._ready = None
            raise StoreUnavailable(f"The store is out of order: {self._place.public(error)}.") from error

    def _prepare(self) -> None:
        """See that the database is the one we know. Another in its place, restored from a copy say, is migrated too."""
        identity = self._place.identity()
        if identity == self._ready:
            return
        with self._preparing:
            self._engine.dispose()
            migrate(self._place)
            self._ready = identity


def repeated(engine: Engine, work: Callable[[Connection], T]) -> T:
    """One transaction, from the beginning again if it came to nothing through no fault of its own."""
    for attempt in range(1, TRIES + 1):
        committing = False
        try:
            with engine.begin() as connection:
                result = work(connection)
                committing = True
            return result
        except DBAPIError as error:
            undone = getattr(error.orig, "sqlstate", None) in ROLLED_BACK
            lost = error.connection_invalidated and not committing
            if attempt == TRIES or not (undone or lost):
                raise
        time.sleep(random.uniform(0, 0.001 * 2**attempt))  # noqa: S311
    raise AssertionError


def migrate(place: "Place") -> None:
    """Bring the tables up to date: usually a glance at the version."""
    engine = place.engine("migrate")
    with engine.begin() as connection:
        if migrations.is_current(connection):
            return
    with engine.begin() as connection:
        place.lock(connection)
        migrations.upgrade(connection)


# ---- Where the database is -------------------------------------------------------------------------------------------


class Place(Protocol):
    """What differs between SQLite and Postgres."""

    @property
    def dialect(self) -> Dialect: ...
    @property
    def name(self) -> str:
        """The address as it may be shown to whoever runs the gateway."""
        ...

    @property
    def hint(self) -> str: ...
    def threads(self, purpose: Purpose) -> int: ...
    def engine(self, purpose: Purpose) -> Engine: ...
    def make(self) -> None:
        """Make what must be there before one can connect."""
        ...

    def identity(self) -> Hashable:
        """Something that changes when another database is put in the place of this one; OSError if there is none."""
        ...

    def lock(self, connection: Connection) -> None:
        """Let one process migrate at a time."""
        ...

    def public(self, error: Exception) -> str:
        """What went wrong, as a caller may know it."""
        ...


def place_of(url: str) -> Place:
    """Understand an address as people write it."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # its message may hold parts of a password
        raise StoreUnavailable(NO_ADDRESS) from None
    match parsed.drivername.partition("+")[0]:
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return Sqlite(Path(parsed.database).resolve())
        case "postgresql" | "postgres" if "@" not in f"{parsed.host}{parsed.database}":  # else of the password
            return Postgres(parsed.set(drivername="postgresql+psycopg"))
        case _:
            raise StoreUnavailable(NO_ADDRESS)


NO_ADDRESS = (
    "The store's address must be sqlite:///<path of a file> or postgresql://<user>:<password>@<host>/<database>, where "
    "the characters @ : / ? # % of a password are written as %40 %3A %2F %3F %23 %25."
)


@dataclass(frozen=True, slots=True)
class Sqlite:
    """A file. WAL, so that reading never waits for writing."""

    path: Path
    dialect: Literal["sqlite"] = "sqlite"
    hint: str = "Is there room on the disk, and may this user write there?"

    @property
    def name(self) -> str:
        return str(self.path)

    def threads(self, purpose: Purpose) -> int:
        return 1

    def make(self) -> None:
        """Make the file ourselves, so that nobody else may read it. SQLite's files beside it get the same mode."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with making, contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def identity(self) -> Hashable:
        """SQLite itself would go on writing to a file that was removed, and nobody would ever read that."""
        stat = self.path.stat()
        return stat.st_dev, stat.st_ino

    def engine(self, purpose: Purpose) -> Engine:
        pool = NullPool if purpose == "migrate" else QueuePool
        sizes: dict[str, Any] = {} if purpose == "migrate" else {"pool_size": 1, "max_overflow": 0}
        engine = create_engine(
            "sqlite://", creator=lambda: self._connect(purpose), poolclass=pool, hide_parameters=True, **sizes
        )
        # The driver is told not to begin transactions by itself, so that we can say which kind.
        begin = "BEGIN" if purpose == "read" else "BEGIN IMMEDIATE"
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine

    def lock(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE did it."""

    def public(self, error: Exception) -> str:
        return said(error)

    def _connect(self, purpose: Purpose) -> sqlite3.Connection:
        """Never make a file here: an empty one in the place of one that vanished would hide the loss."""
        wait = MIGRATION_SECONDS if purpose == "migrate" else BUSY_SECONDS
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw", uri=True, timeout=wait, isolation_level=None, check_same_thread=False
        )
        try:
            write_ahead(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA query_only = {int(purpose == 'read')}")
        except BaseException:
            connection.close()
            raise
        return connection


making = threading.Lock()  # closing a file drops every lock this process has on it, also those of its other stores


def write_ahead(connection: sqlite3.Connection) -> None:
    """Keep a write-ahead log. The first change to it does not wait for its turn as everything else does."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server."""

    url: URL
    dialect: Literal["postgresql"] = "postgresql"
    hint: str = "Is the server up, and are the address, the user and the password right?"

    @property
    def name(self) -> str:
        host = self.url.host or self.url.query.get("host", "")
        return f"postgresql://{host}{f':{self.url.port}' if self.url.port else ''}/{self.url.database or ''}"

    def threads(self, purpose: Purpose) -> int:
        return THREADS[purpose]

    def make(self) -> None:
        """The database itself is made by whoever runs the server."""

    def identity(self) -> Hashable:
        return self.url

    def engine(self, purpose: Purpose) -> Engine:
        if purpose == "migrate":
            return self._engine("READ COMMITTED", poolclass=NullPool)  # it must see what was done while it waited
        # Reading on one snapshot never fails for what others do meanwhile; writing may, and is repeated.
        isolation = "REPEATABLE READ" if purpose == "read" else "SERIALIZABLE"
        engine = self._engine(isolation, pool_size=THREADS[purpose], max_overflow=0)
        event.listen(engine, "connect", lambda connection, _: setting_limits(connection, read_only=purpose == "read"))
        return engine

    def lock(self, connection: Connection) -> None:
        connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))

    def public(self, error: Exception) -> str:
        """Without the server's own words, which name its address and its users."""
        return type(getattr(error, "orig", error)).__name__

    def _engine(self, isolation: str, **options: Any) -> Engine:
        given = {name: value for name, value in CONNECTING.items() if name not in self.url.query}
        return create_engine(
            self.url,
            connect_args=given,
            isolation_level=isolation,
            hide_parameters=True,
            use_native_hstore=False,
            **options,
        )


MIGRATION_LOCK = 0x66726F6E74  # advisory locks are numbers; this one spells "front"
CONNECTING: dict[str, str | int] = {  # https://www.postgresql.org/docs/current/libpq-connect.html
    "connect_timeout": 5,
    "application_name": "frontdesk",
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
} | ({"tcp_user_timeout": 15_000} if sys.platform == "linux" else {})


def setting_limits(connection: Any, *, read_only: bool) -> None:
    """Let the server end what takes far too long, so that a process that hangs does not hold up the others."""
    connection.execute(f"SET statement_timeout = '{ANSWER_SECONDS:g}s'")
    connection.execute(f"SET idle_in_transaction_session_timeout = '{ANSWER_SECONDS:g}s'")
    connection.commit()
    connection.read_only = read_only


# ---- What went wrong, in words ---------------------------------------------------------------------------------------


def said(error: Exception) -> str:
    """What the database said, in one line, without SQL."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    words = str(getattr(error, "orig", error)).strip()
    return words.splitlines()[0].rstrip(".") if words else type(error).__name__
