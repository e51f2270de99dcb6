"""Tools which the client runs, and those the agent runs."""

from tests.requirements import Requirement

GUIDE = "https://platform.openai.com/docs/guides/function-calling"

REQUIREMENTS = {
    "tools.round-trip": Requirement("The agent calls the client's tool and goes on with its result", GUIDE),
}
