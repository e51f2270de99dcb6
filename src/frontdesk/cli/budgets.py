"""What has been spent of budgets: for the operator, on the store itself."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from frontdesk.cli.page import advice, clean, err, out
from frontdesk.cli.serve import Config
from frontdesk.cli.store import opened, run

if TYPE_CHECKING:
    from rich.table import Table

    from frontdesk.ports import Standing


def budgets(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")] = False,
) -> None:
    """Show what has been spent of budgets, by whom and when, and what running turns have set aside."""
    from frontdesk.cli.settings import load

    found = run(standings(load(config).store_url))
    if as_json:
        typer.echo(json.dumps([described(each) for each in found], indent=2, ensure_ascii=False))
    elif found:
        out.print(table(found))
    else:
        err.print(advice("Nothing has been spent. `[[budgets]]` in the settings, or the skill `Budget`, set limits."))


async def standings(url: str) -> "Sequence[Standing]":
    from frontdesk.store.budgets import StoredAccounts

    async with opened(url) as database:
        return await StoredAccounts(database, "").standings()


def described(each: "Standing") -> dict[str, str]:
    from frontdesk.amounts import told

    spent, held = told(each.unit, each.spent), told(each.unit, each.held)
    return {"budget": each.budget, "holder": each.holder, "period": each.period, "spent": spent, "set_aside": held}


def table(found: "Sequence[Standing]") -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title in ("Budget", "Whose", "When"):
        rows.add_column(title)
    for title in ("Spent", "Set aside"):
        rows.add_column(title, justify="right")
    for each in map(described, found):
        shown = (each["budget"], each["holder"] or "all", each["period"] or "ever", each["spent"], each["set_aside"])
        rows.add_row(*(Text(clean(text)) for text in shown))
    return rows
