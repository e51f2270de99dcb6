"""A Postgres server: transactions run side by side, on connections of a pool."""

import asyncio
import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from sqlalchemy import Connection, NullPool, func, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from frontdesk.store import migrations
from frontdesk.store.place import ANSWER_SECONDS, NotNow, Purpose
from frontdesk.store.transaction import Transaction

T = TypeVar("T")

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

    def at_once(self, work: Callable[[Transaction], T]) -> T:
        """A server is always waited for."""
        raise NotNow

    async def run(self, work: Callable[[Transaction], T]) -> T:
        """A transaction; from its beginning again if it came to nothing through no fault of its own."""
        for attempt in range(1, TRIES + 1):
            committing = False
            try:
                async with self._engine.begin() as connection:
                    result = await connection.run_sync(cast("Callable[[Connection], T]", work))
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
