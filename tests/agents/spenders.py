"""The agents of the tests of budgets. They speak with the scripted model, wherever OpenAI is."""

from collections import Counter

from frontdesk import Agent, handoff, tool
from frontdesk.agents.skills import Budget

runs: Counter[str] = Counter()
"""How often a tool has run, by what it was asked."""


@tool(price="0.02")
def search(query: str) -> str:
    """Search the web."""
    runs[query] += 1
    return f"Nothing about {query}."


@tool
def look(at: str) -> str:
    """Look at something."""
    runs[at] += 1
    return "It is there."


scout = Agent(
    "scout", model="openai/gpt-4o", tools=[search], skills=[Budget("0.10 USD", per="agent", reserve="0.01 USD")]
)
frugal = Agent(
    "frugal", model="openai/scripted", tools=[look], skills=[Budget("100 tokens", per="user", reserve="40 tokens")]
)
router = Agent("router", model="openai/scripted", handoffs=[handoff("frugal")])

agents = [scout, frugal, router]
