"""What can befall a server."""

from collections.abc import AsyncGenerator

import pytest
from sqlalchemy import text

from frontdesk.errors import StoreUnavailable
from frontdesk.store.database import Database
from frontdesk.store.transaction import Transaction
from tests.store.owners import add, names
from tests.store.postgres import fresh_database, local_postgres


@pytest.fixture
async def database(postgres_url: str) -> AsyncGenerator[Database]:
    opened = await Database.open(postgres_url)
    yield opened
    await opened.aclose()


async def test_a_server_that_is_away_is_missed_until_it_is_back() -> None:
    with local_postgres() as server:
        database = await Database.open(fresh_database(server.url, "store"))
        await database.do(add("a"))
        server.stop()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await database.do(add("b"))
            with pytest.raises(StoreUnavailable):
                await database.read(names)
        server.start()
        await database.do(add("c"))
        assert await database.read(names) == ["a", "c"]
        await database.aclose()


async def test_a_connection_that_died_at_rest_is_not_noticed(database: Database, postgres_url: str) -> None:
    await database.do(add("a"))
    await database.read(names)
    other = await Database.open(postgres_url)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    await other.do(lambda tx: tx.execute(text(f"{cut} AND pid <> pg_backend_pid()")).all())
    await other.aclose()
    await database.do(add("b"))
    assert await database.read(names) == ["a", "b"]


async def test_a_commit_nobody_knows_the_end_of_is_not_tried_again(database: Database) -> None:
    """A trigger that is put off until the commit ends the connection in the midst of it."""
    calls: list[int] = []

    def make_trigger(tx: Transaction) -> None:
        tx.execute(
            text("""CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'""")
        )
        tx.execute(
            text("""CREATE CONSTRAINT TRIGGER leaving AFTER INSERT ON owners
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION leave()""")
        )

    def work(tx: Transaction) -> None:
        calls.append(1)
        add("a")(tx)

    await database.do(make_trigger)
    with pytest.raises(StoreUnavailable):
        await database.do(work)
    assert len(calls) == 1
    await database.do(lambda tx: tx.execute(text("DROP TRIGGER leaving ON owners")))
    await database.do(add("b"))
    assert await database.read(names) == ["b"]


async def test_a_database_that_is_not_there_is_told_with_its_name(postgres_server: str) -> None:
    with pytest.raises(StoreUnavailable, match='database "nowhere" does not exist'):
        await Database.open(postgres_server.replace("/postgres?", "/nowhere?"))


async def test_addresses_begin_as_people_write_them(postgres_url: str) -> None:
    for scheme in ("postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg"):
        database = await Database.open(postgres_url.replace("postgresql", scheme))
        assert database.dialect == "postgresql"
        await database.aclose()
