"""An agent with a tool of its own, and a client that brings another: the agent uses both in one answer.

    export OPENAI_API_KEY=sk-…
    cd examples
    frontdesk serve --agents weather:agent
    python weather.py "Do I need a coat today?"     # in another terminal

`forecast` runs where the agent does. `where_am_i` runs here, at the client: only the client knows. If the model calls
both at once, the forecast is kept until the client has answered.
"""

import os
import sys
from typing import Any, Literal

from openai import OpenAI

from frontdesk import Agent, tool


@tool
def forecast(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> dict[str, str | int]:
    """Tell how the weather will be.

    Args:
        city: The city's name.
        days: How many days from today; 0 is today.
        unit: Of the temperature.
    """
    celsius = len(city) * 7 % 30  # where yours would ask somebody
    warmth = celsius if unit == "C" else celsius * 9 // 5 + 32
    return {"city": city, "days": days, "sky": "rain" if celsius < 10 else "sunny", "temperature": f"{warmth} °{unit}"}


agent = Agent(
    "weather",
    model="openai/gpt-5-mini",
    description="Knows the weather.",
    instructions="You tell the weather in one sentence. You never guess: neither the weather, nor where somebody is.",
    tools=[forecast],
)


# --- the client --------------------------------------------------------------------------------------------------

WHERE_AM_I: Any = {
    "type": "function",
    "function": {"name": "where_am_i", "description": "The city in which the user is.", "parameters": {}},
}


def where_am_i() -> str:
    return os.environ.get("CITY", "Oslo")


def main() -> None:
    url = os.environ.get("FRONTDESK_URL", "http://127.0.0.1:8000")
    client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("FRONTDESK_API_KEY") or "none")
    question = sys.argv[1] if len(sys.argv) > 1 else "Do I need a coat today?"
    messages: list[Any] = [{"role": "user", "content": question}]
    while True:
        reply = client.chat.completions.create(model="weather", messages=messages, tools=[WHERE_AM_I])
        message = reply.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            break
        messages += [{"role": "tool", "tool_call_id": call.id, "content": where_am_i()} for call in message.tool_calls]
    sys.stdout.write(f"{message.content}\n")


if __name__ == "__main__":
    main()
