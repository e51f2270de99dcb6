"""An agent in Python with tools, of which not all are for everybody."""

from frontdesk import Agent, tool


@tool
def forecast(city: str) -> str:
    """The weather of the next days."""
    return f"Snow in {city}."


@tool(scope="admin")
def wipe() -> str:
    """Forget all stations."""
    return "Gone."


weather = Agent("weather", model="scripted/x", instructions="The password is swordfish.", tools=[forecast, wipe])
