"""Clients of the Responses API on a fake Letta: what its agent can be made to do, and what it must have heard."""

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from tests.faults.fake import DONE, FakeLetta, Visit, failed, fake_letta, held, limited, ping, say, stop, usage
from tests.faults.watch import Watched, eventually, watched

MARKS = ("queued", "in_progress")
TOOLS: Any = [{"type": "function", "name": "read", "parameters": {"type": "object"}, "strict": False}]
CALL = '#call read {"city": "Bern"}#'
RETRIED = {"x-stainless-retry-count": "1"}


def rehearsed(fake: FakeLetta) -> FakeLetta:
    """`#held#` begins to speak, and ends when it is let go; `#silent#` says nothing before; `#limited#` and `#refused#`
    fail in the middle and at once."""

    async def silent(visit: Visit) -> AsyncGenerator[bytes, None]:
        yield ping()
        await fake.wait()
        for frame in (say("At last."), stop(), usage(), DONE):
            yield frame

    async def refused(_: Visit) -> AsyncGenerator[bytes, None]:
        for frame in (ping(), failed("llm_rate_limit", "RATE_LIMIT_EXCEEDED: slow down")):
            yield frame

    fake.scripts |= {"held": held(fake), "silent": silent, "limited": limited, "refused": refused}
    return fake


@dataclass(frozen=True)
class House:
    """A gateway on a fake Letta, for one test after the other: each is another user's."""

    fake: FakeLetta
    gateway: Watched
    folder: Path

    def anew(self) -> FakeLetta:
        """Its fake as if nobody had been there."""
        for seen in (self.fake.visits, self.fake.cancels, self.fake.overlaps):
            seen.clear()
        self.fake.gate.clear()
        return rehearsed(self.fake)


def somebody() -> dict[str, Any]:
    """How a user asks who was never there."""
    return {"api_key": "app", "default_headers": {"X-OpenWebUI-User-Id": uuid.uuid4().hex}}


@contextmanager
def open_house(folder: Path, **settings: Any) -> Generator[House]:
    keys = ({"name": "app", "sha256": sha256(b"app").hexdigest(), "trust_user_headers": True},)
    with (
        fake_letta() as fake,
        watched(folder, letta_base_url=fake.url, keys=keys, probe_key="app", **settings) as gateway,
    ):
        yield House(rehearsed(fake), replace(gateway, key="app"), folder)


# --- asking ------------------------------------------------------------------------------------------------------


async def create(client: AsyncOpenAI, said: Any, **asked: Any) -> Any:
    """A response of Milo's, whole, or its stream."""
    create: Any = client.responses.create
    return await create(**{"model": "Milo", "input": said} | asked)


async def asked(client: AsyncOpenAI, said: Any, **more: Any) -> Any:
    """The whole response, however it is asked for."""
    if more.get("stream"):
        events = [event async for event in await create(client, said, **more)]
        return events[-1].response
    response = await create(client, said, **more)
    return await ended(client, response.id) if more.get("background") else response


async def events(client: AsyncOpenAI, response_id: str, **more: Any) -> list[Any]:
    """A response as its stream tells it later."""
    retrieve: Any = client.responses.retrieve
    return [event async for event in await retrieve(response_id, stream=True, **more)]


async def ended(client: AsyncOpenAI, response_id: str) -> Any:
    """The response once it has come to its end, whatever that is. It is asked about: to hear it would keep it alive."""
    while (response := await client.responses.retrieve(response_id)).status in MARKS:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return response


async def until_text(stream: Any) -> list[Any]:
    """The events of a stream up to its first text."""
    heard: list[Any] = []
    async for event in stream:
        heard.append(event)
        if event.type == "response.output_text.delta":
            return heard
    raise AssertionError(f"no text in {[event.type for event in heard]}")


async def visited(fake: FakeLetta, count: int) -> Visit:
    """Wait until the agent has been visited so often."""
    await eventually(lambda: len(fake.visits) >= count, lambda: f"{len(fake.visits)} visits, not {count}")
    return fake.visits[-1]


def message(role: str, text: str) -> Any:
    return {"role": role, "content": text}


def result(call_id: str, output: str) -> Any:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def calls(response: Any) -> list[Any]:
    return [item for item in response.output if item.type == "function_call"]


# --- what was heard ----------------------------------------------------------------------------------------------


def heard(visit: Visit) -> list[tuple[str, str]]:
    """All that the model was given, with tool calls in one form: a new conversation is told of them as text."""
    found: list[tuple[str, str]] = []
    for role, text in visit.heard:
        if seeded := re.fullmatch(r"\[The tool call (\w+\(.*\)) (?:returned: (.*)|was not answered)\]", text):
            found += [("call", seeded[1]), ("tool", "denied" if seeded[2] is None else seeded[2])]
        elif role != "system":
            found.append(("call", text) if role == "assistant" and re.fullmatch(r"\w+\(.*\)", text) else (role, text))
    return found


def users(visit: Visit) -> list[str]:
    return [text for role, text in visit.heard if role == "user"]


def said(*texts: str) -> list[tuple[str, str]]:
    """Messages of a user, each with the echo of the agent but the last, which is being answered."""
    told = [each for text in texts for each in (("user", text), ("assistant", f"You said: {text}"))]
    return told[:-1]


def kinds(events: Sequence[Any]) -> list[str]:
    return [event.type for event in events]
