"""What a failed turn leaves behind, for the next one and for the server."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from frontdesk.backends.letta import LettaBackend, LettaSettings
from frontdesk.backends.letta.client import LettaClient
from frontdesk.errors import BackendUnavailable, ProviderRateLimited
from frontdesk.ports import Placement
from frontdesk.turn import Agent, Identity, Message, Text, Turn
from tests.faults import fake as letta
from tests.faults.asking import create, failure
from tests.faults.fake import DONE, Cut, FakeLetta, Visit, fake_letta, ping, say, stop, usage
from tests.faults.watch import Watched, eventually, watched
from tests.requirements import requirement

LIMITED = letta.failed("llm_rate_limit", "RATE_LIMIT_EXCEEDED: slow down")


async def limited(_: Visit) -> AsyncGenerator[bytes, None]:
    for frame in (ping(), stop("llm_api_error"), LIMITED, DONE):
        yield frame


async def half(_: Visit) -> AsyncGenerator[bytes, None]:
    for frame in (ping(), say("Half"), LIMITED, DONE):
        yield frame


async def cut(_: Visit) -> AsyncGenerator[bytes, None]:
    """Without a ping it is not known which run to stop, and so that is tried for longer."""
    yield say("Half")
    raise Cut


async def talkative(visit: Visit) -> AsyncGenerator[bytes, None]:
    """Speaks until it is cancelled, or for a second."""
    yield ping()
    yield say("word ")
    for _ in range(100):
        if visit.cancelled.is_set():
            yield stop("cancelled")
            return
        await asyncio.sleep(0.01)
    for frame in (stop(), usage(), DONE):
        yield frame


@pytest.fixture
def fake() -> Generator[FakeLetta]:
    with fake_letta() as fake:
        fake.scripts |= {"limited": limited, "half": half, "cut": cut, "talkative": talkative}
        yield fake


@pytest.fixture
def gateway(fake: FakeLetta, tmp_path: Path) -> Generator[Watched]:
    with watched(tmp_path, letta_base_url=fake.url, on_disconnect="cancel") as gateway:
        yield gateway


def ask(text: str) -> Any:
    pin = {"x-frontdesk-conversation": "a pin"}
    return {"model": "Milo", "messages": [{"role": "user", "content": text}], "extra_headers": pin}


@requirement("errors.after-failure")
async def test_the_run_behind_a_lost_connection_is_stopped_before_the_next_turn_begins(gateway: Watched) -> None:
    async with gateway.client() as client:
        assert (await failure(client, **ask("#cut#"), stream=True)).code == "agent_error"
        reply = await create(client, **ask("#talkative#"))
        assert reply.choices[0].message.content == "word ", "it was not taken for the one before"


async def hang_up(gateway: Watched, text: str) -> None:
    async with gateway.client() as client:
        stream = await create(client, **ask(text), stream=True)
        await anext(aiter(stream))
        await stream.close()
    await gateway.idle()


@requirement("disconnect.redelivery")
@pytest.mark.parametrize("down", [False, True], ids=["provider", "letta"])
async def test_what_was_dropped_is_told_again_also_after_a_turn_that_failed(
    gateway: Watched, fake: FakeLetta, down: bool
) -> None:
    await hang_up(gateway, "#talkative# first")
    async with gateway.client() as client:
        if down:
            fake.answers["POST /v1/conversations/conv-"] = lambda _: web.json_response({}, status=503)
        assert await failure(client, **ask("#limited# second"))
        fake.answers.clear()
        await create(client, **ask("third"))
        assert fake.visits[-1].texts == ["#talkative# first", "word ", "third"]
        await create(client, **ask("fourth"))
    assert fake.visits[-1].texts == ["fourth"]


@requirement("disconnect.redelivery")
async def test_it_is_told_again_when_nothing_was_kept_of_an_answer_that_had_begun(
    gateway: Watched, fake: FakeLetta
) -> None:
    await hang_up(gateway, "#talkative# first")
    async with gateway.client() as client:
        await failure(client, **ask("#half# second"), stream=True)
        await create(client, **ask("third"))
    assert fake.visits[-1].texts == ["#talkative# first", "word ", "third"]


@requirement("errors.in-band")
async def test_errors_within_a_stream_are_counted(gateway: Watched) -> None:
    async with gateway.client() as client:
        await failure(client, **ask("#half#"), stream=True)
    await eventually(lambda: gateway.metric("frontdesk_errors_total") == 1)


async def test_a_failed_turn_leaves_nothing_in_the_backend(fake: FakeLetta) -> None:
    backend = LettaBackend(LettaSettings(base_url=fake.url), LettaClient(fake.url))
    (agent,) = await backend.find("Milo")
    with pytest.raises(ProviderRateLimited):
        _ = [batch async for batch in backend.run(turn("#limited#"), await placed(backend, agent, "#limited#"))]
    assert not backend._runs.ids  # pyright: ignore[reportPrivateUsage]
    await backend.aclose()


def turn(text: str) -> Turn:
    return Turn("turn_1", "Milo", (Message("user", (Text(text),)),))


async def test_the_run_is_known_also_when_its_ping_comes_with_the_first_words(fake: FakeLetta) -> None:
    async def together(_: Visit) -> AsyncGenerator[bytes, None]:
        yield ping() + say("Hello")
        await fake.wait()

    fake.scripts["together"] = together
    backend = LettaBackend(LettaSettings(base_url=fake.url), LettaClient(fake.url))
    (agent,) = await backend.find("Milo")
    batches = backend.run(turn("#together#"), await placed(backend, agent, "#together#"))
    await anext(batches)
    assert backend._runs.ids == {"turn_1": "run-1"}  # pyright: ignore[reportPrivateUsage]
    fake.gate.set()
    await batches.aclose()
    await backend.aclose()


async def placed(backend: LettaBackend, agent: Agent, text: str) -> Placement:
    return Placement(agent, await backend.open(agent, turn(text)), Identity.NEW, turn(text).input)


@requirement("errors.no-internals")
@pytest.mark.parametrize("user", ["me:hunter22@", "hunter22@"])
async def test_a_password_in_the_address_is_in_no_error(user: str) -> None:
    client = LettaClient(f"http://{user}127.0.0.1:1/letta")
    for call in (client.get("/v1/health/"), client.stream("/v1/x", {}, 1.0)):
        with pytest.raises(BackendUnavailable) as info:
            await call
        assert "hunter" not in info.value.message
        assert "127.0.0.1:1/letta" in info.value.message
