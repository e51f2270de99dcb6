import re
import secrets
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from frontdesk.cli.agents import URL, Key, Url
from frontdesk.cli.page import Trouble, advice, err, out, tell

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletionMessageParam

    from frontdesk.cli.gateway import Gateway, Served
    from frontdesk.cli.reply import Display, Piece


def chat(
    agent: Annotated[str, typer.Argument(help="Name or id; may be left out if there is only one.")] = "",
    url: Url = URL,
    key: Key = "",
    conversation: Annotated[str, typer.Option(help="Go on with the conversation of this name, or begin it.")] = "",
    system: Annotated[str, typer.Option(help="Instructions for the agent, beside its own.")] = "",
    reasoning: Annotated[bool, typer.Option("--reasoning/--no-reasoning", help="Show what the agent thinks.")] = True,
) -> None:
    """Talk to an agent.

    What is piped in is sent line by line, and the bare answers go to stdout.
    """
    from frontdesk.cli.gateway import Gateway

    pin = checked(conversation) or new_pin()
    gateway = Gateway.at(url, key)
    with closing(Session(gateway, chosen(gateway, agent), pin, system, reasoning)) as session:
        if sys.stdin.isatty() and sys.stdout.isatty():
            talk(session)
        elif not read(session):
            raise typer.Exit(1)


def chosen(gateway: "Gateway", name: str) -> str:
    """The agent to talk to. Raises Trouble with the choice there is."""
    if name:
        return found(gateway, name)
    served = gateway.agents()
    if len(served) == 1:
        return served[0].id
    if not served:
        raise Trouble(f"The gateway at {gateway.url} serves no agents.", "Make one in Letta, or see `frontdesk demo`.")
    raise Trouble(f"Say whom to talk to: {names(served)}.", f"For example: `frontdesk chat {quoted(served[0].id)}`")


def found(gateway: "Gateway", name: str) -> str:
    """The name, if the gateway knows an agent by it. Raises Trouble with the names there are."""
    try:
        gateway.agent(name)
    except Trouble as trouble:
        if "model_not_found" not in trouble.message or "More than one" in trouble.message:
            raise
        served = gateway.agents()
        raise Trouble(f"There is no agent {name!r} at {gateway.url}.", f"There are: {names(served)}.") from trouble
    return name


def names(served: "list[Served]", most: int = 12) -> str:
    shown = ", ".join(agent.id for agent in served[:most]) or "none"
    return f"{shown} and {len(served) - most} more (`frontdesk agents`)" if len(served) > most else shown


def quoted(name: str) -> str:
    import shlex

    return shlex.quote(name)


def checked(pin: str) -> str:
    if len(pin) > 256 or not pin.isascii() or not (pin.isprintable() and pin == pin.strip()):
        raise typer.BadParameter("use up to 256 plain (ASCII) characters", param_hint="--conversation")
    return pin


def new_pin() -> str:
    return f"chat-{secrets.token_hex(6)}"


@dataclass
class Session:
    """A conversation with one agent. The server keeps it under the pin, so only what is new is sent."""

    gateway: "Gateway"
    agent: str
    pin: str
    system: str = ""
    reasoning: bool = True
    begun: bool = False
    _client: "openai.OpenAI | None" = field(default=None, repr=False)

    def say(self, message: str, display: "Display") -> None:
        """Send a message and show the answer. Raises Trouble; on Ctrl-C the stream is closed."""
        import openai

        said = False
        with display:
            try:
                for piece in self._pieces(message):
                    said = said or piece.kind == "text"
                    if piece.kind == "text" or self.reasoning:
                        display.add(piece)
            except openai.OpenAIError as error:
                raise self.gateway.trouble(error) from error
        if not said:
            note("(The agent said nothing.)")

    def _pieces(self, message: str) -> "Iterator[Piece]":
        from frontdesk.cli.gateway import PIN_HEADER
        from frontdesk.cli.reply import pieces

        self._client = self._client or self.gateway.openai()
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": message}]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        stream = self._client.chat.completions.create(
            model=self.agent, messages=messages, stream=True, extra_headers={PIN_HEADER: self.pin}
        )
        self.begun = True
        with stream, closing(pieces(stream)) as found:
            yield from found

    def close(self) -> None:
        if self._client:
            self._client.close()


# --- commands ----------------------------------------------------------------------------------------------------

HELP = """\
/models       the agents you can talk to
/agent NAME   talk to another one
/new          begin a new conversation
/quit         leave (or Ctrl-D)
/help         this list
Ctrl-C stops an answer."""


class Quit(Exception):
    pass


def obey(line: str, session: Session) -> bool:
    """Carry out a command; False if the line is a message. Raises Trouble, and Quit."""
    command = re.fullmatch(r"/([a-z]+)(?:\s+(.*))?", line)
    if command is None:
        return False
    name, argument = command.group(1), (command.group(2) or "").strip()
    if name not in COMMANDS:
        raise Trouble(f"There is no command /{name}.", "`/help` lists them.")
    COMMANDS[name](session, argument)
    return True


def show_models(session: Session, argument: str) -> None:
    from frontdesk.cli.agents import table

    err.print(table(session.gateway.agents()))


def switch(session: Session, name: str) -> None:
    if not name:
        raise Trouble(f"You are talking to {session.agent}.", "`/agent NAME` switches, `/models` lists them.")
    session.agent = found(session.gateway, name)
    note(f"Now talking to {name}.")


def begin_anew(session: Session, argument: str) -> None:
    session.pin, session.begun = new_pin(), False
    note("A new conversation.")


def leave(session: Session, argument: str) -> None:
    raise Quit


def help_(session: Session, argument: str) -> None:
    note(HELP)


COMMANDS: dict[str, Callable[[Session, str], None]] = {
    "models": show_models,
    "agent": switch,
    "new": begin_anew,
    "quit": leave,
    "help": help_,
}


def note(text: str) -> None:
    err.print(advice(text, "dim"))


# --- piped in ----------------------------------------------------------------------------------------------------


def read(session: Session) -> bool:
    """Send each line of stdin. False if one of them failed."""
    from frontdesk.cli.reply import Plain

    good = True
    with suppress(Quit):
        for line in filter(None, map(str.strip, sys.stdin)):
            try:
                if not obey(line, session):
                    session.say(line, Plain())
            except Trouble as trouble:
                tell(trouble)
                good = False
    return good


# --- at a terminal -----------------------------------------------------------------------------------------------


def talk(session: Session) -> None:
    """Ask and answer until Ctrl-D."""
    note(f"Talking to {session.agent} at {session.gateway.url}\n`/help` lists the commands, Ctrl-D quits.")
    with suppress(Quit):
        while True:
            try:
                out.print()
                exchange(session, prompt())
            except Trouble as trouble:
                tell(trouble)
            except KeyboardInterrupt:
                out.print()
                note("Ctrl-D quits.")
    if session.begun:
        go_on = f"frontdesk chat {quoted(session.agent)} --conversation {quoted(session.pin)}"
        note(f"To go on later: `{go_on}`")


def exchange(session: Session, line: str) -> None:
    """One line of a person's, and the answer to it, which Ctrl-C stops."""
    from frontdesk.cli.reply import Page

    if not line or obey(line, session):
        return
    out.print()
    try:
        with keys_unseen():
            session.say(line, Page(out))
    except KeyboardInterrupt:
        note("Stopped.")


def prompt() -> str:
    """A line, with editing and history where readline is. Raises Quit at Ctrl-D."""
    sign = "❯ " if (sys.stdout.encoding or "").lower().startswith("utf") else "> "
    with suppress(ImportError):
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")  # pasted lines are one message
        sign = f"\001\033[1;36m\002{sign}\001\033[0m\002"  # the marks tell readline what has no width
    try:
        return input(sign).strip()
    except EOFError:
        out.print()
        raise Quit from None


@contextmanager
def keys_unseen() -> Generator[None, None, None]:
    """Keys pressed while an answer comes are not echoed into it; the next prompt gets them."""
    try:
        import termios
    except ImportError:
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    silent = [*before]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
