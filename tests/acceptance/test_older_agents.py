"""Older agents of a real Letta server, through the official client: their own words exactly, and the caller's tools."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.backends.letta.twins import mark
from frontdesk.demo.local_letta import LocalLetta
from frontdesk.testing import ScriptedModel
from frontdesk.testing.script import TABLE
from tests.acceptance.talking import Talk, heard_last
from tests.backends.letta.test_twins import twin_in, twins_in, whole
from tests.cli.servers import row
from tests.faults.fake import fake_letta
from tests.faults.process import serving
from tests.protocols.chat_completions.asking import Chat, function, told
from tests.requirements import requirement
from tests.served import served

OLDER = ("memgpt_agent", "memgpt_v2_agent", "react_agent", "workflow_agent")
THOUGHT = 'A "thought" with \\ and\nlines, é 漢字 🙂'
WEATHER = function("get_weather")
ODD = [TABLE, '"', "\\", '\\"', "\\u00e9", " \n ", '{"message": "not this"}', "👩\u200d👩\u200d👧\u200d👦"]


def says(text: str, thinking: str = "") -> str:
    """A script by which an older agent speaks."""
    arguments = ({"thinking": thinking} if thinking else {}) | {"message": text}
    return f"@call send_message {json.dumps(arguments)}"


@pytest.fixture
def older(make_agent: Callable[..., Any]) -> Callable[[str], Any]:
    """An agent of an older type which can speak: some have no tool of their own."""

    def make(agent_type: str = "memgpt_v2_agent", **fields: Any) -> Any:
        return make_agent(agent_type=agent_type, tools=["send_message"], **fields)

    return make


@requirement("older.exact")
@pytest.mark.parametrize("agent_type", OLDER)
async def test_an_older_agent_s_words_and_thoughts_are_exact(
    client: AsyncOpenAI, older: Callable[..., Any], agent_type: str
) -> None:
    chat = Chat(client, older(agent_type).name)
    for stream in (True, False):
        answer = await chat.ask(says(TABLE, THOUGHT), stream=stream)
        assert (answer.text, answer.reasoning, answer.finish) == (TABLE, THOUGHT, "stop")


async def test_what_looks_escaped_is_what_the_agent_wrote(client: AsyncOpenAI, older: Callable[..., Any]) -> None:
    chat = Chat(client, older().name)
    for text in ODD:
        assert (await chat.ask(says(text), stream=True)).text == text


@requirement("older.exact")
async def test_a_modern_agent_s_words_are_never_unescaped(client: AsyncOpenAI, milo: str) -> None:
    for text in ODD:
        assert (await Chat(client, milo).ask(f"@say {json.dumps(text)}", stream=True)).text == text


async def test_an_older_agent_works_with_its_own_tools_before_it_answers(
    client: AsyncOpenAI, letta_api: Letta, older: Callable[..., Any]
) -> None:
    agent = older()
    remembers = {"label": "human", "new_string": "Likes trees.", "insert_line": -1, "request_heartbeat": True}
    script = f"@call memory_insert {json.dumps(remembers)}\n@then\n{says('Noted.')}"
    assert (await Chat(client, agent.name).ask(script, stream=True)).text == "Noted."
    block = letta_api.agents.blocks.retrieve("human", agent_id=agent.id)
    assert "Likes trees." in str(block.value)


@requirement("older.one-thread")
async def test_an_older_agent_has_one_thread_for_all_and_one_turn_at_a_time(
    client: AsyncOpenAI, model: ScriptedModel, older: Callable[..., Any], marker: str
) -> None:
    chat = Chat(client, older().name)
    said = [f"{marker} {number}\n@slow 0.2\n{says(f'Answer {number}.')}" for number in range(3)]
    answers = await asyncio.gather(*(chat.ask(each) for each in said))
    assert [answer.text for answer in answers] == [f"Answer {number}." for number in range(3)]
    assert len({answer.conversation for answer in answers}) == 1
    heard = model.requests_with(marker)
    assert [sum(marker in text for text in request.texts) for request in heard] == [1, 2, 3]


# --- with the caller's tools -----------------------------------------------------------------------------------------


def calls(marker: str, *more: str) -> str:
    """A script of a modern agent: text, two calls, then an answer."""
    return "\n".join([marker, "@say Wait.", *(f'@call get_weather {{"city": "{city}"}}' for city in more), "@then"])


@requirement("older.tools", "older.memory")
@pytest.mark.parametrize("agent_type", OLDER)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_older_agent_uses_the_caller_s_tools_through_its_twin(
    client: AsyncOpenAI,
    model: ScriptedModel,
    letta_api: Letta,
    older: Callable[..., Any],
    marker: str,
    agent_type: str,
    stream: bool,
) -> None:
    agent = older(agent_type)
    before = whole(letta_api, agent.id)
    talk = Talk(client, agent.name, fields={"tools": [WEATHER]})
    asking = await talk.say(f"{calls(marker, 'Oslo', 'Rome')}\n@say {json.dumps(TABLE)}", stream=stream)
    assert (asking.text, asking.finish) == ("Wait.", "tool_calls")
    assert [call.values for call in asking.calls] == [{"city": "Oslo"}, {"city": "Rome"}]
    answer = await talk.answer({"get_weather": "Error: no wind"}, stream=stream)
    assert (answer.text, answer.finish) == (TABLE, "stop")
    request = model.requests_with(marker)[-1]
    assert [told(request, number) for number in (-2, -1)] == [("Failed", "Error: no wind")] * 2
    assert heard_last(model, marker) == talk.shown
    assert whole(letta_api, agent.id) == before


@requirement("older.seeded")
async def test_a_conversation_goes_on_where_its_tools_were_used_with_all_that_was_said_before(
    client: AsyncOpenAI, model: ScriptedModel, letta_api: Letta, older: Callable[..., Any], marker: str
) -> None:
    agent = older()
    talk = Talk(client, agent.name)
    await talk.say(f"{marker} I like trees.\n{says('So do I.')}")
    assert twins_in(letta_api, agent.id) == []
    own = [each.id for each in letta_api.agents.messages.list(agent_id=agent.id)]
    talk.fields = {"tools": [WEATHER]}
    await talk.say(f"{calls(marker, 'Oslo')}\n@say Sun.")
    assert heard_last(model, marker) == talk.shown
    await talk.answer({"get_weather": "sunny"})
    talk.fields = {}
    answer = await talk.say(f"{marker}\n@say And now without.")
    assert answer.text == "And now without."
    assert heard_last(model, marker) == talk.shown
    assert len({*talk.conversations[1:]}) == 1
    assert [each.id for each in letta_api.agents.messages.list(agent_id=agent.id)] == own


async def test_answers_are_written_anew_and_messages_edited_on_the_twin_too(
    client: AsyncOpenAI, model: ScriptedModel, letta_api: Letta, older: Callable[..., Any], marker: str
) -> None:
    agent = older()
    before = whole(letta_api, agent.id)
    talk = Talk(client, agent.name, fields={"tools": [WEATHER]})
    await talk.say(f"{calls(marker, 'Oslo')}\n@say Sun.")
    await talk.answer({"get_weather": "sunny"})
    await talk.say(f"{marker} 1\n@say First.")
    talk.fields = {}
    await talk.say(f"{marker} 2\n@say Second.")
    assert (await talk.regenerate()).text == "Second."
    assert heard_last(model, marker) == talk.shown
    assert (await talk.edit(1, f"{marker} 3\n@say Third.")).text == "Third."
    assert [text for role, text in heard_last(model, marker) if role == "user"] == [
        text for role, text in talk.shown if role == "user"
    ]
    assert whole(letta_api, agent.id) == before


@requirement("older.restart")
async def test_a_gateway_that_starts_again_between_a_call_and_its_result_goes_on(
    letta: LocalLetta, model: ScriptedModel, letta_api: Letta, older: Callable[..., Any], marker: str, tmp_path: Path
) -> None:
    agent = older()
    with served(tmp_path, letta_base_url=letta.base_url) as first:
        async with first.client() as client:
            talk = Talk(client, agent.name, fields={"tools": [WEATHER]})
            await talk.say(f"{calls(marker, 'Oslo')}\n@say Sun.")
    twin = twin_in(letta_api, agent.id)
    with served(tmp_path, letta_base_url=letta.base_url) as second:
        async with second.client() as talk.client:
            assert (await talk.answer({"get_weather": "sunny"})).text == "Sun."
            assert (await talk.say(f"{marker}\n@say Later.")).text == "Later."
            assert twin["name"] not in [model.id for model in (await talk.client.models.list()).data]
    assert heard_last(model, marker) == talk.shown
    assert twin_in(letta_api, agent.id)["id"] == twin["id"]


@requirement("older.restart")
async def test_killed_while_it_makes_a_twin_the_gateway_uses_it_after_its_next_start(tmp_path: Path) -> None:
    with fake_letta(rows=[row(1, "Old", "memgpt_agent")]) as fake:
        original = fake.rows[0]["id"]
        with serving(tmp_path, fake.url) as first:

            def kill(_: web.Request) -> web.Response:
                os.kill(first.popen.pid, signal.SIGKILL)
                return web.json_response({}, status=500)

            fake.answers["PATCH /v1/agents/"] = kill
            async with AsyncOpenAI(base_url=f"{first.url}/v1", api_key="none", max_retries=0) as client:
                with pytest.raises(openai.APIConnectionError):
                    await Chat(client, "Old").ask("#call get_weather {}#", tools=[WEATHER])
        half = fake.rows[-1]
        assert half["metadata"] == mark(original)
        del fake.answers["PATCH /v1/agents/"]
        with serving(tmp_path, fake.url) as second:
            async with AsyncOpenAI(base_url=f"{second.url}/v1", api_key="none", max_retries=0) as client:
                answer = await Chat(client, "Old").ask("#call get_weather {}#", tools=[WEATHER])
        assert answer.finish == "tool_calls"
        assert [each["id"] for each in fake.rows] == [original, half["id"]]
        assert half["metadata"] != mark(original)
