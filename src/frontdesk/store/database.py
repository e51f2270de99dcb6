"""One SQLite file or a Postgres server, behind one method.

A transaction is a plain function over a `Transaction`, to which it gives SQLAlchemy's statements, so that every query
is written once. Build the statements at import, with `bindparam`, and hand over the values: making them anew costs more
than running them.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError

from frontdesk.errors import StoreUnavailable
from frontdesk.store.place import ANSWER_SECONDS, Dialect, NotNow, Place, Purpose, said
from frontdesk.store.sqlite import Sqlite
from frontdesk.store.transaction import Transaction

T = TypeVar("T")

CLOSE_SECONDS = 5.0


class Database:
    """Transactions on a database that has our tables.

    Every method raises StoreUnavailable when the database cannot be used, and works again once it can. What is wrong
    with a query rather than with the database reaches the caller as it is: IntegrityError (a key is taken), DataError.
    """

    def __init__(self, place: Place) -> None:
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

    async def do(self, work: Callable[[Transaction], T], *, long: bool = False) -> T:
        """Run `work` in one transaction, which is committed at its end, and rolled back if it raises.

        Work that changes a row by what it read must lock it as it reads (`with_for_update`): Postgres runs transactions
        side by side. (SERIALIZABLE would need no locks, but on small tables most transactions were undone for
        nothing.) It may also undo one, and `work` is called again, so it must change nothing but the database.

        `long`: it may take more than a few milliseconds, so on SQLite the event loop is not to wait for it.

        When the caller is cancelled, a transaction that has begun is still finished. And StoreUnavailable does not
        promise that nothing was written: a connection can break after the commit was asked for, before the answer came.
        """
        return await self._writing.run(work, long)

    async def read(self, work: Callable[[Transaction], T], *, long: bool = False) -> T:
        """Run `work`, which only reads, on the database as it is at one moment. Never waits for who writes."""
        return await self._reading.run(work, long)

    async def aclose(self) -> None:
        """Finish what has begun, and close every connection."""
        await self._writing.aclose()
        await self._reading.aclose()


class Lane:
    """A line before the connections of one kind. Who leaves it begins, and whatever has begun is finished."""

    def __init__(self, place: Place, purpose: Purpose) -> None:
        self._place = place
        self._connections = place.connections(purpose)
        self._free = asyncio.Semaphore(self._connections.number)
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def run(self, work: Callable[[Transaction], T], long: bool) -> T:
        if self._closed:
            raise StoreUnavailable("The store is closed.")
        if not (long or self._free.locked()):
            try:
                return self._at_once(work)
            except NotNow:
                pass
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._free.acquire()
                return await asyncio.shield(self._begin(work, long))
        except TimeoutError as error:
            raise StoreUnavailable(f"The store did not answer in {ANSWER_SECONDS:g} seconds.") from error

    def _at_once(self, work: Callable[[Transaction], T]) -> T:
        """Raises NotNow."""
        try:
            return self._connections.at_once(work)
        except (IntegrityError, DataError):
            raise
        except (DBAPIError, OSError) as error:
            raise self._out_of_order(error) from error

    def _begin(self, work: Callable[[Transaction], T], long: bool) -> asyncio.Task[T]:
        task = asyncio.create_task(self._finish(work, long))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _finish(self, work: Callable[[Transaction], T], long: bool) -> T:
        """It has come to the head of the line. What is done in a moment is done so here, too: else a line that has once
        formed behind something slow would never end."""
        try:
            if self._closed:
                raise StoreUnavailable("The store is closed.")
            if not long:
                with suppress(NotNow):
                    return self._connections.at_once(work)
            return await self._connections.run(work)
        except (IntegrityError, DataError):
            raise
        except (DBAPIError, OSError) as error:
            raise self._out_of_order(error) from error
        finally:
            self._free.release()

    def _out_of_order(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"The store is out of order: {self._place.public(error)}.")

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_SECONDS)
        await self._connections.aclose()


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
            from frontdesk.store.postgres import Postgres  # what it needs of SQLAlchemy takes long to import

            return Postgres(parsed.set(drivername="postgresql"))
        case _:
            raise StoreUnavailable(NO_ADDRESS)


NO_ADDRESS = (
    "The store's address must be sqlite:///<path of a file> or postgresql://<user>:<password>@<host>/<database>, where "
    "the characters @ : / ? # % of a password are written as %40 %3A %2F %3F %23 %25."
)
