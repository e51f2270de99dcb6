"""Packages for Node, as a lock file pins them: installed once for all runs, in our cache folder."""

import fcntl
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from frontdesk.demo.local_letta import cache_folder

COMMAND = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]


def installed(pins: Path, npm: Callable[[list[str], Path], str]) -> tuple[Path, str]:
    """A folder with what `package.json` in the folder `pins` asks for, and why it could not be had, if so.

    `npm` runs npm with these words in a folder, and gives what went wrong; empty if nothing.
    """
    files = [pins / "package.json", pins / "package-lock.json"]
    recipe = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    folder = cache_folder() / f"node-{recipe}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            for file in files:
                shutil.copy(file, folder)
            if trouble := npm(COMMAND, folder):
                return folder, trouble.strip()[-500:]
            (folder / "complete").touch()
    return folder, ""
