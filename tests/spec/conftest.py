"""A gateway on a fake Letta whose agents can do all there is to describe, and one with keys, which is strict."""

import hashlib
from collections.abc import AsyncGenerator, Generator
from typing import Any

import httpx
import pytest

from tests.faults.fake import (
    DONE,
    FakeLetta,
    Script,
    Visit,
    call,
    event,
    failed,
    fake_letta,
    own_tools,
    ping,
    say,
    stop,
    usage,
)
from tests.served import Served, served
from tests.spec.exchanges import House


def plays(*frames: bytes) -> Script:
    async def script(_: Visit) -> AsyncGenerator[bytes, None]:
        for frame in frames:
            yield frame

    return script


def thought(text: str) -> bytes:
    return event(message_type="reasoning_message", id="r-1", reasoning=text)


SCRIPTS: dict[str, Script] = {
    "thinks": plays(ping(), thought("Let me "), thought("see."), say("It is "), say("so."), stop(), usage(), DONE),
    "works": own_tools("I looked it up."),
    "asks": plays(
        ping(),
        thought("I need it."),
        say("Let me look."),
        call("look", '{"at":', "call_1"),
        call("look", '"snow"}', "call_1"),
        stop("requires_approval"),
        usage(),
        DONE,
    ),
    "is-cut": plays(ping(), say("Half"), stop("max_tokens_exceeded"), usage(), DONE),
    "breaks": plays(ping(), say("Half"), stop("error"), failed("internal_error", "oops"), DONE),
    "limited": plays(ping(), stop("llm_api_error"), failed("llm_rate_limit", "slow down"), DONE),
    "unpaid": plays(ping(), stop("insufficient_credits"), failed("insufficient_credits"), DONE),
    "fails": plays(stop("error"), failed("internal_error", "oops"), DONE),
    "provider": plays(stop("error"), failed("llm_error", "oops"), DONE),
    "slow-provider": plays(ping(), stop("llm_api_error"), failed("llm_timeout", "oops"), DONE),
    "window": plays(failed("context_window_overflow_in_system_prompt", "oops"), DONE),
}


KEYS: list[dict[str, Any]] = [
    {"name": "narrow", "agents": ["Milo"]},
    {"name": "wide"},
    {"name": "rare", "rate": "1/hour"},
]
"""Each key is its own name."""


@pytest.fixture(scope="package")
def fake() -> Generator[FakeLetta]:
    with fake_letta(scripts=SCRIPTS) as fake:
        yield fake


@pytest.fixture(scope="package")
def on_a_fake(fake: FakeLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    folder = tmp_path_factory.mktemp("spec")
    with served(folder, letta_base_url=fake.url, system_prompt="message") as running:  # its agents have no prompt
        yield running


@pytest.fixture(scope="package")
def house(on_a_fake: Served, fake: FakeLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    keys = [key | {"sha256": hashlib.sha256(key["name"].encode()).hexdigest()} for key in KEYS]
    folder = tmp_path_factory.mktemp("strict")
    with (
        served(folder, letta_base_url=fake.url, keys=keys, max_body_bytes=1024) as strict,
        httpx.Client(base_url=on_a_fake.url, timeout=20) as client,
        httpx.Client(base_url=strict.url, timeout=20) as turned_away,
    ):
        turned_away.get("/v1/models", headers={"authorization": "Bearer rare"})
        yield House(client, turned_away, fake)
