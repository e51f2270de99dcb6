"""Cases 1 to 11: chat without streaming."""

from typing import Any

import pytest

from tests.cases.wire import WEATHER, Desk, error_of, function, instructions
from tests.requirements import requirement

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)


@requirement("python.cases")
async def test_case_1_a_plain_answer_is_a_whole_completion(desk: Desk) -> None:
    answer = await desk.ask("@say Hello.")
    body = answer.json()
    assert answer.status_code == 200
    assert body["object"] == "chat.completion"
    assert body["id"]
    assert isinstance(body["created"], int)
    (choice,) = body["choices"]
    assert (choice["message"]["role"], choice["message"]["content"], choice["finish_reason"]) == (
        "assistant",
        "Hello.",
        "stop",
    )
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


async def test_case_2_the_callers_system_message_stands_beside_the_agents_own(desk: Desk) -> None:
    answer = await desk.ask([{"role": "system", "content": f"Be brief {desk.tag}."}, desk.said("@say Hello.")])
    assert answer.status_code == 200
    told = instructions(desk.calls[0])
    assert f"Be brief {desk.tag}." in told
    if desk.agent == "clerk":
        assert "marmalade" in told


async def test_case_3_all_turns_of_a_history_are_there_in_their_order(desk: Desk) -> None:
    told = [
        desk.said("I am Alice."),
        {"role": "assistant", "content": "Hello Alice."},
        desk.said("@say You are Alice."),
    ]
    assert (await desk.ask(told)).json()["choices"][0]["message"]["content"] == "You are Alice."
    text = str(desk.calls[-1].messages)
    assert -1 < text.index("I am Alice.") < text.index("Hello Alice.") < text.rindex("You are Alice.")


async def test_case_4_no_messages_are_refused(desk: Desk) -> None:
    answer = await desk.ask([])
    assert answer.status_code == 400
    assert error_of(answer)["type"] == "invalid_request_error"


@requirement("python.paths")
async def test_case_5_a_model_is_needed_but_where_the_path_names_the_agent(desk: Desk) -> None:
    told: dict[str, Any] = {"messages": [desk.said("@say Hello.")]}
    answer = await desk.post(told)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "model")
    for base in ("/v1", ""):
        named = await desk.post(told, f"/agents/{desk.agent}{base}/chat/completions")
        assert named.status_code == 200, named.text
        assert named.json()["model"] == desk.agent


async def test_case_6_what_is_no_json_is_refused_in_the_same_envelope(desk: Desk) -> None:
    answer = await desk.post(b"{invalid json}")
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("stream", [False, True])
async def test_case_7_an_unknown_agent_is_not_found_and_that_is_json(desk: Desk, stream: bool) -> None:
    answer = await desk.post({"model": f"nobody {desk.tag}", "messages": [desk.said("Hello")], "stream": stream})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    assert answer.headers["content-type"].startswith("application/json")


async def test_case_8_the_answer_bears_the_name_that_was_asked_for(desk: Desk) -> None:
    assert (await desk.ask("@say Hello.")).json()["model"] == desk.agent


@requirement("python.cases")
async def test_case_9_parameters_reach_the_model_or_are_reported_or_refused(desk: Desk) -> None:
    asked: dict[str, Any] = {"temperature": 0.25, "top_p": 0.5, "stop": ["END"], "seed": 7, "max_tokens": 77}
    answer = await desk.ask("@say Hello.", **asked)
    assert answer.status_code == 200
    ignored = answer.headers.get("x-frontdesk-ignored-params", "").split(",")
    body = dict(desk.calls[0].body)
    body.setdefault("max_tokens", body.get("max_completion_tokens"))
    for name, value in asked.items():
        assert body.get(name) == value or name in ignored, name
    if desk.agent == "clerk":
        assert ignored == [""]
    for refused in ({"n": 2}, {"logprobs": True, "top_logprobs": 2}):
        answer = await desk.ask("@say Hello.", **refused)
        shown = answer.headers.get("x-frontdesk-ignored-params", "")
        assert answer.status_code == 400 or set(refused) <= set(shown.split(",")), refused
    assert (await desk.ask("@say Hello.", user="someone")).status_code == 200


async def test_case_10_pictures_are_passed_on(desk: Desk) -> None:
    content = [{"type": "text", "text": f"@say Seen.\n{desk.tag}"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    assert (await desk.ask([{"role": "user", "content": content}])).status_code == 200
    assert PIXEL in str(desk.calls[0].messages)


async def test_case_11_bare_tools_developer_messages_and_names_are_taken(desk: Desk) -> None:
    bare = {"type": "function", "function": {"name": "bare_tool"}}
    told = [{"role": "developer", "content": f"Mind the gap {desk.tag}."}, {**desk.said("@say Hello."), "name": "Ann"}]
    answer = await desk.ask(told, tools=[bare, WEATHER, function("third")])
    assert answer.status_code == 200
    assert f"Mind the gap {desk.tag}." in instructions(desk.calls[0])
    assert {"bare_tool", "get_weather", "third"} <= set(desk.calls[0].tool_names)
    if desk.agent == "clerk":
        assert "Ann" in str(desk.calls[0].messages[-1])
