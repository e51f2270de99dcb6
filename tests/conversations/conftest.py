"""A gateway on a fake Letta that remembers."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from tests.faults.fake import FakeLetta, fake_letta
from tests.faults.watch import Watched, watched
from tests.protocols.chat_completions.asking import Chat


@pytest.fixture(scope="module")
def fake() -> Generator[FakeLetta]:
    with fake_letta() as fake:
        yield fake


@pytest.fixture(scope="module")
def house(fake: FakeLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Watched]:
    folder: Path = tmp_path_factory.mktemp("conversations")
    with watched(folder, letta_base_url=fake.url) as gateway:
        yield gateway


@pytest.fixture
async def milo(house: Watched) -> AsyncGenerator[Chat]:
    async with house.client() as client:
        yield Chat(client, "Milo")
