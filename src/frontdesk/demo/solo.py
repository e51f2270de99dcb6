"""`frontdesk demo`: a Letta server, an agent, a gateway and a conversation, from nothing, on this machine alone."""

import os
import shutil
import sys
from pathlib import Path

import httpx
from rich.prompt import Confirm
from rich.text import Text

from frontdesk.demo.errors import DemoError
from frontdesk.demo.gateway import PORT
from frontdesk.demo.local_letta import LettaOptions, LocalLetta, LocalLettaError, NoModels, data_folder
from frontdesk.demo.milo import NAME, Milo
from frontdesk.demo.models import OURS, Provider, UnknownModel
from frontdesk.demo.screen import Screen
from frontdesk.demo.show import Show, alone, speaking


def run(port: int = PORT, fresh: bool = False, once: bool = False) -> None:
    """Start everything, play, and serve until told to stop; then nothing is left running.

    Raises DemoError, and KeyboardInterrupt if it was stopped before the play was over.
    """
    folder = data_folder() / "demo"
    screen = Screen()
    with alone(folder, NAME) as claim:
        if fresh and not cleared(folder, screen):
            return
        show = Show(folder, screen)
        solo = Solo(show)
        try:
            show.run(solo, port, once, claim)
        except LocalLettaError as error:
            raise trouble(error, show.provider, solo.log) from error
        except UnknownModel as error:
            raise DemoError(str(error), f"Set {OURS} to one of them, or leave it out.") from error
        except httpx.HTTPError as error:
            raise DemoError(f"Letta does not answer as it should: {error}", f"Its log: {solo.log}") from error


class Solo:
    """Milo, at a Letta server of its own."""

    def __init__(self, show: Show) -> None:
        self.log = show.folder / "letta" / "letta.log"
        self._show = show
        self._screen = show.screen
        self._letta: LocalLetta | None = None
        self._milo: Milo | None = None

    def start(self, port: int) -> None:
        show, screen = self._show, self._screen
        show.head()
        with screen.stages() as stage:
            options = show.provider.options if show.provider else LettaOptions(model_base_url=show.scripted())
            self._letta = letta = LocalLetta(show.folder / "letta", options)
            show.begun = True
            show.running.callback(letta.stop)
            letta.start(stage)
            stage(f"Waking {NAME}")
            api = show.running.enter_context(httpx.Client(base_url=letta.base_url, timeout=60, trust_env=False))
            self._milo = Milo.at(api, os.environ.get(OURS, "").strip())
            stage("Starting the gateway")
            show.open(port, letta_base_url=letta.base_url)
        screen.line()
        screen.note(f"{NAME} {'is new' if self._milo.is_new else 'is back'}, and thinks with {self._milo.model}.")
        show.say_where(port)

    def play(self) -> None:
        from frontdesk.demo.play import Play

        assert self._milo
        with speaking(NAME, self._show.url, self._if_refused()) as client:
            Play(client, self._screen).perform(self._milo)

    def _if_refused(self) -> str:
        logs = f"The logs: {self._show.log} and {self.log}"
        if not self._show.provider:
            return logs
        return f"Is the model right? {OURS} chooses another. {logs}"

    def serve(self) -> None:
        self._screen.title(f"{NAME} stays at the desk")
        stop = Text.assemble(("Ctrl-C", "bold"), (f"; {NAME} will remember you next time", "dim"))
        self._show.invite(NAME, "What is my name?", ("Stop", stop))
        self._show.wait(self._check)

    def _check(self) -> None:
        assert self._letta
        if not self._letta.pid:
            raise DemoError("The Letta server has ended by itself.", f"Its log: {self.log}")


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


def trouble(error: LocalLettaError, found: Provider | None, log: Path) -> DemoError:
    """What a failed start means to a person."""
    message = str(error)
    if not isinstance(error, NoModels):
        return DemoError(message)
    if not found:
        return DemoError(message.partition("\n")[0], f"Letta's log: {log}")
    are, them = ("Is", "it") if len(found.found) == 1 else ("Are", "them")
    return DemoError(
        f"{message.partition(chr(10))[0]} {are} {' and '.join(found.found)} right?",
        f"Without {them} a scripted model answers. Letta's log: {log}",
    )
