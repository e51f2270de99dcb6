"""The store on both databases it can have."""

import itertools
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from frontdesk.store.database import Database
from tests.store.postgres import fresh_database, postgres

numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Generator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """An empty database on a server."""
    return fresh_database(postgres_server, f"store_{next(numbers)}")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file that is not there yet."""
    return f"sqlite:///{tmp_path / 'data' / 'frontdesk.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    opened = await Database.open(database_url)
    yield opened
    await opened.aclose()
