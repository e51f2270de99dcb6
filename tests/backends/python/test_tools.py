"""Whose tool is it: the caller's go out, the agent's own run here, and both may come in one step."""

import json
from typing import Any

import pytest

from frontdesk.testing import ScriptedModel
from tests.backends.python.cast import ran
from tests.backends.python.serving import WEATHER, Asking, calls_of, function
from tests.requirements import requirement


def result(call: Any, content: str) -> dict[str, str]:
    return {"role": "tool", "tool_call_id": call.id, "content": content}


def results_in(messages: list[dict[str, Any]]) -> list[str]:
    return [str(each["content"]) for each in messages if each["role"] == "tool"]


@requirement("python.tools.once")
async def test_an_own_tool_runs_here_once_and_the_caller_sees_the_answer_alone(asking: Asking) -> None:
    done = await asking("notary", f'@call note {{"text": "{asking.marker}"}}\n@then\n@say Done.')
    message = done.choices[0].message
    assert (message.content, message.tool_calls or None, done.choices[0].finish_reason) == ("Done.", None, "stop")
    assert ran[asking.marker] == 1
    first, second = asking.calls
    assert results_in(second.messages) == [f"noted {asking.marker}"]
    assert first.tool_names == ["note", "slow", "endless", "broken", "forecast", "whoami"]


@requirement("python.usage")
async def test_usage_is_the_sum_over_all_calls_of_the_model(asking: Asking) -> None:
    script = f'@usage 10 5\n@call note {{"text": "{asking.marker}"}}\n@then\n@usage 10 5\n@say Done.'
    done = await asking("notary", script)
    assert len(asking.calls) == 2
    assert done.usage
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (20, 10)


async def test_the_callers_tool_goes_out_and_its_answer_comes_back(asking: Asking) -> None:
    said = asking.said('@call get_weather {"city": "Oslo"}\n@then\n@say It rains.')
    first = await asking("notary", [said], tools=[WEATHER])
    (call,) = calls_of(first)
    assert first.choices[0].finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})
    told = [said, first.choices[0].message.model_dump(exclude_none=True), result(call, "rain")]
    answer = await asking.message("notary", told, tools=[WEATHER])
    assert answer.content == "It rains."
    assert results_in(asking.calls[-1].messages) == ["rain"]


@requirement("python.tools.mixed")
async def test_of_a_mixed_step_only_the_callers_calls_go_out_and_the_model_sees_all_results(asking: Asking) -> None:
    script = (
        f'@say Both.\n@call note {{"text": "{asking.marker}"}}\n@call get_weather {{"city": "Oslo"}}'
        f'\n@call get_weather {{"city": "Rome"}}\n@then\n@say All told.'
    )
    said = asking.said(script)
    first = await asking("notary", [said], tools=[WEATHER])
    calls = calls_of(first)
    assert [call.function.name for call in calls] == ["get_weather", "get_weather"]
    assert ran[asking.marker] == 1
    told = [said, first.choices[0].message.model_dump(exclude_none=True), *(result(each, each.id) for each in calls)]
    answer = await asking.message("notary", told, tools=[WEATHER])
    assert answer.content == "All told."
    assert ran[asking.marker] == 1
    assert sorted(results_in(asking.calls[-1].messages)) == sorted([f"noted {asking.marker}", *(c.id for c in calls)])


@requirement("python.tools.mixed")
async def test_parked_results_outlive_the_gateway(serve: Any, model: ScriptedModel, marker: str) -> None:
    for streamed in (False, True):
        asking = Asking(serve(), model, f"{marker}{streamed}", streamed)
        said = asking.said(
            f'@call note {{"text": "{asking.marker}"}}\n@call get_weather {{"city": "Oslo"}}\n@then\n@say All told.'
        )
        first = await asking("notary", [said], tools=[WEATHER])
        (call,) = calls_of(first)
        later = Asking(serve(), model, asking.marker, streamed)
        told = [said, first.choices[0].message.model_dump(exclude_none=True), result(call, "rain")]
        assert (await later.message("notary", told, tools=[WEATHER])).content == "All told."
        assert sorted(results_in(later.calls[-1].messages)) == [f"noted {asking.marker}", "rain"]
        assert ran[asking.marker] == 1


async def test_calls_which_nobody_answers_are_told_so(asking: Asking) -> None:
    said = asking.said('@call get_weather {"city": "Oslo"}\n@call get_weather {"city": "Rome"}\n@then\n@say Half.')
    first = await asking("notary", [said], tools=[WEATHER])
    calls = calls_of(first)
    told = [said, first.choices[0].message.model_dump(exclude_none=True), result(calls[1], "sun")]
    await asking.message("notary", told, tools=[WEATHER])
    unanswered, answered = results_in(asking.calls[-1].messages)
    assert "The caller sent no result for this call." in unanswered
    assert answered == "sun"


async def test_a_tool_of_the_request_takes_the_name_of_an_own_one_for_that_request(asking: Asking) -> None:
    mine = function("note", text={"type": "string"})
    script = f'@call note {{"text": "{asking.marker}"}}\n@then\n@say Done.'
    first = await asking("notary", script, tools=[mine])
    assert [call.function.name for call in calls_of(first)] == ["note"]
    assert ran[asking.marker] == 0
    await asking("notary", f"{script}\nonce more")
    assert ran[asking.marker] == 1


@requirement("python.plain")
async def test_a_plain_agents_tool_gives_way_to_the_callers_too(asking: Asking) -> None:
    done = await asking("plain", '@call add {"a": 11, "b": 22}\n@then\n@say Added.')
    assert done.choices[0].message.content == "Added."
    assert results_in(asking.calls[-1].messages) == ["33"]
    mine = function("add", a={"type": "integer"}, b={"type": "integer"})
    before = ran["11+22"]
    first = await asking("plain", '@call add {"a": 11, "b": 22}\nagain', tools=[mine])
    assert first.choices[0].finish_reason == "tool_calls"
    assert ran["11+22"] == before


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ('@call broken {"text": "it"}', "ValueError: it cannot be had"),
        ("@call endless {}", "did not answer within 0.1 seconds"),
        ("@badjson note", "Invalid JSON"),
        ('@call note {"txt": 1}', "Field required"),
        ("@call nothing {}", "Unknown tool name"),
        ('@call secret {"text": "unseen"}', "Unknown tool name"),
    ],
)
@requirement("python.tools.errors")
async def test_what_goes_wrong_with_a_tool_is_told_to_the_model(asking: Asking, call: str, told: str) -> None:
    done = await asking("notary", f"{call}\n@then\n@say I see.")
    assert done.choices[0].message.content == "I see."
    assert told in str(asking.calls[-1].messages[-1])
    assert ran["unseen"] == 0


@requirement("python.tools.schema")
async def test_arguments_have_the_types_of_the_function(asking: Asking) -> None:
    await asking("notary", '@call forecast {"city": "Oslo", "unit": "f", "days": 3}\n@then\n@say Done.')
    assert results_in(asking.calls[-1].messages) == ['{"city":"Oslo","unit":"f","days":3}']
    schema = next(each for each in asking.calls[0].tools if each["function"]["name"] == "forecast")["function"]
    assert schema["parameters"]["properties"]["unit"] == {"default": "c", "enum": ["c", "f"], "type": "string"}
    assert schema["parameters"]["required"] == ["city"]


@requirement("python.tools.limit")
async def test_the_limit_of_steps_ends_a_turn_with_length_and_keeps_what_was_said(asking: Asking) -> None:
    step = f'@say More.\n@call note {{"text": "{asking.marker}"}}\n@then\n'
    done = await asking("notary", step * 8 + "@say Never.")
    assert done.choices[0].finish_reason == "length"
    assert done.choices[0].message.content == "\n\n".join(["More."] * 5)
    assert (len(asking.calls), ran[asking.marker]) == (5, 5)
    last = await asking("notary", step * 4 + "@say On the last one.")
    assert last.choices[0].finish_reason == "stop"
    assert (last.choices[0].message.content or "").endswith("On the last one.")


async def test_a_tool_knows_who_asks(asking: Asking) -> None:
    await asking("notary", "@call whoami {}\n@then\n@say Done.")
    assert results_in(asking.calls[-1].messages)[0].startswith("anonymous of notary in turn_")


async def test_arguments_that_are_no_json_go_to_the_caller_as_they_are(asking: Asking) -> None:
    if asking.streamed:
        pytest.skip("the official client parses them")
    first = await asking("notary", "@badjson get_weather", tools=[WEATHER])
    assert first.choices[0].finish_reason == "tool_calls"
