"""The commands. What they need is imported when they run, so that `frontdesk --help` is quick."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from frontdesk import __version__
from frontdesk.cli.agents import agents
from frontdesk.cli.budgets import budgets
from frontdesk.cli.chat import chat
from frontdesk.cli.conversations import conversations
from frontdesk.cli.demo import demo
from frontdesk.cli.doctor import doctor
from frontdesk.cli.memory import memory
from frontdesk.cli.new import new
from frontdesk.cli.page import Trouble, out, tell
from frontdesk.cli.serve import serve


class Commands(TyperGroup):
    """Tells trouble in one place, for every command."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Trouble as trouble:
            tell(trouble)
            raise typer.Exit(1) from trouble


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # locals may hold keys
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"frontdesk {__version__}")
        raise typer.Exit


@app.callback()
def frontdesk(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The front desk for your agents, of Letta and in Python, behind the OpenAI API."""


for command in (serve, chat, doctor, demo, budgets):
    app.command()(command)
app.add_typer(agents, name="agents")
app.add_typer(conversations, name="conversations")
app.add_typer(memory, name="memory")
app.add_typer(new, name="new")
