"""Modules that tests write, importable from the working directory as an author's are."""

import sys
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent


class Modules:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, text: str) -> str:
        """The name of a new module."""
        name = f"module_{uuid.uuid4().hex}"
        (self._folder / f"{name}.py").write_text(dedent(text))
        return name


@contextmanager
def modules_in(folder: Path) -> Generator[Modules]:
    before = list(sys.path)
    yield Modules(folder)
    sys.path[:] = before
