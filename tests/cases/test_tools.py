"""Cases 20 to 31: tools of the caller's and of the agent's own."""

import asyncio
import json
from typing import Any

import pytest

from tests.cases.cast import ran
from tests.cases.wire import WEATHER, Desk, error_of, function, result, results_in
from tests.requirements import requirement

CALL = '@call get_weather {"city": "Tokyo"}'


def message_of(answer: Any) -> dict[str, Any]:
    return answer.json()["choices"][0]["message"]


@requirement("python.cases")
async def test_case_20_a_callers_tool_is_asked_for_and_not_run(desk: Desk) -> None:
    body = (await desk.ask(CALL, tools=[WEATHER])).json()
    (choice,) = body["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"], choice["finish_reason"]) == (
        "function",
        "get_weather",
        "tool_calls",
    )
    assert json.loads(call["function"]["arguments"]) == {"city": "Tokyo"}
    assert body["usage"]["total_tokens"] > 0
    assert len(desk.calls) == 1


async def test_case_21_its_result_is_taken_up(desk: Desk) -> None:
    said = desk.said(f"{CALL}\n@then\n@say It is sunny.")
    first = message_of(await desk.ask([said], tools=[WEATHER]))
    told = [said, first, result(first["tool_calls"][0]["id"], "sunny")]
    body = (await desk.ask(told, tools=[WEATHER])).json()
    assert (body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]) == (
        "It is sunny.",
        "stop",
    )
    assert len(desk.calls) == 2


async def test_case_22_parallel_calls_have_ids_and_places_of_their_own(desk: Desk) -> None:
    script = '@call get_weather {"city": "Tokyo"}\n@call get_weather {"city": "Oslo"}'
    streamed = await desk.stream(script, tools=[WEATHER], parallel_tool_calls=True)
    assert [json.loads(call["arguments"])["city"] for call in streamed.calls] == ["Tokyo", "Oslo"]
    assert len({call["id"] for call in streamed.calls}) == 2
    assert desk.calls[0].body.get("parallel_tool_calls") is True


async def test_case_23_none_means_none(desk: Desk) -> None:
    body = (await desk.ask("@say Fine.", tools=[WEATHER], tool_choice="none")).json()
    assert body["choices"][0]["finish_reason"] == "stop"
    assert not body["choices"][0]["message"].get("tool_calls")
    assert "get_weather" not in desk.calls[0].tool_names


async def test_case_24_one_that_is_named_is_called_or_that_is_refused(desk: Desk) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = await desk.ask(CALL, tools=[WEATHER, function("other")], tool_choice=choice)
    if desk.agent == "clerk":
        assert [call["function"]["name"] for call in message_of(answer)["tool_calls"]] == ["get_weather"]
    else:  # nothing in Letta can force a call
        assert (answer.status_code, error_of(answer)["param"]) == (400, "tool_choice")


async def test_case_25_a_result_for_no_call_is_refused(desk: Desk) -> None:
    stray = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_123", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
    }
    answer = await desk.ask([desk.said("Hello"), stray, result("call_456", "sunny")], tools=[WEATHER])
    assert answer.status_code == 400
    assert error_of(answer)["type"] == "invalid_request_error"


async def test_case_26_a_streamed_call_is_put_together_once(desk: Desk) -> None:
    streamed = await desk.stream(CALL, tools=[WEATHER])
    (call,) = streamed.calls
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Tokyo"})
    assert streamed.finish == ["tool_calls"]
    assert not any("message" in choice for chunk in streamed.chunks for choice in chunk["choices"])


@pytest.mark.parametrize("stream", [False, True])
@requirement("python.tools.once")
async def test_case_27_an_own_tool_runs_once_and_usage_is_the_sum(clerk: Desk, stream: bool) -> None:
    script = f'@usage 10 5\n@call note {{"text": "{clerk.tag}"}}\n@then\n@usage 20 7\n@say Noted.'
    if stream:
        streamed = await clerk.stream(script, stream_options={"include_usage": True})
        text, usage = streamed.text, streamed.chunks[-1]["usage"]
        assert streamed.calls == []
    else:
        body = (await clerk.ask(script)).json()
        text, usage = body["choices"][0]["message"]["content"], body["usage"]
    assert (text, usage["prompt_tokens"], usage["completion_tokens"]) == ("Noted.", 30, 12)
    assert ran[clerk.tag] == 1
    assert results_in(clerk.calls[1]) == [f"noted {clerk.tag}"]


@pytest.mark.parametrize("stream", [False, True])
@requirement("python.tools.mixed")
async def test_case_28_of_a_mixed_step_the_caller_sees_its_own_call_and_the_model_all_results(
    clerk: Desk, stream: bool
) -> None:
    script = f'@call note {{"text": "{clerk.tag}"}}\n{CALL}\n@then\n@say All told.'
    said = clerk.said(script)
    if stream:
        streamed = await clerk.stream([said], tools=[WEATHER])
        (call,) = streamed.calls
        called = {"name": call["name"], "arguments": call["arguments"]}
        made: list[dict[str, Any]] = [{"id": call["id"], "type": "function", "function": called}]
        assert streamed.finish == ["tool_calls"]
    else:
        made = message_of(await clerk.ask([said], tools=[WEATHER]))["tool_calls"]
    assert [each["function"]["name"] for each in made] == ["get_weather"]
    assert ran[clerk.tag] == 1
    told = [said, {"role": "assistant", "content": None, "tool_calls": made}, result(made[0]["id"], "sunny")]
    assert message_of(await clerk.ask(told, tools=[WEATHER]))["content"] == "All told."
    assert ran[clerk.tag] == 1
    assert sorted(results_in(clerk.calls[-1])) == [f"noted {clerk.tag}", "sunny"]


@requirement("python.tools.override")
async def test_case_29_a_tool_of_the_request_takes_an_own_ones_name_for_that_request(clerk: Desk) -> None:
    script = f'@call note {{"text": "{clerk.tag}"}}\n@then\n@say Noted.'
    mine = function("note", text={"type": "string"})
    theirs, ours = await asyncio.gather(clerk.ask(script, tools=[mine]), clerk.ask(f"{script}\nand more"))
    assert theirs.json()["choices"][0]["finish_reason"] == "tool_calls"
    assert message_of(ours)["content"] == "Noted."
    assert ran[clerk.tag] == 1


@pytest.mark.parametrize("stream", [False, True])
@requirement("python.tools.limit")
async def test_case_30_the_limit_keeps_an_answer_and_says_length_beyond(clerk: Desk, stream: bool) -> None:
    step = f'@call note {{"text": "{clerk.tag}"}}\n@then\n'
    kept = await clerk.stream(step * 2 + "@say The third call.")
    assert (kept.text, kept.finish) == ("The third call.", ["stop"])
    if stream:
        assert (await clerk.stream(step * 5 + "@say Never.")).finish == ["length"]
    else:
        assert (await clerk.ask(step * 5 + "@say Never.")).json()["choices"][0]["finish_reason"] == "length"
    assert len(clerk.calls) == 6


@pytest.mark.parametrize(
    ("call", "told"), [('@call failing {"text": "it"}', "it cannot be had"), ("@badjson note", "Invalid JSON")]
)
@requirement("python.tools.errors")
async def test_case_31_what_goes_wrong_with_a_tool_the_model_is_told(clerk: Desk, call: str, told: str) -> None:
    answer = await clerk.ask(f"{call}\n@then\n@say I see.")
    assert (answer.status_code, message_of(answer)["content"]) == (200, "I see.")
    assert told in str(clerk.calls[-1].messages[-1])
