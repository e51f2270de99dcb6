"""One SQLite file or a Postgres server, behind one method.

A transaction is a plain function over a SQLAlchemy Core connection, so that every query is written once. Build the
statements at import, with `bindparam`, and hand over the values: making them anew costs more than running them.
"""

import asyncio
import contextlib
import importlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

from sqlalchemy import Connection, Engine, NullPool, StaticPool, create_engine, event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from frontdesk.errors import StoreUnavailable
from frontdesk.store import migrations

T = TypeVar("T")
Dialect = Literal["sqlite", "postgresql"]
Purpose = Literal["write", "read"]

ANSWER_SECONDS = 20.0  # a database that is silent for longer counts as one that is not there
CLOSE_SECONDS = 5.0


class Database:
    """Transactions on a database that has our tables.

    Every method raises StoreUnavailable when the database cannot be used, and works again once it can. What is wrong
    with a query rather than with the database reaches the caller as it is: IntegrityError (a key is taken), DataError.
    """

    def __init__(self, place: "Place") -> None:
        self._place = place
        self._writing = Lane(place, "write")
        self._reading = Lane(place, "read")
        self.dialect: Dialect = place.dialect

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
            await place.prepare()
        except (DBAPIError, OSError) as error:
            raise StoreUnavailable(f"Cannot open the store {place.name}: {said(error)}. {place.hint}") from error

    async def do(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction, which is committed at its end, and rolled back if it raises.

        Work that changes a row by what it read must lock it as it reads (`with_for_update`): Postgres runs transactions
        side by side. (SERIALIZABLE would need no locks, but on small tables most transactions were undone for
        nothing.) It may also undo one, and `work` is called again, so it must change nothing but the database.

        When the caller is cancelled, a transaction that has begun is still finished. And StoreUnavailable does not
        promise that nothing was written: a connection can break after the commit was asked for, before the answer came.
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
    """A line before the connections of one kind. Who leaves it begins, and whatever has begun is finished."""

    def __init__(self, place: "Place", purpose: Purpose) -> None:
        self._place = place
        self._connections = place.connections(purpose)
        self._free = asyncio.Semaphore(self._connections.number)
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def run(self, work: Callable[[Connection], T]) -> T:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._free.acquire()
                return await asyncio.shield(self._begin(work))
        except TimeoutError as error:
            raise StoreUnavailable(f"The store did not answer in {ANSWER_SECONDS:g} seconds.") from error

    def _begin(self, work: Callable[[Connection], T]) -> asyncio.Task[T]:
        task = asyncio.create_task(self._finish(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _finish(self, work: Callable[[Connection], T]) -> T:
        try:
            if self._closed:
                raise StoreUnavailable("The store is closed.")
            return await self._connections.run(work)
        except (IntegrityError, DataError):
            raise
        except (DBAPIError, OSError) as error:
            raise StoreUnavailable(f"The store is out of order: {self._place.public(error)}.") from error
        finally:
            self._free.release()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_SECONDS)
        await self._connections.aclose()


class Connections(Protocol):
    """How transactions are run."""

    @property
    def number(self) -> int:
        """How many run at a time."""
        ...

    async def run(self, work: Callable[[Connection], T]) -> T:
        """One transaction. Raises what SQLAlchemy raises, and OSError."""
        ...

    async def aclose(self) -> None: ...


class Place(Protocol):
    """Where a database is."""

    @property
    def dialect(self) -> Dialect: ...
    @property
    def name(self) -> str:
        """The address as it may be shown to whoever runs the gateway."""
        ...

    @property
    def hint(self) -> str:
        """What to look at when it cannot be opened."""
        ...

    async def prepare(self) -> None:
        """See that there is a database with our tables. Raises what SQLAlchemy raises, OSError, StoreUnavailable."""
        ...

    def connections(self, purpose: Purpose) -> Connections: ...
    def public(self, error: Exception) -> str:
        """What went wrong, as a caller of the gateway may know it."""
        ...


def place_of(url: str) -> Place:
    """Understand an address as people write it."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreUnavailable(NO_ADDRESS) from None  # that error may show a part of a password
    match parsed.drivername.partition("+")[0]:
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return Sqlite(Path(parsed.database).absolute())
        case "postgresql" | "postgres" if "@" not in f"{parsed.host}{parsed.database}":  # else a password has one
            return Postgres(parsed.set(drivername="postgresql"))
        case _:
            raise StoreUnavailable(NO_ADDRESS)


NO_ADDRESS = (
    "The store's address must be sqlite:///<path of a file> or postgresql://<user>:<password>@<host>/<database>, where "
    "the characters @ : / ? # % of a password are written as %40 %3A %2F %3F %23 %25."
)


def said(error: Exception) -> str:
    """What the database said, in one line, without SQL."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    lines = str(cause).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(cause).__name__


# ---- SQLite ----------------------------------------------------------------------------------------------------------

BUSY_SECONDS = 5.0  # how long to stand in line behind another process that writes
MIGRATION_SECONDS = 120.0  # and behind one that migrates
HANDOVER_SECONDS = 0.001
LOOK_AGAIN_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Sqlite:
    """A file. It has a write-ahead log, so that reading never waits for writing."""

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

    def connections(self, purpose: Purpose) -> "SqliteThread":
        return SqliteThread(self, "BEGIN" if purpose == "read" else "BEGIN IMMEDIATE")

    def public(self, error: Exception) -> str:
        return said(error)

    def identity(self) -> Hashable:
        """SQLite itself would go on writing to a file that was removed, and nobody would ever read that."""
        stat = self.path.stat()
        return stat.st_dev, stat.st_ino

    def kept(self, begin: str) -> Engine:
        """One connection to the file, on which whoever uses it begins and ends transactions."""

        def connect() -> sqlite3.Connection:
            return self.connect(BUSY_SECONDS, read_only=begin == "BEGIN")

        return create_engine(
            "sqlite://", creator=connect, poolclass=StaticPool, hide_parameters=True, isolation_level="AUTOCOMMIT"
        )

    def engine(self, begin: str, wait_seconds: float = BUSY_SECONDS) -> Engine:
        """Connections to the file, one for each use."""

        def connect() -> sqlite3.Connection:
            return self.connect(wait_seconds, read_only=begin == "BEGIN")

        engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)

        @event.listens_for(engine, "begin")
        def begin_so(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
            """The driver is told to begin nothing by itself."""
            connection.exec_driver_sql(begin)

        return engine

    def connect(self, wait_seconds: float, *, read_only: bool) -> sqlite3.Connection:
        """Never make a file here: an empty one in the place of one that vanished would hide the loss."""
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=wait_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            write_ahead(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA query_only = {int(read_only)}")
        except BaseException:
            connection.close()
            raise
        return connection


making = threading.Lock()  # closing a file drops every lock this process has on it, also those of its other stores


def write_ahead(connection: sqlite3.Connection) -> None:
    """Keep a write-ahead log. For this alone SQLite does not stand in line."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


class SqliteThread:
    """A thread with a connection: one hop there and back, however many statements."""

    number = 1

    def __init__(self, file: Sqlite, begin: str) -> None:
        self._file = file
        self._begin = begin
        self._engine = file.kept(begin)
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._ready: Hashable = None  # the file that was found to have our tables

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Wait for the thread, and let it have the interpreter meanwhile.

        A busy event loop gives that up only for moments, and has it back before a thread wakes up: seconds can pass
        until the thread gets anywhere (measured). So we stand still for the half millisecond which it needs, and if
        that is not enough, for the disk is slow say, then again now and then.
        """
        future = self._thread.submit(self._transact, work)
        if finished(future):
            return future.result()
        outcome = asyncio.wrap_future(future)
        while not finished(future):
            await asyncio.wait([outcome], timeout=LOOK_AGAIN_SECONDS)
        return await outcome

    async def aclose(self) -> None:
        closed = asyncio.wrap_future(self._thread.submit(self._let_go))
        self._thread.shutdown(wait=False)
        await asyncio.wait([closed], timeout=CLOSE_SECONDS)

    def _transact(self, work: Callable[[Connection], T]) -> T:
        try:
            self._find()
            with self._transaction() as connection:
                return work(connection)
        except (IntegrityError, DataError):
            raise
        except (DBAPIError, OSError, sqlite3.Error) as error:
            self._let_go()  # so that the next one begins anew, with a file that was put back say
            self._ready = None
            if isinstance(error, sqlite3.Error):
                raise OSError(str(error)) from error
            raise

    @contextlib.contextmanager
    def _transaction(self) -> Generator[Connection]:
        """Begun and ended by the driver itself: SQLAlchemy's own way costs 140 µs more (measured)."""
        connection = self._connection = self._connection or self._engine.connect()
        driver = cast("sqlite3.Connection", connection.connection.dbapi_connection)
        driver.execute(self._begin)
        try:
            yield connection
            driver.execute("COMMIT")
        except BaseException:
            if driver.in_transaction:  # else SQLite has undone it by itself
                driver.execute("ROLLBACK")
            raise

    def _let_go(self) -> None:
        if self._connection:
            self._connection.invalidate()
            self._connection = None
        self._engine.dispose()

    def _find(self) -> None:
        """See that the file is the one we know. Another in its place, restored from a copy say, is migrated too."""
        identity = self._file.identity()
        if identity != self._ready:
            self._let_go()
            self._file.migrate()
            self._ready = identity


def finished(future: Future[Any]) -> bool:
    """Stand still for it, a moment at most."""
    with contextlib.suppress(TimeoutError):
        future.exception(HANDOVER_SECONDS)
    return future.done()


# ---- Postgres --------------------------------------------------------------------------------------------------------

POOL: dict[Purpose, int] = {"write": 8, "read": 4}
CONNECT_SECONDS = 5.0
TRIES = 10
ROLLED_BACK = {"40001", "40P01"}  # conflict, deadlock: Postgres undid all of it, and asks to try again
MIGRATION_LOCK = 0x66726F6E74  # advisory locks are numbers; this one spells "front"


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

    async def prepare(self) -> None:
        # READ COMMITTED, so that after the wait for the lock one sees what others did meanwhile.
        engine = self.engine("READ COMMITTED", answer_seconds=None, poolclass=NullPool)
        async with engine.begin() as connection:
            if await connection.run_sync(migrations.is_current):
                return
        async with engine.begin() as connection:
            await connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            await connection.run_sync(migrations.upgrade)

    def connections(self, purpose: Purpose) -> "PostgresPool":
        size = POOL[purpose]
        if purpose == "read":  # one snapshot, and it never fails for what others do meanwhile
            options = {"postgresql_readonly": True}
            return PostgresPool(self.engine("REPEATABLE READ", pool_size=size, execution_options=options), size)
        return PostgresPool(self.engine("READ COMMITTED", pool_size=size), size)

    def public(self, error: Exception) -> str:
        """Without the server's own words, which name its address and its users."""
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        return type(cause.__cause__ or cause).__name__

    def engine(self, isolation: str, answer_seconds: float | None = ANSWER_SECONDS, **options: Any) -> AsyncEngine:
        return create_async_engine(
            "postgresql+asyncpg://",
            async_creator=lambda: self._connect(answer_seconds),
            isolation_level=isolation,
            hide_parameters=True,
            **options,
        )

    async def _connect(self, answer_seconds: float | None) -> Any:
        """The driver itself reads the address, as the Postgres manual has it."""
        asyncpg: Any = importlib.import_module("asyncpg")  # only for those who need it; it tells no types
        try:
            connection = await asyncpg.connect(
                self.url.render_as_string(hide_password=False),
                timeout=CONNECT_SECONDS,
                command_timeout=answer_seconds,
                server_settings={"application_name": "frontdesk"},
            )
            # A process of ours that hangs in the middle of a transaction must not hold up the others.
            await connection.execute(f"SET idle_in_transaction_session_timeout = '{ANSWER_SECONDS:g}s'")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise OSError(str(error)) from error
        return connection


class PostgresPool:
    """Connections, on the event loop."""

    def __init__(self, engine: AsyncEngine, number: int) -> None:
        self.number = number
        self._engine = engine

    async def run(self, work: Callable[[Connection], T]) -> T:
        """A transaction; from its beginning again if it came to nothing through no fault of its own."""
        for attempt in range(1, TRIES + 1):
            committing = False
            try:
                async with self._engine.begin() as connection:
                    result = await connection.run_sync(work)
                    committing = True
                return result
            except DBAPIError as error:
                undone = getattr(error.orig, "sqlstate", None) in ROLLED_BACK
                lost = error.connection_invalidated and not committing
                if attempt == TRIES or not (undone or lost):
                    raise
            await asyncio.sleep(random.uniform(0, 0.001 * 2**attempt))
        raise AssertionError

    async def aclose(self) -> None:
        await self._engine.dispose()
