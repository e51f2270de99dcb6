"""An address that is wrong is told without giving its password away."""

import traceback

import pytest

from frontdesk.errors import StoreUnavailable
from frontdesk.store.database import Database


@pytest.mark.parametrize("url", ["", "frontdesk.db", "sqlite://", "sqlite:///", "sqlite:///:memory:", "mysql://h/d"])
async def test_an_address_of_something_else_is_refused(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="must be sqlite:///"):
        await Database.open(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cret@127.0.0.1:1/db",
        "postgresql://user:s3cret@nowhere.invalid/db",
        "postgresql://user:a@s3cret@127.0.0.1:1/db",
        "postgresql://user:a/s3cret@127.0.0.1:1/db",
        "postgresql://user:a#s3cret@127.0.0.1:1/db",
        "postgresql://user:a?s3cret@127.0.0.1:1/db",
        "postgresql://user:a%s3cret@127.0.0.1:1/db",
        "postgresql://user@127.0.0.1:s3cret/db",
        "postgresql://user@127.0.0.1:1/db?password=s3cret",
        "postgresql://user:s3cret@127.0.0.1:1/db?sslmode=perhaps",
        "postgres:user:s3cret@127.0.0.1",
        "mysql://user:s3cret@127.0.0.1/db",
    ],
)
async def test_a_password_is_in_no_message_and_in_no_traceback(url: str) -> None:
    with pytest.raises(StoreUnavailable) as info:
        await Database.open(url)
    told = "".join(traceback.format_exception(info.value))
    assert "s3cret" not in told
