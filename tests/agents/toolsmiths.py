"""The agents of the tests of MCP tools in turns. They speak with the scripted model, wherever OpenAI is.

Where the MCP server is, the test writes down here before it serves.
"""

from frontdesk import Agent, tool
from frontdesk.agents.skills import MCP

MODEL = "openai/scripted"

server: list[str] = []


@tool
def t_add(a: int, b: int) -> str:
    """Add two numbers, as we do it here."""
    return f"our own {a + b}"


def agents() -> list[Agent]:
    return [
        Agent("smith", model=MODEL, tools=[t_add], skills=[MCP(server[0], name="t")]),
        Agent("master", model=MODEL, skills=[MCP(server[0], name="m", scope="owner")]),
        Agent("lonely", model=MODEL, skills=[MCP("http://127.0.0.1:9/mcp", name="gone")]),
    ]
