"""How words reach the page."""

import io

import pytest
from rich.console import Console

from frontdesk.demo.screen import Screen, Stages, shown


def screen(width: int = 40, *, terminal: bool = True) -> tuple[Screen, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None, highlight=False)
    return Screen(console), file


def spoken(pieces: list[str], width: int = 40, *, terminal: bool = True) -> str:
    page, file = screen(width, terminal=terminal)
    with page.speaker("Milo", "") as milo:
        for piece in pieces:
            milo.add(piece)
    return file.getvalue()


def test_words_are_folded_whole_however_they_come() -> None:
    text = "One two three four five six seven eight nine."
    expected = "  Milo    One two three four five six\n          seven eight nine.\n"
    assert spoken([text]) == spoken(list(text)) == expected


def test_elsewhere_than_on_a_terminal_lines_are_left_as_they_are() -> None:
    text = "word " * 60
    assert spoken([text], terminal=False) == f"  Milo    {text.strip()}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb", "  Milo    a\n          b\n"),
        ("a\n\n\n\nb", "  Milo    a\n\n          b\n"),
        ("\n\na\n\n", "  Milo    a\n"),
        ("a\n  b", "  Milo    a\n            b\n"),
        ("漢字" * 9, "  Milo    漢字漢字漢字漢字漢字漢字漢字\n          漢字漢字\n"),
        ("\x1b[31mred", "  Milo    [31mred\n"),
        ("", ""),
    ],
)
def test_lines_spaces_and_wide_characters(text: str, expected: str) -> None:
    assert spoken([text]) == spoken(list(text)) == expected


def test_a_call_has_a_line_of_its_own() -> None:
    page, file = screen(60)
    with page.speaker("Milo", "") as milo:
        milo.add("Hm.", "dim")
        milo.call("get_weather", '{"city": "Oslo", "days": 2}')
    assert file.getvalue() == '  Milo    Hm.\n          → get_weather(city="Oslo", days=2)\n'


@pytest.mark.parametrize("odd", ['{"city": "Os', "[1]", "7"])
def test_arguments_that_are_no_object_are_shown_as_they_are(odd: str) -> None:
    assert shown(odd) == odd


def test_stages_stay_on_the_page_with_their_outcome() -> None:
    page, file = screen(80)
    with page.stages() as stage:
        stage("First")
        stage("Second")
    assert "  ✓ First " in file.getvalue()
    page, file = screen(80)
    with pytest.raises(KeyError), page.stages() as stage:
        fail(stage)
    assert "  ✗ First " in file.getvalue()


def fail(stage: Stages) -> None:
    stage("First")
    raise KeyError


def test_stages_are_plain_lines_elsewhere() -> None:
    page, file = screen(terminal=False)
    with page.stages() as stage:
        stage("First")
        stage("First")
        stage("Second")
    assert file.getvalue() == "  First ...\n  Second ...\n"
