import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from frontdesk.cli.page import clean, err, out

if TYPE_CHECKING:
    from rich.table import Table

    from frontdesk.cli.gateway import Served

Url = Annotated[str, typer.Option(envvar="FRONTDESK_URL", help="Where the gateway is.")]
Key = Annotated[str, typer.Option(envvar="FRONTDESK_API_KEY", help="A key it knows, if it wants one.")]
URL = "http://127.0.0.1:8000"


def agents(
    url: Url = URL,
    key: Key = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON, for programs.")] = False,
) -> None:
    """List the agents a running gateway serves."""
    from frontdesk.cli.gateway import Gateway

    gateway = Gateway.at(url, key)
    body, served = gateway.read("/v1/models")
    if as_json:
        typer.echo(json.dumps(body["data"], indent=2, ensure_ascii=False))
    elif served:
        out.print(table(served))
    else:
        err.print(f"The gateway at {gateway.url} serves no agents that you may use.", markup=False)


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
    created = f"{datetime.fromtimestamp(agent.created, UTC):%Y-%m-%d}" if agent.created else "–"
    context = f"{agent.context_length:,}" if agent.context_length else "–"
    tools = {True: "yes", False: "no", None: "–"}[agent.capabilities.client_tools]
    return created, context, tools
