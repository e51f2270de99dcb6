"""The demo's conversations, held with the official `openai` client, as any program would."""

import json
from dataclasses import dataclass, field
from typing import Any

import openai
from openai.types.chat import ChatCompletionChunk

from frontdesk.demo.milo import NAME, Milo
from frontdesk.demo.screen import Screen

ROUNDS = 5
"""A model that calls tools for longer than this has lost its way."""

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city's name."}},
            "required": ["city"],
        },
    },
}


def get_weather(city: str = "") -> str:
    """The client's tool. It looks into a table, where yours would look into your files, your house, your editor."""
    skies = {"lisbon": "24 °C, sunny, a light breeze", "oslo": "3 °C, snow", "london": "14 °C, drizzle"}
    return skies.get(city.strip().lower(), "18 °C, a few clouds")


@dataclass
class Call:
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass
class Answer:
    """A streamed reply, folded."""

    text: str = ""
    calls: dict[int, Call] = field(default_factory=dict[int, Call])

    def add(self, chunk: ChatCompletionChunk) -> None:
        for choice in chunk.choices:
            self.text += choice.delta.content or ""
            for part in choice.delta.tool_calls or ():
                call = self.calls.setdefault(part.index, Call())
                call.id += part.id or ""
                if part.function:
                    call.name += part.function.name or ""
                    call.arguments += part.function.arguments or ""

    def message(self) -> dict[str, Any]:
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.calls.values()
        ]
        said: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        return said | {"tool_calls": calls} if calls else said


class Talk:
    """One conversation with an agent, shown while it goes on. Raises openai.OpenAIError."""

    def __init__(self, client: openai.OpenAI, screen: Screen, agent: str) -> None:
        self._client = client
        self._screen = screen
        self._agent = agent
        self._messages: list[Any] = []

    def ask(self, question: str, tools: Any = openai.omit) -> None:
        """Ask, and run the tools that the agent calls, until it has answered."""
        self._screen.line()
        with self._screen.speaker("You", "bold green") as you:
            you.add(question)
        self._messages.append({"role": "user", "content": question})
        for _ in range(ROUNDS):
            answer = self._answered(tools)
            self._messages.append(answer.message())
            if not answer.calls:
                return
            for call in answer.calls.values():
                result = run(call)
                with self._screen.speaker("Tool", "bold yellow") as tool:
                    tool.add(result, "yellow")
                self._messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

    def _answered(self, tools: Any) -> Answer:
        """One request. The answer is shown while it comes."""
        answer, created = Answer(), self._client.chat.completions.create
        with (
            self._screen.speaker(self._agent, "bold cyan") as agent,
            created(model=self._agent, messages=self._messages, tools=tools, stream=True) as stream,
        ):
            for chunk in stream:
                answer.add(chunk)
                for choice in chunk.choices:
                    if thought := (choice.delta.model_extra or {}).get("reasoning_content"):
                        agent.add(str(thought), "dim italic")
                    if text := choice.delta.content or choice.delta.refusal:
                        agent.add(text)
            for call in answer.calls.values():
                agent.call(call.name, call.arguments)
        return answer


class Play:
    """Talks to Milo and shows it. Each scene is a conversation of its own. Raises openai.OpenAIError."""

    def __init__(self, client: openai.OpenAI, screen: Screen) -> None:
        self._client = client
        self._screen = screen

    def perform(self, milo: Milo) -> None:
        if milo.remembers:
            self.recall("Milo remembers you from last time", "A new conversation. What it knows is in its memory.")
        self.use_tool()
        if not milo.remembers:
            self.tell(milo)

    def use_tool(self) -> None:
        self._screen.title("A tool that runs on your side")
        self._screen.note("The client offers `get_weather`. Milo calls it, the client runs it, Milo goes on.", "dim")
        self._converse("What is the weather in Lisbon?", [WEATHER])

    def tell(self, milo: Milo) -> None:
        self._screen.title("A memory that lasts")
        self._screen.note("Milo, being a Letta agent, edits its own memory with a tool of its own.", "dim")
        self._converse("My name is Ada. Please remember it.")
        known = milo.memory.splitlines()
        if not (learnt := [line for line in milo.refreshed().memory.splitlines() if line not in known]):
            self._screen.note("Milo did not write it down this time: a real model decides for itself.", "dim")
            return
        with self._screen.speaker("Memory", "bold magenta") as memory:
            memory.add("\n".join(learnt), "magenta")
        self.recall("A new conversation", "The client sends this one line and nothing of what was said before.")

    def recall(self, title: str, note: str) -> None:
        self._screen.title(title)
        self._screen.note(note, "dim")
        self._converse("What is my name?")

    def _converse(self, question: str, tools: Any = openai.omit) -> None:
        Talk(self._client, self._screen, NAME).ask(question, tools)


def run(call: Call) -> str:
    """Run a tool of the client's, as this program is the client."""
    if call.name != "get_weather":
        return f"There is no tool {call.name}."
    try:
        return get_weather(**json.loads(call.arguments or "{}"))
    except (ValueError, TypeError) as error:
        return f"The tool could not be called like that: {error}"
