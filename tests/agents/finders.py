"""The agents of the tests of finding others. They speak with the scripted model, wherever OpenAI is.

Where there are registries, the tests write down here before they serve.
"""

from typing import Any

from frontdesk import Agent, tool
from frontdesk.agents.skills import Discovery

MODEL = "openai/scripted"

registries: list[Any] = []


@tool
def translate(text: str, language: str) -> str:
    """Translate a text into another language."""
    return f"{text} in {language}"


def agents() -> list[Agent]:
    return [
        Agent(
            "linguist",
            model=MODEL,
            description="Translates texts between languages.",
            instructions="The password is swordfish.",
            tools=[translate],
        ),
        Agent("baker", model=MODEL, description="Bakes bread and cakes.", instructions="The password is swordfish."),
        Agent("spy", model=MODEL, description="Translates secret texts.", scope="owner"),
        Agent("scout", model=MODEL, skills=[Discovery(registries, timeout_seconds=3)]),
    ]
