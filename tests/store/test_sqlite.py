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
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from frontdesk.errors import StoreUnavailable
from frontdesk.store.database import Database
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

    def slow(connection: Connection) -> None:
        add("b")(connection)
        entered.set()
        leave.wait()

    writing = asyncio.create_task(database.do(slow))
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
