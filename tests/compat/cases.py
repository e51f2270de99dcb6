"""The cases: what each is about, and what must have come of it behind the gateway.

The scripts judge what their client shows. What the agent's model really received is judged here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

from frontdesk.testing.model import Request
from tests.acceptance.talking import Heard, heard, heard_last
from tests.compat.stage import Stage


@dataclass(frozen=True)
class Case:
    """`check` is given the stage, the id of the client's agent, and the case's marker; it raises AssertionError."""

    title: str
    check: Callable[[Stage, str, str], None]
    everywhere: bool = True
    """Each client shows it, or says why it cannot."""


def nothing(stage: Stage, agent_id: str, marker: str) -> None:
    """A refused request reaches nobody."""
    assert not stage.model.requests_with(marker), "the refused message reached the model"


def once(stage: Stage, agent_id: str, marker: str) -> None:
    """One message, one call of the model."""
    (request,) = requests(stage, marker, 1)
    speakers(heard(request), marker, "user")


def one_result(stage: Stage, agent_id: str, marker: str) -> None:
    tool_results(stage, agent_id, marker, ["Paris"])


def two_results(stage: Stage, agent_id: str, marker: str) -> None:
    tool_results(stage, agent_id, marker, ["Paris", "Rome"])


def tool_results(stage: Stage, agent_id: str, marker: str, cities: list[str]) -> None:
    """The model called once and was told once, each result as the client gave it.

    It may be in two conversations: where tools were used, the gateway keeps a copy, to branch off from.
    """
    _, request = requests(stage, marker, 2)
    told = heard(request)
    speakers(told, marker, "user", "assistant", "tool")
    called = [f'get_weather({{"city": "{city}"}})' for city in cities]
    assert told[1][1].split("\n") == called, told
    given = sorted(text for role, text in told if role == "tool")
    assert given == [f"12 degrees in {city} {marker}" for city in cities], told


def shell(stage: Stage, agent_id: str, marker: str) -> None:
    """The model was told what the client's shell wrote."""
    _, request = requests(stage, marker, 2)
    told = heard(request)
    speakers(told, marker, "user", "assistant", "tool")
    assert f"shell-42-{marker[1:]}" in told[-1][1], told


def two_turns(stage: Stage, agent_id: str, marker: str) -> None:
    """The second request of the model holds each message once, and one conversation holds both turns."""
    requests(stage, marker, 2)
    told = heard_last(stage.model, marker)
    speakers(told, marker, "user", "assistant", "user")
    assert ("assistant", "One.") in told, told
    in_one_conversation(stage, agent_id, marker)


def own_tool(stage: Stage, agent_id: str, marker: str) -> None:
    """The agent's tool ran once, on its side, and the next turn knows of it."""
    requests(stage, marker, 3)
    told = heard_last(stage.model, marker)
    speakers(told, marker, "user", "assistant", "tool", "assistant", "user")
    assert ("assistant", "One.") in told, told


def reached(stage: Stage, agent_id: str, marker: str) -> None:
    """However often the client sent it again, the agent heard it once."""
    speakers(heard_last(stage.model, marker), marker, "user")


def picture(stage: Stage, agent_id: str, marker: str) -> None:
    (request,) = requests(stage, marker, 1)
    contents = [message["content"] for message in request.messages if message["role"] == "user"]
    shown = [part for content in contents if isinstance(content, list) for part in cast("list[Any]", content)]
    (image,) = [part["image_url"]["url"] for part in shown if part["type"] == "image_url"]
    assert image.startswith("data:image/png;base64,iVBORw0KGgo"), image[:80]


def requests(stage: Stage, marker: str, count: int) -> list[Request]:
    found = stage.model.requests_with(marker)
    assert len(found) == count, f"the model was called {len(found)} times instead of {count}"
    return found


def speakers(told: Heard, marker: str, *roles: str) -> None:
    """Who spoke, in turns, and that each of the user's messages came once: a client may add some without the marker."""
    assert [role for role, _ in groupby(role for role, _ in told)] == list(roles), told
    said = [text for role, text in told if role == "user" and marker in text]
    assert len(said) == roles.count("user"), told


def in_one_conversation(stage: Stage, agent_id: str, marker: str) -> None:
    found = stage.conversations_with(marker, agent_id)
    assert len(found) == 1, f"it is in {len(found)} conversations"


CASES = {
    "chat.plain": Case("a plain answer", once),
    "chat.stream": Case("a streamed answer, with usage", once),
    "chat.reasoning": Case("reasoning is shown", once),
    "chat.tool": Case("a tool that the client runs", one_result),
    "chat.tool.stream": Case("two tool calls at once, streamed", two_results),
    "chat.two-turns": Case("two turns, one conversation", two_turns),
    "chat.own-tool": Case("a tool that the agent runs is not asked of the client, two turns", own_tool),
    "chat.error": Case("an unknown agent is the client's own error", nothing),
    "chat.error.stream": Case("a failure in mid-stream is an error", reached),
    "chat.image": Case("a picture", picture),
    "chat.structured": Case("structured output, as the client asks for it by itself", once),
    "chat.structured.plain": Case("structured output without `strict`", once),
    "responses.plain": Case("a plain answer", once),
    "responses.stream": Case("a streamed answer, with usage", once),
    "responses.reasoning": Case("reasoning is shown", once),
    "responses.tool": Case("a tool that the client runs", one_result),
    "responses.tool.stream": Case("two tool calls at once, streamed", two_results),
    "responses.tool.full-input": Case("a tool result sent with everything before it", one_result, everywhere=False),
    "responses.tool.references": Case("the same, with `item_reference`", one_result, everywhere=False),
    "responses.tool.previous": Case("the same, by `previous_response_id`", one_result, everywhere=False),
    "responses.tool.conversation": Case("the same, in a `conversation`", one_result, everywhere=False),
    "responses.tool.shell": Case("the client's shell", shell, everywhere=False),
    "responses.two-turns.previous": Case("two turns, by `previous_response_id`", two_turns),
    "responses.two-turns.full-input": Case("two turns, all sent again", two_turns, everywhere=False),
    "responses.two-turns.references": Case(
        "two turns, the first sent by `item_reference`", two_turns, everywhere=False
    ),
    "responses.two-turns.conversation": Case("two turns in a `conversation`", two_turns, everywhere=False),
    "responses.two-turns.conversation.named": Case(
        "the same, made with the agent's name as `agent`", two_turns, everywhere=False
    ),
    "responses.two-turns.session": Case("two turns in the client's session", two_turns, everywhere=False),
    "responses.own-tool": Case("a tool that the agent runs is not asked of the client, two turns", own_tool),
    "responses.error": Case("an unknown agent is the client's own error", nothing),
    "responses.error.stream": Case("a failure in mid-stream is an error", reached),
    "responses.image": Case("a picture", picture),
    "responses.structured": Case("structured output, as the client asks for it by itself", once),
    "responses.structured.native": Case("structured output by a schema in `text.format`", once, everywhere=False),
    "responses.stored": Case("retrieve, list the input, delete", once, everywhere=False),
    "responses.background": Case("in the background: polled, and streamed from the middle", once, everywhere=False),
    "responses.background.cancel": Case("a background turn is cancelled", once, everywhere=False),
    "responses.background.stream": Case("a background stream that is taken up again", once, everywhere=False),
}


@dataclass(frozen=True)
class Shortfall:
    """Why a case fails today, and what the failure says. One that passes must go."""

    why: str
    says: str


FORCED = Shortfall(
    "it has the agent call a tool with the answer, by `tool_choice: required`, which is refused with 400 "
    "`unsupported_value`, since an agent cannot be forced",
    "An agent decides for itself",
)

DEAF = Shortfall("LlamaIndex takes a Responses stream that failed for one that ended", "no <class")

SHORTFALLS = {
    ("llama_index", "responses.error.stream"): DEAF,
    ("llama_index", "chat.structured"): FORCED,
    ("pydantic_ai", "chat.structured"): FORCED,
    ("pydantic_ai", "responses.structured"): FORCED,
}
"""By client and case."""
