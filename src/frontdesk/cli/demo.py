from typing import Annotated

import typer


def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the demo's gateway listens.")] = 8000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin with an empty database.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end, without waiting.")] = False,
) -> None:
    """Show a Letta agent at work behind the gateway.

    Starts all there is to it, on this machine alone.
    """
    from frontdesk.demo.show import run

    run(port=port, fresh=fresh, once=once)
