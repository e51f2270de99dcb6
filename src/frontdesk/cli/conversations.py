"""Conversations of a running gateway: those that the given key may see."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from frontdesk.cli.agents import URL, Key, Url, cell
from frontdesk.cli.chat import quoted
from frontdesk.cli.page import Trouble, advice, clean, err, out

if TYPE_CHECKING:
    from rich.table import Table

    from frontdesk.cli.gateway import Gateway

PAGE = 100
"""The most that the gateway gives at once."""

ID_WIDTH = 40
WIDE = 110
"""Columns in which a conversation has room on one line."""

Id = Annotated[str, typer.Argument(metavar="ID", help="The conversation, as `frontdesk conversations list` names it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")]

conversations = typer.Typer(
    no_args_is_help=True,
    help="List, read, branch and delete conversations of a running gateway: those of your key.",
)


@conversations.command("list")
def list_(
    url: Url = URL,
    key: Key = "",
    agent: Annotated[str, typer.Option(help="Only with this agent, by name or id.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List your conversations, the latest used first."""
    from frontdesk.cli.gateway import Gateway

    gateway = Gateway.at(url, key)
    query = {"agent": agent} if agent else {}
    found, more = first(pages(gateway, "/v1/conversations", **query), limit)
    if as_json:
        print_json(found)
    elif found:
        out.print(table(found, wide=out.width >= WIDE))
    else:
        err.print(advice("There are no conversations yet. Begin one with `frontdesk chat`."))
    if more:
        err.print(advice(f"There are more. See them with `--limit {limit * 5}`."))


@conversations.command()
def show(conversation: Id, url: Url = URL, key: Key = "", as_json: AsJson = False) -> None:
    """Show what was said in a conversation."""
    from frontdesk.cli.gateway import Gateway

    gateway = Gateway.at(url, key)
    path = f"/v1/conversations/{quote(conversation, safe='')}"
    found = ask(gateway, "GET", path)
    items = pages(gateway, f"{path}/items", order="asc")
    if as_json:
        print_json(found | {"items": [item for page in items for item in page]})
        return
    err.print(heading(found), style="dim")
    for page in items:
        for item in page:
            print_item(item, str(found["agent"]))


@conversations.command()
def fork(conversation: Id, url: Url = URL, key: Key = "", as_json: AsJson = False) -> None:
    """Branch a conversation where it stands. The new one has the same history, and a future of its own."""
    from frontdesk.cli.gateway import Gateway

    made = ask(Gateway.at(url, key), "POST", f"/v1/conversations/{quote(conversation, safe='')}/fork")
    if as_json:
        print_json(made)
        return
    typer.echo(clean(made["id"]))
    err.print(advice(f"Go on with it: `frontdesk chat {quoted(made['agent'])} --conversation {made['id']}`"))


@conversations.command()
def delete(
    conversations: Annotated[list[str], typer.Argument(metavar="ID…", help="The conversations.")],
    url: Url = URL,
    key: Key = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
) -> None:
    """Delete conversations, here and on the agent's server. What the agent has noted in its memory stays."""
    from frontdesk.cli.gateway import Gateway

    gateway = Gateway.at(url, key)
    for conversation in conversations:
        path = f"/v1/conversations/{quote(conversation, safe='')}"
        if not yes:
            err.print(heading(ask(gateway, "GET", path)))
            typer.confirm("Delete it?", abort=True, err=True)
        ask(gateway, "DELETE", path)
        err.print(f"Deleted {clean(conversation)}.", markup=False)


# --- asking ----------------------------------------------------------------------------------------------------------


def ask(gateway: "Gateway", method: str, path: str, **query: str | int) -> dict[str, Any]:
    """The object an answer is. Raises Trouble."""
    body: Any = gateway.ask(method, path, timeout=30, **query)
    if not isinstance(body, dict) or "object" not in body:
        raise Trouble(f"{gateway.url} answers, but not as a gateway does.", "Is the address right?")
    return body  # pyright: ignore[reportUnknownVariableType]


def pages(gateway: "Gateway", path: str, **query: str | int) -> Iterator[list[dict[str, Any]]]:
    """A list's pages, each asked for when it is wanted."""
    while True:
        body = ask(gateway, "GET", path, limit=PAGE, **query)
        yield body["data"]
        if not body["has_more"]:
            return
        query["after"] = body["last_id"]


def first(pages: Iterator[list[dict[str, Any]]], limit: int) -> tuple[list[dict[str, Any]], bool]:
    """The first elements, and whether there are more."""
    found: list[dict[str, Any]] = []
    for page in pages:
        found += page
        if len(found) > limit:
            break
    return found[:limit], len(found) > limit


# --- showing ---------------------------------------------------------------------------------------------------------


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def table(found: list[dict[str, Any]], *, wide: bool) -> "Table":
    """A line for each; where that is too narrow, two, so that ids stay whole."""
    from rich import box
    from rich.table import Table

    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    rows.add_column("Id", no_wrap=True, min_width=ID_WIDTH)
    rows.add_column("Agent", overflow="fold")
    rows.add_column("Last used", no_wrap=True)
    rows.add_column("Turns", justify="right", no_wrap=True)
    if wide:
        rows.add_column("About", no_wrap=True)
    for each in found:
        name, words = f"[cyan]{cell(each['id'])}[/]", cell(about(each))
        facts = (cell(each["agent"]), moment(each), str(each["turns"]))
        rows.add_row(*((name, *facts, words) if wide else (f"{name}\n  {words}", *facts)))
    return rows


def about(conversation: dict[str, Any]) -> str:
    """The first words, else the name it was given."""
    return " ".join(str(conversation.get("title") or conversation.get("name") or "–").split())


def moment(conversation: dict[str, Any]) -> str:
    return f"{datetime.fromtimestamp(conversation['last_used_at'], UTC).astimezone():%Y-%m-%d %H:%M}"


def heading(conversation: dict[str, Any]) -> str:
    turns = conversation["turns"]
    count = "1 turn" if turns == 1 else f"{turns} turns"
    text = f"{about(conversation)} ({conversation['agent']}, {count}, last used {moment(conversation)})"
    return cell(text)


def print_item(item: dict[str, Any], agent: str) -> None:
    """Who said it, then what; the agent's thoughts and tools dimmed."""
    from rich.text import Text

    match item:
        case {"type": "message", "role": "user"}:
            out.print(Text.assemble(("\nyou: ", "bold cyan"), clean(said(item["content"]))))
        case {"type": "message", "role": "system"}:
            out.print(Text(clean(f"\nsystem: {said(item['content'])}"), "dim"))
        case {"type": "message"}:
            out.print(Text.assemble((f"\n{clean(agent)}: ", "bold green"), clean(said(item["content"]))))
        case {"type": "reasoning"}:
            out.print(Text(clean("\n".join(part["text"] for part in item["summary"])), "dim italic"))
        case {"type": "mcp_call"}:
            failure = said(item["error"]["content"]) if item.get("error") else ""
            outcome = f"failed: {failure}" if failure else str(item["output"])
            out.print(Text(clean(f"⚙ {item['name']}({item['arguments']}) → {outcome}"), "dim"))
        case {"type": "function_call"}:
            out.print(Text(clean(f"⚙ {item['name']}({item['arguments']}) → asked of the caller"), "dim"))
        case {"type": "function_call_output"}:
            output = item["output"]
            out.print(Text(clean(f"⚙ → {output if isinstance(output, str) else said(output)}"), "dim"))
        case _:
            out.print(Text(clean(f"[{item.get('type')}]"), "dim"))


def said(parts: list[dict[str, Any]]) -> str:
    return "\n".join(str(part.get("text") or shown(part)) for part in parts)


def shown(part: dict[str, Any]) -> str:
    return f"[a file: {part['filename']}]" if part["type"] == "input_file" else "[a picture]"
