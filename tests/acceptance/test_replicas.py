"""Several gateway processes on one store: whichever hears a message, the chat is one, also when a process is killed."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from sqlalchemy import func, select

from frontdesk.conversations.owners import Owners
from frontdesk.demo.local_letta import LocalLetta
from frontdesk.store.database import Database
from frontdesk.store.records import LIVE, Node, beat
from frontdesk.store.tables import owners, turns
from frontdesk.store.transaction import Transaction
from frontdesk.testing import ScriptedModel
from tests.acceptance.talking import Heard, Said, Talk, heard_last
from tests.faults.asking import create
from tests.faults.fake import DONE, FakeLetta, Script, Visit, fake_letta, ping, say, stop, usage
from tests.faults.process import Process, serving
from tests.requirements import requirement
from tests.store.postgres import fresh_database, postgres

SEED = 20_261_121
RECOVERED_SECONDS = 25.0
"""A lease of 15 seconds, a look at it each 2.5, and what it takes to ask Letta."""


@pytest.fixture(scope="module")
def postgres_url() -> Generator[str]:
    with postgres() as url:
        yield url


@contextmanager
def processes(folder: Path, letta_url: str, database_url: str, count: int) -> Generator[list[Process]]:
    """So many `frontdesk serve`, each with a data folder of its own."""
    with ExitStack() as stack:
        found: list[Process] = []
        for number in range(count):
            own = folder / f"replica-{number}"
            own.mkdir()
            shared = {"FRONTDESK_DATABASE_URL": database_url, "FRONTDESK_SECRET": "the same for all of them"}
            found.append(stack.enter_context(serving(own, letta_url, **shared)))
        yield found


@dataclass
class Fleet:
    """Processes, a client for each, and the store they share."""

    processes: Sequence[Process]
    clients: Sequence[AsyncOpenAI]
    database: Database

    async def live(self) -> int:
        """How many turns hold their conversation, or wait for it."""
        count = select(func.count()).select_from(turns).where(turns.c.state.in_(LIVE))
        return await self.database.read(lambda tx: tx.execute(count).scalar_one())

    async def counts_up(self, number: int) -> None:
        """Wait for a process's next sign of life. They were started one after the other."""
        query = select(owners.c.beat).order_by(owners.c.started)

        def beat_of(tx: Transaction) -> int:
            return tx.scalars(query).all()[number]

        before, deadline = await self.database.read(beat_of), time.monotonic() + 10
        while await self.database.read(beat_of) == before:
            assert time.monotonic() < deadline, "it gives no sign of life"
            await asyncio.sleep(0.02)

    async def live_are(self, count: int, deadline: float) -> None:
        while (found := await self.live()) != count:
            assert time.monotonic() < deadline, f"{found} turns are live, not {count}"
            await asyncio.sleep(0.1)


@asynccontextmanager
async def fleet(folder: Path, letta_url: str, database_url: str, count: int) -> AsyncGenerator[Fleet]:
    with processes(folder, letta_url, database_url, count) as started:
        database = await Database.open(database_url)
        clients = [
            AsyncOpenAI(base_url=f"{each.url}/v1", api_key="none", max_retries=0, timeout=60) for each in started
        ]
        try:
            yield Fleet(started, clients, database)
        finally:
            for client in clients:
                await client.close()
            await database.aclose()


async def hold_through_a_kill(
    fleet: Fleet, talks: Sequence[Talk], marker: str, slow: str, go_on: Callable[[], object]
) -> None:
    """Five messages in each chat, each at any replica. One is killed while every chat hears its third answer.

    `go_on` lets the agents speak on after that.
    """
    chance = random.Random(SEED)
    victim, *others = fleet.clients

    async def turn(number: int, word: str, clients: Sequence[AsyncOpenAI]) -> None:
        talks[number].client = chance.choice(clients)
        await talks[number].say(f"@say {word} {marker}-{number:02}-")

    async def everywhere(word: str, clients: Sequence[AsyncOpenAI]) -> None:
        await asyncio.gather(*(turn(number, word, clients) for number in range(len(talks))))

    await everywhere("One", fleet.clients)
    await everywhere("Two", fleet.clients)

    begun = [asyncio.Event() for _ in talks]
    for number, talk in enumerate(talks):
        talk.client = chance.choice(fleet.clients)
        talk.write(f"{slow} {marker}-{number:02}-")
    doomed = [talk for talk in talks if talk.client is victim]
    asking = [
        asyncio.create_task(ask_surely(talk, event, others, chance)) for talk, event in zip(talks, begun, strict=True)
    ]
    async with asyncio.timeout(30):
        await asyncio.gather(*(event.wait() for event in begun))
        await fleet.counts_up(0)  # so that the others have not seen its last sign of life when they are asked again
    fleet.processes[0].popen.kill()
    killed = time.monotonic()
    go_on()
    await fleet.live_are(len(doomed), killed + 10)
    await fleet.live_are(0, killed + RECOVERED_SECONDS)
    broken = await asyncio.gather(*asking)
    assert sum(broken) == len(doomed) > 0

    await everywhere("Four", others)
    await everywhere("Five", others)
    assert await fleet.live() == 0


async def ask_surely(talk: Talk, begun: asyncio.Event, others: Sequence[AsyncOpenAI], chance: random.Random) -> bool:
    """Ask, and again elsewhere if the connection breaks. Gives whether it did."""
    text = ""
    try:
        async for chunk in await create(talk.client, **talk.body):
            text += chunk.choices[0].delta.content or ""
            if text:
                begun.set()
    except (openai.APIError, httpx.HTTPError):
        assert text, "it broke before it began"
    else:
        talk.said.append(Said({"role": "assistant", "content": text}))
        return False
    talk.client = chance.choice(others)
    answer = await talk.ask()
    assert answer.text.startswith(text)
    return True


def whole(talks: Sequence[Talk], heard: Callable[[str], Heard], marker: str) -> None:
    """Every agent's last turn was given just what the client shows, and each chat is one conversation."""
    for number, talk in enumerate(talks):
        assert heard(f"{marker}-{number:02}-") == talk.shown
        assert len(set(talk.conversations)) == 1
    assert len({talk.conversations[0] for talk in talks}) == len(talks)


def slowly(fake: FakeLetta) -> Script:
    """Speaks on once the gate is open."""

    async def script(_: Visit) -> AsyncGenerator[bytes, None]:
        yield ping()
        yield say("This takes ")
        await fake.wait()
        for data in (say("a while."), stop(), usage(), DONE):
            yield data

    return script


@requirement("replicas.shared")
async def test_fifty_chats_at_random_replicas_are_whole_after_one_was_killed(
    postgres_url: str, marker: str, tmp_path: Path
) -> None:
    with fake_letta() as fake:
        fake.scripts["slowly"] = slowly(fake)
        talks = [Talk(None, "Milo") for _ in range(50)]  # type: ignore[arg-type]
        async with fleet(tmp_path, fake.url, fresh_database(postgres_url, "fifty"), 3) as replicas:
            await hold_through_a_kill(replicas, talks, marker, "#slowly#", fake.gate.set)
        whole(talks, lambda each: [(role, text.strip()) for role, text in fake.heard(each)], marker)
        for number in range(50):
            assert len(fake.texts(f"{marker}-{number:02}-")) == 5
        assert fake.overlaps == []


@requirement("replicas.shared")
async def test_chats_with_a_real_agent_at_random_replicas_are_whole_after_one_was_killed(
    postgres_url: str, letta: LocalLetta, milo: str, model: ScriptedModel, marker: str, tmp_path: Path
) -> None:
    talks = [Talk(None, milo) for _ in range(8)]  # type: ignore[arg-type]
    async with fleet(tmp_path, letta.base_url, fresh_database(postgres_url, "real"), 3) as replicas:
        await hold_through_a_kill(replicas, talks, marker, "@pace 0.1\n@long 80\n", lambda: None)
    whole(talks, lambda each: heard_last(model, each), marker)
    for number in range(8):
        assert len(model.requests_with(f"{marker}-{number:02}-")) == 5


async def test_a_process_that_counted_up_just_before_it_died_is_not_taken_for_alive(tmp_path: Path) -> None:
    """Else a message whose process was killed is given to the agent a second time."""
    database = await Database.open(f"sqlite:///{tmp_path / 'owners.db'}")

    async def recover(_: Node, stop: bool) -> None: ...

    watching = Owners(database, "watching", lambda: set[str](), recover, lease_seconds=0.6)
    await watching.start()
    await database.do(lambda tx: beat(tx, "dead"))
    assert not await watching.is_alive("dead")
    await watching.stop()
    await database.aclose()


@requirement("replicas.shared")
async def test_one_chat_that_goes_to_and_fro_between_two_processes_on_one_sqlite_file_is_one_conversation(
    marker: str, tmp_path: Path
) -> None:
    with fake_letta() as fake:
        talks = [Talk(None, "Milo") for _ in range(5)]  # type: ignore[arg-type]
        async with fleet(tmp_path, fake.url, f"sqlite:///{tmp_path / 'shared.db'}", 2) as replicas:
            for turn in range(10):
                for number, talk in enumerate(talks):
                    talk.client = replicas.clients[(turn + number) % 2]
                asking = (talk.say(f"{turn} {marker}-{number:02}-") for number, talk in enumerate(talks))
                await asyncio.gather(*asking)
            assert await replicas.live() == 0
        whole(talks, lambda each: [(role, text.strip()) for role, text in fake.heard(each)], marker)
        assert all(len(fake.texts(f"{marker}-{number:02}-")) == 10 for number in range(5))
        assert fake.overlaps == []
