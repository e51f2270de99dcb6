"""An environment for each client, in the cache folder; made once for each set of pins."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from frontdesk.demo.local_letta import cache_folder, exclusive, find_uv, silent
from tests.compat.clients import KIT, Client


class NotInstalled(Exception):
    """A client's environment could not be made."""


def installed(client: Client) -> Path:
    """The client's environment, made if need be. A lock lets one process build; the marker is written last."""
    recipe = hashlib.sha256(b"".join([sys.version.encode(), *(file.read_bytes() for file in client.pins)])).hexdigest()
    folder = cache_folder() / f"compat-{client.folder.name}-{recipe[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.with_name(f"{folder.name}.lock"), silent):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install_node(client, folder) if client.is_node else install_python(client, folder)
            (folder / "complete").touch()
    return folder


def install_python(client: Client, folder: Path) -> None:
    uv, python = find_uv(), str(folder / "bin" / "python")
    run([uv, "venv", "--quiet", "--clear", "--no-project", "--python", sys.executable, str(folder)], folder)
    (pins,) = client.pins
    run([uv, "pip", "sync", "--quiet", "--python", python, str(pins)], folder)


def install_node(client: Client, folder: Path) -> None:
    for file in client.pins:
        shutil.copy(file, folder)
    run([npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)


def command(client: Client, folder: Path) -> list[str]:
    """How the client's script is run."""
    if not client.is_node:
        return [str(folder / "bin" / "python"), str(client.script)]
    for file in (client.script, KIT / "compat.mjs"):  # Node looks for packages beside the script
        shutil.copy(file, folder)
    return [node(), str(folder / client.script.name)]


def pin(client: Client) -> None:
    """Write the lock file anew from what the folder asks for. It names no place to download from."""
    if client.is_node:
        lock = [npm(), "install", "--package-lock-only", "--omit-lockfile-registry-resolved", "--ignore-scripts"]
        run([*lock, "--no-audit", "--no-fund"], client.folder)
    else:
        compiled = [find_uv(), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--upgrade"]
        files = ["requirements.in", "--output-file", "requirements.txt"]
        run([*compiled, "--no-emit-index-url", "--no-header", "--no-annotate", *files], client.folder)


def node() -> str:
    return found("node")


def npm() -> str:
    return found("npm")


def found(program: str) -> str:
    if path := shutil.which(program):
        return path
    raise NotInstalled(f"{program} is not here")


def run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstalled(f"`{' '.join(command)}` said\n{done.stderr.strip()[-2000:]}")
