import errno
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frontdesk import __version__
from frontdesk.agents.errors import AgentError
from frontdesk.cli.page import Trouble, clean, err
from frontdesk.errors import StoreUnavailable
from frontdesk.startup import loading

if TYPE_CHECKING:
    from rich.table import Table

    from frontdesk.config import Settings

Config = Annotated[
    Path | None, typer.Option(help="The settings file; `frontdesk.toml` here, if left out.", dir_okay=False)
]

AGENTS_MEND = (
    "Agents come from `--agents` and `--agents-dir`, or the settings `agents`, `agents_dir` and `agents_resolver`."
)


def serve(
    host: Annotated[str | None, typer.Option(help="Where to listen. Beyond loopback needs keys.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Processes that serve on the port.")] = None,
    config: Config = None,
    letta_url: Annotated[str | None, typer.Option(help="The Letta server, in place of those configured.")] = None,
    agents: Annotated[
        list[str] | None, typer.Option(help="Agents written in Python, as `module:attribute`. Can be repeated.")
    ] = None,
    agents_dir: Annotated[Path | None, typer.Option(help="A folder of agents in YAML and Markdown files.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Serve your agents behind the OpenAI API."""
    only = {"letta_base_url": letta_url, "letta": ()} if letta_url else {}
    python = {"agents": tuple(agents) if agents else None, "agents_dir": agents_dir}
    with loading():
        from frontdesk.cli.settings import load

        settings = load(config, host=host, port=port, workers=workers, log_level=log_level, **python, **only)
        check_safe(settings)
        from frontdesk.serving import serve as run

    listener = listening(settings)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    err.print(banner(settings))
    try:
        with listener, suppress(KeyboardInterrupt):
            run(settings, listener)
    except OSError as error:  # such as a data folder without rights
        raise Trouble(f"The gateway cannot start: {error}.", "`frontdesk doctor` looks for more.") from error
    except AgentError as error:
        raise Trouble(f"The agents cannot be served. {error}", AGENTS_MEND) from error
    except StoreUnavailable as error:
        raise Trouble(error.message, "FRONTDESK_DATABASE_URL and FRONTDESK_DATA_DIR say where it is.") from error


def check_safe(settings: "Settings") -> None:
    """Raises Trouble when anybody on the network could use the agents, or the keys are not as they must be."""
    from frontdesk.policies.auth import ConfigurationError, Keyring, check_listening
    from frontdesk.policies.limits import Limits

    try:
        check_listening(settings)
        Keyring(settings)
        Limits(settings)
    except ConfigurationError as error:
        raise Trouble(str(error)) from error


def listening(settings: "Settings") -> socket.socket:
    """The socket to serve on. Raises Trouble when it cannot be had."""
    from frontdesk.serving import listen

    host, port = settings.host, settings.port
    try:
        return listen(host, port)
    except PermissionError as error:
        raise Trouble(f"Port {port} is reserved.", "Choose one above 1023 with `--port`.") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            next_port = min(port + 1, 65535)
            raise Trouble(
                f"Port {port} on {host} is already in use.", f"Choose another, such as `--port {next_port}`."
            ) from error
        raise Trouble(f"Cannot listen on {host!r}: {error.strerror}.", "Mend `--host` or FRONTDESK_HOST.") from error


def banner(settings: "Settings") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from frontdesk.cli.settings import unknown_names

    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="dim")
    lines.add_column(overflow="fold")
    lines.add_row(Text("Frontdesk", "bold cyan"), Text(__version__))
    lines.add_row("listens on", Text(f"http://{in_url(settings.host)}:{settings.port}"))
    lines.add_row("base URL", Text(f"http://{in_url(reachable(settings.host))}:{settings.port}/v1", "bold"))
    for server in settings.servers:
        lines.add_row("Letta", Text(clean(f"{server.name} at {without_password(server.url)}")))
    for place in places(settings):
        lines.add_row("agents", Text(clean(place)))
    lines.add_row("keys", Text(keys(settings)))
    if settings.workers > 1:
        lines.add_row("workers", Text(str(settings.workers)))
    for name in unknown_names():
        lines.add_row(Text("unknown", "yellow"), Text(clean(f"{name} is not a setting")))
    return lines


def places(settings: "Settings") -> list[str]:
    """Where agents written in Python come from."""
    found = list(settings.agents)
    if settings.agents_dir:
        found.append(f"files in {settings.agents_dir}")
    if settings.agents_resolver:
        found.append(f"{settings.agents_resolver}, when asked for")
    return found


def keys(settings: "Settings") -> str:
    if settings.open_to_all:
        return "none: it listens on loopback only, for programs on this machine"
    count = len(settings.api_keys) + len(settings.keys)
    tokens = f", or a token of {' or '.join(each.name for each in settings.jwt)}" if settings.jwt else ""
    public = "; without one, public agents" if settings.allow_anonymous else ""
    return clean(f"needed: clients send one as their API key ({count} known){tokens}{public}")


def reachable(host: str) -> str:
    """An address clients here can use for one that means every interface."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def without_password(url: str) -> str:
    """The URL as it may be shown: a password in it is nobody's business."""
    scheme, found, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{found}{authority.rpartition('@')[2]}{slash}{path}"
