from typing import Annotated

import typer

from frontdesk.cli.page import Trouble


def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; if taken, the next free port.")] = 8000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew: delete Milo, and all it remembers.")] = False,
    once: Annotated[bool, typer.Option("--once", help="End after the play, without serving on.")] = False,
) -> None:
    """Show a Letta agent at work behind the gateway.

    Starts all there is to it on this machine: a Letta server with its database, an agent called Milo, the gateway.
    Uses OPENAI_API_KEY (OPENAI_BASE_URL), ANTHROPIC_API_KEY or OLLAMA_BASE_URL if set, else a scripted model.
    """
    from frontdesk.demo.show import DemoError, run

    try:
        run(port=port, fresh=fresh, once=once)
    except DemoError as error:
        raise Trouble(error.message, error.mend) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
