"""`frontdesk demo --python`: two agents written in Python, one with an MCP server, and a gateway. No Letta server."""

import os
from pathlib import Path
from typing import Any

from rich.text import Text

from frontdesk.agents.errors import AgentError
from frontdesk.demo.accounts import NoModelList, accounts, handles
from frontdesk.demo.errors import DemoError
from frontdesk.demo.gateway import PORT
from frontdesk.demo.local_letta import data_folder
from frontdesk.demo.models import OURS, Provider, UnknownModel, choose
from frontdesk.demo.process import command
from frontdesk.demo.screen import Screen
from frontdesk.demo.show import Show, alone, speaking

JUNO, WEATHER = "Juno", "weather"
SCRIPTED = "openai/scripted"
AGENTS = "frontdesk.demo.desk:agents"


def run(port: int = PORT, once: bool = False) -> None:
    """Start everything, play, and serve until told to stop; then nothing is left running.

    Raises DemoError, and KeyboardInterrupt if it was stopped before the play was over.
    """
    folder = data_folder() / "demo-python"
    with alone(folder, JUNO) as claim:
        show = Show(folder, Screen())
        show.run(Pair(show), port, once, claim)


class Pair:
    """Juno and the agent which Juno hands over to."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._screen = show.screen

    def start(self, port: int) -> None:
        show, screen = self._show, self._screen
        show.head(", agents in Python")
        with screen.stages() as stage:
            stage("Looking for a model")
            model, providers = users_model(show.provider) if show.provider else self._scripted()
            os.environ[OURS] = model  # where the agents look for it
            stage("Starting the agents and the gateway")
            try:
                show.open(port, agents=(AGENTS,), providers=providers)
            except AgentError as error:
                raise DemoError(str(error), f"{OURS} chooses another model.") from error
        screen.line()
        thinks = f"think with {model}" if show.provider else "speak as the script says"
        screen.note(f"The agents `{JUNO}` and `{WEATHER}` {thinks}.")
        screen.note(f"Their code: {source()}")
        show.say_where(port)

    def _scripted(self) -> tuple[str, dict[str, Any]]:
        return SCRIPTED, {"openai": {"base_url": self._show.scripted(), "api_key": "scripted"}}

    def play(self) -> None:
        from frontdesk.demo.play import Talk

        show, screen = self._show, self._screen
        chooses = f"Is the model right? {OURS} chooses another. " if show.provider else ""
        with speaking(JUNO, show.url, f"{chooses}The log: {show.log}") as client:
            screen.title("One agent hands over to another")
            screen.note(
                f"{JUNO} leaves it to `{WEATHER}`, whose tool is at an MCP server. The client sees one answer.", "dim"
            )
            Talk(client, screen, JUNO).ask("What is the weather in Lisbon?")
            screen.title("Each agent has a name")
            screen.note(f"The client asks `{WEATHER}` itself: the model is the agent's name.", "dim")
            Talk(client, screen, WEATHER).ask("And what is the weather in Oslo?")

    def serve(self) -> None:
        self._screen.title(f"{JUNO} and {WEATHER} stay at the desk")
        self._show.invite(
            JUNO,
            "What is the weather in London?",
            ("Your own", Text(f"{command()} new agent mine", "bold")),
            ("Stop", Text("Ctrl-C", "bold")),
        )
        self._show.wait()


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
