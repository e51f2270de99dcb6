"""The Letta server is killed while it answers, and comes back."""

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.demo.local_letta import LettaOptions, LocalLetta
from frontdesk.testing import ScriptedModel
from tests.faults.watch import Watched, eventually, watched
from tests.requirements import requirement

PIN = {"extra_headers": {"x-frontdesk-conversation": "survivor"}}


@pytest.fixture
def mortal(model: ScriptedModel, tmp_path: Path) -> Generator[LocalLetta]:
    """A Letta of our own, for nobody else may be using it."""
    with LocalLetta(tmp_path / "letta", LettaOptions(model_base_url=model.base_url)) as server:
        yield server


@pytest.fixture
def gateway(mortal: LocalLetta, tmp_path: Path) -> Generator[Watched]:
    Letta(base_url=mortal.base_url, api_key="none").agents.create(
        name="Milo", model="openai-proxy/scripted", embedding="letta/letta-free"
    )
    with watched(tmp_path / "gateway", letta_base_url=mortal.base_url, models_refresh_seconds=0.5) as running:
        yield running


def asking(text: str) -> Any:
    return {"model": "Milo", "messages": [{"role": "user", "content": text}]}


async def cut_short(client: AsyncOpenAI, number: int, begun: asyncio.Semaphore) -> tuple[str, str | None]:
    """The text of a stream and the error it ended with."""
    said = ""
    with pytest.raises(openai.APIError) as info:
        async for chunk in await client.chat.completions.create(
            **asking(f"#doomed-{number}\n@pace 0.05\n@long 2000"), stream=True
        ):
            assert chunk.choices[0].finish_reason is None
            if chunk.choices[0].delta.content and not said:
                begun.release()
            said += chunk.choices[0].delta.content or ""
    return said, info.value.code


@requirement("crash.in-band", "crash.recovers", "crash.conversations", "operations.health")
async def test_a_killed_letta_is_told_to_each_client_and_all_goes_on_when_it_is_back(
    gateway: Watched, mortal: LocalLetta, model: ScriptedModel
) -> None:
    async with gateway.client() as client:
        first = await client.chat.completions.create(**asking("#before-crash\n@say I am well."), **PIN)
        assert first.choices[0].message.content == "I am well."

        begun = asyncio.Semaphore(0)
        doomed = [asyncio.create_task(cut_short(client, number, begun)) for number in range(4)]
        for _ in doomed:
            await begun.acquire()
        await asyncio.to_thread(mortal.kill)
        async with asyncio.timeout(20):
            for said, code in await asyncio.gather(*doomed):
                assert said
                assert code == "agent_error"
        await gateway.idle()

        await eventually(lambda: gateway.health()["status"] == "down")
        assert httpx.get(f"{gateway.url}/health/ready").status_code == 503
        with pytest.raises(openai.InternalServerError) as info:
            await client.chat.completions.create(**asking("#while-down\n@say no"), **PIN)
        assert (info.value.status_code, info.value.code) == (503, "backend_unavailable")
        assert info.value.response.headers["x-should-retry"] == "true"
        assert "Milo" in [each.id async for each in client.models.list()]

        await asyncio.to_thread(mortal.restart)
        await eventually(lambda: gateway.health()["status"] == "ok", lambda: str(gateway.health()))
        again = await client.chat.completions.create(**asking("#after-crash\n@say Still here."), **PIN)
        assert again.choices[0].message.content == "Still here."
    told = [str(message.get("content")) for message in model.requests_with("#after-crash")[-1].messages]
    assert any("#before-crash" in text for text in told)
    assert "I am well." in told
    assert not any("#while-down" in text for text in told)
