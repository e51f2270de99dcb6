"""The steps lead to the tables that the code believes in."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, text

from frontdesk.errors import StoreUnavailable
from frontdesk.store import migrations
from frontdesk.store.database import Database, place_of
from frontdesk.store.postgres import Postgres
from frontdesk.store.sqlite import Sqlite
from frontdesk.store.tables import metadata

T = TypeVar("T")


async def looked_at(database_url: str, look: Callable[[Connection], T]) -> T:
    """With a connection of SQLAlchemy's own."""
    match place_of(database_url):
        case Sqlite() as file:
            with file.engine("BEGIN").connect() as connection:
                return look(connection)
        case Postgres() as server:
            async with server.engine("READ COMMITTED", poolclass=NullPool).connect() as connection:
                return await connection.run_sync(look)
        case _:
            raise AssertionError


async def test_the_migrated_tables_are_those_of_the_code(database: Database, database_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {"version_table": migrations.VERSION_TABLE, "compare_type": True, "include_name": is_common}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    assert await looked_at(database_url, differences) == []


def is_common(name: str | None, kind: str, parents: object) -> bool:
    """Text is indexed in a way of each database's own."""
    return kind != "table" or not str(name).startswith("passage_words")


def test_the_newest_step_is_the_one_that_is_named() -> None:
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head() == migrations.REVISION


async def test_a_database_of_a_newer_version_is_left_alone(database: Database, database_url: str) -> None:
    await database.do(lambda tx: tx.execute(text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'")))
    with pytest.raises(StoreUnavailable, match="newer Frontdesk"):
        await Database.open(database_url)
    assert await looked_at(database_url, migrations.version) == "9999"
