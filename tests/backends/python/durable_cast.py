"""Durable agents. What their tools do is seen from outside, in the folder that DURABLE_FOLDER names."""

import os
from pathlib import Path

import pydantic_ai

from frontdesk import Agent, context, handoff, tool
from frontdesk.agents.skills import AskAgent
from tests.faults.watch import eventually

MODEL = "openai/scripted"


def done(what: str) -> list[str]:
    """How often something was done: a line for each time."""
    path = Path(os.environ["DURABLE_FOLDER"]) / what
    return path.read_text().splitlines() if path.exists() else []


def do(what: str, by: str = "") -> None:
    with (Path(os.environ["DURABLE_FOLDER"]) / what).open("a") as file:
        file.write(f"{by}\n")


@tool
def note(text: str) -> str:
    """Write something down."""
    do(text, context().turn.id)
    return f"noted {text}"


@tool
async def wait_for(text: str) -> str:
    """Wait until somebody has made it so."""
    do(f"waiting-{text}")
    await eventually(lambda: bool(done(f"there-{text}")))
    return f"{text} is there"


@tool
def broken() -> str:
    """Fail."""
    raise ValueError("it cannot be had")


clerk = Agent(
    "clerk",
    model=MODEL,
    instructions="You write things down.",
    tools=[note, wait_for, broken],
    handoffs=[handoff("archivist"), handoff("plain")],
    durable=True,
    max_steps=6,
)
archivist = Agent("archivist", model=MODEL, instructions="You keep things.", tools=[note])
plain = Agent("plain", model=MODEL, engine=pydantic_ai.Agent(name="plain"))

boss = Agent("boss", model=MODEL, skills=[AskAgent(["clerk", "archivist"])], durable=True)

agents = [clerk, archivist, plain, boss]
