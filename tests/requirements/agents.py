"""Agents of every type, and what they have."""

from tests.requirements import Requirement

OURS = "Frontdesk"
LETTA = "Letta 0.16.7, measured"

REQUIREMENTS = {
    "older.exact": Requirement("What an older agent says and thinks arrives exactly, streamed and not", LETTA),
    "older.one-thread": Requirement("It has one thread for all callers, and one turn at a time there", LETTA),
    "older.tools": Requirement("It uses the client's tools through a hidden modern twin, streamed and not", OURS),
    "older.seeded": Requirement("A conversation goes on on the twin with all that was said before", OURS),
    "older.restart": Requirement("A gateway may be restarted, or killed, at any moment of that", OURS),
    "older.memory": Requirement("The twin and the agent have one memory, and the agent stays as it was", OURS),
    "older.in-step": Requirement("What is changed on the agent is brought over", OURS),
    "older.swept": Requirement("Twins that nobody needs are deleted, and nothing else is", OURS),
    "agents.mcp": Requirement("MCP tools that are attached through Letta work as any tool of the agent's own", OURS),
    "agents.show": Requirement("`frontdesk agents show` tells what an agent has, and what works for it", OURS),
    "recovery.quirks": Requirement("Each known quirk of Letta is provoked by a test, with and without Redis", LETTA),
}
