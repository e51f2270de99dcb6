"""A backend on the shared Letta server."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from frontdesk.backends.letta import LettaBackend, LettaSettings
from frontdesk.backends.letta.client import LettaClient
from frontdesk.demo.local_letta import LocalLetta

Calls = list[str]


@asynccontextmanager
async def backend_of(url: str, calls: Calls | None = None, **settings: Any) -> AsyncGenerator[LettaBackend]:
    def watch(name: str, _seconds: float, _answered: bool) -> None:
        if calls is not None:
            calls.append(name)

    made = LettaBackend(LettaSettings(base_url=url, **settings), LettaClient(url, watch=watch))
    try:
        yield made
    finally:
        await made.aclose()
        await asyncio.sleep(0)  # for the connections to be lost


@pytest.fixture
def asked() -> Calls:
    """What Letta was asked, but for messages."""
    return []


@pytest.fixture
async def backend(letta: LocalLetta, asked: Calls) -> AsyncGenerator[LettaBackend]:
    async with backend_of(letta.base_url, asked) as made:
        yield made


@pytest.fixture
def marker() -> str:
    return uuid.uuid4().hex
