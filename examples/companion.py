"""A companion that remembers: what you tell it in one conversation, it knows in the next.

    export OPENAI_API_KEY=sk-…
    cd examples
    frontdesk serve --agents companion:agent
    frontdesk chat companion                        # in another terminal: tell it your name, leave, and come back

Each caller has a memory of their own. `frontdesk memory show` prints it, `frontdesk memory delete` deletes it.
"""

from datetime import UTC, datetime

from frontdesk import Agent, prompt
from frontdesk.agents.skills import Memory
from frontdesk.agents.skills.memory import Block


@prompt
def today() -> str:
    return f"Today is {datetime.now(UTC):%A, %d %B %Y}."


agent = Agent(
    "companion",
    model="openai/gpt-5-mini",
    description="A companion with a memory.",
    instructions=(
        "You are a companion for long conversations. What people tell you about themselves you write into your block "
        "`human` at once; stories go into the archive. Look there before you say that you do not know."
    ),
    prompts=[today],
    skills=[
        Memory(
            {
                "human": Block(description="Who you talk to: name, likes, people and plans."),
                "persona": Block("I am curious, and I remember.", description="Who you are, as you find it out."),
            }
        )
    ],
)
