"""Asking an agent through the official client, and its answer in one shape, streamed or not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from frontdesk.testing.model import Request

PIN = "x-frontdesk-conversation"

Message = dict[str, Any]


@dataclass(frozen=True)
class Call:
    id: str
    name: str
    arguments: str

    @property
    def values(self) -> dict[str, Any]:
        return json.loads(self.arguments)

    def result(self, content: Any) -> Message:
        return {"role": "tool", "tool_call_id": self.id, "content": content}


@dataclass(frozen=True)
class Answer:
    """`fields` are the texts of the message by their names: `content`, `reasoning_content` …"""

    fields: Mapping[str, str]
    calls: tuple[Call, ...]
    finish: str
    usage: CompletionUsage | None = field(compare=False)
    headers: Mapping[str, str] = field(compare=False, repr=False)

    @property
    def text(self) -> str:
        return self.fields.get("content", "")

    @property
    def reasoning(self) -> str:
        return self.fields.get("reasoning_content", "")

    @property
    def conversation(self) -> str:
        return self.headers[PIN]

    @property
    def identity(self) -> str:
        return self.headers["x-frontdesk-identity"]

    @property
    def message(self) -> Message:
        """As clients send it back."""
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.calls
        ]
        return {"role": "assistant", "content": self.text} | ({"tool_calls": calls} if calls else {})


@dataclass(frozen=True)
class Chat:
    """One agent."""

    client: AsyncOpenAI
    agent: str

    async def ask(
        self,
        said: str | Sequence[Message],
        *,
        stream: bool = False,
        pin: str = "",
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Answer:
        """`fields` go into the body as they are, also those which no client of OpenAI's would send."""
        raw = await self.client.chat.completions.with_raw_response.create(
            model=self.agent,
            messages=messages_of(said),
            stream=stream,
            extra_headers={**(headers or {}), **({PIN: pin} if pin else {})},
            extra_body=fields,
        )
        parsed: Any = raw.parse()
        if not stream:
            return plain_answer(parsed, raw.headers)
        return folded([chunk async for chunk in parsed], raw.headers)

    async def chunks(self, said: str | Sequence[Message], **fields: Any) -> list[ChatCompletionChunk]:
        stream = await self.client.chat.completions.create(
            model=self.agent, messages=messages_of(said), stream=True, extra_body=fields
        )
        return [chunk async for chunk in stream]


def messages_of(said: str | Sequence[Message]) -> Any:
    return [user(said)] if isinstance(said, str) else list(said)


def user(content: Any, **fields: Any) -> Message:
    return {"role": "user", "content": content, **fields}


def assistant(content: Any, **fields: Any) -> Message:
    return {"role": "assistant", "content": content, **fields}


def system(content: Any) -> Message:
    return {"role": "system", "content": content}


def function(name: str, parameters: Any = None, **fields: Any) -> Message:
    """A tool of the client's."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}} if parameters is None else parameters
    described = {"name": name, "description": f"What {name} does.", "parameters": schema}
    return {"type": "function", "function": described | fields}


def plain_answer(reply: ChatCompletion, headers: Mapping[str, str]) -> Answer:
    (choice,) = reply.choices
    texts = {key: value for key, value in choice.message.model_dump().items() if isinstance(value, str)}
    calls = [
        Call(call.id, call.function.name, call.function.arguments)
        for call in choice.message.tool_calls or ()
        if call.type == "function"
    ]
    del texts["role"]
    texts = {name: text for name, text in texts.items() if text}
    return Answer(texts, tuple(calls), choice.finish_reason, reply.usage, headers)


def folded(chunks: Sequence[ChatCompletionChunk], headers: Mapping[str, str]) -> Answer:
    """What a client makes of a stream that does no more than it must: deltas joined, calls told apart by index."""
    texts: dict[str, str] = {}
    calls: dict[int, Call] = {}
    finish: list[str] = []
    usage: CompletionUsage | None = None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finish += [choice.finish_reason] if choice.finish_reason else []
            for name, text in choice.delta.model_dump(exclude={"role", "tool_calls"}, exclude_unset=True).items():
                texts[name] = texts.get(name, "") + (text or "")
            for fragment in choice.delta.tool_calls or ():
                assert fragment.function
                if fragment.id:
                    calls[fragment.index] = Call(fragment.id, fragment.function.name or "", "")
                begun = calls[fragment.index]
                more = fragment.function.arguments or ""
                calls[fragment.index] = Call(begun.id, begun.name, begun.arguments + more)
    (reason,) = finish
    texts = {name: text for name, text in texts.items() if text}
    return Answer(texts, tuple(calls[index] for index in sorted(calls)), reason, usage, headers)


def heard(request: Request) -> list[tuple[str, str]]:
    """What the model was given after the agent's own system prompt: roles and texts."""
    return list(zip([message["role"] for message in request.messages], request.texts, strict=True))[1:]


def told(request: Request, call: int = -1) -> tuple[str, str]:
    """What the model was told of a tool's outcome, without Letta's wrapping: status and message."""
    results = [json.loads(text) for role, text in heard(request) if role == "tool"]
    return results[call]["status"], results[call]["message"]
