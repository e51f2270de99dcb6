"""The main job on the real thing: an official client, a real Letta agent, a tool which the client runs."""

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from frontdesk.testing import TABLE, ScriptedModel
from tests.requirements import requirement

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@requirement("models.list")
async def test_agents_are_listed_as_models(client: AsyncOpenAI, milo: str) -> None:
    models = {model.id: model async for model in client.models.list()}
    assert milo in models
    assert models[milo].created > 1_700_000_000


@requirement("chat.plain")
async def test_a_plain_reply(client: AsyncOpenAI, milo: str) -> None:
    reply = await client.chat.completions.create(model=milo, messages=[{"role": "user", "content": "@say Hello."}])
    assert reply.choices[0].message.content == "Hello."
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens > 0


@requirement("chat.text.exact")
async def test_text_survives_byte_for_byte_streaming_and_not(client: AsyncOpenAI, milo: str) -> None:
    messages: Any = [{"role": "user", "content": "@table"}]
    plain = await client.chat.completions.create(model=milo, messages=messages)
    stream = await client.chat.completions.create(model=milo, messages=messages, stream=True)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert plain.choices[0].message.content == TABLE
    assert "".join(pieces) == TABLE
    assert len([piece for piece in pieces if piece]) > 1


@requirement("tools.round-trip")
async def test_a_tool_round_trip(client: AsyncOpenAI, milo: str, model: ScriptedModel) -> None:
    messages: list[Any] = [
        {"role": "user", "content": '@think hm\n@call get_weather {"city": "Oslo"}\n@then\n@say Cold #rt1.'}
    ]
    stream = await client.chat.completions.create(model=milo, messages=messages, tools=[WEATHER], stream=True)
    call: dict[str, str] = {"id": "", "name": "", "arguments": ""}
    finish = None
    async for chunk in stream:
        choice = chunk.choices[0]
        finish = choice.finish_reason or finish
        for fragment in choice.delta.tool_calls or ():
            call["id"] += fragment.id or ""
            assert fragment.function
            call["name"] += fragment.function.name or ""
            call["arguments"] += fragment.function.arguments or ""
    assert finish == "tool_calls"
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Oslo"})
    assert len(call["id"]) <= 40
    messages.append(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": call["arguments"]},
                }
            ],
        }
    )
    messages.append({"role": "tool", "tool_call_id": call["id"], "content": "-4 °C #rt1"})
    reply = await client.chat.completions.create(model=milo, messages=messages, tools=[WEATHER])
    assert reply.choices[0].message.content == "Cold #rt1."
    heard = model.requests_with("-4 °C #rt1")[-1]
    assert [message["role"] for message in heard.messages][-3:] == ["user", "assistant", "tool"]


@requirement("errors.unknown-model")
async def test_an_unknown_agent_is_a_404(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as info:
        await client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "hi"}])
    assert info.value.code == "model_not_found"
