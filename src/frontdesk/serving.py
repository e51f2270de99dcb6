"""Runs the server: uvicorn on uvloop and httptools."""

import socket

import uvicorn

from frontdesk.app import create_app
from frontdesk.config import Settings
from frontdesk.observe import logs

ACCEPTS = 16
"""uvloop accepts one connection per turn of its loop and listening socket; under load new clients then wait for
seconds. The same socket registered several times is accepted from several times (docs/performance.md)."""

BACKLOG = 4096
SHUTDOWN_SECONDS = 10


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError, with the address, if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol named, asyncio does not switch off Nagle's algorithm: 40 ms on every answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def server(settings: Settings) -> uvicorn.Server:
    """A server not yet started; give `sockets_of(listener)` to its `serve` or `run`."""
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return uvicorn.Server(config)


def secrets_of(settings: Settings) -> list[str]:
    """What must never be seen in a log."""
    secrets = [*settings.api_keys, settings.letta_api_key, settings.secret, *(each.api_key for each in settings.letta)]
    return [value for secret in secrets if (value := secret.get_secret_value())]


def sockets_of(listener: socket.socket) -> list[socket.socket]:
    return [listener, *(listener.dup() for _ in range(ACCEPTS - 1))]


def serve(settings: Settings, listener: socket.socket | None = None) -> None:
    """Serve until told to stop."""
    logs.configure(settings.log_level, settings.log_format, secrets=secrets_of(settings))
    listener = listener or listen(settings.host, settings.port)
    server(settings).run(sockets=sockets_of(listener))
