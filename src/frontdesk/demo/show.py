"""`frontdesk demo`: a Letta server, an agent, a gateway and a conversation, from nothing, on this machine alone."""

import contextlib
import errno
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
from rich.prompt import Confirm
from rich.text import Text

from frontdesk import __version__
from frontdesk.config import GivenSettings, Settings
from frontdesk.demo.local_letta import LettaOptions, LocalLetta, LocalLettaError, NoModels, data_folder
from frontdesk.demo.milo import NAME, Milo
from frontdesk.demo.models import OURS, Provider, UnknownModel, provider
from frontdesk.demo.screen import Screen

if TYPE_CHECKING:
    import openai
    import uvicorn

    from frontdesk.testing import ScriptedModel

HOST = "127.0.0.1"
PORT = 8000
PORTS_TRIED = 50
START_SECONDS = 30.0
PACE_SECONDS = 0.02  # between the scripted model's tokens, where somebody watches

SCRIPTED = """\
No model key was found: a scripted model answers, so that you see the plumbing, not wit. \
Set OPENAI_API_KEY and start again for a real one."""


class DemoError(Exception):
    """The demo cannot go on. `mend` says what to do about it; `words` in backquotes are for typing."""

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend


def run(port: int = PORT, fresh: bool = False, once: bool = False) -> None:
    """Start everything, play, and serve until told to stop; then nothing is left running.

    Raises DemoError, and KeyboardInterrupt if it was stopped before the play was over.
    """
    with suppress(AttributeError):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[reportAttributeAccessIssue]
    if sys.platform == "win32":
        raise DemoError("The demo needs Linux or macOS.", "On Windows, please use WSL.")
    folder = data_folder() / "demo"
    screen = Screen()
    with leaving_by_signal(), claimed(folder, NAME) as claim:
        if fresh and not cleared(folder, screen):
            return
        demo = Demo(folder, screen)
        try:
            demo.start(port)
            claim(demo.url)
            demo.play()
            if not once:
                demo.serve()
        except KeyboardInterrupt:
            if not demo.played:
                raise
        except LocalLettaError as error:
            raise trouble(error, demo) from error
        except UnknownModel as error:
            raise DemoError(str(error), f"Set {OURS} to one of them, or leave it out.") from error
        except httpx.HTTPError as error:
            raise DemoError(f"Letta does not answer as it should: {error}", f"Its log: {demo.letta_log}") from error
        finally:
            demo.stop()


class Demo:
    """What runs, in the order in which it is started; stopped in the reverse order."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self.played = False
        self.url = ""
        self.provider = provider()
        self.letta_log = folder / "letta" / "letta.log"
        self.gateway_log = folder / "gateway.log"
        self._folder = folder
        self._screen = screen
        self._running = ExitStack()
        self._letta: LocalLetta | None = None
        self._gateway: Gateway | None = None
        self._milo: Milo | None = None

    def start(self, port: int) -> None:
        screen, running = self._screen, self._running
        screen.line(Text.assemble("\n  ", ("Frontdesk demo", "bold cyan"), (f"  {__version__}", "dim")))
        screen.line()
        screen.note(whose_model(self.provider), "" if self.provider else "yellow")
        screen.line()
        with screen.stages() as stage:
            options = self.provider.options if self.provider else self._scripted()
            self._letta = letta = LocalLetta(self._folder / "letta", options)
            running.callback(letta.stop)
            letta.start(stage)
            stage(f"Waking {NAME}")
            api = running.enter_context(httpx.Client(base_url=letta.base_url, timeout=60, trust_env=False))
            self._milo = Milo.at(api, os.environ.get(OURS, "").strip())
            stage("Starting the gateway")
            listener = listening(port)
            self._gateway = running.enter_context(Gateway(self._settings(listener), listener, self.gateway_log))
            self.url = self._gateway.url
        screen.line()
        screen.note(f"{NAME} {'is new' if self._milo.is_new else 'is back'}, and thinks with {self._milo.model}.")
        taken = port and self._gateway.port != port
        screen.note(f"The gateway listens on {self.url}{f', as port {port} is taken' if taken else ''}.")

    def _scripted(self) -> LettaOptions:
        return LettaOptions(model_base_url=self._running.enter_context(scripted(self._screen)).base_url)

    def _settings(self, listener: socket.socket) -> Settings:
        assert self._letta
        return GivenSettings(
            host=HOST,
            port=listener.getsockname()[1],
            letta_base_url=self._letta.base_url,
            data_dir=self._folder / "gateway",
        )

    def play(self) -> None:
        """Hold the conversations. Raises DemoError if the model fails."""
        from frontdesk.demo.play import Play

        assert self._milo
        with speaking(NAME, self._if_refused()), client_of(self.url) as client:
            Play(client, self._screen).perform(self._milo)
        self.played = True

    def _if_refused(self) -> str:
        logs = f"The logs: {self.gateway_log} and {self.letta_log}"
        if not self.provider:
            return logs
        return f"Is the model right? {OURS} chooses another. {logs}"

    def serve(self) -> None:
        """Say how to go on, and wait."""
        assert self._milo
        assert self._letta
        assert self._gateway
        screen, me = self._screen, command()
        elsewhere = f" --url {self.url}" if self._gateway.port != PORT or os.environ.get("FRONTDESK_URL") else ""
        screen.title(f"{NAME} stays at the desk")
        screen.line()
        tell(
            screen,
            ("Base URL", Text(f"{self.url}/v1", "bold")),
            ("", Text("for Open WebUI and all other clients; any API key will do", "dim")),
            ("Talk", Text(f"{me} chat {NAME}{elsewhere}", "bold")),
            ("Or paste", Text(CURL.format(url=self.url, name=NAME, question="What is my name?"))),
            ("Stop", Text.assemble(("Ctrl-C", "bold"), (f"; {NAME} will remember you next time", "dim"))),
        )
        wait = threading.Event()
        while not wait.wait(0.5):
            if not self._letta.pid:
                raise DemoError("The Letta server has ended by itself.", f"Its log: {self.letta_log}")
            if not self._gateway.is_running:
                raise DemoError("The gateway has ended by itself.", f"Its log: {self.gateway_log}")

    def stop(self) -> None:
        if not self._letta:
            return
        with suppress(OSError):  # nobody may be looking any more
            self._screen.line(Text("\n  Stopping ...", "dim"))
        self._running.close()
        with suppress(OSError):
            self._screen.line(Text("  Everything has stopped.\n", "dim"))


CURL = """\
curl {url}/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{name}", "messages": [{{
       "role": "user", "content": "{question}"}}]}}'"""


def tell(screen: Screen, *rows: tuple[str, Text]) -> None:
    """Print how to go on: lines with a word in the margin."""
    for name, value in rows:
        for number, line in enumerate(value.split("\n")):
            screen.line(Text.assemble((f"  {name if not number else '':<10}", "dim"), line))
    screen.line()


def client_of(url: str) -> "openai.OpenAI":
    """The official client, with no proxy between us and ourselves."""
    import openai

    http = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, http_client=http)


@contextmanager
def speaking(name: str, mend: str) -> Generator[None]:
    """Raises DemoError if the model of this agent fails."""
    import openai

    try:
        yield
    except openai.OpenAIError as error:
        why = error.message if isinstance(error, openai.APIError) else str(error)
        raise DemoError(f"{name} could not answer: {why}", mend) from error


# --- the parts ---------------------------------------------------------------------------------------------------


class Gateway:
    """The server of `frontdesk serve`, in a thread, with its log in a file."""

    def __init__(self, settings: Settings, listener: socket.socket, log: Path) -> None:
        from frontdesk.observe import logs
        from frontdesk.serving import server

        self.port: int = settings.port
        self.url = f"http://{HOST}:{self.port}"
        log.touch(mode=0o600)
        self._log = log.open("w", encoding="utf-8")
        logs.configure(settings.log_level, "console", stream=self._log)
        self._server: uvicorn.Server = server(settings)
        self._listener = listener
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def __enter__(self) -> "Gateway":
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self.is_running or time.monotonic() > deadline:
                raise DemoError("The gateway did not start.", f"Its log: {self._log.name}")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=START_SECONDS)

    def _run(self) -> None:
        from frontdesk.serving import sockets_of

        with suppress(SystemExit):
            self._server.run(sockets=sockets_of(self._listener))


def listening(port: int) -> socket.socket:
    """A socket on this port, or on the next one that is free. Raises DemoError."""
    from frontdesk.serving import listen

    for candidate in (0,) if port == 0 else (*range(port, min(port + PORTS_TRIED, 65536)), 0):
        try:
            return listen(HOST, candidate)
        except PermissionError as error:
            raise DemoError(f"Port {candidate} is reserved.", "Choose one above 1023 with `--port`.") from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise DemoError(f"Cannot listen on {HOST}:{candidate}: {error.strerror}.") from error
    raise DemoError("No port is free.")


@contextmanager
def scripted(screen: Screen) -> Generator["ScriptedModel"]:
    """A scripted model on any free port, for as long as the block lasts."""
    from frontdesk.testing import ScriptedModel

    with ScriptedModel(pace_seconds=PACE_SECONDS if screen.is_terminal else 0.0) as model:
        yield model


def whose_model(found: Provider | None) -> str:
    if found is None:
        return SCRIPTED
    return f"A real model answers: {' and '.join(found.found)} {'is' if len(found.found) == 1 else 'are'} set."


# --- the folder --------------------------------------------------------------------------------------------------


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


def cleared(folder: Path, screen: Screen) -> bool:
    """Delete Milo and all it knows, if the person at the terminal agrees."""
    letta = folder / "letta"
    if not letta.exists():
        return True
    if sys.stdin.isatty() and screen.is_terminal and not agreed(screen, letta):
        screen.note("Nothing was deleted.")
        return False
    going = folder / "deleted"
    shutil.rmtree(going, ignore_errors=True)
    letta.rename(going)  # at once, also if we are killed in the middle
    shutil.rmtree(going, ignore_errors=True)
    return True


def agreed(screen: Screen, letta: Path) -> bool:
    try:
        question = f"  Delete {NAME}, and all it remembers, in {letta}?"
        return Confirm.ask(question, console=screen.console, default=False)
    except EOFError:
        screen.line()
        return False


# --- signals, words ----------------------------------------------------------------------------------------------


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


def trouble(error: LocalLettaError, demo: Demo) -> DemoError:
    """What a failed start means to a person."""
    message = str(error)
    if not isinstance(error, NoModels):
        return DemoError(message)
    if not demo.provider:
        return DemoError(message.partition("\n")[0], f"Letta's log: {demo.letta_log}")
    found = demo.provider.found
    are, them = ("Is", "it") if len(found) == 1 else ("Are", "them")
    return DemoError(
        f"{message.partition(chr(10))[0]} {are} {' and '.join(found)} right?",
        f"Without {them} a scripted model answers. Letta's log: {demo.letta_log}",
    )
