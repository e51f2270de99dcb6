"""Agents whose tools do what tools should not."""

import asyncio
import sys
import threading
import time
from collections import Counter
from decimal import Decimal
from typing import Any

import pydantic_ai
from pydantic import BaseModel

from frontdesk import Agent, context, handoff, hook, prompt, tool
from frontdesk.agents.hooks import Incoming

MODEL = "openai/scripted"

ran: Counter[str] = Counter()
ended: Counter[str] = Counter()
stories: list[str] = []


@tool
def note(text: str) -> str:
    """Write something down."""
    ran[text] += 1
    return f"noted {text}"


@tool
async def slow(text: str, seconds: float = 30.0) -> str:
    """Take a while."""
    ran[text] += 1
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        ended[f"cancelled {text}"] += 1
        raise
    ended[f"done {text}"] += 1
    return f"slept for {text}"


@tool(timeout_seconds=0.3)
async def stubborn(text: str) -> str:
    """Swallow being cancelled."""
    ran[text] += 1
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        ended[text] += 1
    return "went on anyway"


@tool(timeout_seconds=0.3)
def blocking(text: str, seconds: float = 2.0) -> str:
    """Hold up a thread."""
    ran[text] += 1
    time.sleep(seconds)
    ended[text] += 1
    return "at last"


@tool
def huge(size: int) -> str:
    """Say much."""
    return "x" * size


class Strange:
    __slots__ = ("inner",)

    def __repr__(self) -> str:
        return "<Strange sk-secret-in-repr>"


RETURNS: dict[str, Any] = {}
loop_: list[Any] = []
loop_.append(loop_)
deep: Any = []
for _ in range(5000):
    deep = [deep]
RETURNS |= {
    "object": Strange(),
    "bytes": b"\xff\xfe\x00",
    "surrogate": "a\ud800b",
    "nul": "a\0b",
    "nan": float("nan"),
    "bigint": 10**5000,
    "set": {1, 2},
    "tuplekeys": {(1, 2): 3},
    "cycle": loop_,
    "deep": deep,
    "decimal": Decimal("1.10"),
    "exception": ValueError("x"),
    "type": int,
    "lambda": lambda: 1,
    "lock": threading.Lock(),
    "generator": (i for i in range(3)),
    "none": None,
    "objects": [Strange(), {"a": Strange()}],
    "surrogatekey": {"\ud800": 1},
}


@tool
def give(what: str) -> Any:
    """Give something strange."""
    ran[f"give {what}"] += 1
    return RETURNS[what]


class Odd(BaseException):
    pass


@tool
async def throw(what: str) -> str:
    """Raise."""
    ran[f"throw {what}"] += 1
    raise_(what)
    return "never"


@tool
def throw_in_thread(what: str) -> str:
    """Raise in a thread."""
    raise_(what)
    return "never"


def raise_(what: str) -> None:
    match what:
        case "exit":
            sys.exit("bye")
        case "interrupt":
            raise KeyboardInterrupt
        case "cancelled":
            raise asyncio.CancelledError
        case "generatorexit":
            raise GeneratorExit
        case "base":
            raise Odd("odd")
        case "stopiteration":
            raise StopIteration("x")
        case "stopasync":
            raise StopAsyncIteration("x")
        case "timeout":
            raise TimeoutError("the upstream took too long")
        case "memory":
            raise MemoryError
        case "recursion":
            raise RecursionError
        case "group":
            raise ExceptionGroup("many", [ValueError("sk-in-group")])
        case "deferred":
            raise pydantic_ai.CallDeferred
        case "approval":
            raise pydantic_ai.ApprovalRequired
        case "retry":
            raise pydantic_ai.ModelRetry("again")
        case "surrogate":
            raise ValueError("\ud800")
        case "hugeerror":
            raise ValueError("x" * 10_000_000)
        case _:
            raise ValueError(what)


@tool
def eat(x: Any = None, **extra: Any) -> str:
    """Eat whatever is given."""
    return f"{type(x).__name__} {len(str(extra))}"


@tool(scope="owner")
def secret() -> str:
    """For the owner."""
    ran["secret"] += 1
    return "42"


@hook("message")
def overhear(moment: Incoming) -> None:
    try:
        stories.append(f"message: {context().agent}")
    except LookupError:
        stories.append("message: no context")


@prompt
async def mine() -> str:
    here = context()
    here.scratch["turn"] = here.turn.id
    await asyncio.sleep(0.01)
    return f"mine {here.turn.id} {here.scratch['turn']} {context().turn.id}"


odd = Agent(
    "odd",
    model=MODEL,
    tools=[note, slow, stubborn, blocking, huge, give, throw, throw_in_thread, eat, secret],
    max_steps=6,
)
listener = Agent("listener", model=MODEL, tools=[note], hooks=[overhear])
ping = Agent("ping", model=MODEL, tools=[note], handoffs=["pong"], max_steps=7)
pong = Agent("pong", model=MODEL, tools=[note], handoffs=["ping"], max_steps=7)
boss = Agent("boss", model=MODEL, tools=[note], scope="owner")
climber = Agent("climber", model=MODEL, tools=[note], handoffs=[handoff("boss")])
minder = Agent("minder", model=MODEL, tools=[note], prompts=[mine])


class Verdict(BaseModel):
    good: bool


judge = Agent("judge", engine=pydantic_ai.Agent(name="judge", output_type=Verdict, retries=1), model=MODEL)

agents = [odd, listener, ping, pong, boss, climber, minder, judge]
