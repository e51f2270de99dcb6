"""An ASGI app on a real socket, in a thread of its own."""

import socket
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

import uvicorn

App = Callable[[Any, Any, Any], Awaitable[None]]


@contextmanager
def on_http(app: App, port: int = 0) -> Generator[str]:
    """Yields its address; ends with the block, and every connection with it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(256)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=0))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True  # also where a client holds a stream open
        thread.join(timeout=20)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"
