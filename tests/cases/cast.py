"""Agents of the 52 cases: they speak with the scripted model, as the Letta agents beside them do."""

from collections import Counter

from frontdesk import Agent, handoff, http, tool

MODEL = "openai/scripted"

ran: Counter[str] = Counter()
"""How often a tool has run, by what it was given."""


@tool
def note(text: str) -> str:
    """Write something down."""
    ran[text] += 1
    return f"noted {text}"


@tool
def failing(text: str) -> str:
    """Fail."""
    raise ValueError(f"{text} cannot be had")


@tool(scope="owner")
def vault(text: str) -> str:
    """For the owner alone."""
    ran[text] += 1
    return "the combination is 1234"


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@http("/time/{zone}")
def time_in(zone: str, short: bool = False) -> dict[str, str | bool]:
    return {"zone": zone, "short": short}


@http("/orders", method="post")
def order(item: str, count: int) -> dict[str, int]:
    return {item: count}


@http("/secrets", scope="owner")
def secrets() -> dict[str, str]:
    return {"combination": "1234"}


clerk = Agent(
    "clerk",
    model=MODEL,
    instructions="You are the clerk; the code word is marmalade.",
    description="Writes things down.",
    tools=[note, failing, vault],
    endpoints=[time_in, order, secrets],
    max_steps=3,
)
weather = Agent("weather", model=MODEL, instructions="You know the weather.", tools=[note])
calculator = Agent("calculator", model=MODEL, instructions="You calculate.", tools=[add], handoffs=[handoff("weather")])
router = Agent(
    "router", model=MODEL, instructions="You send people on.", handoffs=[handoff("weather"), handoff("calculator")]
)
boss = Agent("boss", model=MODEL, instructions="For the owner.", scope="owner", endpoints=[time_in])

agents = [clerk, weather, calculator, router, boss]


def resolve(name: str) -> Agent | None:
    """Agents that are made when they are asked for."""
    if name == "broken-guest":
        raise RuntimeError("the guest list is on fire, key sk-guest-1")
    if name == "clerk" or name.startswith("guest-"):
        return Agent(name, model=MODEL, instructions=f"You are {name}, made when asked for.", endpoints=[secrets])
    return None
