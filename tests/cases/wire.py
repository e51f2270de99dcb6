"""What goes over the wire, read without a client's help."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from frontdesk.testing import ScriptedModel
from frontdesk.testing.model import Request


def function(name: str, **properties: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


WEATHER = function("get_weather", city={"type": "string"})


@dataclass
class Streamed:
    """A stream, as it came: its content type, its chunks, and how it ended."""

    content_type: str
    lines: list[str]
    chunks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def __post_init__(self) -> None:
        payloads = [line.removeprefix("data: ") for line in self.lines if line.startswith("data: ")]
        assert payloads[-1] == "[DONE]", "it ends with [DONE]"
        assert payloads.count("[DONE]") == 1
        self.chunks = [json.loads(each) for each in payloads[:-1]]

    @property
    def deltas(self) -> list[dict[str, Any]]:
        return [choice["delta"] for chunk in self.chunks for choice in chunk.get("choices", ())]

    @property
    def text(self) -> str:
        return "".join(delta.get("content") or "" for delta in self.deltas)

    @property
    def finish(self) -> list[str]:
        choices = [choice for chunk in self.chunks for choice in chunk.get("choices", ())]
        return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The tool calls, put together as a standard client does."""
        calls: dict[int, dict[str, Any]] = {}
        for delta in self.deltas:
            for part in delta.get("tool_calls") or ():
                call = calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
                call["id"] += part.get("id") or ""
                call["name"] += part["function"].get("name") or ""
                call["arguments"] += part["function"].get("arguments") or ""
        return [calls[index] for index in sorted(calls)]


@dataclass(frozen=True)
class Desk:
    """One agent behind one gateway, and the model behind both. `tag` is how this test's own calls of it are found."""

    url: str
    agent: str
    model: ScriptedModel
    tag: str
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    def said(self, script: str) -> dict[str, Any]:
        return {"role": "user", "content": f"{script}\n{self.tag}"}

    async def post(self, body: Any, path: str = "/v1/chat/completions") -> httpx.Response:
        async with httpx.AsyncClient(timeout=30) as client:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers = {"content-type": "application/json", **self.headers}
            return await client.post(f"{self.url}{path}", headers=headers, content=content)

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(timeout=30) as client:
            return await client.get(f"{self.url}{path}", headers=self.headers)

    async def ask(self, messages: Sequence[Any] | str, **options: Any) -> httpx.Response:
        told = [self.said(messages)] if isinstance(messages, str) else list(messages)
        return await self.post({"model": self.agent, "messages": told, **options})

    async def stream(self, messages: Sequence[Any] | str, **options: Any) -> Streamed:
        answer = await self.ask(messages, stream=True, **options)
        assert answer.status_code == 200, answer.text
        return Streamed(answer.headers["content-type"], answer.text.split("\n"))

    @property
    def calls(self) -> list[Request]:
        """The calls of the model which this test has caused, oldest first."""
        return [each for each in self.model.requests if self.tag in str(each.messages)]


def result(call_id: str, content: str) -> dict[str, str]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def results_in(request: Request) -> list[str]:
    return [str(each["content"]) for each in request.messages if each["role"] == "tool"]


def instructions(request: Request) -> str:
    return "\n".join(str(each["content"]) for each in request.messages if each["role"] in ("system", "developer"))


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, which is OpenAI's envelope and nothing else."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) >= {"message", "type", "param", "code"}
    return body["error"]
