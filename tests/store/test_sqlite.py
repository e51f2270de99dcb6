"""What can befall a file."""

import asyncio
import os
import shutil
import stat
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Executable, bindparam, func, insert, select, text

from frontdesk.errors import StoreUnavailable
from frontdesk.store.database import Database
from frontdesk.store.sqlite import CHECKPOINT_EVERY, Sqlite
from frontdesk.store.tables import receipts
from frontdesk.store.transaction import Transaction
from tests.store.owners import add, names


@pytest.fixture
def file(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


def put(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)


def read(file: Path) -> bytes:
    return file.read_bytes()


@pytest.fixture
async def database(sqlite_url: str) -> AsyncGenerator[Database]:
    opened = await Database.open(sqlite_url)
    yield opened
    await opened.aclose()


async def test_nobody_else_may_read_it(database: Database, file: Path) -> None:
    await database.do(add("a"))
    beside = sorted(path.name for path in file.parent.iterdir())
    assert beside == ["frontdesk.db", "frontdesk.db-shm", "frontdesk.db-wal"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_reading_does_not_wait_for_writing(database: Database) -> None:
    await database.do(add("a"))
    entered, leave = threading.Event(), threading.Event()

    def slow(connection: Transaction) -> None:
        add("b")(connection)
        entered.set()
        leave.wait()

    writing = asyncio.create_task(database.do(slow, long=True))
    await asyncio.to_thread(entered.wait)
    assert await database.read(names) == ["a"]
    leave.set()
    await writing
    assert await database.read(names) == ["a", "b"]


async def test_a_transaction_does_not_fight_a_busy_event_loop_for_the_interpreter(database: Database) -> None:
    """It is done before the loop has gone round a few times. Else each of its statements may wait for a round."""
    rounds = 0

    async def keep_busy() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            until = time.perf_counter() + 0.001
            while time.perf_counter() < until:
                pass
            await asyncio.sleep(0)

    async def rounds_of_one() -> int:
        before = rounds
        await database.read(lambda tx: [names(tx) for _ in range(10)])
        return rounds - before

    busy = asyncio.create_task(keep_busy())
    assert statistics.median([await rounds_of_one() for _ in range(51)]) < 5
    busy.cancel()


async def test_a_file_that_vanishes_is_missed_until_it_is_back(database: Database, file: Path) -> None:
    await database.do(add("a"))
    away = file.parent.with_name("away")
    file.parent.rename(away)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="No such file"):
            await database.do(add("b"))
        with pytest.raises(StoreUnavailable, match="No such file"):
            await database.read(names)
    assert list(file.parent.parent.iterdir()) == [away]
    away.rename(file.parent)
    await database.do(add("c"))
    assert await database.read(names) == ["a", "c"]


async def test_a_copy_put_in_its_place_is_used(database: Database, file: Path, tmp_path: Path) -> None:
    other = await Database.open(f"sqlite:///{tmp_path / 'copy.db'}")
    await other.do(add("from the copy"))
    await other.aclose()
    await database.do(add("a"))
    shutil.rmtree(file.parent)
    put(file, read(tmp_path / "copy.db"))
    assert await database.read(names) == ["from the copy"]
    await database.do(add("b"))
    assert await database.read(names) == ["b", "from the copy"]


async def test_an_empty_file_put_in_its_place_gets_the_tables(database: Database, file: Path) -> None:
    shutil.rmtree(file.parent)
    put(file, b"")
    await database.do(add("a"))
    assert await database.read(names) == ["a"]


async def test_what_is_no_database_is_said_to_be_none(file: Path, sqlite_url: str) -> None:
    put(file, b"a letter to my aunt" * 200)
    with pytest.raises(StoreUnavailable, match="file is not a database"):
        await Database.open(sqlite_url)


async def test_a_folder_that_cannot_be_made_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(StoreUnavailable) as info:
        await Database.open(f"sqlite:///{tmp_path / 'taken' / 'frontdesk.db'}")
    assert str(tmp_path / "taken" / "frontdesk.db") in info.value.message
    assert isinstance(info.value.__cause__, OSError)


FULL_DISK = """
import asyncio, resource, sys
from frontdesk.errors import StoreUnavailable
from frontdesk.store.database import Database
from tests.store.owners import add, names

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main():
    database = await Database.open(sys.argv[1])
    limit(400_000)
    written = []
    try:
        for number in range(10_000):
            await database.do(add(f"{number:06}" * 1000))
            written.append(f"{number:06}" * 1000)
    except StoreUnavailable as error:
        print(error.message)
    assert await database.read(names) == written
    limit(resource.RLIM_INFINITY)
    await database.do(add("there is room again"))
    assert await database.read(names) == [*written, "there is room again"]
    await database.aclose()

asyncio.run(main())
"""


def test_a_full_disk_is_told_and_forgotten_when_there_is_room(sqlite_url: str) -> None:
    """In a process of its own, whose files may not grow beyond a limit."""
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, sqlite_url], capture_output=True, text=True, timeout=60, cwd=os.getcwd()
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("The store is out of order: ")


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
"""


async def test_while_another_process_writes_the_event_loop_goes_on(database: Database, file: Path) -> None:
    """And whoever has waited comes before those who come later."""
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD, str(file)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert other.stdin
    assert other.stdout
    assert await other.stdout.readline() == b"held\n"
    order: list[str] = []

    def noted(name: str) -> Callable[[Transaction], None]:
        def work(tx: Transaction) -> None:
            add(name)(tx)
            order.append(name)

        return work

    waiting = [asyncio.create_task(database.do(noted(name))) for name in "ab"]
    for _ in range(20):  # rounds of the loop, which nobody holds up
        await asyncio.sleep(0)
    assert await database.read(names) == []
    assert not any(task.done() for task in waiting)
    other.stdin.close()
    waiting.append(asyncio.create_task(database.do(noted("c"))))
    await asyncio.gather(*waiting)
    assert order == ["a", "b", "c"]
    assert await other.wait() == 0


async def test_what_may_take_long_does_not_hold_up_the_event_loop(database: Database) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(_: Transaction) -> None:
        entered.set()
        leave.wait()

    reading = asyncio.create_task(database.read(slow, long=True))
    await asyncio.to_thread(entered.wait)
    await database.do(add("a"))
    leave.set()
    await reading
    assert await database.read(names) == ["a"]


async def test_a_line_behind_something_slow_is_worked_off_in_its_order_by_the_event_loop(database: Database) -> None:
    entered, leave = threading.Event(), threading.Event()
    done: list[tuple[int, threading.Thread]] = []

    def slow(tx: Transaction) -> None:
        add("slow")(tx)
        entered.set()
        leave.wait()

    async def write(number: int) -> None:
        await database.do(lambda _: done.append((number, threading.current_thread())))

    writing = asyncio.create_task(database.do(slow, long=True))
    await asyncio.to_thread(entered.wait)
    line = [asyncio.create_task(write(number)) for number in range(20)]
    await asyncio.sleep(0)
    assert done == []
    leave.set()
    await asyncio.gather(writing, *line)
    assert done == [(number, threading.current_thread()) for number in range(20)]


async def test_who_stands_in_line_when_the_store_is_closed_is_told(database: Database) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        add("slow")(tx)
        entered.set()
        leave.wait()

    writing = asyncio.create_task(database.do(slow, long=True))
    await asyncio.to_thread(entered.wait)
    late = asyncio.create_task(database.do(add("late")))
    await asyncio.sleep(0)
    closing = asyncio.create_task(database.aclose())
    await asyncio.sleep(0)
    leave.set()
    await asyncio.gather(writing, closing)
    with pytest.raises(StoreUnavailable, match="closed"):
        await late


async def test_what_was_written_is_taken_over_from_the_log_into_the_file(database: Database, file: Path) -> None:
    """Else the log would grow for ever: the event loop, which writes, does not wait for the disk."""
    log, much = file.with_name("frontdesk.db-wal"), "x" * 10_000
    sizes: list[int] = []
    for number in range(6 * CHECKPOINT_EVERY):
        await database.do(add(f"{number:05}{much}"))
        if number % CHECKPOINT_EVERY == 0:
            sizes.append(await asyncio.to_thread(lambda: log.stat().st_size))
    assert sizes[-1] < 3 * sizes[1]


async def test_what_is_found_has_the_same_form_as_with_sqlalchemy(database: Database, file: Path) -> None:
    """Truth values, names of columns, lists with members and without, values which a statement brings itself."""
    row = {"id": "t", "principal": "p", "turn": "t", "body": "{}", "events": "", "unwanted": True, "created": 1.5}
    await database.do(lambda tx: tx.execute(insert(receipts), row))
    by_ids = select(receipts).where(receipts.c.id.in_(bindparam("ids", expanding=True)), receipts.c.unwanted)
    statements: list[tuple[Executable, dict[str, Any]]] = [
        (select(receipts), {}),
        (by_ids, {"ids": ["t", "u"]}),
        (by_ids, {"ids": ["t"]}),
        (by_ids, {"ids": []}),
        (select(func.count(), receipts.c.unwanted).group_by(receipts.c.unwanted), {}),
        (text("SELECT id AS left_one, created FROM receipts WHERE id = :id"), {"id": "t"}),
    ]
    engine = Sqlite(file).engine("BEGIN")
    for statement, values in statements:
        rows = await database.read(lambda tx, s=statement, v=values: tx.execute(s, v).all())
        with engine.connect() as connection:
            found = connection.execute(statement, values)
            columns, theirs = found.keys(), found.all()
        assert [repr(tuple(each)) for each in rows] == [repr(tuple(each)) for each in theirs]
        assert [repr(tuple(getattr(each, name) for name in columns)) for each in rows] == list(map(repr, theirs))
