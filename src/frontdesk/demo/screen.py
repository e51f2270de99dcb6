"""What a person sees of the demo: stages with their time, and conversations which are printed as they come."""

import json
import re
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.cells import cell_len, chop_cells
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

WIDEST = 100
"""Columns beyond which lines are tiring to read."""
MARGIN = 8
"""Columns for the names of those who speak."""

CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def clean(text: str) -> str:
    """Text from elsewhere, without the control characters that could steer the terminal."""
    return text.translate(CONTROLS)


class Screen:
    """Stdout. On a terminal lines are folded between words; elsewhere they are left as they are."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        plain = not self.console.encoding.lower().startswith("utf")
        self.done, self.failed, self.arrow = ("ok", "!!", "->") if plain else ("✓", "✗", "→")
        self.dots = "line" if plain else "dots"

    @property
    def is_terminal(self) -> bool:
        return self.console.is_terminal

    @property
    def width(self) -> int:
        return min(self.console.width, WIDEST) if self.is_terminal else sys.maxsize

    def line(self, text: str | Text = "") -> None:
        """Print a line as it is: a terminal may fold it, but it can be copied whole."""
        self.console.print(text, soft_wrap=True)

    def note(self, text: str, style: str = "") -> None:
        """Print a paragraph; `words` in backquotes are set off."""
        shown = Text(clean(text), style)
        shown.highlight_regex(r"`[^`]+`", "bold")
        if self.is_terminal:
            self.console.print(Padding(shown, (0, 0, 0, 2)), width=self.width)
        else:
            self.line(Text("  ") + shown)

    def title(self, text: str) -> None:
        self.line()
        self.line(Text(f"  {text}", "bold"))

    def stages(self) -> "Stages":
        return Stages(self)

    @contextmanager
    def speaker(self, name: str, style: str) -> Generator["Speech"]:
        speech = Speech(self, name, style)
        try:
            yield speech
        finally:
            speech.end()


class Speech:
    """What one speaker says, printed word by word as it comes, with the name in the margin."""

    def __init__(self, screen: Screen, name: str, style: str) -> None:
        self._screen = screen
        self._name: Text | None = Text(f"  {name:<{MARGIN}}", style)
        self._column = 0  # within the text
        self._style = ""
        self._word = ""
        self._gap = ""

    def add(self, text: str, style: str = "") -> None:
        """Go on speaking; another style begins a line of its own."""
        if style != self._style:
            self._break()
            self._style = style
        for part in re.findall(r"\n|[^\S\n]+|\S+", clean(text)):
            if part == "\n":
                self._flush()
                self._gap = self._gap.strip(" ") + "\n"
            elif part.isspace():
                self._flush()
                self._gap += part
            else:
                self._word += part

    def call(self, name: str, arguments: str) -> None:
        """Show the call of a tool."""
        self._break()
        self._style = "cyan"
        self.add(f"{self._screen.arrow} {name}({shown(arguments)})", "cyan")

    def end(self) -> None:
        self._break()
        self._gap = ""

    def _break(self) -> None:
        """End the line, if one was begun."""
        self._flush()
        self._gap = ""
        if self._column:
            self._screen.console.print()
            self._column = 0

    def _flush(self) -> None:
        """Print the word that was being collected. Space before it counts only within a text."""
        if not self._word:
            return
        lines, spaces = self._gap.count("\n"), self._gap.rpartition("\n")[2]
        if self._column and lines:
            self._screen.console.print("\n" * (min(lines, 2) - 1))
            self._column = 0
        room = max(20, self._screen.width - MARGIN - 3)
        if self._column and self._column + cell_len(spaces + self._word) > room:
            self._screen.console.print()
            self._column, spaces = 0, ""
        elif not self._column and not lines:
            spaces = ""
        for number, piece in enumerate(chop_cells(self._word, room)):
            if number:
                self._screen.console.print()
                self._column, spaces = 0, ""
            self._print(spaces + piece)
        self._word = self._gap = ""

    def _print(self, text: str) -> None:
        if not self._column:
            self._screen.console.print(self._name or Text(" " * (MARGIN + 2)), end="", soft_wrap=True)
            self._name = None
        self._screen.console.print(Text(text, self._style), end="", soft_wrap=True)
        self._column += cell_len(text)


def shown(arguments: str) -> str:
    """JSON arguments as a person would write them: `city="Paris"`."""
    try:
        values: Any = json.loads(arguments or "{}")
    except ValueError:
        return arguments
    if not isinstance(values, dict):
        return arguments
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in values.items())  # type: ignore[reportUnknownVariableType]


class Stages:
    """What is being done, and for how long: a moving line on a terminal, which stays when it is done.

    Elsewhere a line when a stage begins.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._stage = ""
        self._began = 0.0
        self._spinner = Spinner(screen.dots, style="cyan")
        self._live = Live(
            get_renderable=self._now,
            console=screen.console,
            transient=True,
            refresh_per_second=10,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        if self._screen.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle(self._screen.done if kind is None else self._screen.failed, "green" if kind is None else "red")
        self._live.stop()

    def __call__(self, stage: str) -> None:
        """Begin a stage; the one before is done."""
        if stage == self._stage:
            return
        self._settle(self._screen.done, "green")
        self._stage, self._began = stage, time.monotonic()
        if not self._screen.is_terminal:
            self._screen.line(f"  {stage} ...")

    def _settle(self, mark: str, style: str) -> None:
        if self._stage and self._screen.is_terminal:
            self._live.console.print(self._row(Text(mark, style), self._stage))
        self._stage = ""

    def _now(self) -> RenderableType:
        return self._row(self._spinner, self._stage) if self._stage else Group()

    def _row(self, mark: RenderableType, stage: str) -> RenderableType:
        row = Table.grid(padding=(0, 1))
        row.add_column(width=3, justify="right")
        row.add_column(width=min(46, self._screen.width - 14))
        row.add_column(width=8, justify="right", style="dim")
        row.add_row(mark, Text(stage), f"{time.monotonic() - self._began:.1f} s")
        return row
