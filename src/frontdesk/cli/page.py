"""The page a person reads: answers on stdout, everything about them on stderr, trouble with a next step."""

import os
import sys
from typing import TextIO

from rich.console import Console
from rich.text import Text

WIDE = 200
"""Columns where no terminal sets them: what is piped should not be folded."""


def width(stream: TextIO) -> int | None:
    return None if stream.isatty() or "COLUMNS" in os.environ else WIDE


out = Console(highlight=False, width=width(sys.stdout))
err = Console(stderr=True, highlight=False, width=width(sys.stderr))

CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def clean(text: str) -> str:
    """Text from elsewhere, without the control characters that could steer the terminal."""
    return text.translate(CONTROLS)


class Trouble(Exception):
    """A command cannot do its work. `mend` says what to do next; `words` in backquotes are set off."""

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend


def advice(text: str, style: str = "") -> Text:
    shown = Text(clean(text), style)
    shown.highlight_regex(r"`[^`]+`", "bold")
    return shown


def tell(trouble: Trouble) -> None:
    err.print(Text.assemble(("error: ", "bold red"), advice(trouble.message)))
    if trouble.mend:
        err.print(advice(trouble.mend))
