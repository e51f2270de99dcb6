"""A real Letta agent by its own URL: what it knows of a conversation, and the caller's tools, do not need a model."""

from typing import Any

import pytest

from tests.acceptance.talking import Talk
from tests.protocols.chat_completions.asking import function
from tests.requirements import requirement
from tests.served import Served


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prefix", ["/v1", ""])
@requirement("python.paths")
async def test_a_tool_of_the_callers_by_an_agents_own_url(
    gateway: Served, milo: str, marker: str, prefix: str, stream: bool
) -> None:
    async with gateway.client(base_url=f"{gateway.url}/agents/{milo}{prefix}") as client:
        talk = Talk(client, "", fields={"tools": [function("get_weather")]})
        said = "\n".join([marker, '@call get_weather {"city": "Oslo"}', "@then", "@say Cold."])
        asked = await talk.say(said, stream=stream)
        answer = await talk.answer({"get_weather": "-5"}, stream=stream)
        assert (answer.text, answer.conversation) == ("Cold.", asked.conversation)
        listed: Any = await client.conversations.with_raw_response.retrieve(asked.conversation)
        assert listed.http_response.json()["agent"] == milo
