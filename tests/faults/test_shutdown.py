"""A real `frontdesk serve` that is told to stop while it works."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.faults import fake as letta
from tests.faults.asking import create, failure
from tests.faults.fake import FakeLetta, Visit, fake_letta, say, stop
from tests.faults.process import serving
from tests.faults.watch import eventually
from tests.requirements import requirement

ASKING: Any = {"model": "Milo", "messages": [{"role": "user", "content": "#talkative#"}]}


async def talkative(visit: Visit) -> AsyncGenerator[bytes, None]:
    """Speaks until it is cancelled."""
    while not visit.cancelled.is_set():
        yield say("word ")
        await asyncio.sleep(0.05)
    yield stop("cancelled")


@pytest.fixture
def fake() -> Generator[FakeLetta]:
    with fake_letta(scripts={"talkative": talkative}) as fake:
        yield fake


@requirement("shutdown.bounded", "shutdown.cancels")
async def test_told_to_stop_it_says_so_to_each_client_cancels_the_runs_and_ends(
    fake: FakeLetta, tmp_path: Path
) -> None:
    with serving(tmp_path, fake.url, FRONTDESK_SHUTDOWN_SECONDS="1", FRONTDESK_ON_DISCONNECT="grace:60s") as process:
        async with AsyncOpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0) as client:

            async def stream() -> str | None:
                return (await failure(client, **ASKING, stream=True)).code

            async def plain() -> str | None:
                error = await failure(client, **ASKING)
                assert isinstance(error, openai.InternalServerError)
                assert error.status_code == 503
                assert error.response.headers["x-should-retry"] == "false"
                return error.code

            asking = [asyncio.create_task(stream()) for _ in range(3)] + [asyncio.create_task(plain())]
            await eventually(lambda: fake.open_streams == 4)
            process.popen.send_signal(signal.SIGTERM)
            async with asyncio.timeout(8):
                assert await asyncio.gather(*asking) == ["server_shutting_down"] * 4
                code = await asyncio.to_thread(process.popen.wait)
        assert code in (0, -signal.SIGTERM), process.text
    assert len(set(fake.cancels)) == 4
    assert fake.open_streams == 0
    assert "Traceback" not in process.text


def refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/health/live")
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False  # it was queued at the socket when that closed, and so was cut off: the next one is refused
    return False


@requirement("shutdown.finishes")
async def test_a_turn_that_ends_in_time_ends_well(fake: FakeLetta, tmp_path: Path) -> None:
    async def waiting(_: Visit) -> AsyncGenerator[bytes, None]:
        yield say("Almost")
        await fake.wait()
        for frame in (say(" there."), stop(), letta.usage(), letta.DONE):
            yield frame

    fake.scripts["waiting"] = waiting
    with serving(tmp_path, fake.url, FRONTDESK_SHUTDOWN_SECONDS="10") as process:
        async with AsyncOpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0) as client:
            stream = await create(
                client, model="Milo", messages=[{"role": "user", "content": "#waiting#"}], stream=True
            )
            said = (await anext(aiter(stream))).choices[0].delta.content or ""
            process.popen.send_signal(signal.SIGTERM)
            await eventually(lambda: refuses(process.url), lambda: "it still takes requests")
            fake.gate.set()
            said += "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert said == "Almost there."
        async with asyncio.timeout(5):
            await asyncio.to_thread(process.popen.wait)


@requirement("shutdown.bounded")
async def test_a_letta_that_does_not_answer_does_not_keep_it_alive(fake: FakeLetta, tmp_path: Path) -> None:
    async def deaf(_: Visit) -> AsyncGenerator[bytes, None]:
        yield say("word ")
        await fake.wait()

    fake.scripts["deaf"] = deaf
    with serving(tmp_path, fake.url, FRONTDESK_SHUTDOWN_SECONDS="0") as process:
        async with AsyncOpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0) as client:
            stream = await create(client, model="Milo", messages=[{"role": "user", "content": "#deaf#"}], stream=True)
            await anext(aiter(stream))
            process.popen.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                await asyncio.to_thread(process.popen.wait)
            await stream.close()
