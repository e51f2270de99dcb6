"""Many at once: every reply whole, and none mixed with another."""

import asyncio
import resource
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from bench.fake_letta import FakeLetta
from bench.load import Job, run
from bench.shapes import agent_name
from tests.faults.asking import create
from tests.faults.fake import fake_letta
from tests.faults.process import serving
from tests.faults.watch import watched
from tests.protocols.chat_completions.asking import Chat, user
from tests.requirements import requirement
from tests.served import Served

FILES = 8192


@pytest.fixture
def many_files() -> Generator[None]:
    """Each stream takes a descriptor here, and two in the gateway, which inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if wanted < 4096:
        pytest.skip(f"no more than {hard} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@requirement("load.streams")
@pytest.mark.parametrize(("streams", "seconds"), [(200, 15.0), (1000, 40.0)])
@pytest.mark.usefixtures("many_files")
async def test_streams_at_once(tmp_path: Path, streams: int, seconds: float) -> None:
    """Each token of the fake says whose it is and which; the client checks every one of them."""
    with FakeLetta(agents=20) as fake:
        fake.configure(pace_ms=150, reasoning=10, text=30)
        with serving(tmp_path, fake.url, FRONTDESK_LOG_LEVEL="warning") as gateway:
            models = [agent_name(number) for number in range(20)]
            outcome = await run(
                Job(
                    gateway.url,
                    models,
                    concurrency=streams,
                    total=streams,
                    reasoning=10,
                    text=30,
                    connects_per_second=1000.0,
                    timeout_seconds=seconds,
                )
            )
            assert outcome.errors == {}
            assert outcome.right == streams
            assert outcome.tokens == streams * 40
            stats = fake.stats()
            assert stats.peak_streams >= streams * 0.8, "they were not at once"
            assert (stats.finished, stats.hung_up, stats.open_streams) == (streams, 0, 0)
            assert gateway.text.count("error") == 0, gateway.text


@requirement("load.plain")
async def test_plain_replies_at_once(tmp_path: Path) -> None:
    with FakeLetta(agents=5) as fake:
        fake.configure(pace_ms=10, reasoning=10, text=30)
        with serving(tmp_path, fake.url, FRONTDESK_LOG_LEVEL="warning") as gateway:
            models = [agent_name(number) for number in range(5)]
            job = Job(gateway.url, models, kind="plain", concurrency=100, total=500, reasoning=10, text=30)
            outcome = await run(job)
    assert (outcome.errors, outcome.right) == ({}, 500)


async def asked(client: AsyncOpenAI, agent: str, marker: str) -> None:
    """A stream that must say exactly what it was given to say."""
    words = " ".join(f"{marker}-{number}" for number in range(15))
    content = f"#{marker}\n@pace 0.005\n@say {words}"
    said = ""
    finish: list[str] = []
    stream = await create(client, model=agent, messages=[{"role": "user", "content": content}], stream=True)
    async for chunk in stream:
        assert chunk.model == agent
        said += chunk.choices[0].delta.content or ""
        finish += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
    assert (said, finish) == (words, ["stop"])


@requirement("load.agents")
async def test_twenty_agents_with_a_stream_each(gateway: Served, make_agent: Callable[..., Any]) -> None:
    agents = [make_agent(f"load-{number}").name for number in range(20)]
    async with gateway.client() as client:
        await asyncio.gather(*(asked(client, agent, f"for-{agent}") for agent in agents))


@requirement("load.chats")
async def test_fifty_chats_with_one_agent(gateway: Served, milo: str) -> None:
    places = asyncio.Semaphore(10)

    async def chat(client: AsyncOpenAI, number: int) -> None:
        async with places:
            await asked(client, milo, f"chat-{number}")

    async with gateway.client() as client:
        await asyncio.gather(*(chat(client, number) for number in range(50)))


@requirement("conversations.concurrent", "conversations.twins")
async def test_five_hundred_chats_at_once_stay_apart(tmp_path: Path) -> None:
    """All of them begin with the same words, so that only where they were said tells them apart."""
    with fake_letta() as fake, watched(tmp_path, letta_base_url=fake.url) as gateway:
        async with gateway.client(timeout=60.0) as client:
            milo, places = Chat(client, "Milo"), asyncio.Semaphore(50)
            kept: list[set[str]] = []

            async def chat(number: int) -> None:
                said = [user("Hello")]
                headers = {"X-OpenWebUI-Chat-Id": f"chat {number}"} if number % 2 else {}
                for text in (f"I am {number}.", "Who am I?"):
                    async with places:
                        said += [(await milo.ask(said, headers=headers)).message, user(text)]
                async with places:
                    await milo.ask(said, headers=headers)
                told = [visit for visit in fake.visits if ("user", f"I am {number}.") in visit.heard]
                assert [len(visit.heard) for visit in told] == [3, 5]
                assert told[-1].heard == [(each["role"], each["content"]) for each in said]
                kept.append({visit.conversation for visit in told})

            await asyncio.gather(*(chat(number) for number in range(500)))
    assert sum(map(len, kept)) == len(set[str]().union(*kept)), "two chats met"
    assert not fake.overlaps
