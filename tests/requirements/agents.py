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
    "replicas.conversations": Requirement(
        "With `replicas` each caller of an older agent has a conversation of their own, with one memory", OURS
    ),
    "replicas.sticky": Requirement("A conversation stays on its twin, over restarts and changed settings", OURS),
    "replicas.queue": Requirement("Twenty turns at once all succeed, with twins and without, each message once", OURS),
    "replicas.swept": Requirement("Twins that are too many go when nobody uses their conversations", OURS),
    "replicas.seen": Requirement("Twins are seen in `/health` and `frontdesk agents --all`, and nowhere else", OURS),
    "approvals.deny": Requirement("A tool that waits for a person is denied, and the agent answers without it", OURS),
    "approvals.allow": Requirement("One that the operator names is run, and the same answer goes on", OURS),
    "approvals.surface": Requirement("By setting, the caller is asked, and decides", OURS),
    "approvals.mixed": Requirement("Beside the client's tools it is decided when their results come", LETTA),
    "approvals.once": Requirement("What was decided is decided once, also after a kill", OURS),
    "approvals.principal": Requirement("Nobody else may decide", OURS),
    "agents.mcp": Requirement("MCP tools that are attached through Letta work as any tool of the agent's own", OURS),
    "agents.show": Requirement("`frontdesk agents show` tells what an agent has, and what works for it", OURS),
    "recovery.quirks": Requirement("Each known quirk of Letta is provoked by a test, with and without Redis", LETTA),
}
