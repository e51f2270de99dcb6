"""What the Python clients' scripts share: cases are run one after the other, and each leaves a line of JSON.

Runs in the clients' own environments: standard library only.
"""

import asyncio
import json
import os
import sys
import traceback
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

BASE_URL = os.environ["COMPAT_BASE_URL"]
API_KEY = os.environ["COMPAT_API_KEY"]
MODEL = os.environ["COMPAT_MODEL"]
APIS = os.environ["COMPAT_APIS"].split(",")
VARIANT = os.environ["COMPAT_VARIANT"]
ONLY = os.environ.get("COMPAT_ONLY", "")

PICTURE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CITIES = ["Paris", "Rome"]

Case = Callable[[str], Awaitable[None]]
CASES: dict[str, Case | str] = {}


def case(name: str) -> Callable[[Case], Case]:
    """Add a case: a coroutine that is given a marker, and raises when something is wrong."""

    def add(run: Case) -> Case:
        CASES[name] = run
        return run

    return add


def both(name: str, run: Callable[[str, str], Awaitable[None]]) -> None:
    """Add a case for each API; it is given which, and a marker."""
    for api in ("chat", "responses"):
        case(f"{api}.{name}")(lambda marker, api=api: run(api, marker))


def without(why: str, *names: str) -> None:
    """Say which cases there cannot be with this client."""
    CASES.update(dict.fromkeys(names, why))


def main() -> None:
    asyncio.run(run_all())


async def run_all() -> None:
    for name, found in CASES.items():
        if not name.startswith(ONLY):
            continue
        marker = f"#{uuid.uuid4().hex[:12]}"
        if isinstance(found, str):
            report(name, "", "not applicable", found)
        elif name.split(".")[0] not in APIS:
            report(name, "", "not there yet", "")
        else:
            try:
                async with asyncio.timeout(60):
                    await found(marker)
                report(name, marker, "passed", "")
            except Exception as error:
                traceback.print_exc(limit=-4)
                report(name, marker, "failed", f"{type(error).__name__}: {error}"[:1500])


def report(name: str, marker: str, outcome: str, why: str) -> None:
    sys.stdout.write(json.dumps({"case": name, "marker": marker, "outcome": outcome, "why": why}) + "\n")
    sys.stdout.flush()


# --- what cases say and expect -----------------------------------------------------------------------------------


def hello(marker: str) -> str:
    return f"{marker}\n@think hm\n@say Hello {marker}."


def words(marker: str) -> str:
    return f"{marker}\n@think hm\n@long 50"


WORDS = " ".join(f"word{number}" for number in range(1, 51))


def ask_weather(marker: str, *cities: str) -> str:
    """The agent asks for the weather in each city, and speaks when it knows it."""
    calls = [f'@call get_weather {{"city": "{city}"}}' for city in cities]
    return "\n".join([marker, "@think hm", *calls, "@then", f"@say Cold {marker}."])


def by_itself(marker: str) -> str:
    """The agent uses a tool of its own, and then speaks."""
    note = '{"label": "human", "new_string": "Seen.", "insert_line": -1}'
    return f"{marker}\n@think hm\n@call memory_insert {note}\n@then\n@say One."


def breaking(marker: str) -> str:
    """The model fails in the middle of its answer."""
    return f"{marker}\n@say Hello there, this is going to\n@error"


def weather(city: str, marker: str) -> str:
    """What the client's tool gives."""
    return f"12 degrees in {city} {marker}"


def as_json(marker: str) -> str:
    return f'{marker}\n@say {{"city": "Paris", "degrees": 12}}'


def equal(found: Any, expected: Any) -> None:
    if found != expected:
        raise AssertionError(f"{found!r} instead of {expected!r}")


def several(pieces: list[str], text: str) -> None:
    """A stream came in pieces, and nothing of it is missing."""
    equal("".join(pieces), text)
    if len(pieces) < 2:
        raise AssertionError("the text came in one piece")


def is_true(found: Any, what: str) -> None:
    if not found:
        raise AssertionError(what)


async def raised(kind: type[BaseException] | tuple[type[BaseException], ...], call: Awaitable[Any]) -> Any:
    """The error of this class that a call ends with."""
    try:
        answer = await call
    except kind as error:
        return error
    raise AssertionError(f"no {kind}, but {answer!r}")
