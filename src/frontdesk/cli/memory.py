"""What agents written in Python remember: for the operator, on the store itself."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frontdesk.cli import store
from frontdesk.cli.page import Trouble, advice, clean, err, out
from frontdesk.cli.serve import Config
from frontdesk.cli.store import run

if TYPE_CHECKING:
    from rich.table import Table

    from frontdesk.ports import Memories, Passage, Whose

PAGE = 200
SHARED = "(shared)"

Who = Annotated[
    str,
    typer.Argument(
        metavar="[WHO]",
        help="A key by its name, or `key/user`, as `frontdesk memory list` shows it; without it, what all share.",
    ),
]
Agent = Annotated[str, typer.Option(help="Only with this agent, by name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")]

memory = typer.Typer(
    no_args_is_help=True,
    help="List, show and delete what agents written in Python remember, in the store of the settings.",
)


@memory.command("list")
def list_(config: Config = None, as_json: AsJson = False) -> None:
    """List who is remembered, and by which agent."""
    from frontdesk.cli.settings import load

    async def known() -> list["Whose"]:
        async with opened(load(config).store_url) as memories:
            return list(await memories.known())

    found = run(known())
    if as_json:
        print_json([{"who": name(whose), "agent": whose.agent} for whose in found])
    elif found:
        out.print(table(found))
    else:
        err.print(advice("Nothing is remembered. Agents with the skill `Memory` do that."))


@memory.command()
def show(who: Who = "", agent: Agent = "", config: Config = None, as_json: AsJson = False) -> None:
    """Show what is remembered of somebody."""
    from frontdesk.cli.settings import load

    async def told() -> list[dict[str, Any]]:
        async with opened(load(config).store_url) as memories:
            return [await content(memories, whose) for whose in await wanted(memories, who, agent)]

    found = run(told())
    if as_json:
        print_json(found)
        return
    for each in found:
        out.print(clean(f"{each['who'] or SHARED} with {each['agent']}"), style="bold", markup=False)
        for block in each["blocks"]:
            out.print(clean(f"\n[{block['label']}, changed {day(block['changed'])}]\n{block['text']}"), markup=False)
        for passage in each["passages"]:
            tags = f", {', '.join(passage['tags'])}" if passage["tags"] else ""
            out.print(clean(f"\n[archive, {day(passage['created'])}{tags}]\n{passage['text']}"), markup=False)
        out.print()


@memory.command()
def delete(
    who: Who = "",
    agent: Agent = "",
    users: Annotated[bool, typer.Option("--users", help="All users too, for whom the key vouches.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
    config: Config = None,
) -> None:
    """Delete what is remembered of somebody. What was said in conversations stays: see `frontdesk conversations`."""
    from frontdesk.cli.settings import load

    async def found() -> list["Whose"]:
        async with opened(load(config).store_url) as memories:
            return await wanted(memories, who, agent, users=users)

    async def erase() -> int:
        async with opened(load(config).store_url) as memories:
            return sum([await memories.delete(each.tenant, each.user, each.agent) for each in doomed])

    doomed = run(found())
    if not yes:
        for whose in doomed:
            err.print(clean(f"{name(whose) or SHARED} with {whose.agent}"), markup=False)
        typer.confirm("Delete it?", abort=True, err=True)
    count = run(erase())
    err.print(f"Deleted {count} {'memory' if count == 1 else 'memories'}.")


# --- on the store ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator["Memories"]:
    """The memories of a store."""
    from frontdesk.store.memories import StoredMemories

    async with store.opened(url) as database:
        yield StoredMemories(database)


async def wanted(memories: "Memories", who: str, agent: str, *, users: bool = False) -> list["Whose"]:
    """Raises Trouble if there are none."""
    if not (who or agent):
        raise Trouble("Whose memory?", "`frontdesk memory list` names them; for a shared one give `--agent`.")
    tenant, user = parts(who)
    found = list(await memories.known(tenant, None if users else user, agent))
    if not found:
        raise Trouble(f"Nothing is remembered of {who or 'all callers'}.", "`frontdesk memory list` names who is.")
    return found


async def content(memories: "Memories", whose: "Whose") -> dict[str, Any]:
    blocks = (await memories.blocks(whose)).values()
    return {
        "who": name(whose),
        "agent": whose.agent,
        "blocks": [{"label": each.label, "changed": moment(each.changed), "text": each.text} for each in blocks],
        "passages": [
            {"created": moment(each.created), "tags": list(each.tags), "text": each.text}
            for each in await passages(memories, whose)
        ],
    }


async def passages(memories: "Memories", whose: "Whose") -> list["Passage"]:
    """All of them, the latest first."""
    found: list[Passage] = []
    while page := await memories.search(whose, limit=PAGE, skip=len(found)):
        found += page
    return found


def parts(who: str) -> tuple[str, str]:
    """The key and its user. Both are empty for what all share."""
    tenant, _, user = who.partition("/")
    return tenant, user


def name(whose: "Whose") -> str:
    return f"{whose.tenant}/{whose.user}" if whose.user else whose.tenant


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def day(moment: str) -> str:
    """A moment as a person reads it."""
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M} UTC"


def table(found: "list[Whose]") -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    rows.add_column("Who", style="cyan", overflow="fold")
    rows.add_column("Agent", overflow="fold")
    for whose in found:
        rows.add_row(Text(clean(name(whose) or SHARED)), Text(clean(whose.agent)))
    return rows


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
