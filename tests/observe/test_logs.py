"""What is logged, and what never is."""

import asyncio
import io
import json
import logging
import time
from collections.abc import Generator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from frontdesk.observe.logs import REDACTED, Redactor, configure

log = structlog.get_logger("frontdesk.test")


@pytest.fixture(autouse=True)
def _as_it_was() -> Generator[None]:  # pyright: ignore[reportUnusedFunction]
    """Logging is the one thing a process has only once."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def page() -> io.StringIO:
    return io.StringIO()


def lines(page: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in page.getvalue().splitlines()]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_is_json_with_time_level_logger_and_values(page: io.StringIO) -> None:
    configure("info", "json", stream=page)
    log.info("request", status=200, names=("a", "b"), path=None)
    (line,) = lines(page)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "frontdesk.test",
        "status": 200,
        "names": ["a", "b"],
        "path": None,
    }


def test_auto_is_json_unless_somebody_looks_at_a_terminal(page: io.StringIO) -> None:
    configure("info", "auto", stream=page)
    log.info("hello")
    assert lines(page)[0]["event"] == "hello"
    terminal = Terminal()
    configure("info", "auto", stream=terminal)
    log.info("hello")
    assert "\x1b[" in terminal.getvalue()


def test_lines_below_the_level_are_dropped_and_configuring_again_replaces(page: io.StringIO) -> None:
    configure("debug", "json", stream=io.StringIO())
    configure("warning", "json", stream=page)
    log.info("no")
    logging.getLogger("frontdesk.other").info("no")
    log.warning("yes")
    assert [line["event"] for line in lines(page)] == ["yes"]


async def test_the_request_id_is_on_each_line_of_its_task_and_on_no_other(page: io.StringIO) -> None:
    configure("info", "json", stream=page)

    async def request(number: int) -> None:
        with structlog.contextvars.bound_contextvars(request_id=f"req_{number}"):
            await asyncio.sleep(0)
            log.info("one", number=number)
            logging.getLogger("uvicorn.error").warning("two", extra={"number": number})

    await asyncio.gather(*(request(number) for number in range(3)))
    log.info("outside")
    *inside, outside = lines(page)
    assert [line["request_id"] for line in inside] == [f"req_{n}" for n in (0, 0, 1, 1, 2, 2)]
    assert "request_id" not in outside


def test_uvicorn_and_aiohttp_speak_through_us_except_for_their_access_logs(page: io.StringIO) -> None:
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(io.StringIO()))
    configure("info", "json", stream=page)
    logging.getLogger("uvicorn.error").info("Application startup complete.")
    logging.getLogger("uvicorn.error").warning("Started on %s", "here")
    logging.getLogger("aiohttp.server").error("trouble")
    for name in ("uvicorn.access", "aiohttp.access"):
        logging.getLogger(name).info("GET /")
    logging.getLogger("httpx").info("HTTP Request: GET /")
    assert [(line["logger"], line["event"]) for line in lines(page)] == [
        ("uvicorn.error", "Started on here"),
        ("aiohttp.server", "trouble"),
    ]


def failing(secret: str) -> None:
    hidden = "a local " + "variable"
    raise ValueError(f"refused {secret}", len(hidden))


@pytest.mark.parametrize("fmt", ["json", "console"])
@pytest.mark.parametrize("name", ["frontdesk.test", "uvicorn.error"])
def test_exceptions_are_shown_without_local_variables_and_secrets(page: io.StringIO, fmt: Any, name: str) -> None:
    configure("info", fmt, secrets=["my-configured-key"], stream=page)
    try:
        failing("my-configured-key")
    except ValueError:
        logger = log if name == "frontdesk.test" else logging.getLogger(name)
        logger.exception("failed")
    text = page.getvalue()
    assert "ValueError" in text
    assert "failing" in text
    assert "a local variable" not in text
    assert "my-configured-key" not in text
    if fmt == "json":
        assert lines(page)[0]["exception"][0]["exc_type"] == "ValueError"


def clean(value: Any, *secrets: str) -> Any:
    return Redactor(secrets)(None, "info", {"event": value})["event"]


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("Authorization: Bearer abc.def-ghi", f"Authorization: {REDACTED}"),
        ("authorization=Basic YTpi; x=1", f"authorization={REDACTED}; x=1"),
        ("sent Bearer abcdef, then left", f"sent Bearer {REDACTED}, then left"),
        ("key sk-proj-abc_123-XYZ was wrong", f"key {REDACTED} was wrong"),
        ("sk-let-MTIzNDU2Nzg5", REDACTED),
        ("https://h/?api_key=abc&x=1", f"https://h/?api_key={REDACTED}&x=1"),
        ('{"x-api-key": "abc"}', f'{{"x-api-key": "{REDACTED}"}}'),
        ({"X-Api-Key": "abc", "accept": "*/*"}, {"X-Api-Key": REDACTED, "accept": "*/*"}),
        ({"letta_api_key": "abc"}, {"letta_api_key": REDACTED}),
        ([(b"authorization", b"abc"), (b"accept", b"x")], [["b'authorization'", REDACTED], ["b'accept'", "b'x'"]]),
        ({"deep": [{"cookie": "a=b"}]}, {"deep": [{"cookie": REDACTED}]}),
        (ValueError("Bearer abcdef"), f"ValueError('Bearer {REDACTED}')"),
        (b"sk-abcdefgh12", f"b'{REDACTED}'"),
        ({"api_key": "", "has_api_key": True}, {"api_key": "", "has_api_key": True}),
    ],
)
def test_secrets_are_taken_out_wherever_they_appear(value: Any, seen: Any) -> None:
    assert clean(value) == seen


@pytest.mark.parametrize(
    "value",
    [
        "the risk-assessment task-12345678 is done",
        "an API key is needed",
        {"tokens": 5, "time_to_first_token": 0.2, "keys": 2},
        3,
        None,
        ["a", "b"],
    ],
)
def test_what_is_no_secret_stays(value: Any) -> None:
    assert clean(value) == value


def test_configured_secrets_are_taken_out_of_anything() -> None:
    assert clean("x hunter22 y hunter2222", "hunter22", "hunter2222", "", "y") == f"x {REDACTED} y {REDACTED}"
    assert clean({"path": ("/a", "hunter22")}, "hunter22") == {"path": ["/a", REDACTED]}
    assert clean(SecretStr("hunter22"), "hunter22") == "SecretStr('**********')"


def test_a_line_costs_little() -> None:
    """Measured 80 µs for a request's line; the bound leaves room for a busy machine."""
    configure("info", "json", secrets=["my-configured-key"], stream=io.StringIO())
    best = 1.0
    for _ in range(10):
        began = time.perf_counter()
        for _ in range(50):
            log.info("request", method="POST", route="/v1/chat/completions", status=200, seconds=1.25, model="Milo")
        best = min(best, time.perf_counter() - began)
    assert best / 50 < 500e-6


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    gone = io.StringIO()
    configure("info", "json", stream=gone)
    gone.close()
    log.info("nobody reads this")
    log.error("nor this")
