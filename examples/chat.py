"""An agent that uses a tool of ours: `python examples/chat.py [AGENT] [QUESTION]`. Needs `pip install openai`.

FRONTDESK_URL and FRONTDESK_API_KEY say where Frontdesk is, and with which key to ask.
"""

import json
import os
import sys
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from openai import OpenAI

AGENT = sys.argv[1] if len(sys.argv) > 1 else "Milo"
QUESTION = sys.argv[2] if len(sys.argv) > 2 else "What time is it in Oslo? Please use your tool."

TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "time_in",
            "description": "The time in a time zone, such as Europe/Oslo.",
            "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
        },
    }
]


def time_in(zone: str) -> str:
    return f"{datetime.now(ZoneInfo(zone)):%H:%M}"


def run(name: str, arguments: str) -> str:
    """The tool's result, or what went wrong: the agent is told that the call failed if it begins with `Error:`."""
    try:
        return {"time_in": time_in}[name](**json.loads(arguments))
    except Exception as error:
        return f"Error: {error!r}"


def main() -> None:
    url = os.environ.get("FRONTDESK_URL", "http://127.0.0.1:8000")
    client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("FRONTDESK_API_KEY") or "none")
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    while True:
        with client.chat.completions.stream(model=AGENT, messages=messages, tools=TOOLS) as stream:
            for event in stream:
                if event.type == "content.delta":
                    sys.stdout.write(event.delta)
                    sys.stdout.flush()
            message = stream.get_final_completion().choices[0].message
        if not message.tool_calls:
            break
        calls = [{"id": c.id, "type": "function", "function": c.function.model_dump()} for c in message.tool_calls]
        messages.append({"role": "assistant", "content": message.content, "tool_calls": calls})
        for call in message.tool_calls:
            result = run(call.function.name, call.function.arguments)
            sys.stdout.write(f"[{call.function.name}({call.function.arguments}) → {result}]\n")
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
