"""What every demo has: a heading, a model, the gateway, an invitation to go on, and an orderly end."""

import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.text import Text

from frontdesk import __version__
from frontdesk.config import GivenSettings
from frontdesk.demo.errors import DemoError
from frontdesk.demo.gateway import HOST, PORT, Gateway, listening
from frontdesk.demo.models import provider
from frontdesk.demo.process import claimed, command, leaving_by_signal
from frontdesk.demo.screen import Screen

if TYPE_CHECKING:
    import openai

PACE_SECONDS = 0.02  # between the scripted model's tokens, where somebody watches

SCRIPTED = """\
No model key was found: a scripted model answers, so that you see the plumbing, not wit. \
Set OPENAI_API_KEY and start again for a real one."""

CURL = """\
curl {url}/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{name}", "messages": [{{
       "role": "user", "content": "{question}"}}]}}'"""

Claim = Callable[[str], None]
"""Notes, for others, where the gateway is."""


@contextmanager
def alone(folder: Path, agent: str) -> Generator[Claim]:
    """Hold the folder for the demo of `agent`, and leave it in order however the demo is told to stop.

    Raises DemoError where no demo can be shown.
    """
    with suppress(AttributeError):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[reportAttributeAccessIssue]
    if sys.platform == "win32":
        raise DemoError("The demo needs Linux or macOS.", "On Windows, please use WSL.")
    with leaving_by_signal(), claimed(folder, agent) as claim:
        yield claim


class Act(Protocol):
    """What one demo shows, and others do not."""

    def start(self, port: int) -> None:
        """Start everything, at last the gateway. Raises DemoError."""
        ...

    def play(self) -> None:
        """Hold the conversations. Raises DemoError if the model fails."""
        ...

    def serve(self) -> None:
        """Say how to go on, and wait."""
        ...


class Show:
    """What runs is started in order, and stopped in the reverse order."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self.folder = folder
        self.screen = screen
        self.provider = provider()
        self.log = folder / "gateway.log"
        self.running = ExitStack()
        self.begun = False  # something runs whose end takes a moment, and is told
        self._gateway: Gateway | None = None

    @property
    def url(self) -> str:
        return self._gateway.url if self._gateway else ""

    def run(self, act: Act, port: int, once: bool, claim: Claim) -> None:
        """Start everything, play, and serve until told to stop; then nothing is left running.

        Raises DemoError, and KeyboardInterrupt if it was stopped before the play was over.
        """
        played = False
        try:
            act.start(port)
            claim(self.url)
            act.play()
            played = True
            if not once:
                act.serve()
        except KeyboardInterrupt:
            if not played:
                raise
        finally:
            self.stop()

    def head(self, about: str = "") -> None:
        """Say what this is, and whose model answers."""
        screen = self.screen
        screen.line(Text.assemble("\n  ", ("Frontdesk demo", "bold cyan"), (f"  {__version__}{about}", "dim")))
        screen.line()
        if found := self.provider:
            screen.note(
                f"A real model answers: {' and '.join(found.found)} {'is' if len(found.found) == 1 else 'are'} set."
            )
        else:
            screen.note(SCRIPTED, "yellow")
        screen.line()

    def scripted(self) -> str:
        """The base URL of a scripted model, which runs from now on."""
        from frontdesk.testing import ScriptedModel

        pace_seconds = PACE_SECONDS if self.screen.is_terminal else 0.0
        return self.running.enter_context(ScriptedModel(pace_seconds=pace_seconds)).base_url

    def open(self, port: int, **given: Any) -> None:
        """Start the gateway with these settings, on this port or the next free one. Raises DemoError."""
        listener = listening(port)
        settings = GivenSettings(host=HOST, port=listener.getsockname()[1], data_dir=self.folder / "gateway", **given)
        self._gateway = self.running.enter_context(Gateway(settings, listener, self.log))
        self.begun = True

    def say_where(self, port: int) -> None:
        """Say where the gateway listens. `port` is the one that was wanted."""
        assert self._gateway
        taken = port and self._gateway.port != port
        self.screen.note(f"The gateway listens on {self.url}{f', as port {port} is taken' if taken else ''}.")

    def invite(self, agent: str, question: str, *more: tuple[str, Text]) -> None:
        """Say how to go on: lines with a word in the margin."""
        assert self._gateway
        elsewhere = f" --url {self.url}" if self._gateway.port != PORT or os.environ.get("FRONTDESK_URL") else ""
        rows = (
            ("Base URL", Text(f"{self.url}/v1", "bold")),
            ("", Text("for Open WebUI and all other clients; any API key will do", "dim")),
            ("Talk", Text(f"{command()} chat {agent}{elsewhere}", "bold")),
            ("Or paste", Text(CURL.format(url=self.url, name=agent, question=question))),
            *more,
        )
        self.screen.line()
        for name, value in rows:
            for number, line in enumerate(value.split("\n")):
                self.screen.line(Text.assemble((f"  {name if not number else '':<10}", "dim"), line))
        self.screen.line()

    def wait(self, check: Callable[[], None] = lambda: None) -> None:
        """Until a signal comes. Raises DemoError if the gateway ends before, or what `check` raises."""
        assert self._gateway
        wait = threading.Event()
        while not wait.wait(0.5):
            check()
            if not self._gateway.is_running:
                raise DemoError("The gateway has ended by itself.", f"Its log: {self.log}")

    def stop(self) -> None:
        if not self.begun:
            self.running.close()
            return
        with suppress(OSError):  # nobody may be looking any more
            self.screen.line(Text("\n  Stopping ...", "dim"))
        self.running.close()
        with suppress(OSError):
            self.screen.line(Text("  Everything has stopped.\n", "dim"))


@contextmanager
def speaking(name: str, url: str, mend: str) -> Generator["openai.OpenAI"]:
    """The official client of a gateway, with no proxy between us and ourselves.

    Raises DemoError if the model of the agent `name` fails.
    """
    import openai

    http = openai.DefaultHttpxClient(trust_env=False)
    try:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, http_client=http) as client:
            yield client
    except openai.OpenAIError as error:
        why = error.message if isinstance(error, openai.APIError) else str(error)
        raise DemoError(f"{name} could not answer: {why}", mend) from error
