"""The store of the settings, for commands that work on it themselves, whether a server runs or not."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from frontdesk.cli.page import Trouble

if TYPE_CHECKING:
    from frontdesk.store.database import Database

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Raises Trouble where the store cannot be used."""
    from frontdesk.errors import StoreUnavailable

    try:
        return asyncio.run(work)
    except StoreUnavailable as error:
        raise Trouble(error.message) from error


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator["Database"]:
    """A store. A file that is not there is not made. Raises Trouble, StoreUnavailable."""
    from frontdesk.store.database import Database

    if url.startswith("sqlite:///") and not (file := Path(url.removeprefix("sqlite:///"))).is_file():
        raise Trouble(f"There is no store at {file}.", "Is `data_dir`, or `database_url`, the server's?")
    database = await Database.open(url)
    try:
        yield database
    finally:
        await database.aclose()
