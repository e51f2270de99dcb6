"""Logs: structlog, with everybody else's loggers going the same way. Secrets are taken out of every line at the end.

    configure("info", "auto", secrets=[...])
    with structlog.contextvars.bound_contextvars(request_id=...):   # then each line of this task carries it
        log.info("request", status=200)

Run uvicorn with `log_config=None, access_log=False`: requests are logged by the gateway itself.
"""

import logging
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal, TextIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "[redacted]"
MIN_SECRET_CHARS = 4  # taking out shorter ones would only scramble the lines

_HANDLER = "frontdesk"
_OURS = frozenset(("level", "logger", "timestamp", "request_id", "method", "status"))  # never a caller's words
_QUIET = (
    "alembic",
    "client",  # of MCP
    "httpx",
    "httpx2",
    "httpcore",
    "openai",
    "asyncio",
    "limits",
    "uvicorn.error",
    "mcp",
    "a2a",
    "sse_starlette",
    "watchfiles",
)  # of these only warnings
_MUTE = ("a2a.server.routes", "a2a.compat", "a2a.utils", "mcp.client")  # they log what strangers send, with tracebacks
_SILENT = ("uvicorn.access", "aiohttp.access")
_OTHERS = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "aiohttp", "aiohttp.client", "aiohttp.server")

_NAMES = r"(?:proxy-)?authorization|(?:x-)?api[-_]?key|(?:set-)?cookie|password|secret|(?:access|refresh|auth)_token"
_SENSITIVE_NAME = re.compile(rf"(?:\w+[-_])?(?:{_NAMES})", re.IGNORECASE)
_NAMED = re.compile(
    rf"""(?P<name>\b(?:{_NAMES})(?:["']?\s*[:=]|["']\s*,)\s*(?:b?["'])?)(?:(?:bearer|basic)\s+)?[^\s"',;&)}}\]]+""",
    re.IGNORECASE,
)
_PLAIN = re.compile(r"\bsk-[\w-]{8,}|(?<=\bbearer )\s*[^\s\"',;)}\]]+", re.IGNORECASE)


def configure(
    level: str,
    fmt: Literal["auto", "console", "json"],
    *,
    secrets: Collection[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Log from `level` on to `stream` (default: stderr). `auto` is `console` on a terminal, else JSON, one line each.

    May be called again. `secrets` are values which must never be seen, such as the configured keys.
    """
    out: TextIO = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    rendering = _rendering(fmt == "json" or (fmt == "auto" and not out.isatty()), Redactor(secrets), out)

    def writer(*names: str) -> Writer:
        return Writer(out, names[0] if names else "")

    structlog.configure(
        # Our own lines do not go through the standard library's logging, which costs more than the rest of a line.
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=writer,
        cache_logger_on_first_use=False,  # so that a later call reaches loggers that are already in use
    )
    handler = logging.StreamHandler(out)
    handler.set_name(_HANDLER)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    _install(handler, number)


def _rendering(as_json: bool, redactor: "Redactor", stream: TextIO) -> list[Processor]:
    """Exceptions become text before the redactor sees them, without local variables, which hold what was said."""
    if as_json:
        tracebacks = structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        )
        return [tracebacks, redactor, structlog.processors.JSONRenderer(_json)]
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, event_key="event"
    )
    return [structlog.processors.format_exc_info, redactor, console]


def _install(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    for other in [other for other in root.handlers if other.get_name() == _HANDLER]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _OTHERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    for name in _MUTE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in _SILENT:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = False


def _json(event: Any, **_options: Any) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


class Writer:
    """Writes finished lines, and has the name under which it was asked for."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self.name = name

    def msg(self, line: str) -> None:
        """A log that cannot be written, its reader gone or its disk full, must not end what it tells of."""
        with suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    log = debug = info = warn = warning = error = critical = fatal = failure = exception = msg


class Redactor:
    """A structlog processor that takes secrets out of all values: those given, those named like one, those that look
    like one (`sk-…`, `Bearer …`)."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {name: value if name in _OURS else self._value(name, value) for name, value in event.items()}

    def _value(self, name: object, value: Any) -> Any:
        return REDACTED if value and value is not True and _is_sensitive(name) else self._clean(value)

    def _clean(self, value: Any) -> Any:
        match value:
            case str():
                return self._text(value)
            case None | bool() | int() | float():
                return value
            case Mapping():
                return {name: self._value(name, item) for name, item in cast("Mapping[Any, Any]", value).items()}
            case list() | tuple() | set() | frozenset():
                return self._items(list(cast("Sequence[Any]", value)))
            case _:
                return self._text(repr(value))

    def _items(self, items: list[Any]) -> list[Any]:
        """A pair may be a header."""
        if len(items) == 2 and _is_sensitive(items[0]):
            return [self._clean(items[0]), REDACTED]
        return [self._clean(item) for item in items]

    def _text(self, text: str) -> str:
        if self._known:
            text = self._known.sub(REDACTED, text)
        return _PLAIN.sub(REDACTED, _NAMED.sub(rf"\g<name>{REDACTED}", text))


def _is_sensitive(name: object) -> bool:
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    return isinstance(name, str) and _names_a_secret(name[:256])


@lru_cache(maxsize=1024)
def _names_a_secret(name: str) -> bool:
    return _SENSITIVE_NAME.fullmatch(name) is not None
