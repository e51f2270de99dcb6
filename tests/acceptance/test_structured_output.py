"""Answers in JSON on a real Letta server: held to a schema where the provider does that, else told, checked, mended."""

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from frontdesk.testing import ScriptedModel
from tests.acceptance.talking import Talk
from tests.protocols.chat_completions.asking import Chat, function, user
from tests.requirements import requirement

IGNORED = "x-frontdesk-ignored-params"


class City(BaseModel):
    name: str
    people: int


SCHEMA = City.model_json_schema()
WISH = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
STRICT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
PARIS = '{"name": "Paris", "people": 2100000}'
OBJECT = {"type": "json_object"}


@pytest.fixture
def own_thread(agent: Any) -> str:
    """An agent's own thread, which has no settings of its own: there nobody holds the model to anything."""
    return f"{agent.name}:single"


# --- held to it ---------------------------------------------------------------------------------------------------


@requirement("chat.response-format")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_schema_holds_for_its_request_alone(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str, stream: bool
) -> None:
    talk = Talk(client, milo)
    for wish in (None, STRICT, WISH, OBJECT, {"type": "text"}, None):
        talk.fields = {"response_format": wish} if wish else {}
        answer = await talk.say(f"@say {PARIS}\n@@{marker}", stream=stream)
        assert answer.text == PARIS
        assert IGNORED not in answer.headers
        sent: Any = model.requests_with(marker)[-1].body.get("response_format")
        if wish in (STRICT, WISH):
            assert (sent["json_schema"]["schema"], sent["json_schema"]["strict"]) == (SCHEMA, wish == STRICT)
        else:
            assert sent == (OBJECT if wish == OBJECT else None)
    assert len(set(talk.conversations)) == 1


@requirement("chat.response-format.parse")
async def test_the_parse_helper_of_the_official_client_works(client: AsyncOpenAI, milo: str) -> None:
    said: Any = [user(f"@say {PARIS}")]
    reply = await client.chat.completions.parse(model=milo, messages=said, response_format=City)
    assert reply.choices[0].message.parsed == City(name="Paris", people=2_100_000)
    async with client.chat.completions.stream(model=milo, messages=said, response_format=City) as stream:
        whole = await stream.get_final_completion()
    assert whole.choices[0].message.parsed == City(name="Paris", people=2_100_000)


@requirement("chat.response-format.parse")
async def test_the_parse_helper_tells_of_an_answer_that_was_cut(client: AsyncOpenAI, milo: str) -> None:
    said: Any = [user('@say {"name": "Par\n@usage 10 5\n@finish length')]
    with pytest.raises(openai.LengthFinishReasonError):
        await client.chat.completions.parse(model=milo, messages=said, response_format=City, max_completion_tokens=5)


@requirement("chat.response-format")
async def test_a_schema_holds_through_a_tool_call(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    talk = Talk(client, milo, fields={"response_format": STRICT, "tools": [function("get_weather")]})
    await talk.say(f"@call get_weather\n@then\n@say {PARIS}\n@@{marker}")
    answer = await talk.answer({"get_weather": "Sunny."})
    assert answer.text == PARIS
    sent = [request.body["response_format"]["type"] for request in model.requests_with(marker)]
    assert sent == ["json_schema", "json_schema"]


# --- told, checked and mended -------------------------------------------------------------------------------------


@requirement("chat.response-format.told")
@pytest.mark.parametrize("stream", [False, True])
async def test_without_a_provider_that_holds_to_it_the_agent_is_told_and_its_answer_checked(
    client: AsyncOpenAI, own_thread: str, model: ScriptedModel, marker: str, stream: bool
) -> None:
    said = f"@think Hm.\n@say {json.dumps('```json' + chr(10) + PARIS + chr(10) + '```')}\n@@{marker}"
    answer = await Chat(client, own_thread).ask(said, stream=stream, response_format=WISH)
    assert (answer.text, answer.reasoning) == (PARIS, "Hm.")
    assert answer.headers[IGNORED] == "response_format"
    (request,) = model.requests_with(marker)
    assert request.texts[0].endswith(json.dumps(SCHEMA))
    assert "response_format" not in request.body


@requirement("chat.response-format.told")
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_not_as_wanted_is_mended_once_by_the_model_alone(
    client: AsyncOpenAI, own_thread: str, model: ScriptedModel, marker: str, stream: bool
) -> None:
    spoken = f"Paris has 2.1 million.\n@say {PARIS}\n@@{marker}"
    script = f"@say {json.dumps(spoken)}\n@@{marker}"
    answer = await Chat(client, own_thread).ask(script, stream=stream, response_format=WISH)
    assert answer.text == PARIS
    asked, mended = model.requests_with(marker)
    assert mended.texts[-1].startswith("Make one JSON object of this answer:")
    assert len(mended.messages) == 2  # nothing of the conversation, and nothing in it
    again = await Chat(client, own_thread).ask(f"@list\n@@{marker}")
    assert "Make one JSON object" not in again.text
    assert "Make one JSON object" not in model.requests_with(marker)[-1].json_text
    assert asked.texts[0].endswith(json.dumps(SCHEMA))


@requirement("chat.response-format.told")
async def test_an_answer_that_cannot_be_mended_is_given_as_it_was(client: AsyncOpenAI, own_thread: str) -> None:
    answer = await Chat(client, own_thread).ask("@say I would rather not.", response_format=OBJECT)
    assert answer.text == "I would rather not."
    assert answer.headers[IGNORED] == "response_format"


@requirement("chat.response-format.told")
async def test_a_strict_schema_that_cannot_be_kept_is_refused(
    client: AsyncOpenAI, own_thread: str, make_agent: Callable[..., Any], model: ScriptedModel, marker: str
) -> None:
    for agent in (own_thread, make_agent(agent_type="memgpt_v2_agent").name):
        with pytest.raises(openai.BadRequestError) as info:
            await Chat(client, agent).ask(marker, response_format=STRICT)
        assert (info.value.param, info.value.code) == ("response_format", "unsupported_value")
    assert model.requests_with(marker) == []
