"""The gateway of a demo, in this process."""

import errno
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from frontdesk.config import Settings
from frontdesk.demo.errors import DemoError

if TYPE_CHECKING:
    import uvicorn

HOST = "127.0.0.1"
PORT = 8000
PORTS_TRIED = 50
START_SECONDS = 30.0


class Gateway:
    """The server of `frontdesk serve`, in a thread, with its log in a file."""

    def __init__(self, settings: Settings, listener: socket.socket, log: Path) -> None:
        from frontdesk.observe import logs
        from frontdesk.serving import server

        self.port: int = settings.port
        self.url = f"http://{HOST}:{self.port}"
        log.touch(mode=0o600)
        self._log = log.open("w", encoding="utf-8")
        logs.configure(settings.log_level, "console", stream=self._log)
        self._server: uvicorn.Server = server(settings)
        self._listener = listener
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def __enter__(self) -> "Gateway":
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self.is_running or time.monotonic() > deadline:
                raise DemoError("The gateway did not start.", f"Its log: {self._log.name}")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=START_SECONDS)

    def _run(self) -> None:
        from frontdesk.serving import sockets_of

        with suppress(SystemExit):
            self._server.run(sockets=sockets_of(self._listener))


def listening(port: int) -> socket.socket:
    """A socket on this port, or on the next one that is free. Raises DemoError."""
    from frontdesk.serving import listen

    for candidate in (0,) if port == 0 else (*range(port, min(port + PORTS_TRIED, 65536)), 0):
        try:
            return listen(HOST, candidate)
        except PermissionError as error:
            raise DemoError(f"Port {candidate} is reserved.", "Choose one above 1023 with `--port`.") from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise DemoError(f"Cannot listen on {HOST}:{candidate}: {error.strerror}.") from error
    raise DemoError("No port is free.")
