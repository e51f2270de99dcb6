"""Responses in the background: they outlive their clients, and the process in which they began."""

import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.faults.fake import DONE, FakeLetta, Visit, fake_letta, limited, ping, say, stop, usage
from tests.faults.process import Process, serving
from tests.faults.watch import eventually
from tests.requirements import requirement
from tests.served import Served, served

MARKS = ("queued", "in_progress")


@pytest.fixture
def fake() -> Generator[FakeLetta]:
    """Its agent says that it has begun, and goes on when it is let go."""
    with fake_letta() as fake:

        async def in_words(_: Visit) -> AsyncGenerator[bytes, None]:
            yield ping()
            for word in ("Begun", ", ", "and "):
                yield say(word)
            await fake.wait()
            for frame in (say("do"), say("ne."), stop(), usage(), DONE):
                yield frame

        fake.scripts |= {"held": in_words, "limited": limited}
        yield fake


@pytest.fixture
def gateway(fake: FakeLetta, tmp_path: Path) -> Generator[Served]:
    with served(tmp_path, letta_base_url=fake.url) as running:
        yield running


@pytest.fixture
async def client(gateway: Served) -> AsyncGenerator[AsyncOpenAI]:
    async with gateway.client() as openai:
        yield openai


async def ended(client: AsyncOpenAI, response_id: str) -> Any:
    """The response, once it has come to its end."""
    async for _ in await client.responses.retrieve(response_id, stream=True):
        pass
    return await client.responses.retrieve(response_id)


async def begun(fake: FakeLetta, visits: int = 1) -> None:
    await eventually(lambda: len(fake.visits) >= visits)


async def told(stream: Any) -> list[dict[str, Any]]:
    return [event.model_dump() async for event in stream]


@requirement("responses.background")
async def test_it_runs_without_a_client_and_is_polled(client: AsyncOpenAI, fake: FakeLetta) -> None:
    response = await client.responses.create(model="Milo", input="#held#", background=True)
    assert response.status in MARKS
    assert response.output == []
    await begun(fake)
    assert (await client.responses.retrieve(response.id)).status == "in_progress"
    fake.gate.set()
    while (done := await client.responses.retrieve(response.id)).status in MARKS:
        pass
    assert (done.status, done.output_text, done.background) == ("completed", "Begun, and done.", True)
    assert done.usage
    assert done.usage.total_tokens == 10
    assert len(fake.visits) == 1


@requirement("responses.background", "responses.background.stream")
async def test_a_stream_that_was_cut_is_gone_on_with_after_any_event(client: AsyncOpenAI, fake: FakeLetta) -> None:
    stream = await client.responses.create(model="Milo", input="#held#", background=True, stream=True)
    heard: list[dict[str, Any]] = []
    async for event in stream:
        heard.append(event.model_dump())
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    response_id = heard[0]["response"]["id"]
    rest = await client.responses.retrieve(response_id, stream=True, starting_after=heard[-1]["sequence_number"])
    fake.gate.set()
    heard += await told(rest)
    assert [event["sequence_number"] for event in heard] == list(range(len(heard)))
    assert heard[-1]["type"] == "response.completed"
    whole = await told(await client.responses.retrieve(response_id, stream=True))
    assert "".join(event["delta"] for event in whole if "delta" in event) == "Begun, and done."
    assert [(event["type"], event.get("delta")) for event in whole] == [
        (event["type"], event.get("delta")) for event in heard
    ]
    for place in range(len(whole) - 1):
        later = await told(await client.responses.retrieve(response_id, stream=True, starting_after=place))
        assert [event["sequence_number"] for event in later] == list(range(place + 1, len(whole)))


@requirement("responses.cancel")
async def test_it_can_be_cancelled_and_the_agent_hears_of_it_with_the_next_turn(
    client: AsyncOpenAI, fake: FakeLetta
) -> None:
    response = await client.responses.create(model="Milo", input="#held#", background=True)
    await begun(fake)
    cancelled = await client.responses.cancel(response.id)
    assert cancelled.status == "cancelled"
    assert (await client.responses.cancel(response.id)).status == "cancelled"
    assert fake.cancels
    await client.responses.create(model="Milo", input="Go on.", previous_response_id=response.id)
    assert [text for role, text in fake.visits[-1].heard if role == "user"] == ["#held#", "Go on."]


@requirement("responses.cancel")
async def test_only_a_background_response_can_be_cancelled(client: AsyncOpenAI) -> None:
    response = await client.responses.create(model="Milo", input="Hello")
    with pytest.raises(openai.BadRequestError):
        await client.responses.cancel(response.id)


@requirement("responses.background")
async def test_in_a_busy_conversation_it_is_queued(client: AsyncOpenAI, fake: FakeLetta) -> None:
    first = await client.responses.create(model="Milo", input="#held#", background=True)
    await begun(fake)
    second = await client.responses.create(model="Milo", input="And?", background=True, previous_response_id=first.id)
    assert second.status == "queued"
    fake.gate.set()
    assert (await ended(client, second.id)).status == "completed"
    assert [text for role, text in fake.visits[-1].heard if role == "user"] == ["#held#", "And?"]


@requirement("responses.background")
async def test_one_that_fails_says_why(client: AsyncOpenAI, fake: FakeLetta) -> None:
    response = await client.responses.create(model="Milo", input="#limited#", background=True)
    kept = await ended(client, response.id)
    assert (kept.status, kept.error.code) == ("failed", "rate_limit_exceeded")
    *_, error, last = await told(await client.responses.retrieve(response.id, stream=True))
    assert (error["type"], last["type"]) == ("error", "response.failed")


@requirement("responses.background.replicas")
async def test_another_process_tells_streams_and_cancels_it(fake: FakeLetta, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateways = [stack.enter_context(served(tmp_path, letta_base_url=fake.url)) for _ in range(2)]
        here, there = [await stack.enter_async_context(gateway.client()) for gateway in gateways]
        first = await here.responses.create(model="Milo", input="#held#", background=True)
        second = await here.responses.create(model="Milo", input="#held#", background=True)
        await begun(fake, 2)
        assert (await there.responses.retrieve(first.id)).status == "in_progress"
        assert (await there.responses.cancel(second.id)).status == "cancelled"
        stream = await there.responses.retrieve(first.id, stream=True)
        fake.gate.set()
        events = await told(stream)
        assert "".join(event["delta"] for event in events if "delta" in event) == "Begun, and done."
        again = await told(await here.responses.retrieve(first.id, stream=True))
        for last in (events[-1], again[-1]):  # one was told as it ended, the other what is kept of that
            last["response"].pop("completed_at")
        assert events == again


@requirement("responses.background.restart")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_one_whose_process_ends_is_taken_up_by_the_next(fake: FakeLetta, tmp_path: Path, how: int) -> None:
    with serving(tmp_path, fake.url, FRONTDESK_SHUTDOWN_SECONDS="0") as process:
        async with openai_of(process) as client:
            response = await client.responses.create(model="Milo", input="#held#", background=True)
        await begun(fake)
        process.popen.send_signal(how)
        process.popen.wait(30)
    fake.gate.set()
    with serving(tmp_path, fake.url) as process:
        async with openai_of(process) as client:
            done = await ended(client, response.id)
            assert (done.status, done.output_text) == ("completed", "Begun, and done.")
            events = await told(await client.responses.retrieve(response.id, stream=True, starting_after=3))
            assert events[-1]["type"] == "response.completed"
    assert len(fake.visits) == 1


def openai_of(process: Process) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0)
