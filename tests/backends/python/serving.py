"""Asks a gateway whose agents are those of `cast`, plainly and streamed alike."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessage, ChatCompletionMessageFunctionToolCall

from frontdesk.testing import ScriptedModel
from frontdesk.testing.model import Request
from tests.served import Served, served


@contextmanager
def serving(data_dir: Path, model: ScriptedModel, **settings: Any) -> Generator[Served]:
    values: dict[str, Any] = {
        "agents": ("tests.backends.python.cast:agents",),
        "providers": {"openai": {"base_url": model.base_url, "api_key": "sk-scripted"}},
    }
    with served(data_dir, **values | settings) as running:
        yield running


def function(name: str, **properties: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


def calls_of(done: ChatCompletion) -> list[ChatCompletionMessageFunctionToolCall]:
    """The calls which the caller is to run."""
    found = done.choices[0].message.tool_calls or []
    return [call for call in found if isinstance(call, ChatCompletionMessageFunctionToolCall)]


WEATHER = function("get_weather", city={"type": "string"})


@dataclass(frozen=True)
class Asking:
    """One client in one test. Every message it sends has the test's marker, by which the model's calls are found."""

    gateway: Served
    model: ScriptedModel
    marker: str
    streamed: bool
    key: str = "none"

    def said(self, script: str) -> dict[str, str]:
        return {"role": "user", "content": f"{script}\n{self.marker}"}

    async def __call__(self, agent: str, messages: Sequence[Any] | str, **options: Any) -> ChatCompletion:
        """The answer, put together by the official client where it is streamed."""
        told: list[Any] = [self.said(messages)] if isinstance(messages, str) else list(messages)
        async with self.gateway.client(api_key=self.key) as client:
            if not self.streamed:
                return cast(
                    "ChatCompletion", await client.chat.completions.create(model=agent, messages=told, **options)
                )
            options = {"stream_options": {"include_usage": True}} | options
            async with client.chat.completions.stream(model=agent, messages=told, **options) as stream:
                try:
                    final: Any = await stream.get_final_completion()
                    return final
                except openai.LengthFinishReasonError as cut:
                    return cut.completion

    async def message(self, agent: str, messages: Sequence[Any] | str, **options: Any) -> ChatCompletionMessage:
        return (await self(agent, messages, **options)).choices[0].message

    @property
    def calls(self) -> list[Request]:
        """The calls of the model which this test has caused, oldest first."""
        return [each for each in self.model.requests if self.marker in str(each.messages)]
