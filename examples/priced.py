"""A tool that costs money, and a budget: each user has five cents a day, for the model and for the tool together.

    export OPENAI_API_KEY=sk-…
    cd examples
    frontdesk serve --agents priced:agent
    frontdesk chat scout                            # in another terminal: the third search is refused

Without keys, all callers are one user. Before a turn begins, a part of the budget is set aside for it; what was not
used is given back. When nothing is left, the answer is 402 `insufficient_budget`, until tomorrow.
"""

from frontdesk import Agent, tool
from frontdesk.agents.skills import Budget


@tool(price="0.02")
async def search(query: str) -> list[str]:
    """Search the web.

    Args:
        query: A few words.
    """
    return [f"Everything about {query}", f"{query}: a short history"]  # where yours would ask a search engine


agent = Agent(
    "scout",
    model="openai/gpt-5-mini",
    description="Finds things out.",
    instructions="You search before you answer, once, and name what you have found.",
    tools=[search],
    skills=[Budget("0.05 USD", per="user", period="day")],
)
