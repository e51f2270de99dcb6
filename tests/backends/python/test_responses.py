"""The Responses and Conversations APIs with agents written in Python: the same turns, the same tree."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from frontdesk.testing import ScriptedModel
from tests.backends.python.cast import ran
from tests.backends.python.serving import Asking
from tests.backends.python.test_tools import results_in
from tests.requirements import requirement
from tests.served import Served

WEATHER: Any = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}


class Place(BaseModel):
    city: str


@pytest.fixture
async def client(gateway: Served) -> AsyncIterator[AsyncOpenAI]:
    async with gateway.client() as client:
        yield client


@pytest.fixture
def mine(gateway: Served, model: ScriptedModel, marker: str) -> Asking:
    return Asking(gateway, model, marker, streamed=False)


def script(asking: Asking, text: str) -> str:
    return f"{text}\n{asking.marker}"


async def ended(client: AsyncOpenAI, response: Response) -> Response:
    async with asyncio.timeout(20):
        while response.status in ("queued", "in_progress"):
            await asyncio.sleep(0.05)
            response = await client.responses.retrieve(response.id)
    return response


@requirement("python.responses")
async def test_an_own_tools_run_is_shown_and_the_response_goes_on(client: AsyncOpenAI, mine: Asking) -> None:
    asked = script(mine, f'@call note {{"text": "{mine.marker}"}}\n@then\n@say Noted.')
    first = await client.responses.create(model="notary", input=asked)
    assert first.output_text == "Noted."
    (run,) = [item for item in first.output if item.type == "mcp_call"]
    assert (run.name, run.output) == ("note", f"noted {mine.marker}")
    second = await client.responses.create(
        model="notary", input=script(mine, "@say And more."), previous_response_id=first.id
    )
    assert second.output_text == "And more."
    assert results_in(mine.calls[-1].messages) == [f"noted {mine.marker}"]
    assert ran[mine.marker] == 1


@requirement("python.responses")
async def test_an_earlier_response_is_branched_from(client: AsyncOpenAI, mine: Asking) -> None:
    first = await client.responses.create(model="notary", input=script(mine, "@say One."))
    for word in ("Two", "Other"):
        asked = script(mine, f"@say {word}.")
        branch = await client.responses.create(model="notary", input=asked, previous_response_id=first.id)
        assert branch.output_text == f"{word}."
    told = [each["content"] for each in mine.calls[-1].messages if each["role"] == "assistant"]
    assert told == ["One."]


async def test_the_callers_tools_in_a_mixed_step(client: AsyncOpenAI, mine: Asking) -> None:
    asked = script(mine, f'@call note {{"text": "{mine.marker}"}}\n@call get_weather {{}}\n@then\n@say All told.')
    first = await client.responses.create(model="notary", input=asked, tools=[WEATHER])
    (call,) = [item for item in first.output if item.type == "function_call"]
    answer: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    second = await client.responses.create(model="notary", input=answer, previous_response_id=first.id, tools=[WEATHER])
    assert second.output_text == "All told."
    assert sorted(results_in(mine.calls[-1].messages)) == [f"noted {mine.marker}", "rain"]
    assert ran[mine.marker] == 1


async def test_a_streamed_response_tells_of_everything_in_its_order(client: AsyncOpenAI, mine: Asking) -> None:
    asked = script(mine, f'@think Hm.\n@call note {{"text": "{mine.marker}"}}\n@then\n@say Noted.')
    kinds: list[str] = []
    async with client.responses.stream(model="notary", input=asked) as stream:
        kinds.extend([event.type async for event in stream])
        final = await stream.get_final_response()
    assert final.output_text == "Noted."
    order = ["response.created", "response.mcp_call.in_progress", "response.mcp_call.completed", "response.completed"]
    assert [kind for kind in kinds if kind in order] == order


@requirement("python.responses")
async def test_a_background_response_runs_by_itself_and_is_heard_later(client: AsyncOpenAI, mine: Asking) -> None:
    asked = script(mine, f'@call note {{"text": "{mine.marker}"}}\n@then\n@slow 0.2\n@say Done by myself.')
    begun = await client.responses.create(model="notary", input=asked, background=True)
    assert (await ended(client, begun)).output_text == "Done by myself."
    text = ""
    async for event in await client.responses.retrieve(begun.id, stream=True):
        text += event.delta if event.type == "response.output_text.delta" else ""
    assert text == "Done by myself."
    assert ran[mine.marker] == 1


async def test_a_background_response_is_cancelled_and_its_model_stopped(client: AsyncOpenAI, mine: Asking) -> None:
    asked = script(mine, "@say Well,\n@hang")
    begun = await client.responses.create(model="notary", input=asked, background=True)
    await asyncio.to_thread(mine.model.wait_for, lambda requests: mine.marker in str([r.messages for r in requests]))
    cancelled = await client.responses.cancel(begun.id)
    assert (await ended(client, cancelled)).status == "cancelled"
    await asyncio.to_thread(
        mine.model.wait_for,
        lambda requests: any(mine.marker in str(r.messages) and r.outcome == "gone" for r in requests),
    )


async def test_what_is_put_into_a_conversation_is_told(client: AsyncOpenAI, mine: Asking) -> None:
    conversation = await client.conversations.create(
        items=[{"type": "message", "role": "user", "content": "My name is Alice."}]
    )
    answer = await client.responses.create(
        model="notary", input=script(mine, "@say Hello Alice."), conversation=conversation.id
    )
    assert answer.output_text == "Hello Alice."
    assert "My name is Alice." in str(mine.calls[-1].messages)
    listed = await client.conversations.items.list(conversation.id, order="asc")
    assert "Hello Alice." in str([item async for item in listed])


@requirement("python.structured")
async def test_answers_are_parsed(client: AsyncOpenAI, mine: Asking) -> None:
    parsed = await client.responses.parse(
        model="notary", input=script(mine, '@say {"city": "Oslo"}'), text_format=Place
    )
    assert parsed.output_parsed == Place(city="Oslo")


async def test_an_idempotency_key_runs_an_own_tool_once(client: AsyncOpenAI, mine: Asking) -> None:
    asked = script(mine, f'@call note {{"text": "{mine.marker}"}}\n@then\n@say Once.')
    headers = {"Idempotency-Key": mine.marker}
    answers = await asyncio.gather(
        *(client.responses.create(model="notary", input=asked, extra_headers=headers) for _ in range(4))
    )
    assert {each.output_text for each in answers} == {"Once."}
    assert ran[mine.marker] == 1


async def test_an_answer_to_a_call_that_was_answered_is_refused_or_given_again(
    client: AsyncOpenAI, mine: Asking
) -> None:
    asked = script(mine, "@call get_weather {}\n@then\n@say Rain.")
    first = await client.responses.create(model="notary", input=asked, tools=[WEATHER])
    (call,) = [item for item in first.output if item.type == "function_call"]
    answer: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]

    async def once() -> str:
        done = await client.responses.create(model="notary", input=answer, previous_response_id=first.id)
        return done.output_text

    said = await asyncio.gather(once(), once(), return_exceptions=True)
    assert "Rain." in said
    assert all(each == "Rain." or isinstance(each, openai.APIStatusError) for each in said)


async def test_deleting_a_conversation_removes_its_thread(client: AsyncOpenAI, mine: Asking) -> None:
    headers = {"x-frontdesk-conversation": mine.marker}
    asked = script(mine, "@say One.")
    raw = await client.chat.completions.with_raw_response.create(
        model="notary", messages=[{"role": "user", "content": asked}], extra_headers=headers
    )
    conversation = raw.headers["x-frontdesk-conversation"]
    await client.conversations.delete(conversation)
    await client.chat.completions.create(
        model="notary", messages=[{"role": "user", "content": script(mine, "@say Two.")}], extra_headers=headers
    )
    assert "One." not in str(mine.calls[-1].messages)
