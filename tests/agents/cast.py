"""Agents as an author writes them, for the tests to serve by import path."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from frontdesk import Agent, Context, Skill, prompt, tool
from frontdesk.agents.services import Services

MODEL = "scripted/x"

living: list[str] = []
"""What the skills of the agents below say of themselves."""


@tool
def forecast(city: str) -> str:
    """Tell the weather."""
    return f"Sunny in {city}."


@tool(scope="owner")
def close_shop() -> str:
    """Close the shop."""
    return "Closed."


class Lamp(Skill):
    """Is on while the app serves."""

    def __init__(self, name: str) -> None:
        self.name = name

    @asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncGenerator[None]:
        living.append(f"{self.name} on")
        yield
        living.append(f"{self.name} off")

    @tool
    def is_on(self) -> bool:
        return living[-1] == f"{self.name} on"


class Greeter(Agent):
    name = "greeter"
    model = MODEL

    @tool
    def greet(self, context: Context) -> str:
        return f"Hello, {context.principal.id}, from {context.agent}."

    @prompt
    def manners(self) -> str:
        return "Be polite."


agents = [
    Agent("weather", model=MODEL, description="Knows the weather.", tools=[forecast], skills=[Lamp("static")]),
    Agent("shop", model=MODEL, tools=[close_shop]),
    Greeter,
]

same_name = Agent("weather", model=MODEL)
odd_scope = Agent("odd", model=MODEL, scope="premium")
impostor = Agent("front", model=MODEL, handoffs=[Agent("weather", model=MODEL)])
lost = Agent("lost", model=MODEL, handoffs=["nobody"])


def resolve(name: str) -> Agent | None:
    if name == "broken":
        raise LookupError("password=hunter2")
    if name == "weather":
        raise AssertionError("static agents go first")
    return Agent(name, model=MODEL, skills=[Lamp(name)]) if name.startswith("user-") else None


class Dark(Skill):
    @asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncGenerator[None]:
        raise OSError("no power")
        yield


dark = Agent("dark", model=MODEL, skills=[Dark()])
