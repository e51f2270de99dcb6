"""The agents of `frontdesk demo --python`: Juno receives everybody, and `weather` has its tools at an MCP server.

They can be served by themselves too: `frontdesk serve --agents frontdesk.demo.desk:agents`.
"""

import os
import sys
from datetime import UTC, datetime

from frontdesk import Agent, handoff, prompt
from frontdesk.agents.skills import MCP

MODEL = os.environ.get("FRONTDESK_DEMO_MODEL", "").strip() or "scripted/demo"

stations = MCP(command=[sys.executable, "-m", "frontdesk.demo.stations"], name="stations")


@prompt
def today() -> str:
    return f"Today is {datetime.now(UTC):%A, %d %B %Y}."


weather = Agent(
    "weather",
    model=MODEL,
    description="Knows the weather everywhere.",
    instructions="You tell the weather in one sentence. You ask the stations, and never guess.",
    skills=[stations],
)

juno = Agent(
    "Juno",
    model=MODEL,
    description="Receives everybody, and knows who can help.",
    instructions="You are Juno, at the front desk: friendly and brief. What others know better, you leave to them.",
    prompts=[today],
    handoffs=[handoff(weather, "For everything about the weather.")],
)

agents = [juno, weather]
