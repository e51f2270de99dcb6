"""Recordings: the raw bytes of each turn's backend stream, for debugging. They hold what was said."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


class Recorder:
    """Writes nothing without a directory, and nothing more after it once could not write."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def __call__(self, turn_id: str) -> Callable[[bytes], object] | None:
        """Where to put the bytes of a turn: they are appended to `<directory>/<turn_id>.sse`. None: nowhere."""
        if self._directory is None:
            return None
        name = re.sub(r"[^A-Za-z0-9_-]", "_", turn_id)[:128] or "_"
        path = self._directory / f"{name}.sse"
        return lambda data: self._append(path, data)

    def _append(self, path: Path, data: bytes) -> None:
        """Opened for each read, so that nothing is left open however a turn ends. Never raises into the turn."""
        if self._directory is None:
            return
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(path, "ab", opener=_private) as file:
                file.write(data)
        except OSError as error:
            log.warning("recording stopped", directory=str(self._directory), error=str(error))
            self._directory = None


def _private(path: str, flags: int) -> int:
    """For us alone, and never through a link that somebody else put there."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)
