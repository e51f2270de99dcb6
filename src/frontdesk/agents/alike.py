"""Models with OpenAI's API whose calls of tools each have an id of their own, whatever their servers send.

A result finds its call by its id. Some servers give several calls the same, or number those of each answer anew, send
all of them under one index, or say a call's name with each piece of it.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from openai import AsyncStream
from openai.types.chat.chat_completion_chunk import Choice, ChoiceDeltaToolCall
from pydantic_ai.messages import BaseToolCallPart, ModelMessage, ModelResponse, ModelResponseStreamEvent

ID_CHARACTERS = 9
"""Mistral's models take no other number of them."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A call as its server has it, and the id and index by which it is known here."""

    theirs: str
    name: str
    id: str | None
    index: int


class Calls:
    """The calls in one answer. `used`: the ids of those before it. Where a server gives none, the engine makes one."""

    def __init__(self, used: Iterable[str]) -> None:
        self._used = set(used)
        self._begun: dict[Any, Begun] = {}
        self._count = 0

    def mend(self, pieces: Sequence[ChoiceDeltaToolCall]) -> None:
        """Each piece gets the index and the id of its call. One with a name and another id begins another call."""
        for piece in pieces:
            theirs = str(piece.id or "")
            name = (piece.function.name if piece.function else None) or ""
            call = self._begun.get(piece.index)
            if call is None or (name and theirs and theirs != call.theirs):
                call = self._begun[piece.index] = Begun(theirs, name, self._own(theirs), self._count)
                self._count += 1
            elif piece.function and name == call.name:
                piece.function.name = None
            piece.index, piece.id = call.index, call.id

    def _own(self, theirs: str) -> str | None:
        if not theirs:
            return None
        own = theirs
        while own in self._used:
            own = secrets.token_hex(ID_CHARACTERS)[:ID_CHARACTERS]
        self._used.add(own)
        return own


@cache
def mending(kind: Any) -> Any:
    """This kind of OpenAI's models; what it is told goes through `Calls`."""

    class Mending(kind):
        @property
        def _streamed_response_cls(self) -> Any:
            above: Any = super()
            return mended(above._streamed_response_cls)

        async def _completions_create(self, messages: list[ModelMessage], *options: Any) -> Any:
            above: Any = super()
            begun: Any = await above._completions_create(messages, *options)
            if is_stream(begun):
                begun.calls = Calls(ids_in(messages))
            return begun

        async def _process_streamed_response(self, response: Any, *options: Any) -> Any:
            above: Any = super()
            answer = await above._process_streamed_response(response, *options)
            answer.calls = response.calls
            return answer

    return Mending


@cache
def mended(kind: Any) -> Any:
    """This kind of their answers, as they come in."""

    class Mended(kind):
        calls: Calls

        def _map_tool_call_delta(self, choice: Choice) -> Iterable[ModelResponseStreamEvent]:
            self.calls.mend(choice.delta.tool_calls or ())
            above: Any = super()
            return above._map_tool_call_delta(choice)

    return Mended


def is_stream(answer: Any) -> bool:
    return isinstance(answer, AsyncStream)


def ids_in(messages: Iterable[ModelMessage]) -> Iterable[str]:
    return (
        part.tool_call_id
        for message in messages
        if isinstance(message, ModelResponse)
        for part in message.parts
        if isinstance(part, BaseToolCallPart)
    )
