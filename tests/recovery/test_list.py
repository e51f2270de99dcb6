"""docs/recovery.md has a row for every known quirk of Letta, and each names tests there are, or says why not."""

import ast
import re
from pathlib import Path

import pytest

from tests.requirements import requirement

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recovery.md"
QUIRKS = 30
ROW = re.compile(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")

ROWS = {int(number): last for number, _, _, last in ROW.findall(PAGE.read_text())}


@requirement("recovery.quirks")
def test_every_quirk_has_a_row() -> None:
    assert sorted(ROWS) == list(range(1, QUIRKS + 1))


@pytest.mark.parametrize("number", range(1, QUIRKS + 1))
def test_a_row_names_tests_there_are_or_says_why_there_is_none(number: int) -> None:
    named = TEST.findall(ROWS[number])
    rest = TEST.sub("", ROWS[number]).strip()
    assert bool(named) != (len(rest.split()) > 5), "either tests, or a reason"
    assert [name for path, name in named if name not in functions(ROOT / path)] == []


def functions(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
