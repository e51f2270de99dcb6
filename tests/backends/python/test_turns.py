"""Turns of Python agents: conversations, settings, structured output, errors, and being cut short."""

import asyncio
import json
from typing import Any

import openai
import pytest

from frontdesk.testing import ScriptedModel
from frontdesk.testing.script import TABLE
from tests.backends.python.cast import ran
from tests.backends.python.serving import WEATHER, Asking, calls_of
from tests.backends.python.test_tools import results_in
from tests.requirements import requirement

PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)


def texts(asking: Asking) -> list[Any]:
    return [each["content"] for each in asking.calls[-1].messages if each["role"] in ("user", "assistant")]


async def test_the_answer_is_whole_and_bears_the_agents_name(asking: Asking) -> None:
    done = await asking("notary", "@think Hm.\n@table")
    assert done.model == "notary"
    assert done.choices[0].message.content == TABLE


@requirement("python.conversations")
async def test_a_conversation_goes_on_where_it_was_and_branches_where_it_is_edited(asking: Asking) -> None:
    one, two, other = asking.said("@say One."), asking.said("@say Two."), asking.said("@say Other.")
    first = {"role": "assistant", "content": (await asking.message("notary", [one])).content}
    await asking.message("notary", [one, first, two])
    assert texts(asking) == [one["content"], "One.", two["content"]]
    await asking.message("notary", [one, first, other])
    assert texts(asking) == [one["content"], "One.", other["content"]]


@requirement("python.conversations")
async def test_a_branch_keeps_what_its_tools_gave(asking: Asking) -> None:
    one = asking.said(f'@call note {{"text": "{asking.marker}"}}\n@then\n@say One.')
    first = {"role": "assistant", "content": (await asking.message("notary", [one])).content}
    await asking.message("notary", [one, first, asking.said("@say Two.")])
    await asking.message("notary", [one, first, asking.said("@say Other.")])
    assert results_in(asking.calls[-1].messages) == [f"noted {asking.marker}"]


async def test_a_named_conversation_needs_only_what_is_new(asking: Asking) -> None:
    pin = {"x-frontdesk-conversation": f"{asking.marker}{asking.streamed}"}
    await asking("notary", "@say One.", extra_headers=pin)
    await asking("notary", "@say Two.", extra_headers=pin)
    assert [each for each in texts(asking) if each in ("One.", "Two.")] == ["One."]


async def test_stateless_requests_leave_nothing_but_may_wait_for_the_callers_tools(asking: Asking) -> None:
    said = asking.said('@call get_weather {"city": "Oslo"}\n@then\n@say It rains.')
    first = await asking("notary:stateless", [said], tools=[WEATHER])
    (call,) = calls_of(first)
    told: list[Any] = [said, first.choices[0].message.model_dump(exclude_none=True)]
    told.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
    assert (await asking.message("notary:stateless", told, tools=[WEATHER])).content == "It rains."


@requirement("python.settings")
async def test_settings_of_the_request_reach_the_model(asking: Asking) -> None:
    asked: dict[str, Any] = {
        "temperature": 0.25,
        "max_tokens": 77,
        "top_p": 0.5,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "seed": 7,
        "stop": ["END"],
        "logit_bias": {"50256": -100},
    }
    await asking("notary", "@say Hello.", **asked)
    body = asking.calls[0].body
    assert {name: body.get(name) for name in asked if name != "max_tokens"} == {
        name: value for name, value in asked.items() if name != "max_tokens"
    }
    assert body.get("max_tokens", body.get("max_completion_tokens")) == 77


async def test_parallel_calls_may_be_forbidden_and_a_tool_demanded(asking: Asking) -> None:
    await asking("notary", "@say Hello.", tools=[WEATHER], parallel_tool_calls=False)
    assert asking.calls[0].body["parallel_tool_calls"] is False
    choice: Any = {"type": "function", "function": {"name": "get_weather"}}
    call = '@call get_weather {"city": "Oslo"}'
    done = await asking("notary", call, tools=[WEATHER], tool_choice=choice)
    assert done.choices[0].finish_reason == "tool_calls"
    sent = asking.calls[1].body
    assert sent["tool_choice"] == choice or (
        sent["tool_choice"] == "required" and asking.calls[1].tool_names == ["get_weather"]
    )
    await asking("notary", "@say Hello.", tools=[WEATHER], tool_choice="none")
    assert "get_weather" not in asking.calls[2].tool_names


@requirement("python.structured")
async def test_the_model_is_held_to_a_json_schema(asking: Asking) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
    done = await asking("notary", '@say {"city": "Oslo"}', response_format=form)
    assert json.loads(done.choices[0].message.content or "") == {"city": "Oslo"}
    sent = asking.calls[0].body["response_format"]["json_schema"]
    assert (sent["name"], sent["schema"], sent["strict"]) == ("place", schema, True)


async def test_any_json_object_may_be_asked_for(asking: Asking) -> None:
    done = await asking("notary", '@say {"city": "Oslo"}', response_format={"type": "json_object"})
    assert json.loads(done.choices[0].message.content or "") == {"city": "Oslo"}


async def test_pictures_and_names_reach_the_model(asking: Asking) -> None:
    parts = [
        {"type": "text", "text": f"@say Seen. {asking.marker}"},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ]
    await asking("notary", [{"role": "user", "name": "Ann", "content": parts}])
    (message,) = [each for each in asking.calls[0].messages if each["role"] == "user"]
    assert message["content"][0]["text"].startswith("Ann: ")
    assert message["content"][1]["image_url"]["url"] == PICTURE


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ("@fail 401", 502, "provider_authentication"),
        ("@fail 429", 429, "rate_limit_exceeded"),
        ("@fail 429 insufficient_quota", 402, "insufficient_budget"),
        ("@fail 400 context_length_exceeded", 400, "context_length_exceeded"),
        ("@fail 500", 502, "provider_error"),
        ("@break", 502, "provider_error"),
    ],
)
async def test_what_goes_wrong_before_the_first_word_is_a_status(
    asking: Asking, script: str, status: int, code: str
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await asking("notary", script)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert "sk-scripted" not in str(caught.value.body)


async def test_what_goes_wrong_later_is_told_in_the_stream(asking: Asking) -> None:
    with pytest.raises(openai.APIError, match="provider"):
        await asking("notary", "@say Well,\n@error sk-secret-key")


async def test_a_failed_turn_may_be_tried_again(asking: Asking) -> None:
    said = asking.said(f"@fail-times 1 500 should-retry=false\n@say At last. {asking.streamed}")
    with pytest.raises(openai.APIStatusError):
        await asking("notary", [said])
    assert (await asking.message("notary", [said])).content == f"At last. {asking.streamed}"
    assert texts(asking) == [said["content"]]


async def test_an_answer_that_is_cut_off_ends_with_length(asking: Asking) -> None:
    done = await asking("notary", "@say Once upon a\n@finish length")
    assert (done.choices[0].finish_reason, done.choices[0].message.content) == ("length", "Once upon a")


@pytest.mark.parametrize("said", ["", "@say Well,\n"])
async def test_an_answer_that_is_filtered_says_so(asking: Asking, said: str) -> None:
    if asking.streamed:
        with pytest.raises(openai.ContentFilterFinishReasonError):
            await asking("notary", f"{said}@finish content_filter")
        return
    done = await asking("notary", f"{said}@finish content_filter")
    assert done.choices[0].finish_reason == "content_filter"


async def test_saying_nothing_is_an_answer(asking: Asking) -> None:
    done = await asking("notary", "@empty")
    assert (done.choices[0].finish_reason, done.choices[0].message.content or "") == ("stop", "")


@requirement("python.cut")
async def test_a_client_that_leaves_stops_the_model_and_what_was_done_stays(
    serve: Any, model: ScriptedModel, marker: str
) -> None:
    gateway = serve(on_disconnect="cancel")
    asking = Asking(gateway, model, marker, streamed=True)
    pin = {"x-frontdesk-conversation": marker}
    script = f'@call note {{"text": "{marker}"}}\n@then\n@say Well,\n@hang'
    async with gateway.client() as client:
        stream = await client.chat.completions.create(
            model="notary", messages=[asking.said(script)], stream=True, extra_headers=pin
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
        await stream.close()
    gone = await asyncio.to_thread(
        model.wait_for, lambda requests: [r for r in requests if marker in str(r.messages) and r.outcome == "gone"]
    )
    assert len(gone) == 1
    await asking("notary", "@say Back.", extra_headers=pin)
    assert results_in(asking.calls[-1].messages) == [f"noted {marker}"]
    assert ran[marker] == 1


async def test_a_model_that_falls_silent_is_given_up(serve: Any, model: ScriptedModel, marker: str) -> None:
    asking = Asking(serve(silence_seconds=0.3), model, marker, streamed=False)
    with pytest.raises(openai.APIStatusError) as caught:
        await asking("notary", "@say Well,\n@hang")
    assert (caught.value.status_code, caught.value.code) == (504, "agent_timeout")
    assert (await asking.message("notary", "@slow 0.2\n@say Slow.")).content == "Slow."


@requirement("python.context")
async def test_many_turns_of_one_agent_do_not_see_each_other(asking: Asking) -> None:
    async def one(number: int) -> str:
        mine = f"{asking.marker}-{number}-{asking.streamed}"
        done = await asking("notary", f'@call note {{"text": "{mine}"}}\n@then\n@say {mine}')
        assert ran[mine] == 1
        return done.choices[0].message.content or ""

    said = await asyncio.gather(*(one(number) for number in range(30)))
    assert said == [f"{asking.marker}-{number}-{asking.streamed}" for number in range(30)]
