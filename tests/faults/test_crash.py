"""The Letta server is killed while it answers, and comes back."""

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import openai
import pytest
from letta_client import Letta

from frontdesk.demo.local_letta import LettaOptions, LocalLetta
from frontdesk.testing import ScriptedModel
from tests.faults.asking import broken_off, create, failure
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


@requirement("crash.in-band", "crash.recovers", "crash.conversations", "operations.health")
async def test_a_killed_letta_is_told_to_each_client_and_all_goes_on_when_it_is_back(
    gateway: Watched, mortal: LocalLetta, model: ScriptedModel
) -> None:
    async with gateway.client() as client:
        first = await create(client, **asking("#before-crash\n@say I am well."), **PIN)
        assert first.choices[0].message.content == "I am well."

        scripts = [f"#doomed-{number}\n@pace 0.05\n@long 2000" for number in range(4)]
        doomed = [asyncio.create_task(broken_off(client, **asking(script))) for script in scripts]
        await eventually(lambda: len(model.requests_with("#doomed-")) == 4)
        await asyncio.to_thread(mortal.kill)
        async with asyncio.timeout(20):
            for choices, error in await asyncio.gather(*doomed):
                assert {choice.finish_reason for choice in choices} <= {None}
                assert error.code == "agent_error"
        await gateway.idle()

        await eventually(lambda: gateway.health()["status"] == "down")
        assert gateway.status("/health/ready") == 503
        error = await failure(client, **asking("#while-down\n@say no"), **PIN)
        assert isinstance(error, openai.InternalServerError)
        assert (error.status_code, error.code) == (503, "backend_unavailable")
        assert error.response.headers["x-should-retry"] == "true"
        assert "Milo" in [each.id async for each in client.models.list()]

        await asyncio.to_thread(mortal.restart)
        await eventually(lambda: gateway.health()["status"] == "ok", lambda: str(gateway.health()))
        again = await create(client, **asking("#after-crash\n@say Still here."), **PIN)
        assert again.choices[0].message.content == "Still here."
    told = [str(message.get("content")) for message in model.requests_with("#after-crash")[-1].messages]
    assert any("#before-crash" in text for text in told)
    assert "I am well." in told
    assert not any("#while-down" in text for text in told)
