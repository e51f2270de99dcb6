"""Agents to talk to."""

import pytest
from openai import AsyncOpenAI

from tests.protocols.chat_completions.asking import Chat


@pytest.fixture
def chat(client: AsyncOpenAI, milo: str) -> Chat:
    return Chat(client, milo)
