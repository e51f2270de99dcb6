"""`frontdesk demo --python`: two agents written in Python, one with an MCP server, and a gateway. No Letta server."""

import os
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from rich.text import Text

from frontdesk import __version__
from frontdesk.agents.errors import AgentError
from frontdesk.config import GivenSettings, Settings
from frontdesk.demo.accounts import NoModelList, accounts, handles
from frontdesk.demo.local_letta import data_folder
from frontdesk.demo.models import OURS, Provider, UnknownModel, choose, provider
from frontdesk.demo.screen import Screen
from frontdesk.demo.show import (
    CURL,
    HOST,
    PORT,
    DemoError,
    Gateway,
    claimed,
    client_of,
    command,
    leaving_by_signal,
    listening,
    scripted,
    speaking,
    tell,
    whose_model,
)

JUNO, WEATHER = "Juno", "weather"
SCRIPTED = "openai/scripted"
AGENTS = "frontdesk.demo.desk:agents"


def run(port: int = PORT, once: bool = False) -> None:
    """Start everything, play, and serve until told to stop; then nothing is left running.

    Raises DemoError, and KeyboardInterrupt if it was stopped before the play was over.
    """
    with suppress(AttributeError):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[reportAttributeAccessIssue]
    if sys.platform == "win32":
        raise DemoError("The demo needs Linux or macOS.", "On Windows, please use WSL.")
    folder = data_folder() / "demo-python"
    with leaving_by_signal(), claimed(folder, JUNO) as claim:
        demo = Demo(folder, Screen())
        try:
            demo.start(port)
            claim(demo.url)
            demo.play()
            if not once:
                demo.serve()
        except KeyboardInterrupt:
            if not demo.played:
                raise
        finally:
            demo.stop()


class Demo:
    """What runs: a model if the user has none, and the gateway with the agents in it."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self.played = False
        self.url = ""
        self.provider = provider()
        self.log = folder / "gateway.log"
        self._folder = folder
        self._screen = screen
        self._running = ExitStack()
        self._gateway: Gateway | None = None

    def start(self, port: int) -> None:
        screen = self._screen
        screen.line(
            Text.assemble("\n  ", ("Frontdesk demo", "bold cyan"), (f"  {__version__}, agents in Python", "dim"))
        )
        screen.line()
        screen.note(whose_model(self.provider), "" if self.provider else "yellow")
        screen.line()
        with screen.stages() as stage:
            stage("Looking for a model")
            model, providers = users_model(self.provider) if self.provider else self._scripted()
            os.environ[OURS] = model  # where the agents look for it
            stage("Starting the agents and the gateway")
            listener = listening(port)
            self._gateway = self._running.enter_context(self._made(self._settings(listener, providers), listener))
            self.url = self._gateway.url
        screen.line()
        thinks = f"think with {model}" if self.provider else "speak as the script says"
        screen.note(f"The agents `{JUNO}` and `{WEATHER}` {thinks}.")
        screen.note(f"Their code: {source()}")
        taken = port and self._gateway.port != port
        screen.note(f"The gateway listens on {self.url}{f', as port {port} is taken' if taken else ''}.")

    def _scripted(self) -> tuple[str, dict[str, Any]]:
        model = self._running.enter_context(scripted(self._screen))
        return SCRIPTED, {"openai": {"base_url": model.base_url, "api_key": "scripted"}}

    def _settings(self, listener: socket.socket, providers: dict[str, Any]) -> Settings:
        given: dict[str, Any] = {
            "host": HOST,
            "port": listener.getsockname()[1],
            "agents": (AGENTS,),
            "providers": providers,
            "data_dir": self._folder / "gateway",
        }
        return GivenSettings(**given)

    def _made(self, settings: Settings, listener: socket.socket) -> Gateway:
        try:
            return Gateway(settings, listener, self.log)
        except AgentError as error:
            raise DemoError(str(error), f"{OURS} chooses another model.") from error

    def play(self) -> None:
        """Hold the conversations. Raises DemoError if the model fails."""
        from frontdesk.demo.play import Talk

        screen = self._screen
        chooses = f"Is the model right? {OURS} chooses another. " if self.provider else ""
        with speaking(JUNO, f"{chooses}The log: {self.log}"), client_of(self.url) as client:
            screen.title("One agent hands over to another")
            screen.note(
                f"{JUNO} leaves it to `{WEATHER}`, whose tool is at an MCP server. The client sees one answer.", "dim"
            )
            Talk(client, screen, JUNO).ask("What is the weather in Lisbon?")
            screen.title("Each agent has a name")
            screen.note(f"The client asks `{WEATHER}` itself: the model is the agent's name.", "dim")
            Talk(client, screen, WEATHER).ask("And what is the weather in Oslo?")
        self.played = True

    def serve(self) -> None:
        """Say how to go on, and wait."""
        assert self._gateway
        me = command()
        elsewhere = f" --url {self.url}" if self._gateway.port != PORT or os.environ.get("FRONTDESK_URL") else ""
        self._screen.title(f"{JUNO} and {WEATHER} stay at the desk")
        self._screen.line()
        tell(
            self._screen,
            ("Base URL", Text(f"{self.url}/v1", "bold")),
            ("", Text("for Open WebUI and all other clients; any API key will do", "dim")),
            ("Talk", Text(f"{me} chat {JUNO}{elsewhere}", "bold")),
            ("Or paste", Text(CURL.format(url=self.url, name=JUNO, question="What is the weather in London?"))),
            ("Your own", Text(f"{me} new agent mine", "bold")),
            ("Stop", Text("Ctrl-C", "bold")),
        )
        wait = threading.Event()
        while not wait.wait(0.5):
            if not self._gateway.is_running:
                raise DemoError("The gateway has ended by itself.", f"Its log: {self.log}")

    def stop(self) -> None:
        if not self._gateway:
            self._running.close()
            return
        with suppress(OSError):  # nobody may be looking any more
            self._screen.line(Text("\n  Stopping ...", "dim"))
        self._running.close()
        with suppress(OSError):
            self._screen.line(Text("  Everything has stopped.\n", "dim"))


def users_model(found: Provider) -> tuple[str, dict[str, Any]]:
    """A model of the user's own, and the providers as settings. Raises DemoError."""
    wanted = os.environ.get(OURS, "").strip()
    try:
        known = accounts(found)
        model = choose(handles(known), wanted)
    except UnknownModel as error:
        raise DemoError(str(error), f"Set {OURS} to one of them, or leave it out.") from error
    except NoModelList as error:
        are, them = ("Is", "it") if len(found.found) == 1 else ("Are", "them")
        mend = f"{are} {' and '.join(found.found)} right? Without {them} a scripted model answers."
        raise DemoError(str(error), mend) from error
    return model, {name: account.settings for name, account in known.items()}


def source() -> Path:
    """Where the agents' code is."""
    return Path(__file__).with_name("desk.py")
