"""The agents of these tests. They speak with the scripted model, wherever the server's settings say that OpenAI is."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Literal

import pydantic_ai

from frontdesk import Agent, context, handoff, hook, http, prompt, tool
from frontdesk.agents.hooks import BeforeModelCall, BeforeToolCall, Chunk, Connection, Failure, Finish, HandingOver
from frontdesk.errors import Forbidden

MODEL = "openai/scripted"

ran: Counter[str] = Counter()
"""How often a tool has run, by what it was given."""

seen: dict[str, list[str]] = {}
"""What hooks have seen, by the turn's user text."""


@tool
def note(text: str) -> str:
    """Write something down.

    Args:
        text: What to write down.
    """
    ran[text] += 1
    return f"noted {text}"


@tool
async def slow(text: str, seconds: float = 30.0) -> str:
    """Take a while."""
    ran[text] += 1
    await asyncio.sleep(seconds)
    return f"slept for {text}"


@tool(timeout_seconds=0.1)
async def endless() -> str:
    """Never come to an end."""
    await asyncio.Event().wait()
    return "never"


@tool
def broken(text: str) -> str:
    """Fail."""
    ran[text] += 1
    raise ValueError(f"{text} cannot be had")


@tool
def forecast(city: str, unit: Literal["c", "f"] = "c", days: int | None = None) -> dict[str, str | int | None]:
    """The weather to come."""
    return {"city": city, "unit": unit, "days": days}


@tool(scope="owner")
def secret(text: str) -> str:
    """For the owner."""
    ran[text] += 1
    return "the secret is 42"


@tool
def whoami() -> str:
    """Who asks."""
    return f"{context().principal.id} of {context().agent} in {context().turn.id}"


notary = Agent(
    "notary",
    model=MODEL,
    instructions="You write things down.",
    description="Writes things down.",
    tags=("office",),
    tools=[note, slow, endless, broken, forecast, secret, whoami],
    max_steps=5,
)

spanish = Agent("spanish", model=MODEL, instructions="You speak Spanish.", tools=[note])
french = Agent("french", model=MODEL, instructions="You speak French.", handoffs=[handoff("spanish")])
boss = Agent("boss", model=MODEL, instructions="For the owner alone.", scope="owner")
router = Agent(
    "router",
    model=MODEL,
    instructions="You send people on.",
    tools=[note],
    handoffs=[handoff("spanish", "Who speaks Spanish."), handoff("french"), handoff("boss")],
)


class Watched(Agent):
    """An agent with hooks and prompts, as a class."""

    name = "watched"
    model = MODEL
    instructions = "You are watched."

    @prompt(priority=60)
    def second(self) -> str:
        return "Second prompt."

    @prompt(priority=10)
    async def first(self) -> str:
        return f"First prompt, for {context().principal.id}."

    @prompt(scope="owner")
    def for_owners(self) -> str:
        return "Owners only."

    @tool
    def shout(self, text: str) -> str:
        """Say it loudly."""
        return text.upper()

    @hook("connection")
    def refuse(self, moment: Connection) -> None:
        if "be refused" in str(moment.turn.input):
            raise Forbidden("Not today.", code="not_today")

    @hook("chunk")
    def soften(self, moment: Chunk) -> Chunk:
        return replace(moment, text=moment.text.replace("damn", "darn"))

    @hook("before_tool_call")
    def louder(self, moment: BeforeToolCall) -> BeforeToolCall:
        self.saw("before_tool_call")
        return replace(moment, arguments={**moment.arguments, "text": moment.arguments["text"] + "!"})

    @hook("before_model_call")
    def look(self, moment: BeforeModelCall) -> None:
        self.saw(f"model {moment.step}")

    @hook("finish")
    def finished(self, moment: Finish) -> None:
        self.saw(f"finish {moment.stop_reason} {moment.usage.input_tokens > 0}")

    @hook("error")
    def failed(self, moment: Failure) -> None:
        self.saw(f"error {type(moment.error).__name__}")

    @hook("after_tool_call", on_error="ignore")
    def breaks(self, moment: object) -> None:
        raise RuntimeError("an ignored one")

    @http("/hello/{who}")
    def hello(self, who: str, times: int = 1) -> dict[str, str]:
        return {"hello": who * times}

    def saw(self, what: str) -> None:
        seen.setdefault(context().turn.signals.key, []).append(what)


@hook("message")
def fails(moment: object) -> None:
    raise RuntimeError("key sk-secret-123 is wrong")


@hook("handoff")
def never(moment: HandingOver) -> None:
    raise Forbidden("No handing over.", code="no_handoff")


faulty = Agent("faulty", model=MODEL, hooks=[fails])
jealous = Agent("jealous", model=MODEL, handoffs=[handoff("spanish")], hooks=[never])

plain = pydantic_ai.Agent(name="plain", instructions="A plain one.")


@plain.tool_plain
def add(a: int, b: int) -> int:
    """Add two numbers."""
    ran[f"{a}+{b}"] += 1
    return a + b


agents = [notary, router, spanish, french, boss, Watched, faulty, jealous, Agent("plain", model=MODEL, engine=plain)]
