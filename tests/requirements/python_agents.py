"""Agents written in Python: how they are written, what runs them, and what they may do."""

from tests.requirements import Requirement

OURS = "Frontdesk"
ROBUTLER = "Robutler's claims"
OPENAI = "https://platform.openai.com/docs/api-reference/chat/create"

REQUIREMENTS = {
    "python.cases": Requirement("The black-box cases for chat hold for Python and Letta agents alike", ROBUTLER),
    "python.write": Requirement("An agent is written as a list of functions, or as a class of decorated methods", OURS),
    "python.plain": Requirement("A plain `pydantic_ai.Agent` is served as it is", OURS),
    "python.sources": Requirement("Agents come from import paths, a folder that is followed, and a resolver", OURS),
    "python.alone": Requirement(
        "They are served with and without a Letta server, which costs nothing where none is", OURS
    ),
    "python.tools.schema": Requirement(
        "A tool's schema is that of its hints and docstring, and arguments are held to it", OURS
    ),
    "python.tools.once": Requirement("The agent's own tool runs here, once, and the caller sees the answer", ROBUTLER),
    "python.tools.mixed": Requirement(
        "Of a step with both, only the caller's calls go out, and the model sees all results, also over a restart",
        ROBUTLER,
    ),
    "python.tools.override": Requirement("A request's tool takes an own one's name for that request alone", ROBUTLER),
    "python.tools.errors": Requirement("What goes wrong with a tool the model is told, and goes on", ROBUTLER),
    "python.tools.limit": Requirement("The limit of steps ends with `length` and discards no answer", ROBUTLER),
    "python.usage": Requirement("Usage is the sum over all calls of the model", ROBUTLER),
    "python.settings": Requirement("A request's settings reach the model, or are reported, or refused", OPENAI),
    "python.structured": Requirement("Answers are held to a JSON schema", OPENAI),
    "python.hooks": Requirement(
        "Hooks are called in order, may change what they are given, and abort the turn", ROBUTLER
    ),
    "python.prompts": Requirement("Prompts follow the instructions by priority, for whom they are", ROBUTLER),
    "python.handoffs": Requirement("A handoff gives the turn to another agent, whom the caller may use", ROBUTLER),
    "python.context": Requirement("Many turns of one agent at once do not see each other", ROBUTLER),
    "python.conversations": Requirement("Conversations, forks and retries are those of every other agent", OURS),
    "python.responses": Requirement("Responses too: own tools as items, background, previous ones gone on after", OURS),
    "python.cut": Requirement("Of a turn that was cut short, what a tool did is known in the next", OURS),
    "python.models.keys": Requirement("A key goes to its provider and nowhere else", ROBUTLER),
    "python.models.names": Requirement(
        "Unknown providers and missing keys fail at the start, with a sentence", ROBUTLER
    ),
    "python.models.fallback": Requirement(
        "Another model answers where one fails before it has said anything", ROBUTLER
    ),
    "python.models.garbage": Requirement(
        "What a provider sends that is no answer, or half of one, is 502 `provider_error`", OURS
    ),
    "python.tools.again": Requirement(
        "Calls that are answered anew wait once more, beside what own tools gave in their step", OURS
    ),
    "python.scopes": Requirement("Scopes hold where a thing is listed and where it is executed", ROBUTLER),
    "python.scopes.unknown": Requirement("A scope nobody knows is refused at the start", ROBUTLER),
    "python.endpoints": Requirement(
        "HTTP endpoints have types and scopes, on static and dynamic agents alike", ROBUTLER
    ),
    "python.tokens": Requirement(
        "Tokens are verified: issuer, audience, algorithm, key; forged ones get nothing", ROBUTLER
    ),
    "python.strangers": Requirement("Without a key, only what is public can be had, and nothing is kept of it", OURS),
    "python.secrets": Requirement("Instructions and keys are never shown", ROBUTLER),
    "python.mcp": Requirement("Tools of MCP servers are the agent's, over stdio, streamable HTTP and SSE", ROBUTLER),
    "python.mcp.hostile": Requirement("An MCP server's names take no other tool's place", ROBUTLER),
    "python.memory": Requirement(
        "An agent's memory is each user's own, survives restarts, and can be searched and erased", OURS
    ),
    "python.ask": Requirement(
        "Agents ask agents by configured names: of this desk, of Letta, of another, by A2A", ROBUTLER
    ),
    "python.ask.bounds": Requirement(
        "Questions are bounded in depth, number and time, and do not come round", ROBUTLER
    ),
    "python.budget": Requirement("Budgets are never overdrawn, and 402 comes before the first byte", ROBUTLER),
    "python.budget.release": Requirement("What was set aside and not used is given back", ROBUTLER),
    "python.discovery": Requirement(
        "Agents are found by what is wanted of them, among those the caller may use", ROBUTLER
    ),
    "python.outward.mcp": Requirement("Every agent is a tool at `/mcp`, behind the same keys", OURS),
    "python.outward.a2a": Requirement("Every agent is reached through A2A, with its card, behind the same keys", OURS),
    "python.paths": Requirement("Every agent has a base URL of its own, where `model` may be left out", ROBUTLER),
}
