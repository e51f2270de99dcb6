"""The Responses API on the real thing: the official client, a real Letta agent."""

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from frontdesk.testing import TABLE, ScriptedModel
from tests.protocols.chat_completions.asking import heard
from tests.requirements import requirement

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


def spoken(model: ScriptedModel, marker: str) -> list[tuple[str, str]]:
    """What the agent's model was told and had answered when it was last asked with this marker."""
    return [(role, text) for role, text in heard(model.requests_with(marker)[-1]) if role != "system"]


def result(call_id: str, output: Any) -> Any:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def calls(response: Response) -> list[Any]:
    return [item for item in response.output if item.type == "function_call"]


# --- create ------------------------------------------------------------------------------------------------------


@requirement("responses.plain")
async def test_a_plain_response(client: AsyncOpenAI, milo: str) -> None:
    response = await client.responses.create(model=milo, input="@think Hm.\n@say Hello.", metadata={"a": "b"})
    assert (response.status, response.output_text, response.model) == ("completed", "Hello.", milo)
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.usage
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
    assert response.metadata == {"a": "b"}
    assert response.conversation
    assert response.conversation.id.startswith("conv_")


@requirement("responses.stream")
async def test_a_streamed_response_is_the_plain_one(client: AsyncOpenAI, milo: str) -> None:
    plain = await client.responses.create(model=milo, input="@table")
    async with client.responses.stream(model=milo, input="@table") as stream:
        kinds = [event.type async for event in stream]
        streamed = await stream.get_final_response()
    assert plain.output_text == streamed.output_text == TABLE
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") > 1


@requirement("responses.tools")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("by", ["previous_response_id", "conversation", "full input"])
async def test_a_tool_round_trip(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str, by: str, stream: bool
) -> None:
    said = f'@call get_weather {{"city": "Oslo"}}\n@then\n@say Cold {marker}.'
    first = await ask(client, stream, model=milo, input=said, tools=[WEATHER])
    (call,) = calls(first)
    assert (call.name, json.loads(call.arguments), first.status) == ("get_weather", {"city": "Oslo"}, "completed")
    answer = result(call.call_id, "3 °C")
    match by:
        case "previous_response_id":
            more: dict[str, Any] = {"input": [answer], "previous_response_id": first.id}
        case "conversation":
            assert first.conversation
            more = {"input": [answer], "conversation": first.conversation.id}
        case _:
            told = [{"role": "user", "content": said}, *(item.model_dump(exclude_none=True) for item in first.output)]
            more = {"input": [*told, answer]}
    second = await ask(client, stream, model=milo, tools=[WEATHER], **more)
    assert second.output_text == f"Cold {marker}."
    (told,) = [text for role, text in heard(model.requests_with(marker)[-1]) if role == "tool"]
    assert json.loads(told)["message"] == "3 °C"
    assert second.conversation == first.conversation


async def ask(client: AsyncOpenAI, stream: bool, **asked: Any) -> Any:
    if not stream:
        create: Any = client.responses.create
        return await create(**asked)
    answering: Any = client.responses.stream(**asked)
    async with answering as events:
        return await events.get_final_response()


@requirement("responses.parse")
async def test_the_sdk_parses_what_it_asked_for(client: AsyncOpenAI, milo: str) -> None:
    class Weather(BaseModel):
        city: str
        degrees: int

    shape: Any = {"type": "json_schema", "name": "w", "strict": False, "schema": Weather.model_json_schema()}
    response = await client.responses.create(
        model=milo, input='@say {"city": "Oslo", "degrees": 3}', text={"format": shape}
    )
    assert Weather.model_validate_json(response.output_text) == Weather(city="Oslo", degrees=3)


@requirement("responses.errors")
async def test_an_unknown_agent_is_a_404(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as info:
        await client.responses.create(model="nobody", input="Hello")
    assert info.value.code == "model_not_found"


@requirement("responses.errors")
async def test_a_failed_turn_is_an_error_and_its_stream_ends_as_failed(client: AsyncOpenAI, milo: str) -> None:
    with pytest.raises(openai.APIStatusError) as info:
        await client.responses.create(model=milo, input="@fail 400 should-retry=false")
    assert info.value.status_code >= 400
    stream = await client.responses.create(model=milo, input="@say Almost\n@error Alas.", stream=True)
    *_, error, last = [event async for event in stream]
    assert error.type == "error"
    assert last.type == "response.failed"
    assert last.response.error
    assert (last.response.error.code, last.response.error.message) == ("server_error", error.message)
    kept = await client.responses.retrieve(last.response.id)
    assert (kept.status, kept.error) == ("failed", last.response.error)


# --- more than one turn --------------------------------------------------------------------------------------------


@requirement("responses.previous", "responses.conversation", "responses.input")
@pytest.mark.parametrize("by", ["previous_response_id", "conversation", "full input"])
async def test_each_message_is_heard_once_however_a_conversation_is_gone_on_with(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str, by: str
) -> None:
    told: list[Any] = []
    last: Response | None = None
    for number in range(3):
        said = f"@say {number} {marker}"
        told.append({"role": "user", "content": said})
        if last is None or by == "full input":
            last = await client.responses.create(model=milo, input=told)
        elif by == "previous_response_id":
            last = await client.responses.create(model=milo, input=said, previous_response_id=last.id)
        else:
            assert last.conversation
            last = await client.responses.create(model=milo, input=said, conversation=last.conversation.id)
        told += [item.model_dump(exclude_none=True) for item in last.output]
    history = [turn for n in range(3) for turn in (("user", f"@say {n} {marker}"), ("assistant", f"{n} {marker}"))]
    assert spoken(model, f"@say 2 {marker}") == history[:-1]


@requirement("responses.branch")
async def test_an_earlier_response_is_branched_from(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    first = await client.responses.create(model=milo, input=f"@say 1 {marker}")
    second = await client.responses.create(model=milo, input=f"@say 2 {marker}", previous_response_id=first.id)
    other = await client.responses.create(model=milo, input=f"@say 3 {marker}", previous_response_id=first.id)
    assert spoken(model, f"@say 3 {marker}") == [
        ("user", f"@say 1 {marker}"),
        ("assistant", f"1 {marker}"),
        ("user", f"@say 3 {marker}"),
    ]
    assert other.conversation != second.conversation == first.conversation
    await client.responses.create(model=milo, input=f"@say 4 {marker}", previous_response_id=second.id)
    told = [text for role, text in spoken(model, f"@say 4 {marker}") if role == "user"]
    assert told == [f"@say {n} {marker}" for n in (1, 2, 4)]


@requirement("responses.both-protocols")
async def test_a_chat_goes_on_as_responses_and_back(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model=milo, messages=[{"role": "user", "content": f"@say 1 {marker}"}]
    )
    conversation = raw.headers["x-frontdesk-conversation"]
    await client.responses.create(model=milo, input=f"@say 2 {marker}", conversation=conversation)
    messages: list[Any] = []
    for n in (1, 2):
        messages += [
            {"role": "user", "content": f"@say {n} {marker}"},
            {"role": "assistant", "content": f"{n} {marker}"},
        ]
    messages.append({"role": "user", "content": f"@say 3 {marker}"})
    raw = await client.chat.completions.with_raw_response.create(model=milo, messages=messages)
    assert raw.headers["x-frontdesk-conversation"] == conversation
    told = [text for role, text in spoken(model, f"@say 3 {marker}") if role == "user"]
    assert told == [f"@say {n} {marker}" for n in (1, 2, 3)]


@requirement("responses.references")
async def test_items_named_by_their_ids_stand_for_what_was_said(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    said = {"role": "user", "content": f"@think Hm.\n@say 1 {marker}"}
    first = await client.responses.create(model=milo, input=[said])  # type: ignore[list-item]
    references: list[Any] = [{"type": "item_reference", "id": item.id} for item in first.output]
    again = {"role": "user", "content": f"@say 2 {marker}"}
    second = await client.responses.create(model=milo, input=[said, *references, again])  # type: ignore[list-item]
    assert second.conversation == first.conversation
    assert spoken(model, f"@say 2 {marker}")[-1] == ("user", f"@say 2 {marker}")
    unknown: Any = {"type": "item_reference", "id": "msg_0123456789abcdefo0"}
    with pytest.raises(openai.BadRequestError) as info:
        await client.responses.create(model=milo, input=[said, unknown, again])  # type: ignore[list-item]
    assert (info.value.param, info.value.code) == ("input[1].id", "item_not_found")


# --- asked about later -------------------------------------------------------------------------------------------


@requirement("responses.retrieve")
async def test_a_response_can_be_read_again_and_forgotten(client: AsyncOpenAI, milo: str, marker: str) -> None:
    response = await client.responses.create(
        model=milo,
        input=f'@think Hm.\n@call get_weather {{"city": "{marker}"}}',
        tools=[WEATHER],
        instructions="Be brief.",
    )
    assert await client.responses.retrieve(response.id) == response
    items = [item async for item in client.responses.input_items.list(response.id)]
    assert [item.type for item in items] == ["message"]
    await client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError) as info:
        await client.responses.retrieve(response.id)
    assert info.value.code == "response_not_found"
    with pytest.raises(openai.BadRequestError) as gone:
        await client.responses.create(model=milo, input="@say Hello.", previous_response_id=response.id)
    assert gone.value.code == "previous_response_not_found"


@requirement("responses.store")
async def test_what_is_not_to_be_stored_cannot_be_read_again(client: AsyncOpenAI, milo: str) -> None:
    response = await client.responses.create(model=milo, input="@say Hello.", store=False)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)
