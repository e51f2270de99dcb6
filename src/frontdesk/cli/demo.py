from typing import Annotated

import typer

from frontdesk.cli.page import Trouble


def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; if taken, the next free port.")] = 8000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew: delete Milo, and all it remembers.")] = False,
    once: Annotated[bool, typer.Option("--once", help="End after the play, without serving on.")] = False,
    python: Annotated[
        bool, typer.Option("--python", help="Show agents written in Python instead, without a Letta server.")
    ] = False,
) -> None:
    """Show agents at work behind the gateway.

    Starts all there is to it on this machine: a Letta server with its database, an agent called Milo, the gateway.
    With `--python`, two agents written in Python, of which one has an MCP server, and the gateway.
    Uses OPENAI_API_KEY (OPENAI_BASE_URL), ANTHROPIC_API_KEY or OLLAMA_BASE_URL if set, else a scripted model.
    """
    from frontdesk.demo import pair, solo
    from frontdesk.demo.errors import DemoError

    if python and fresh:
        raise Trouble("`--fresh` is about Milo's memory. With `--python` there is none.", "Leave it out.")
    try:
        if python:
            pair.run(port=port, once=once)
        else:
            solo.run(port=port, fresh=fresh, once=once)
    except DemoError as error:
        raise Trouble(error.message, error.mend) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
