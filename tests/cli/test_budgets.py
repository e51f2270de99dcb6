"""`frontdesk budgets`: what has been spent, shown to the operator."""

import asyncio
import json
from pathlib import Path

import pytest

from frontdesk.ports import Account, Wanted
from frontdesk.store.budgets import StoredAccounts
from frontdesk.store.database import Database

from .conftest import Run


@pytest.fixture
def spent(env: dict[str, str]) -> None:
    async def spend() -> None:
        database = await Database.open(f"sqlite:///{Path(env['FRONTDESK_DATA_DIR']) / 'frontdesk.db'}")
        accounts = StoredAccounts(database, "a server")
        daily = Account("1", "daily", "USD", "web/[b]ann[/b]\x1b[2J", "2026-01-31", 5_000_000)
        ever = Account("2", "ever", "tokens", "", "", 1_000)
        await accounts.reserve("turn-1", [Wanted(daily, 50_000), Wanted(ever, 300)])
        await accounts.settle("turn-1", {"1": 12_345, "2": 1})
        await accounts.reserve("turn-2", [Wanted(ever, 200)])
        await database.aclose()

    asyncio.run(spend())


@pytest.mark.usefixtures("spent")
def test_every_account_is_shown(run: Run) -> None:
    lines = [line.split() for line in run("budgets").stdout.splitlines()]
    assert ["daily", "web/[b]ann[/b][2J", "2026-01-31", "0.012345", "USD", "0.00", "USD"] in lines
    assert ["ever", "all", "ever", "1", "token", "200", "tokens"] in lines


@pytest.mark.usefixtures("spent")
def test_also_for_programs(run: Run) -> None:
    first, second = json.loads(run("budgets", "--json").stdout)
    assert (first["budget"], first["holder"], first["spent"]) == ("daily", "web/[b]ann[/b]\x1b[2J", "0.012345 USD")
    assert second == {"budget": "ever", "holder": "", "period": "", "spent": "1 token", "set_aside": "200 tokens"}


def test_where_there_is_no_store_it_says_so_and_makes_none(run: Run, env: dict[str, str]) -> None:
    result = run("budgets")
    assert result.exit_code == 1
    assert "There is no store" in result.stderr
    assert not Path(env["FRONTDESK_DATA_DIR"]).exists()


def test_a_budget_that_makes_no_sense_is_told_with_its_place(run: Run) -> None:
    result = run("budgets", FRONTDESK_BUDGETS='[{"name": "daily", "limit": "a lot"}]')
    assert result.exit_code == 1
    assert "[[budgets]] 1 (FRONTDESK_BUDGETS)" in result.stderr
    assert "'a lot' is no amount" in result.stderr
