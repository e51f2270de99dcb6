"""A user of their own for each test of a module, in the module's `house`."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.faults.fake import FakeLetta
from tests.faults.watch import Watched
from tests.protocols.responses.clients import House, somebody


@pytest.fixture
def fake(house: House) -> FakeLetta:
    return house.anew()


@pytest.fixture
def gateway(house: House) -> Watched:
    return house.gateway


@pytest.fixture
def who() -> dict[str, Any]:
    return somebody()


@pytest.fixture
async def client(gateway: Watched, who: dict[str, Any]) -> AsyncGenerator[AsyncOpenAI]:
    async with gateway.client(**who) as client:
        yield client
