"""`frontdesk memory`: what agents remember, shown to the operator and deleted."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from frontdesk.ports import Memories, Whose
from frontdesk.store.database import Database
from frontdesk.store.memories import StoredMemories

from .conftest import Run

ALICE, BOB = Whose("acme", "alice", "milo"), Whose("acme", "bob", "milo")
OTTO, KEY, ALL = Whose("acme", "alice", "otto"), Whose("acme", "", "milo"), Whose("", "", "board")


def with_memories(file: Path, work: Callable[[Memories], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        database = await Database.open(f"sqlite:///{file}")
        await work(StoredMemories(database))
        await database.aclose()

    asyncio.run(run())


@pytest.fixture(autouse=True)
def remembered(env: dict[str, str]) -> None:
    async def fill(memories: Memories) -> None:
        for whose in (ALICE, BOB, OTTO, KEY, ALL):
            await memories.keep(whose, f"A passage of {'/'.join((whose.tenant, whose.user, whose.agent))}.", ["t"], 9)
        await memories.edit(ALICE, "human", lambda block: "Likes [b]tea[/b]. \x1b[2J")

    with_memories(Path(env["FRONTDESK_DATA_DIR"]) / "frontdesk.db", fill)


def names(run: Run) -> list[tuple[str, str]]:
    return [(each["who"], each["agent"]) for each in json.loads(run("memory", "list", "--json").stdout)]


def test_everybody_who_is_remembered_is_listed(run: Run) -> None:
    expected = [("", "board"), ("acme", "milo"), ("acme/alice", "milo"), ("acme/alice", "otto"), ("acme/bob", "milo")]
    assert names(run) == expected
    shown = [line.split() for line in run("memory", "list").stdout.splitlines()]
    assert [line for line in shown if len(line) == 2] == [
        ["Who", "Agent"],
        *([who or "(shared)", agent] for who, agent in names(run)),
    ]


def test_what_is_remembered_is_shown_as_it_is_but_for_what_steers_the_terminal(run: Run) -> None:
    shown = run("memory", "show", "acme/alice", "--agent", "milo").stdout
    assert "Likes [b]tea[/b]. [2J" in shown
    assert "A passage of acme/alice/milo." in shown
    assert "otto" not in shown
    assert "bob" not in shown
    (found,) = json.loads(run("memory", "show", "--agent", "board", "--json").stdout)
    assert [each["text"] for each in found["passages"]] == ["A passage of //board."]


def test_what_is_deleted_is_what_was_named(run: Run) -> None:
    assert run("memory", "delete", "acme/alice", "--agent", "otto", "--yes").stderr == "Deleted 1 memory.\n"
    assert run("memory", "delete", "acme", "--yes").exit_code == 0
    assert names(run) == [("", "board"), ("acme/alice", "milo"), ("acme/bob", "milo")]
    assert run("memory", "delete", "acme", "--users", "--yes").stderr == "Deleted 2 memories.\n"
    assert names(run) == [("", "board")]


def test_nothing_is_deleted_without_a_yes(run: Run) -> None:
    result = run("memory", "delete", "acme/alice", lines="n\n")
    assert result.exit_code == 1
    assert "acme/alice with milo\nacme/alice with otto\n" in result.stderr
    assert len(names(run)) == 5
    assert run("memory", "delete", "acme/alice", lines="y\n").exit_code == 0
    assert len(names(run)) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["show"], "Whose memory?"),
        (["delete", "--yes"], "Whose memory?"),
        (["show", "acme/eve"], "Nothing is remembered of acme/eve."),
        (["delete", "acme/eve", "--yes"], "Nothing is remembered of acme/eve."),
    ],
)
def test_who_must_be_named_and_remembered(run: Run, arguments: list[str], told: str) -> None:
    result = run("memory", *arguments)
    assert result.exit_code == 1
    assert told in result.stderr
    assert len(names(run)) == 5


def test_where_there_is_no_store_none_is_made(run: Run, tmp_path: Path) -> None:
    result = run("memory", "list", FRONTDESK_DATA_DIR=str(tmp_path / "elsewhere"))
    assert result.exit_code == 1
    assert "There is no store at" in result.stderr
    assert not (tmp_path / "elsewhere").exists()
