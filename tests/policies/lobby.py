"""Agents that ask for something of their callers. They speak with the scripted model."""

from frontdesk import Agent, http, tool

MODEL = "openai/scripted"


@tool(scope="public")
def hours() -> str:
    """When somebody is there."""
    return "nine to five"


@http("/hours", scope="public")
def posted() -> dict[str, str]:
    return {"open": hours()}


@http("/visitors")
def visitors() -> dict[str, int]:
    return {"visitors": 7}


@http("/takings", scope="owner")
def takings() -> dict[str, int]:
    return {"takings": 700}


lobby = Agent("lobby", model=MODEL, scope="public", tools=[hours], endpoints=[posted, visitors, takings])
clerk = Agent("clerk", model=MODEL)
lounge = Agent("lounge", model=MODEL, scope="premium")
vault = Agent("vault", model=MODEL, scope="owner")
engine = Agent("engine", model=MODEL, scope="admin")

agents = [lobby, clerk, lounge, vault, engine]
moved = [lobby, Agent("clerk", model=MODEL, scope="owner")]
