"""What every database promises."""

import asyncio
import subprocess
import sys

import pytest
from sqlalchemy.exc import IntegrityError

from frontdesk.errors import StoreUnavailable
from frontdesk.store.database import Database
from frontdesk.store.transaction import Transaction
from tests.store.owners import add, beat_of, count_up, names


async def test_what_was_done_is_there(database: Database) -> None:
    await database.do(add("a"))
    assert await database.read(names) == ["a"]


async def test_a_transaction_gives_what_its_work_gives(database: Database) -> None:
    assert await database.do(lambda connection: 7) == 7


async def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    def work(connection: Transaction) -> None:
        add("a")(connection)
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await database.do(work)
    assert await database.read(names) == []
    await database.do(add("b"))
    assert await database.read(names) == ["b"]


async def test_a_key_that_is_taken_is_told_as_it_is(database: Database) -> None:
    await database.do(add("a"))
    with pytest.raises(IntegrityError):
        await database.do(add("a"))
    await database.do(add("b"))
    assert await database.read(names) == ["a", "b"]


async def test_no_update_is_lost(database: Database) -> None:
    await database.do(add("a"))
    await asyncio.gather(*(database.do(count_up("a")) for _ in range(40)))
    assert await database.read(beat_of("a")) == 40


async def test_no_update_is_lost_between_processes(database: Database, database_url: str) -> None:
    """Threads with an event loop each stand for the processes: they share nothing but the file or the server."""

    async def count() -> None:
        own = await Database.open(database_url)
        for _ in range(50):
            await own.do(count_up("a"))
        await own.aclose()

    await database.do(add("a"))
    await asyncio.gather(*(asyncio.to_thread(asyncio.run, count()) for _ in range(3)))
    assert await database.read(beat_of("a")) == 150


async def test_a_transaction_whose_caller_is_cancelled_is_finished(database: Database, database_url: str) -> None:
    loop = asyncio.get_running_loop()

    def work(connection: Transaction) -> None:
        add("a")(connection)
        loop.call_soon_threadsafe(caller.cancel)
        add("b")(connection)

    caller = asyncio.create_task(database.do(work))
    with pytest.raises(asyncio.CancelledError):
        await caller
    await database.aclose()
    again = await Database.open(database_url)
    assert await again.read(names) == ["a", "b"]
    await again.aclose()


async def test_one_that_stands_in_line_and_is_cancelled_never_begins(database: Database) -> None:
    """More than there are connections; all wait for the same row, or for the same file."""
    await database.do(add("a"))
    callers = [asyncio.create_task(database.do(count_up("a"), long=True)) for _ in range(100)]
    late = asyncio.create_task(database.do(add("late")))
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.gather(*callers)
    with pytest.raises(asyncio.CancelledError):
        await late
    assert await database.read(names) == ["a"]
    assert await database.read(beat_of("a")) == 100


async def test_what_only_reads_cannot_write(database: Database) -> None:
    with pytest.raises(StoreUnavailable):
        await database.read(add("a"))
    assert await database.read(names) == []


async def test_a_closed_store_says_so(database: Database) -> None:
    await database.aclose()
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.do(add("a"))
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.read(names)


OPEN = """
import asyncio, sys
from frontdesk.store.database import Database

async def main():
    database = await Database.open(sys.argv[1])
    await database.aclose()

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""


def test_processes_that_start_at_once_make_the_tables_once(database_url: str) -> None:
    """To make them twice is an error, so it is enough that each of them says it succeeded."""
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import alembic.command, asyncpg\n{OPEN}",
                database_url,
            ],  # so that all are as quick
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


def test_opening_what_is_up_to_date_does_not_load_alembic(database_url: str) -> None:
    first, second = OPEN, f"{OPEN}\nassert 'sqlalchemy' in sys.modules and 'alembic' not in sys.modules"
    for script in (first, second):
        subprocess.run([sys.executable, "-c", script, database_url], input="go\n", check=True, text=True, timeout=60)
