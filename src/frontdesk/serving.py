"""Runs the server: uvicorn on uvloop and httptools, in one process or in several that share a listening socket.

Uvicorn's own supervisor starts a worker that cannot start again and again, waits for one that does not end, and leaves
its workers behind when it is killed; so here is another.
"""

import asyncio
import errno
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from frontdesk import startup
from frontdesk.agents.errors import AgentError
from frontdesk.app import create_app
from frontdesk.config import Settings
from frontdesk.door import new_request_id
from frontdesk.errors import InvalidRequest
from frontdesk.observe import logs, metrics
from frontdesk.protocols.openai_errors import body_of
from frontdesk.protocols.replies import ABORT
from frontdesk.store.database import Database

log = structlog.get_logger(__name__)

ACCEPTS = 16
"""uvloop accepts one connection per turn of its loop and listening socket; under load new clients then wait for
seconds. The same socket registered several times is accepted from several times (docs/performance.md)."""

BACKLOG = 4096
MAX_HEAD_BYTES = 64 * 1024

SPAWN = multiprocessing.get_context("spawn")
END_SECONDS = 8.0
"""What a worker may take to end beyond `shutdown_seconds`: stopping agents on the Letta server takes up to 5."""
STEADY_SECONDS = 10.0
"""A worker that lived so long died by accident: the next one need not wait."""
MAX_PAUSE_SECONDS = 30.0


class Wire(HttpToolsProtocol):
    """HTTP as uvicorn reads it, with a bound on a request's head, which anybody can send, and JSON for its refusals."""

    _in_head = True
    _head_bytes = 0
    _heads = 0  # read on this connection

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}

    def data_received(self, data: bytes) -> None:
        was_in_head, heads = self._in_head, self._heads
        super().data_received(data)
        # A whole request, with a body of any size, may come in one read.
        if was_in_head and self._in_head and heads == self._heads:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response(f"The request's head is larger than {MAX_HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes, self._heads = False, 0, self._heads + 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot read never reaches the door."""
        body = msgspec.json.encode(body_of(InvalidRequest(msg, code="invalid_http")))
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"x-request-id: {new_request_id()}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


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


class Server(uvicorn.Server):
    """A server that says when it has started."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()


def server(settings: Settings, on_start: Callable[[], object] = lambda: None) -> Server:
    """A server not yet started; give `sockets_of(listener)` to its `serve` or `run`."""
    config = uvicorn.Config(
        create_app(settings),
        http=Wire,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    return Server(config, on_start)


def secrets_of(settings: Settings) -> list[str]:
    """What must never be seen in a log."""
    secrets = [
        *settings.api_keys,
        *(each.api_key for each in settings.letta),
        settings.letta_api_key,
        settings.secret,
        settings.utility_api_key,
        settings.webui_jwt_secret,
    ]
    return [value for secret in secrets if (value := secret.get_secret_value())]


def sockets_of(listener: socket.socket) -> list[socket.socket]:
    return [listener, *(listener.dup() for _ in range(ACCEPTS - 1))]


@contextmanager
def loop_that_closes() -> Generator[None]:
    """uvloop now and then finds its loop busy when it closes it, after everything in it has ended: no harm done."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise


def serve(settings: Settings, listener: socket.socket | None = None) -> None:
    """Serve until told to stop. Raises OSError, StoreUnavailable or AgentError if it cannot start."""
    configure_logs(settings)
    asyncio.run(open_once(settings.store_url))
    listener = listener or listen(settings.host, settings.port)
    if settings.workers == 1:
        run(settings, listener)
        return
    with TemporaryDirectory(prefix="frontdesk-") as folder, told_to_stop() as told:
        Workers(settings, listener, Path(folder)).run(told)


async def open_once(url: str) -> None:
    """See that there is a store, with our tables, before anything else begins."""
    await (await Database.open(url)).aclose()


def run(settings: Settings, listener: socket.socket, on_start: Callable[[], object] = lambda: None) -> None:
    with startup.loading():  # agents' engine too
        running = server(settings, on_start)
    with loop_that_closes():
        running.run(sockets=sockets_of(listener))


def configure_logs(settings: Settings) -> None:
    logs.configure(settings.log_level, settings.log_format, secrets=secrets_of(settings))


def work(number: int, settings: Settings, listener: socket.socket, folder: Path, news: Connection) -> None:
    """The life of a worker."""
    stop_with_parent(settings.shutdown_seconds + END_SECONDS)
    configure_logs(settings)
    metrics.share(folder, number)
    try:
        run(settings, listener, lambda: news.send(""))
    except (OSError, AgentError) as error:
        with suppress(OSError):  # nobody may be there to hear it
            news.send(str(error).removesuffix("."))
        raise SystemExit(1) from error


def stop_with_parent(wait_seconds: float) -> None:
    """Stop as if told to when the parent is no more, however it ended; at the latest `wait_seconds` later."""

    parent = multiprocessing.parent_process()
    assert parent, "this is no worker"

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(wait_seconds)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


class Worker:
    """A process that serves. Its `news` are an empty text once it does, or why it cannot; they end when it ends."""

    def __init__(self, number: int, settings: Settings, listener: socket.socket, folder: Path) -> None:
        self.number = number
        self.began = time.monotonic()
        self.serves = False
        self.trouble = ""
        self.news, theirs = SPAWN.Pipe(duplex=False)
        self.process = SPAWN.Process(
            target=startup.work, args=(number, settings, listener, folder, theirs), name="frontdesk"
        )
        with interrupts_blocked():
            self.process.start()
        theirs.close()

    def hear(self) -> bool:
        """Take what it says. False if it has ended."""
        try:
            self.trouble = self.news.recv()
        except (EOFError, OSError):  # OSError: in the middle of a word
            self.process.join()
            self.news.close()
            return False
        self.serves = self.serves or not self.trouble
        return True

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.news.close()


class Workers:
    """Several processes that serve on one socket, numbered from 0. One that dies is replaced."""

    def __init__(self, settings: Settings, listener: socket.socket, folder: Path) -> None:
        self._settings = settings
        self._listener = listener
        self._folder = folder
        self._start = partial(Worker, settings=settings, listener=listener, folder=folder)
        self._running: dict[Connection, Worker] = {}
        self._due = {0: 0.0}  # when to start which
        self._later = range(1, settings.workers)  # once the first one serves: it may have to make secret and tables
        self._falls = Counter[int]()  # of each number, how often in a row one died early

    def run(self, told: socket.socket) -> None:
        """Serve until there is something to read from `told`. Raises ChildProcessError if no worker can serve."""
        try:
            self._start_due()
            while told not in (ready := wait([told, *self._running], self._pause())):
                for news in ready:
                    assert isinstance(news, Connection)
                    self._hear(self._running[news])
                self._start_due()
        finally:
            self._listener.close()
            self._stop(told)

    def _pause(self) -> float | None:
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def _start_due(self) -> None:
        for number in [number for number, due in self._due.items() if due <= time.monotonic()]:
            del self._due[number]
            worker = self._start(number)
            self._running[worker.news] = worker

    def _hear(self, worker: Worker) -> None:
        if not worker.hear():
            self._replace(worker)
        elif worker.serves:
            log.info("worker serves", worker=worker.number, pid=worker.process.pid)
            self._due |= dict.fromkeys(self._later, 0.0)
            self._later = range(0)

    def _replace(self, worker: Worker) -> None:
        """Start another, the later the more often they die, unless that would be of no use."""
        del self._running[worker.news]
        metrics.forget(self._folder, worker.number)
        reason = worker.trouble or f"a worker ended with exit code {worker.process.exitcode}"
        if not worker.serves and not any(other.serves for other in self._running.values()):
            raise ChildProcessError(worker.trouble or f"{reason}; the lines above may say why")
        early = time.monotonic() - worker.began < STEADY_SECONDS
        self._falls[worker.number] = self._falls[worker.number] + 1 if early else 0
        pause = min(MAX_PAUSE_SECONDS, 2.0 ** min(self._falls[worker.number], 10) - 1)
        self._due[worker.number] = time.monotonic() + pause
        log.error("worker ended", worker=worker.number, reason=reason, next_in_seconds=pause)

    def _stop(self, told: socket.socket) -> None:
        """Tell all to stop, and end those that do not, or all of them when interrupted once more."""
        with suppress(BlockingIOError):
            told.recv(64)
        for worker in self._running.values():
            worker.process.terminate()
        deadline = time.monotonic() + self._settings.shutdown_seconds + END_SECONDS
        while self._running and (left := deadline - time.monotonic()) > 0:
            for ready in wait([told, *self._running], left):
                if isinstance(ready, Connection):
                    if not self._running[ready].hear():
                        del self._running[ready]
                elif signal.SIGINT in told.recv(64):
                    deadline = 0.0
        for worker in self._running.values():
            worker.end()


@contextmanager
def told_to_stop() -> Generator[socket.socket]:
    """A socket from which the numbers of signals can be read that tell this process to stop."""
    told, tell = socket.socketpair()
    told.setblocking(False)
    tell.setblocking(False)
    wakeup = signal.set_wakeup_fd(tell.fileno())

    def heard(_number: int, _frame: object) -> None:
        """The number is in the socket."""

    handlers = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        told.close()
        tell.close()


@contextmanager
def interrupts_blocked() -> Generator[None]:
    """What is started here never sees a terminal's Ctrl-C, which goes to all; its parent tells it what to do."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
