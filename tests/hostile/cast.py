"""Agents whose tools do what tools should not. `ran` and `ended` count by the test's marker."""

import asyncio
import sys
import threading
from collections import Counter
from queue import SimpleQueue
from typing import Any

from frontdesk import Agent, context, hook, prompt, tool
from frontdesk.agents.hooks import Incoming

MODEL = "openai/scripted"

ran: Counter[str] = Counter()
ended: Counter[str] = Counter()
began: SimpleQueue[str] = SimpleQueue()
"""What slow tools have been given, as they begin."""

overheard: dict[str, str] = {}
"""Which agent the context named, by the text of the message."""


@tool
def note(text: str) -> str:
    """Write something down."""
    ran[text] += 1
    return f"noted {text}"


@tool
async def slow(text: str) -> str:
    """Take a while."""
    ran[text] += 1
    began.put(text)
    try:
        await asyncio.sleep(30)
    finally:
        ended[text] += 1
    return "at last"


class Opaque:
    """Nothing that could be JSON."""

    def __repr__(self) -> str:
        return "<Opaque, key sk-secret-123>"


def cycle() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


def deep() -> Any:
    found: Any = []
    for _ in range(5000):
        found = [found]
    return found


STRANGE: dict[str, Any] = {
    "object": Opaque(),
    "bytes": b"\xff\xfe\x00",
    "surrogate": "a\ud800b",
    "surrogate key": {"\ud800": 1},
    "nul": "a\0b",
    "number": 10**5000,
    "infinity": float("inf"),
    "cycle": cycle(),
    "deep": deep(),
    "error": ValueError("x"),
    "type": int,
    "lock": threading.Lock(),
    "inner": [{"a": Opaque()}],
}


@tool
def give(what: str, text: str) -> Any:
    """Give something strange."""
    ran[text] += 1
    return STRANGE[what]


class Odd(BaseException):
    """Neither an Exception nor one of Python's own."""


RAISED: dict[str, BaseException] = {
    "interrupt": KeyboardInterrupt(),
    "cancelled": asyncio.CancelledError(),
    "odd": Odd("odd"),
    "surrogate": ValueError("\ud800"),
    "group": ExceptionGroup("many", [ValueError("x")]),
    "stop": StopIteration(),
}


def fall(what: str) -> None:
    if what == "exit":
        sys.exit("bye")
    raise RAISED[what]


@tool
async def throw(what: str) -> str:
    """Raise it here."""
    fall(what)
    return "never"


@tool
def throw_in_a_thread(what: str) -> str:
    """Raise it in a thread."""
    fall(what)
    return "never"


@hook("message")
def overhear(moment: Incoming) -> None:
    overheard[str(moment.items)] = context().agent


@prompt
async def mine() -> str:
    """Whose turn this is, before and after others have had theirs."""
    before = context().turn.id
    context().scratch["turn"] = before
    await asyncio.sleep(0.01)
    return f"mine: {before} {context().turn.id} {context().scratch['turn']}"


@tool
async def whose(text: str) -> str:
    """Whose turn this is."""
    await asyncio.sleep(0.01)
    return f"{context().turn.id} {context().scratch['turn']}"


odd = Agent("odd", model=MODEL, tools=[note, slow, give, throw, throw_in_a_thread], max_steps=6)
listener = Agent("listener", model=MODEL, hooks=[overhear])
ping = Agent("ping", model=MODEL, tools=[note], handoffs=["pong"], max_steps=7)
pong = Agent("pong", model=MODEL, tools=[note], handoffs=["ping"], max_steps=7)
minder = Agent("minder", model=MODEL, tools=[whose], prompts=[mine])
backed = Agent("backed", model=MODEL, fallbacks=["scripted/x"])

agents = [backed, odd, listener, ping, pong, minder]
