"""Chat clients, as they keep what was said and send it again; and what an agent must have heard of it."""

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.fake import FakeLetta
from tests.protocols.chat_completions.asking import Answer, Chat, Message, assistant, user


@dataclass
class Told:
    """An answer, and all that the agent's model was given for it, but for system messages."""

    answer: Answer
    heard: list[tuple[str, str]]
    conversation: str

    @property
    def text(self) -> str:
        return self.answer.text


async def tell(fake: FakeLetta, chat: Chat, said: Sequence[Message], **more: Any) -> Told:
    """Send a request which the agent must hear exactly once."""
    before = len(fake.visits)
    answer = await chat.ask(said, **more)
    visits = fake.visits[before:]
    assert len(visits) == 1, f"heard {len(visits)} times"
    heard = [each for each in visits[0].heard if each[0] != "system"]
    return Told(answer, heard, visits[0].conversation)


def shown(said: Sequence[Message]) -> list[tuple[str, str]]:
    """What a client shows, role by role."""
    return [(each["role"], each["content"]) for each in said if each["role"] != "system"]


@dataclass(frozen=True)
class Leaf:
    """A message in a chat, with all before it."""

    id: str
    message: Message
    parent: "Leaf | None" = None

    @property
    def path(self) -> list["Leaf"]:
        return [*(self.parent.path if self.parent else ()), self]

    @property
    def said(self) -> list[Message]:
        return [each.message for each in self.path]

    @property
    def text(self) -> str:
        return self.message["content"]


@dataclass
class OpenWebUI:
    """A chat of Open WebUI's: a tree, of which each request shows the path to one leaf. `named`: with its headers.

    Every request checks that the agent heard exactly what is shown.
    """

    fake: FakeLetta
    chat: Chat
    named: bool = True
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    conversations: list[str] = field(default_factory=list[str])
    """Letta's conversation of each answer."""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def say(self, text: str, after: Leaf | None = None) -> Leaf:
        """Write a message. Gives the answer."""
        return await self.answer(self.write("user", text, after))

    async def answer(self, leaf: Leaf, **more: Any) -> Leaf:
        """Ask for an answer to a message which is there already: also `Regenerate`."""
        message_id = self._new_id()
        told = await tell(self.fake, self.chat, leaf.said, headers=self._headers(leaf, message_id), **more)
        assert told.heard == shown(leaf.said)
        self.conversations.append(told.conversation)
        return Leaf(message_id, told.answer.message, leaf)

    async def edit(self, leaf: Leaf, text: str) -> Leaf:
        """Write one of the user's messages anew, as a sister of the old one."""
        return await self.say(text, leaf.parent)

    def write(self, role: str, text: str, after: Leaf | None = None) -> Leaf:
        """A message which nobody has been sent yet."""
        message = user(text) if role == "user" else assistant(text)
        return Leaf(self._new_id(), message, after)

    def _new_id(self) -> str:
        return f"{self.id[:8]}-{next(self._numbers)}"

    def _headers(self, leaf: Leaf, message_id: str) -> dict[str, str]:
        if not self.named:
            return {}
        headers = {
            "X-OpenWebUI-Chat-Id": self.id,
            "X-OpenWebUI-Message-Id": message_id,
            "X-OpenWebUI-User-Message-Id": leaf.id,
        }
        return headers | ({"X-OpenWebUI-User-Message-Parent-Id": leaf.parent.id} if leaf.parent else {})
