"""The process of a demo: one per folder, ended by signals, and how a person calls it."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from frontdesk.demo.errors import DemoError


@contextmanager
def claimed(folder: Path, agent: str) -> Generator[Callable[[str], None]]:
    """Hold the folder for this process. Yields a function that notes, for others, where the gateway of `agent` is.

    Raises DemoError if another demo holds it.
    """
    import fcntl  # not on Windows

    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (folder / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        mend = "FRONTDESK_DATA_DIR names another place."
        raise DemoError(f"Cannot write to {folder}: {error.strerror}.", mend) from error

    def note(url: str) -> None:
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "url": url}, file)
        file.flush()

    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running_already(file.name, agent)
        note("")
        yield note


def running_already(lock: str, agent: str) -> NoReturn:
    other: dict[str, Any] = {}
    with suppress(ValueError, OSError):
        other = json.loads(Path(lock).read_text(encoding="utf-8"))
    if not (pid := other.get("pid")):
        raise DemoError("A demo is just starting in another terminal.")
    if not (url := other.get("url")):
        raise DemoError(f"A demo is just starting already, as process {pid}.", f"`kill {pid}` would stop it.")
    raise DemoError(
        f"A demo is running already, at {url}/v1 (process {pid}).",
        f"Use that one: `{command()} chat {agent} --url {url}`. Ctrl-C in its terminal, or `kill {pid}`, stops it.",
    )


@contextmanager
def leaving_by_signal() -> Generator[None]:
    """Ctrl-C, SIGTERM and a closed terminal raise KeyboardInterrupt, once. The second time we leave at once: Letta and
    Postgres end with us, however we end."""

    def leave(number: int, _: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, leave_at_once)
        raise KeyboardInterrupt

    def leave_at_once(number: int, _: FrameType | None) -> None:
        os._exit(128 + number)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(each, leave) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)


def command() -> str:
    """How this program was called, so that what we print can be pasted."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m frontdesk"
    if (found := shutil.which("frontdesk")) and Path(found).resolve() == called.resolve():
        return "frontdesk"
    with contextlib.suppress(ValueError):
        called = called.relative_to(Path.cwd())
    return shlex.quote(str(called)) if called.name == "frontdesk" else "frontdesk"
