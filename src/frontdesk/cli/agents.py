import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frontdesk.cli.page import advice, clean, err, out
from frontdesk.cli.serve import Config

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from frontdesk.cli.gateway import Served
    from frontdesk.cli.portrait import Block, OwnTool, Portrait, Seen

Url = Annotated[str, typer.Option(envvar="FRONTDESK_URL", help="Where the gateway is.")]
Key = Annotated[str, typer.Option(envvar="FRONTDESK_API_KEY", help="A key it knows, if it wants one.")]
URL = "http://127.0.0.1:8000"


AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")]

MARKS = {"yes": ("yes", "green"), "partly": ("partly", "yellow"), "no": ("no", "red")}
FIRST = 17
NARROW = 100
"""No line of a page is longer, however wide the terminal is."""

agents = typer.Typer()


@agents.callback(invoke_without_command=True)
def list_(
    context: typer.Context,
    url: Url = URL,
    key: Key = "",
    everyone: Annotated[
        bool, typer.Option("--all", help="All agents of the Letta servers in the settings, hidden ones and twins too.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the agents a running gateway serves."""
    if context.invoked_subcommand:
        return
    if everyone:
        from frontdesk.cli import portrait
        from frontdesk.cli.settings import load

        print_all(portrait.everyone(load(config)), as_json=as_json)
    else:
        print_served(url, key, as_json=as_json)


@agents.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The agent's name or id, or `server/name`.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show an agent of a Letta server: type, model, memory, tools; and what works here, and what does not, and why."""
    from frontdesk.cli.portrait import portrait
    from frontdesk.cli.settings import load

    seen = portrait(load(config), name)
    if as_json:
        print_json(asdict(seen))
    else:
        print_portrait(seen)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


# --- lists ---------------------------------------------------------------------------------------------------------


def print_served(url: str, key: str, *, as_json: bool) -> None:
    from frontdesk.cli.gateway import Gateway

    gateway = Gateway.at(url, key)
    body, served = gateway.read("/v1/models")
    if as_json:
        print_json(body["data"])
    elif served:
        out.print(table(served))
    else:
        err.print(f"The gateway at {gateway.url} serves no agents that you may use.", markup=False)


def print_all(seen: "Sequence[Seen]", *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(each) for each in seen])
    elif seen:
        out.print(table_of_all(seen))
    else:
        err.print("There are no agents.")


def table_of_all(seen: "Sequence[Seen]") -> "Table":
    """Names, and ids where a name does not tell which agent it is."""
    from rich import box
    from rich.table import Table

    count = Counter(each.name for each in seen)
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    rows.add_column("Name", style="cyan", overflow="fold")
    rows.add_column("Server", overflow="fold")
    rows.add_column("Type", overflow="fold")
    rows.add_column("Created", no_wrap=True)
    rows.add_column("Served", overflow="fold")
    for each in seen:
        name = cell(each.name) if count[each.name] == 1 else f"{cell(each.name)}\n[dim]{each.id}[/]"
        absent = f"[yellow]no: {cell(each.absent)}[/]" if each.absent else "[green]yes[/]"
        rows.add_row(name, cell(each.server), cell(each.type), day(each.created), absent)
    return rows


def table(served: "list[Served]") -> "Table":
    from rich import box
    from rich.table import Table

    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    rows.add_column("Id", style="cyan", overflow="fold")
    rows.add_column("Name", overflow="fold")
    rows.add_column("Owner", overflow="fold")
    rows.add_column("Created", no_wrap=True)
    rows.add_column("Context", justify="right", no_wrap=True)
    rows.add_column("Client tools", no_wrap=True)
    for agent in served:
        rows.add_row(*(cell(value) for value in (agent.id, agent.name, agent.owned_by)), *facts(agent))
    return rows


def cell(value: str) -> str:
    from rich.markup import escape

    return escape(clean(value))


def facts(agent: "Served") -> tuple[str, str, str]:
    context = f"{agent.context_length:,}" if agent.context_length else "–"
    tools = {True: "yes", False: "no", None: "–"}[agent.capabilities.client_tools]
    return day(agent.created), context, tools


def day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}" if seconds else "–"


# --- one agent -----------------------------------------------------------------------------------------------------


def print_portrait(seen: "Portrait") -> None:
    from rich.text import Text

    place = f" on {seen.server}, {seen.type or 'of an unknown type'}, made {day(seen.created)}"
    show_lines(Text.assemble((clean(seen.name), "bold cyan"), clean(place)))
    if seen.description:
        show_lines(Text(clean(seen.description), "dim"))
    out.print()
    show_pairs(about(seen))
    section("Memory", [block_line(block) for block in seen.blocks], "It has no memory blocks.")
    notes = ["Its tool rules let the model make one call at a time."] if seen.one_call_at_a_time else []
    section("Tools", [tool_line(tool) for tool in seen.tools], "It has no tools of its own.", notes)
    show_lines(Text("\nWhat works", "bold"))
    if seen.absent:
        show_lines(advice(f"Nothing: it is not served ({seen.absent})."))
        return
    rows = grid(FIRST, 6)
    for ability in seen.abilities:
        rows.add_row(ability.name, Text(*MARKS[ability.works]), advice(ability.how))
    out.print(rows, width=page_width())


def about(seen: "Portrait") -> "Iterator[tuple[str, Text | str]]":
    """What there is to say in a line each."""
    yield "id", seen.id
    yield "model", model_line(seen)
    yield "context", f"{seen.context_window:,} tokens" if seen.context_window else "–"
    yield "embedding", clean(seen.embedding) or "none: archives and files cannot be searched"
    if seen.tags:
        yield "tags", clean(", ".join(seen.tags))
    if seen.twins:
        yield "twin" if len(seen.twins) == 1 else "twins", f"{', '.join(seen.twins)}, with the same memory"
    if seen.conversations is not None:
        yield "made here", "1 conversation" if seen.conversations == 1 else f"{seen.conversations} conversations"


def model_line(seen: "Portrait") -> "Text":
    from rich.text import Text

    provider = f" ({clean(seen.provider)})" if seen.provider else ""
    unknown = ("; the server does not offer it", "yellow") if seen.model_known is False else ""
    return Text.assemble(clean(seen.model) or "–", provider, unknown)


def block_line(block: "Block") -> tuple[str, str]:
    room = f" of {block.limit:,}" if block.limit else ""
    read_only = ", read-only" if block.read_only else ""
    others = len(block.shared_with)
    shared = f", shared with {'1 other agent' if others == 1 else f'{others} other agents'}" if others else ""
    return block.label, f"{block.characters:,}{room} characters{read_only}{shared}"


def tool_line(tool: "OwnTool") -> tuple[str, str]:
    return tool.name, f"{tool.kind}{', needs approval' if tool.needs_approval else ''}"


def section(title: str, lines: Sequence[tuple[str, str]], none: str, notes: Sequence[str] = ()) -> None:
    from rich.text import Text

    show_lines(Text(f"\n{title}", "bold"))
    show_pairs(lines)
    for note in notes if lines else [none]:
        show_lines(Text(note, "dim"))


def show_pairs(lines: "Iterator[tuple[str, Text | str]] | Sequence[tuple[str, str]]") -> None:
    from rich.text import Text

    pairs = [(clean(name), Text(clean(told)) if isinstance(told, str) else told) for name, told in lines]
    rows = grid(max([FIRST, *(min(len(name), 30) for name, _ in pairs)]))
    for name, told in pairs:
        rows.add_row(Text(name), told)
    if pairs:
        out.print(rows, width=page_width())


def show_lines(text: "Text") -> None:
    out.print(text, width=page_width())


def grid(*widths: int) -> "Table":
    from rich.table import Table

    rows = Table.grid(padding=(0, 2))
    for width in widths:
        rows.add_column(width=width, overflow="fold")
    rows.add_column(overflow="fold")
    return rows


def page_width() -> int:
    return min(out.width, NARROW)
