"""Where a database is, and how transactions are run there: what `sqlite` and `postgres` have in common."""

from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

from sqlalchemy.exc import DBAPIError

from frontdesk.store.transaction import Transaction

T = TypeVar("T")
Dialect = Literal["sqlite", "postgresql"]
Purpose = Literal["write", "read"]

ANSWER_SECONDS = 20.0
"""A database that is silent for longer counts as one that is not there."""


class NotNow(Exception):
    """It would have to wait for somebody."""


class Connections(Protocol):
    @property
    def number(self) -> int:
        """How many transactions run at a time."""
        ...

    def at_once(self, work: Callable[[Transaction], T]) -> T:
        """One transaction, with nothing between its beginning and its end. Raises NotNow, and what `run` raises."""
        ...

    async def run(self, work: Callable[[Transaction], T]) -> T:
        """One transaction. Raises what SQLAlchemy raises, and OSError."""
        ...

    async def aclose(self) -> None: ...


class Place(Protocol):
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


def said(error: Exception) -> str:
    """What the database said, in one line, without SQL."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    lines = str(cause).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(cause).__name__
