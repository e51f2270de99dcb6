"""Chats as real clients hold them, and what the agent's model has heard of them, both in one shape."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.testing import ScriptedModel
from frontdesk.testing.model import Request
from frontdesk.testing.script import text_of
from tests.protocols.chat_completions.asking import PIN, Answer, Call, Chat, Message, user

Heard = list[tuple[str, str]]
"""Roles and texts, tool calls and their results among them."""


@dataclass(frozen=True)
class Said:
    """A message of a chat, by the id its client has for it."""

    message: Message
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class Talk:
    """A chat whose client sends the whole of it each time, and no header that names it."""

    client: AsyncOpenAI
    agent: str
    said: list[Said] = field(default_factory=list[Said])
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    """What goes into each request beside the messages, as `tools`."""
    system: str = ""
    asked: int = 0
    conversations: list[str] = field(default_factory=list[str])
    identities: list[str] = field(default_factory=list[str])

    async def say(self, content: Any, *, stream: bool = True) -> Answer:
        """Write a message and hear the answer."""
        self.write(content)
        return await self.ask(stream=stream)

    def write(self, content: Any) -> None:
        self.said.append(Said(user(content)))

    async def answer(self, results: Mapping[str, str], *then: Message, stream: bool = True) -> Answer:
        """Give the results of the tools which the agent has just called, by their names."""
        for call in self.said[-1].message["tool_calls"]:
            asked = Call(call["id"], call["function"]["name"], call["function"]["arguments"])
            self.said.append(Said(asked.result(results[asked.name])))
        self.said += [Said(message) for message in then]
        return await self.ask(stream=stream)

    async def regenerate(self) -> Answer:
        """Ask for another answer to the last message."""
        self.back_to(self.turns - 1, 1)
        return await self.ask()

    async def edit(self, turn: int, content: Any) -> Answer:
        """Write another message in place of the one that began this turn; what came after it is gone."""
        self.back_to(turn)
        return await self.say(content)

    async def ask(self, *, stream: bool = True) -> Answer:
        """Send it as it stands, and take up the answer."""
        answer = await Chat(self.client, self.agent).ask(
            self.messages, stream=stream, headers=self.headers(), **self.fields
        )
        self.take(answer)
        return answer

    def take(self, answer: Answer) -> None:
        self.asked += 1
        if PIN in answer.headers:  # a stream's head may have gone out before that is known
            self.conversations.append(answer.conversation)
            self.identities.append(answer.identity)
        self.said.append(Said(answer.message, self.next_id()))

    def back_to(self, turn: int, more: int = 0) -> None:
        """Forget what was said from this turn on, but for its first messages."""
        starts = [index for index, said in enumerate(self.said) if said.message["role"] == "user"]
        del self.said[starts[turn] + more :]

    @property
    def turns(self) -> int:
        return sum(said.message["role"] == "user" for said in self.said)

    @property
    def messages(self) -> list[Message]:
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return system + [said.message for said in self.said]

    @property
    def body(self) -> dict[str, Any]:
        """A request as it goes over the wire."""
        return {"model": self.agent, "messages": self.messages, "stream": True, **self.fields}

    @property
    def shown(self) -> Heard:
        """What the client shows, without the latest answer: what the agent must have heard when it gave it."""
        said = self.said[:-1] if self.said[-1].message["role"] == "assistant" else self.said
        return told([each.message for each in said])

    def headers(self) -> dict[str, str]:
        return {}

    def next_id(self) -> str:
        return str(uuid.uuid4())


@dataclass
class OpenWebUI(Talk):
    """Open WebUI as it is with `ENABLE_FORWARD_USER_INFO_HEADERS`: it says which chat it is, and never which branch."""

    chat: str = field(default_factory=lambda: str(uuid.uuid4()))

    def headers(self) -> dict[str, str]:
        return {
            "X-OpenWebUI-User-Id": "6e5e9c8e-6d0f-4a51-9f0e-5a1f0a3f9d11",
            "X-OpenWebUI-User-Name": "Ann",
            "X-OpenWebUI-User-Email": "ann@example.com",
            "X-OpenWebUI-User-Role": "user",
            "X-OpenWebUI-Chat-Id": self.chat,
        }


@dataclass
class OpenWebUIWithIds(OpenWebUI):
    """The same with a connection that is told to send the ids of its messages too."""

    answering: str = ""

    def headers(self) -> dict[str, str]:
        users = [index for index, said in enumerate(self.said) if said.message["role"] == "user"]
        last = users[-1]
        self.answering = str(uuid.uuid4()) if self.said[-1].message["role"] == "user" else self.answering
        return super().headers() | {
            "X-OpenWebUI-Message-Id": self.answering,
            "X-OpenWebUI-User-Message-Id": self.said[last].id,
            "X-OpenWebUI-User-Message-Parent-Id": self.said[last - 1].id if last else "",
        }

    def next_id(self) -> str:
        return self.answering


CLIENTS: dict[str, type[Talk]] = {
    "no header": Talk,
    "Open WebUI": OpenWebUI,
    "Open WebUI with ids": OpenWebUIWithIds,
}


@dataclass
class RooCode(Talk):
    """Roo Code: a long system prompt, texts in parts, and the state of the editor with each, never the same."""

    system: str = "You are Roo, a highly skilled software engineer.\n\n====\n\nTOOL USE\n" + "Use one tool. " * 100
    moment: int = 0

    def task(self, text: str, open_tabs: str = "src/a.py") -> list[Message]:
        return [part(f"<user_message>\n{text}\n</user_message>"), self.environment(open_tabs)]

    def environment(self, open_tabs: str = "src/a.py") -> Message:
        self.moment += 1
        time = f"2026-11-21T14:{self.moment // 60:02}:{self.moment % 60:02}Z"
        return part(f"<environment_details>\n# Current Time\n{time}\n# Open Tabs\n{open_tabs}\n</environment_details>")

    def move_on(self, open_tabs: str = "src/a.py") -> None:
        """The editor has gone on: the last message is sent with another state of it."""
        *before, _ = self.said[-1].message["content"]
        self.said[-1] = Said(user([*before, self.environment(open_tabs)]))

    def headers(self) -> dict[str, str]:
        return {
            "HTTP-Referer": "https://github.com/RooVetGit/Roo-Cline",
            "X-Title": "Roo Code",
            "User-Agent": "RooCode/3.52.0",
        }

    def take(self, answer: Answer) -> None:
        super().take(answer)
        last = self.said[-1].message
        for call in last.get("tool_calls", ()):  # it sends arguments as it would write them
            arguments = json.loads(call["function"]["arguments"])
            call["function"]["arguments"] = json.dumps(arguments, separators=(",", ":"))


def part(text: str) -> Message:
    return {"type": "text", "text": text}


# --- what was heard ----------------------------------------------------------------------------------------------


def told(messages: Sequence[Message]) -> Heard:
    """A transcript without instructions. Neighbouring parts of one message are one text."""
    found: Heard = []
    for message in messages:
        match message["role"]:
            case "system" | "developer":
                continue
            case "tool":
                found.append(("tool", result(text_of(message["content"]))))
                continue
            case role:
                text = joined(message.get("content"))
        calls = [called(call["function"]) for call in message.get("tool_calls") or ()]
        found.append((role, "\n".join(filter(None, [text.strip(), *calls]))))
    return found


def joined(content: str | Sequence[Message] | None) -> str:
    """Parts as they are handed on to Letta."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(each.get("text", "") for each in content)


def called(function: Mapping[str, str]) -> str:
    """A call, however its arguments were written."""
    return f"{function['name']}({json.dumps(json.loads(function['arguments']), sort_keys=True)})"


def result(text: str) -> str:
    """A tool's result without Letta's wrapping."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text


def heard(request: Request) -> Heard:
    """What the model was given, but for the agent's own prompt and all instructions."""
    return told(request.messages)


def heard_last(model: ScriptedModel, marker: str) -> Heard:
    return heard(model.requests_with(marker)[-1])


def conversations_of(letta: Letta, agent_id: str) -> list[str]:
    """The ids of an agent's conversations on the Letta server."""
    rows: Any = letta.get(f"/v1/conversations/?limit=500&agent_id={agent_id}", cast_to=object)
    return [row["id"] for row in rows]
