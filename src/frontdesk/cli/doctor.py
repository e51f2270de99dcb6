from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frontdesk import __version__
from frontdesk.cli.agents import Key
from frontdesk.cli.page import Trouble, advice, out
from frontdesk.cli.serve import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontdesk.cli.checks import Finding

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    config: Config = None,
    url: Annotated[
        str, typer.Option(envvar="FRONTDESK_URL", help="A running gateway; where it should listen, if left out.")
    ] = "",
    key: Key = "",
    agent: Annotated[str, typer.Option(help="Whom to send the trial message; the first one, if left out.")] = "",
    turn: Annotated[bool, typer.Option("--turn/--no-turn", help="Send an agent a trial message.")] = True,
) -> None:
    """Find out what is wrong.

    Looks at settings, data folder, port, Python agents, Letta servers and agents, and sends an agent a trial message.
    """
    marks: list[str] = []
    out.print(f"[bold cyan]Frontdesk doctor[/] {__version__}\n")
    for finding in findings(config, url, key, agent, turn):
        show(finding)
        marks.append(finding.mark)
    summary = ", ".join(f"{marks.count(mark)} {mark}" for mark in STYLES if mark in marks)
    out.print(f"\n{summary}")
    if "fail" in marks:
        raise typer.Exit(1)


def show(finding: "Finding") -> None:
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 2))
    row.add_column(width=4)
    row.add_column(width=10, overflow="fold")
    row.add_column(overflow="fold")
    row.add_row(Text(finding.mark, STYLES[finding.mark]), finding.subject, advice(finding.message))
    if finding.mend:
        row.add_row("", "", advice(f"→ {finding.mend}", "dim"))
    out.print(row)


def findings(config: Path | None, url: str, key: str, agent: str, turn: bool) -> "Iterator[Finding]":
    """Everything there is to find, in the order in which one would mend it."""
    from frontdesk.cli import checks
    from frontdesk.cli.settings import load

    yield checks.python()
    try:
        settings = load(config)
    except Trouble as trouble:
        yield checks.Finding("fail", "settings", trouble.message, trouble.mend)
        return
    yield from checks.settings(settings)
    yield checks.data_folder(settings.data_dir)
    door = checks.door(settings, url, key)
    yield door.finding
    told, written = checks.python_agents(settings)
    yield from told
    seen = checks.letta(settings, door)
    for house in seen:
        yield from house.findings
    yield from checks.agents(seen, settings)
    if turn:
        yield checks.turn(
            settings, door.gateway, [*written, *(found for house in seen for found in house.agents)], agent
        )
