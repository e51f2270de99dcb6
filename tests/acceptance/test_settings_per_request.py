"""What a request wishes of the model, on a real Letta server: what the model was really sent, and for how long."""

import asyncio
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.demo.local_letta import LocalLetta
from frontdesk.testing import ScriptedModel
from frontdesk.testing.model import Request
from tests.acceptance.talking import Talk
from tests.conftest import OTHER_MODEL
from tests.protocols.chat_completions.asking import Chat, function
from tests.requirements import requirement
from tests.served import served

IGNORED = "x-frontdesk-ignored-params"
WEATHER = function("get_weather")
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def wishes(request: Request) -> dict[str, Any]:
    """What the model was told of how to answer."""
    names = ("temperature", "max_completion_tokens", "response_format", "parallel_tool_calls")
    return {name: request.body[name] for name in names if name in request.body}


def last(model: ScriptedModel, marker: str) -> dict[str, Any]:
    return wishes(model.requests_with(marker)[-1])


@requirement("chat.params.settings")
@pytest.mark.parametrize("stream", [False, True])
async def test_settings_hold_for_their_request_alone(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str, stream: bool
) -> None:
    talk = Talk(client, milo, fields={"tools": [WEATHER]})
    await talk.say(f"@say One. {marker}", stream=stream)
    own = last(model, marker)
    assert own["parallel_tool_calls"] is True
    asked: dict[str, Any] = {"temperature": 0.25, "max_completion_tokens": 77, "parallel_tool_calls": False}
    talk.fields |= asked
    answer = await talk.say(f"@say Two. {marker}", stream=stream)
    assert IGNORED not in answer.headers
    assert last(model, marker) == own | asked
    talk.fields |= {"temperature": 0.5}
    await talk.say(f"@say Three. {marker}", stream=stream)
    assert last(model, marker) == own | asked | {"temperature": 0.5}
    talk.fields = {"tools": [WEATHER]}
    await talk.say(f"@say Four. {marker}", stream=stream)
    assert last(model, marker) == own
    assert len(set(talk.conversations)) == 1


@requirement("chat.params.settings")
async def test_a_first_request_has_its_settings_at_once_and_the_agent_keeps_its_own(
    client: AsyncOpenAI, agent: Any, letta_api: Letta, model: ScriptedModel, marker: str
) -> None:
    await Talk(client, agent.name, fields={"temperature": 0.125, "max_tokens": 55}).say(f"@say One. {marker}")
    assert (last(model, marker)["temperature"], last(model, marker)["max_completion_tokens"]) == (0.125, 55)
    kept = letta_api.agents.retrieve(agent.id)
    assert kept.model_dump()["model_settings"] == agent.model_dump()["model_settings"]


@requirement("chat.params.settings")
async def test_settings_are_right_whichever_process_answers_and_also_after_a_restart(
    letta: LocalLetta, milo: str, model: ScriptedModel, marker: str, tmp_path: Path
) -> None:
    said: list[Any] = []

    async def say(client: AsyncOpenAI, text: str, **fields: Any) -> Any:
        talk = Talk(client, milo, said, fields=fields)
        await talk.say(f"@say {text} {marker}")
        return last(model, marker).get("temperature")

    with ExitStack() as running:
        database = f"sqlite:///{tmp_path / 'shared.db'}"
        shared: dict[str, Any] = {"letta_base_url": letta.base_url, "database_url": database, "secret": "the same"}
        gateways = [running.enter_context(served(tmp_path, **shared)) for _ in range(2)]
        async with AsyncExitStack() as clients:
            ann, bob = [await clients.enter_async_context(gateway.client()) for gateway in gateways]
            own = await say(ann, "One.")
            assert await say(bob, "Two.", temperature=0.5) == 0.5
            assert await say(ann, "Three.") == own
            assert await say(ann, "Four.", temperature=0.75) == 0.75
            assert await say(bob, "Five.") == own
            assert await say(bob, "Six.", temperature=0.125) == 0.125
    with served(tmp_path, **shared) as again:
        async with again.client() as client:
            assert await say(client, "Seven.") == own


@requirement("chat.params.settings")
async def test_a_conversation_is_written_to_only_when_its_settings_change(
    letta: LocalLetta, milo: str, marker: str, tmp_path: Path
) -> None:
    """Counted by the gateway's own metrics of its calls to Letta."""
    with served(tmp_path, letta_base_url=letta.base_url) as gateway:
        async with gateway.client() as client:
            talk = Talk(client, milo, fields={"temperature": 0.25})
            for turn in range(4):
                await talk.say(f"@say Answer {turn} {marker}")
            assert await calls(client, "PATCH /v1/conversations/{id}") == 0  # it was made with them
            talk.fields = {}
            for turn in range(4):
                await talk.say(f"@say Another {turn} {marker}")
            assert await calls(client, "PATCH /v1/conversations/{id}") == 1
            assert await calls(client, "GET /v1/conversations/{id}") == 0


async def calls(client: AsyncOpenAI, name: str) -> float:
    """How often the gateway has made this call."""
    text: Any = await client.get("../metrics", cast_to=openai.HttpxBinaryResponseContent)
    lines = [line for line in text.text.splitlines() if line.startswith("frontdesk_backend_calls_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if f'"{name}"' in line)


@requirement("chat.params.settings")
async def test_a_branch_has_the_settings_of_its_own_request(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    talk = Talk(client, milo, fields={"temperature": 0.25, "tools": [WEATHER]})
    await talk.say(f"@call get_weather\n@then\n@say One. {marker}")
    await talk.answer({"get_weather": "Sunny."})
    assert last(model, marker)["temperature"] == 0.25
    await talk.say(f"@say Two. {marker}")
    talk.fields = {"tools": [WEATHER]}
    await talk.edit(1, f"@say Another two. {marker}")
    assert last(model, marker)["temperature"] not in (0.25, None)
    talk.fields |= {"temperature": 0.5}
    await talk.regenerate()
    assert last(model, marker)["temperature"] == 0.5


@requirement("chat.params.settings", "chat.system.isolated")
async def test_twenty_conversations_of_one_agent_at_once_have_each_their_own_prompt_and_temperature(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    async def hold(number: int) -> None:
        talk = Talk(client, milo, fields={"temperature": number / 20}, system=f"You are number {number} of {marker}.")
        for turn in range(2):
            await talk.say(f"@say {turn} {marker}-{number}-")

    await asyncio.gather(*map(hold, range(20)))
    for number in range(20):
        requests = model.requests_with(f"{marker}-{number}-")
        assert [wishes(request)["temperature"] for request in requests] == [number / 20] * 2
        for request in requests:
            assert request.texts[0].endswith(f"\n\nYou are number {number} of {marker}.")
            assert request.json_text.count("You are number ") == 1


@requirement("chat.params.reported")
async def test_in_an_agents_own_thread_settings_are_reported(
    client: AsyncOpenAI, agent: Any, model: ScriptedModel, marker: str
) -> None:
    chat = Chat(client, f"{agent.name}:single")
    answer = await chat.ask(f"@say Hello. {marker}", temperature=0.25, max_tokens=5)
    assert answer.headers[IGNORED] == "max_tokens,temperature"
    assert last(model, marker)["temperature"] != 0.25
    schema = {"name": "city", "schema": SCHEMA, "strict": True}
    with pytest.raises(openai.BadRequestError) as info:
        await chat.ask(marker, response_format={"type": "json_schema", "json_schema": schema})
    assert info.value.param == "response_format"


@requirement("chat.finish.length")
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_has_reached_its_limit_says_so(client: AsyncOpenAI, milo: str, stream: bool) -> None:
    chat = Chat(client, milo)
    cut = await chat.ask("@say Cut\n@usage 10 20\n@finish length", stream=stream, max_completion_tokens=20)
    whole = await chat.ask("@say Whole\n@usage 10 19", stream=stream, max_completion_tokens=20)
    assert (cut.finish, whole.finish) == ("length", "stop")


@requirement("chat.finish.length")
async def test_several_answers_of_one_turn_do_not_add_up_to_its_limit(client: AsyncOpenAI, agent: Any) -> None:
    remember = '@call memory_insert {"label": "human", "new_string": "Likes trees."}\n@usage 10 15\n@then\n@say Done\n'
    chat = Chat(client, agent.name)
    assert (await chat.ask(f"{remember}@usage 10 15", max_completion_tokens=20)).finish == "stop"
    assert (await chat.ask(f"{remember}@usage 10 20", max_completion_tokens=20)).finish == "length"


# --- another model ------------------------------------------------------------------------------------------------


@requirement("chat.params.model")
async def test_a_request_may_choose_another_model_where_that_is_allowed(
    letta: LocalLetta, milo: str, model: ScriptedModel, marker: str, tmp_path: Path
) -> None:
    with served(tmp_path, letta_base_url=letta.base_url, model_choices=("openai-proxy/*",)) as gateway:
        async with gateway.client() as client:
            talk = Talk(client, milo)
            await talk.say(f"@say One. {marker}")
            usual = model.requests_with(marker)[-1].body["model"]
            other = f"openai-proxy/{OTHER_MODEL}"
            talk.fields = {"metadata": {"frontdesk_model": other}}
            await talk.say(f"@say Two. {marker}")
            assert model.requests_with(marker)[-1].body["model"] == other.removeprefix("openai-proxy/")
            talk.fields = {}
            await talk.say(f"@say Three. {marker}")
            assert model.requests_with(marker)[-1].body["model"] == usual
            named = await Chat(client, f"{milo}:stateless@{other}").ask(f"@say Four. {marker}")
            assert (named.text, named.identity) == (f"Four. {marker}", "stateless")
            assert model.requests_with(f"@say Four. {marker}")[-1].body["model"] == other.removeprefix("openai-proxy/")
            for wrong, code in (("openai-proxy/none", "model_not_found"), ("letta/letta-free", "model_not_allowed")):
                with pytest.raises(openai.BadRequestError) as info:
                    await Chat(client, milo).ask(marker, metadata={"frontdesk_model": wrong})
                assert info.value.code == code


@requirement("chat.params.model")
async def test_by_default_no_request_chooses_a_model(client: AsyncOpenAI, milo: str, marker: str) -> None:
    with pytest.raises(openai.BadRequestError) as info:
        await Chat(client, milo).ask(marker, metadata={"frontdesk_model": "openai-proxy/scripted"})
    assert info.value.code == "model_not_allowed"
    with pytest.raises(openai.BadRequestError) as info:
        await Chat(client, f"{milo}@openai-proxy/scripted").ask(marker)
    assert (info.value.code, info.value.param) == ("model_not_allowed", "model")
