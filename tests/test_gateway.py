"""Turns that stand in line: for a place, for a conversation. Against a fake Letta, which waits as long as we like."""

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.faults.asking import create, failure
from tests.faults.fake import FakeLetta, fake_letta, held
from tests.faults.watch import Watched, eventually, watched
from tests.requirements import requirement


@pytest.fixture
def fake() -> Generator[FakeLetta]:
    with fake_letta() as fake:
        fake.scripts["waiting"] = held(fake, "Wait", "ed.")
        yield fake


def asking(text: str, pin: str = "", model: str = "Milo") -> Any:
    headers = {"x-frontdesk-conversation": pin} if pin else {}
    return {"model": model, "messages": [{"role": "user", "content": text}], "extra_headers": headers}


async def answer(client: AsyncOpenAI, text: str, pin: str = "") -> str:
    reply = await create(client, **asking(text, pin))
    return reply.choices[0].message.content or ""


async def refusal(client: AsyncOpenAI, text: str, pin: str = "", *, stream: bool = False) -> openai.APIError:
    return await failure(client, **asking(text, pin), stream=stream)


@requirement("operations.overload")
async def test_beyond_the_line_a_turn_is_refused_at_once(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path, letta_base_url=fake.url, max_turns=2, max_waiting=1) as gateway:
        async with gateway.client() as client:
            running = [asyncio.create_task(answer(client, "#waiting#")) for _ in range(2)]
            await eventually(lambda: fake.open_streams == 2)
            third = asyncio.create_task(answer(client, "third"))
            await eventually(lambda: gateway.health()["turns"]["waiting"] == 1)
            for stream in (False, True):
                error = await refusal(client, "fourth", stream=stream)
                assert isinstance(error, openai.RateLimitError)
                assert (error.status_code, error.type, error.code) == (429, "rate_limit_error", "server_overloaded")
                assert error.response.headers["x-should-retry"] == "true"
                assert int(error.response.headers["retry-after"]) >= 1
                assert int(error.response.headers["retry-after-ms"]) >= 1
            fake.gate.set()
            assert await asyncio.gather(*running) == ["Waited."] * 2
            assert await third == "You said: third"
        await gateway.idle()


@requirement("operations.overload")
async def test_who_has_waited_too_long_for_a_place_is_refused(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path, letta_base_url=fake.url, max_turns=1, queue_wait_seconds=0.2) as gateway:
        async with gateway.client() as client:
            running = asyncio.create_task(answer(client, "#waiting#"))
            await eventually(lambda: fake.open_streams == 1)
            error = await refusal(client, "late")
            assert isinstance(error, openai.RateLimitError)
            assert error.code == "server_overloaded"
            fake.gate.set()
            assert await running == "Waited."
        assert fake.texts("late") == []
        await gateway.idle()


@requirement("operations.busy")
async def test_a_conversation_that_stays_busy_is_a_409(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path, letta_base_url=fake.url, queue_wait_seconds=0.3) as gateway:
        async with gateway.client() as client:
            running = asyncio.create_task(answer(client, "#waiting#", "a pin"))
            await eventually(lambda: fake.open_streams == 1)
            for stream in (False, True):
                error = await refusal(client, "busy", "a pin", stream=stream)
                assert isinstance(error, openai.ConflictError)
                assert (error.status_code, error.type, error.code) == (409, "conflict_error", "conversation_busy")
                assert error.response.headers["x-should-retry"] == "true"
                assert int(error.response.headers["retry-after"]) >= 1
            assert await answer(client, "elsewhere", "another pin") == "You said: elsewhere"
            fake.gate.set()
            assert await running == "Waited."
        assert fake.texts("busy") == []
        await gateway.idle()


@requirement("operations.busy")
async def test_a_stream_that_was_committed_while_it_waited_learns_it_in_band(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path, letta_base_url=fake.url, queue_wait_seconds=0.5, commit_wait_seconds=0.1) as gateway:
        async with gateway.client() as client:
            running = asyncio.create_task(answer(client, "#waiting#", "a pin"))
            await eventually(lambda: fake.open_streams == 1)
            error = await refusal(client, "busy", "a pin", stream=True)
            assert not isinstance(error, openai.APIStatusError)
            assert error.code == "conversation_busy"
            fake.gate.set()
            await running


@requirement("operations.order")
async def test_turns_of_one_conversation_run_one_after_another_in_their_order(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path, letta_base_url=fake.url) as gateway:
        async with gateway.client() as client:
            tasks = [asyncio.create_task(answer(client, "#waiting# 0", "a pin"))]
            await eventually(lambda: fake.open_streams == 1)
            for number in range(1, 5):
                tasks.append(asyncio.create_task(answer(client, f"number {number}", "a pin")))
                await eventually(lambda number=number: gateway.metric("frontdesk_waiting_turns") == number)
            fake.gate.set()
            assert await asyncio.gather(*tasks) == ["Waited.", *(f"You said: number {n}" for n in range(1, 5))]
        assert [visit.texts for visit in fake.visits] == [["#waiting# 0"], *([f"number {n}"] for n in range(1, 5))]
        assert len({visit.conversation for visit in fake.visits}) == 1


@requirement("operations.one-per-pin")
async def test_first_requests_of_one_pin_make_one_conversation(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path, letta_base_url=fake.url) as gateway:
        async with gateway.client() as client:
            await asyncio.gather(*(answer(client, f"number {n}", "a new pin") for n in range(8)))
        assert len({visit.conversation for visit in fake.visits}) == 1
        assert sum(call.startswith("POST /v1/conversations/?") for call in fake.calls) == 1


@requirement("operations.health")
async def test_health_counts_turns_and_knows_each_backend(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(
        tmp_path, letta=[{"name": "one", "base_url": fake.url}, {"name": "two", "base_url": down()}]
    ) as gateway:
        health = gateway.health()
        assert (health["status"], health["backends"]["one"]["status"]) == ("degraded", "ok")
        assert health["backends"]["two"]["status"] == "unreachable"
        assert health["backends"]["one"]["agents"] == 2
        assert gateway.busy() == (0, 0, 0.0, [])
        async with gateway.client() as client:
            assert (await client.models.retrieve("Milo")).id == "Milo"
            running = asyncio.create_task(answer(client, "#waiting#"))
            await eventually(lambda: gateway.busy()[:3] == (1, 0, 1.0))
            fake.gate.set()
            await running
        await gateway.idle()


def down() -> str:
    """An address where nobody listens."""
    with fake_letta() as gone:
        return gone.url


def test_a_watched_gateway_sees_its_tasks(tmp_path: Path, fake: FakeLetta) -> None:
    """That `idle` means something."""
    with watched(tmp_path, letta_base_url=fake.url, on_disconnect="detach") as gateway:
        see_tasks(gateway, fake)


def see_tasks(gateway: Watched, fake: FakeLetta) -> None:
    async def ask() -> None:
        async with gateway.client() as client:
            stream = await create(client, **asking("#waiting#"), stream=True)
            await anext(aiter(stream))
            assert gateway.turn_tasks()
            fake.gate.set()
            _ = [chunk async for chunk in stream]
        await gateway.idle()

    asyncio.run(ask())
