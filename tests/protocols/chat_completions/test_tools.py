"""Tools which the client runs, on a real agent: what the agent's model is offered, and what it is told afterwards."""

import asyncio
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import openai
import pytest

from frontdesk.testing import ScriptedModel
from tests.protocols.chat_completions.asking import Answer, Call, Chat, assistant, function, heard, system, told, user
from tests.protocols.conftest import Serve
from tests.requirements import requirement

WEATHER = function("get_weather")
TIME = function("get_time")
TOOLS = [WEATHER, TIME]

TWO = '@call get_weather {{"city": "Paris"}}\n@call get_time {{"zone": "CET"}}\n@then\n@say Both {0}.'


async def refused(chat: Chat, *args: Any, **fields: Any) -> dict[str, Any]:
    with pytest.raises(openai.BadRequestError) as info:
        await chat.ask(*args, **fields)
    body: Any = info.value.body
    return body


# --- round trips -------------------------------------------------------------------------------------------------


@requirement("tools.round-trip")
@pytest.mark.parametrize("stream", [False, True])
async def test_the_agent_calls_and_goes_on_with_the_result(
    chat: Chat, model: ScriptedModel, marker: str, stream: bool
) -> None:
    asked = user(f'@think hm\n@say Let me look.\n@call get_weather {{"city": "Oslo"}}\n@then\n@say Cold {marker}.')
    answer = await chat.ask([asked], stream=stream, tools=TOOLS)
    (call,) = answer.calls
    assert (call.name, call.values, answer.finish, answer.text) == (
        "get_weather",
        {"city": "Oslo"},
        "tool_calls",
        "Let me look.",
    )
    end = await chat.ask([asked, answer.message, call.result(f"-4 °C {marker}")], stream=stream, tools=TOOLS)
    assert (end.text, end.finish, end.identity) == (f"Cold {marker}.", "stop", "lineage")
    assert end.conversation == answer.conversation
    first, second = model.requests_with(marker)
    assert first.tool_names == second.tool_names
    assert {"get_weather", "get_time"} <= set(second.tool_names)
    assert [role for role, _ in heard(second)] == ["user", "assistant", "tool"]
    assert told(second) == ("OK", f"-4 °C {marker}")


@requirement("tools.round-trip")
async def test_several_rounds_of_one_turn(chat: Chat, model: ScriptedModel, marker: str) -> None:
    said = [user("@call get_weather {}\n@then\n@call get_time {}\n@then\n@call get_weather {}\n@then\n@say Done.")]
    for round in range(3):
        answer = await chat.ask(said, tools=TOOLS, stream=bool(round % 2))
        said += [answer.message, answer.calls[0].result(f"{round} {marker}")]
    assert (await chat.ask(said, tools=TOOLS)).text == "Done."
    request = model.requests_with(marker)[-1]
    assert [told(request, call)[1] for call in range(3)] == [f"{round} {marker}" for round in range(3)]


@requirement("tools.parallel")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("order", [1, -1])
async def test_parallel_calls_are_answered_in_any_order(
    chat: Chat, model: ScriptedModel, marker: str, stream: bool, order: int
) -> None:
    asked = user(TWO.format(marker))
    answer = await chat.ask([asked], stream=stream, tools=TOOLS)
    weather, time = answer.calls
    assert (weather.name, weather.values) == ("get_weather", {"city": "Paris"})
    assert (time.name, time.values) == ("get_time", {"zone": "CET"})
    assert weather.id != time.id
    results = [weather.result(f"sunny {marker}"), time.result(f"noon {marker}")][::order]
    end = await chat.ask([asked, answer.message, *results], stream=stream, tools=TOOLS)
    assert end.text == f"Both {marker}."
    request = model.requests_with(f"noon {marker}")[-1]
    assert answers_by_tool(request.messages) == {
        "get_weather": ("OK", f"sunny {marker}"),
        "get_time": ("OK", f"noon {marker}"),
    }


def answers_by_tool(messages: list[Any]) -> dict[str, tuple[str, str]]:
    """What the model was told, by the name of the tool which it had called."""
    names = {call["id"]: call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()}
    results = {m["tool_call_id"]: json.loads(m["content"]) for m in messages if m["role"] == "tool"}
    return {names[call_id]: (result["status"], result["message"]) for call_id, result in results.items()}


@requirement("tools.parallel.partial")
@pytest.mark.parametrize("answered", [0, 1])
async def test_a_call_left_without_a_result_is_told_as_an_error(
    chat: Chat, model: ScriptedModel, marker: str, answered: int
) -> None:
    asked = user(TWO.format(marker))
    answer = await chat.ask([asked], tools=TOOLS)
    kept, left = answer.calls[answered], answer.calls[1 - answered]
    end = await chat.ask([asked, answer.message, kept.result("fine")], tools=TOOLS)
    assert end.text == f"Both {marker}."
    outcome = answers_by_tool(model.requests_with(marker)[-1].messages)
    assert outcome[kept.name] == ("OK", "fine")
    assert outcome[left.name][0] == "Failed"


@requirement("tools.error")
@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ("Error: no such city", {}),
        ('{"error": "no such city"}', {}),
        ("no such city", {"is_error": True}),
        ("no such city", {"status": "error"}),
    ],
)
async def test_a_failed_tool_reaches_the_agent_as_a_failure(
    chat: Chat, model: ScriptedModel, marker: str, content: str, fields: Any
) -> None:
    asked = user(f"@call get_weather {{}}\n@then\n@say Sorry {marker}.")
    answer = await chat.ask([asked], tools=TOOLS)
    await chat.ask([asked, answer.message, answer.calls[0].result(content) | fields], tools=TOOLS)
    assert told(model.requests_with(marker)[-1]) == ("Failed", content)


@requirement("tools.result")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ""),
        ("0", "0"),
        ("null", "null"),
        ("{}", "{}"),
        ("Errors: none", "Errors: none"),
        ('{"error": null, "ok": true}', '{"error": null, "ok": true}'),
        ('line\n"quoted" \\ 漢字 👩‍👩‍👧', 'line\n"quoted" \\ 漢字 👩‍👩‍👧'),
        ([{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}], "two parts"),
    ],
)
async def test_a_result_reaches_the_agent_as_it_is(
    chat: Chat, model: ScriptedModel, marker: str, content: Any, message: str
) -> None:
    asked = user(f"@call get_weather {{}}\n@then\n@say Fine {marker}.")
    answer = await chat.ask([asked], tools=TOOLS)
    await chat.ask([asked, answer.message, answer.calls[0].result(content)], tools=TOOLS)
    assert told(model.requests_with(marker)[-1]) == ("OK", message)


@requirement("tools.result.long")
async def test_a_very_long_result_is_cut_visibly(chat: Chat, model: ScriptedModel, marker: str) -> None:
    asked = user(f"@call get_weather {{}}\n@then\n@say Fine {marker}.")
    answer = await chat.ask([asked], tools=TOOLS)
    await chat.ask([asked, answer.message, answer.calls[0].result("x" * 300_000)], tools=TOOLS)
    status, message = told(model.requests_with(marker)[-1])
    assert status == "OK"
    assert message.startswith("x" * 100_000)
    assert message.endswith("[cut: 200000 more characters]")


# --- calls on the wire -------------------------------------------------------------------------------------------


@requirement("tools.stream")
async def test_arguments_come_bit_by_bit_and_the_name_once(chat: Chat) -> None:
    arguments = json.dumps({"text": "a longer text, " * 20, "city": "Zürich"}, ensure_ascii=False)
    said = f"@call get_weather {arguments}\n@call get_time {{}}"
    chunks = await chat.chunks(said, tools=TOOLS)
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or ()]
    first = [delta for delta in deltas if delta.index == 0]
    second = [delta for delta in deltas if delta.index == 1]
    assert [delta.index for delta in deltas] == [0] * len(first) + [1] * len(second)
    for group in (first, second):
        opening, *rest = [delta.model_dump(exclude_unset=True) for delta in group]
        assert set(opening) == {"index", "id", "type", "function"}
        assert opening["function"]["arguments"] == ""
        assert all(set(delta) == {"index", "function"} and set(delta["function"]) == {"arguments"} for delta in rest)
    assert len(first) > 10
    assert "".join(d.function.arguments or "" for d in first if d.function) == arguments
    assert "".join(d.function.arguments or "" for d in second if d.function) == "{}"


@requirement("tools.arguments")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        "{}",
        '{"zero": 0, "no": false, "empty": "", "nothing": null, "list": [], "object": {}}',
        '{"city": "東京 🗼", "quote": "\\"", "path": "C:\\\\new", "escaped": "\\u00e9"}',
        '{"big": 12345678901234567890, "small": 1e-9, "negative": -0.0}',
        '{"b": 1, "a": {"z": [1, {"y": 2}]}}',
    ],
)
async def test_arguments_are_what_the_model_wrote(chat: Chat, arguments: str, stream: bool) -> None:
    answer = await chat.ask(f"@call get_weather {arguments}", stream=stream, tools=TOOLS)
    assert [call.arguments for call in answer.calls] == [arguments]


@requirement("tools.arguments")
async def test_arguments_which_are_not_json_are_passed_on(chat: Chat) -> None:
    (call,) = (await chat.ask("@badjson get_weather", tools=TOOLS)).calls
    assert call.arguments == '{"city": "Par'


@requirement("tools.call-id")
async def test_call_ids_are_short_and_differ(chat: Chat) -> None:
    answers = [await chat.ask("@call get_weather {}\n@call get_weather {}", tools=TOOLS) for _ in range(2)]
    ids = [call.id for answer in answers for call in answer.calls]
    assert len(set(ids)) == 4
    assert all(call_id.startswith("call_") and len(call_id) <= 40 for call_id in ids)


# --- what the model is offered -----------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "$defs": {"Place": {"type": "object", "properties": {"id": {"type": "integer", "minimum": 1}}, "required": ["id"]}},
    "properties": {
        "place": {"$ref": "#/$defs/Place"},
        "unit": {"enum": ["C", "F"], "default": "C", "description": "Grad, °"},
        "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        "empty": {},
    },
    "required": ["place"],
    "additionalProperties": False,
}


@requirement("tools.schema")
async def test_a_schema_reaches_the_model_verbatim(chat: Chat, model: ScriptedModel, marker: str) -> None:
    tool = function("get_weather", SCHEMA, description=f"Weather {marker} 🌦")
    await chat.ask("@say x", tools=[tool])
    (request,) = model.requests_with(marker)
    (offered,) = [each["function"] for each in request.tools if each["function"]["name"] == "get_weather"]
    assert offered["parameters"] == SCHEMA
    assert offered["description"] == f"Weather {marker} 🌦"


@requirement("tools.schema")
async def test_a_tool_may_have_nothing_but_a_name(chat: Chat, model: ScriptedModel, marker: str) -> None:
    await chat.ask(f"@say {marker}", tools=[{"type": "function", "function": {"name": "now"}}])
    (request,) = model.requests_with(marker)
    (offered,) = [each["function"] for each in request.tools if each["function"]["name"] == "now"]
    assert (offered["description"], offered["parameters"]) == ("", {"type": "object", "properties": {}})


async def offered(chat: Chat, model: ScriptedModel, marker: str, **fields: Any) -> set[str]:
    """The tools of the caller's which the model was offered."""
    await chat.ask(f"@say {marker}", tools=TOOLS, **fields)
    (request,) = model.requests_with(marker)
    return {"get_weather", "get_time"} & set(request.tool_names)


ALLOWED = {
    "type": "allowed_tools",
    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "get_time"}}]},
}


@requirement("tools.choice")
@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("auto", {"get_weather", "get_time"}),
        (None, {"get_weather", "get_time"}),
        ("none", set[str]()),
        (ALLOWED, {"get_time"}),
    ],
    ids=["auto", "null", "none", "allowed_tools"],
)
async def test_tool_choice_decides_what_is_offered(
    chat: Chat, model: ScriptedModel, marker: str, choice: Any, names: set[str]
) -> None:
    assert await offered(chat, model, marker, tool_choice=choice) == names


@requirement("tools.choice")
async def test_without_client_tools_the_agents_own_still_run(chat: Chat, model: ScriptedModel, marker: str) -> None:
    await chat.ask(f"@say {marker}", tools=TOOLS, tool_choice="none")
    (request,) = model.requests_with(marker)
    assert "memory_insert" in request.tool_names


@requirement("tools.choice.forced")
@pytest.mark.parametrize(
    ("choice", "code"),
    [
        ("required", "unsupported_value"),
        ({"type": "function", "function": {"name": "get_time"}}, "unsupported_value"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}, "invalid_value"),
        ({"type": "custom", "custom": {"name": "get_time"}}, "invalid_value"),
    ],
    ids=["required", "named", "allowed and required", "custom"],
)
async def test_a_choice_that_cannot_be_forced_is_refused(
    chat: Chat, model: ScriptedModel, marker: str, choice: Any, code: str
) -> None:
    error = await refused(chat, marker, tools=TOOLS, tool_choice=choice)
    assert (error["param"], error["code"]) == ("tool_choice", code)
    assert model.requests_with(marker) == []


@requirement("tools.parallel.off")
@pytest.mark.parametrize(("wish", "asked"), [(None, True), (True, True), (False, False)])
async def test_parallel_calls_are_asked_for_unless_the_client_says_no(
    chat: Chat, model: ScriptedModel, marker: str, wish: bool | None, asked: bool
) -> None:
    await chat.ask(f"@say {marker}", tools=TOOLS, parallel_tool_calls=wish)
    (request,) = model.requests_with(marker)
    assert request.body["parallel_tool_calls"] is asked


@requirement("tools.parallel.off")
@pytest.mark.parametrize("stream", [False, True])
async def test_one_call_at_a_time_when_the_client_says_so(
    chat: Chat, model: ScriptedModel, marker: str, stream: bool
) -> None:
    """Also from a model which does not care; its second call is not lost on the agent, who is told of it."""
    asked = user(TWO.format(marker))
    answer = await chat.ask([asked], tools=TOOLS, parallel_tool_calls=False, stream=stream)
    (call,) = answer.calls
    end = await chat.ask([asked, answer.message, call.result("fine")], tools=TOOLS, parallel_tool_calls=False)
    assert end.text == f"Both {marker}."
    assert answers_by_tool(model.requests_with(marker)[-1].messages)["get_weather"] == ("OK", "fine")


@requirement("tools.per-request")
async def test_requests_with_different_tools_do_not_disturb_each_other(
    chat: Chat, model: ScriptedModel, marker: str
) -> None:
    async def ask(number: int) -> None:
        own = function(f"tool_{number}", {"type": "object", "properties": {f"p{number}": {"type": "string"}}})
        asked = user(f"@slow 0.2\n@call tool_{number} {{}}\n@then\n@say {number} {marker}.")
        answer = await chat.ask([asked], tools=[own], stream=bool(number % 2))
        assert [call.name for call in answer.calls] == [f"tool_{number}"]
        end = await chat.ask([asked, answer.message, answer.calls[0].result("x")], tools=[own])
        assert end.text == f"{number} {marker}."

    await asyncio.gather(*(ask(number) for number in range(6)))
    for number in range(6):
        for request in model.requests_with(f"{number} {marker}."):
            assert [name for name in request.tool_names if name.startswith("tool_")] == [f"tool_{number}"]


@requirement("tools.per-request")
async def test_nothing_of_the_callers_tools_stays_behind(chat: Chat, model: ScriptedModel, marker: str) -> None:
    await chat.ask("@say x", tools=TOOLS, pin=marker)
    await chat.ask(f"@say {marker}", pin=marker)
    assert not {"get_weather", "get_time"} & set(model.requests_with(marker)[-1].tool_names)


# --- what cannot be ----------------------------------------------------------------------------------------------


@requirement("tools.reserved")
@pytest.mark.parametrize("name", ["memory_insert", "memory_replace", "send_message", "archival_memory_search"])
async def test_a_tool_cannot_take_the_name_of_the_agents_memory(
    chat: Chat, model: ScriptedModel, marker: str, name: str
) -> None:
    error = await refused(chat, marker, tools=[WEATHER, function(name)])
    assert (error["param"], error["code"]) == ("tools[1].function.name", "invalid_value")
    assert model.requests_with(marker) == []


NO_TOOLS: list[tuple[Any, str, str]] = [
    ([WEATHER, WEATHER], "tools[1].function.name", "invalid_value"),
    ([function("get weather")], "tools[0].function.name", "invalid_value"),
    ([function("x" * 65)], "tools[0].function.name", "invalid_value"),
    ([function("")], "tools[0].function.name", "invalid_value"),
    ([function("x", [])], "tools[0].function.parameters", "invalid_type"),
    ([{"type": "function"}], "tools[0].function", "missing_required_parameter"),
    ([{"type": "function", "function": {}}], "tools[0].function.name", "missing_required_parameter"),
    ([{"type": "custom", "custom": {"name": "x"}}], "tools[0].type", "unsupported_value"),
    ([{"type": "web_search"}], "tools[0].type", "unsupported_value"),
    ([{}], "tools[0].type", "missing_required_parameter"),
    (["get_weather"], "tools[0]", "invalid_type"),
    ("get_weather", "tools", "invalid_type"),
]


@requirement("tools.invalid")
@pytest.mark.parametrize(
    ("tools", "param", "code"),
    NO_TOOLS,
)
async def test_a_tool_that_is_none_is_refused_with_its_place(
    chat: Chat, model: ScriptedModel, marker: str, tools: Any, param: str, code: str
) -> None:
    error = await refused(chat, marker, tools=tools)
    assert (error["param"], error["code"]) == (param, code)
    assert model.requests_with(marker) == []


async def asked_for_weather(chat: Chat) -> tuple[dict[str, Any], Answer]:
    asked = user("@call get_weather {}")
    return asked, await chat.ask([asked], tools=TOOLS)


FORGERIES: dict[str, Callable[[str], str]] = {
    "free": lambda call_id: "call_abc",
    "empty": lambda call_id: "",
    "foreign": lambda call_id: "toolu_01A09q90qw90lq917835lq9",
    "zero": lambda call_id: "call_" + "A" * 35,
    "wrong signature": lambda call_id: call_id[:-2] + ("A" if call_id[-2] != "A" else "B") + call_id[-1],
    "wrong thread": lambda call_id: call_id[:10] + ("A" if call_id[10] != "A" else "B") + call_id[11:],
    "another spelling": lambda call_id: call_id[:-1] + chr(ord(call_id[-1]) + 1),
    "padded": lambda call_id: call_id + "=",
    "long": lambda call_id: call_id + "é" * 300,
}


@requirement("tools.unknown-call")
@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_result_for_a_call_nobody_made_is_refused(
    chat: Chat, model: ScriptedModel, marker: str, forge: Callable[[str], str]
) -> None:
    asked, answer = await asked_for_weather(chat)
    (call,) = answer.calls
    forged = Call(forge(call.id), call.name, "{}")
    error = await refused(chat, [asked, assistant(""), forged.result(marker)], tools=TOOLS)
    assert (error["param"], error["code"]) == ("messages[2].tool_call_id", "invalid_value")
    assert model.requests_with(marker) == []


@requirement("tools.unknown-call")
async def test_a_result_is_refused_as_a_whole_when_one_of_two_is_unknown(
    chat: Chat, model: ScriptedModel, marker: str
) -> None:
    asked, answer = await asked_for_weather(chat)
    (call,) = answer.calls
    results = [call.result(marker), Call(call.id[:-2] + "xx", call.name, "{}").result(marker)]
    error = await refused(chat, [asked, answer.message, *results], tools=TOOLS)
    assert error["param"] == "messages[3].tool_call_id"
    assert model.requests_with(marker) == []


@requirement("tools.unknown-call")
async def test_a_call_of_one_agent_cannot_be_answered_to_another(
    chat: Chat, model: ScriptedModel, marker: str, make_agent: Callable[..., Any]
) -> None:
    asked, answer = await asked_for_weather(chat)
    other = Chat(chat.client, make_agent().name)
    error = await refused(other, [asked, answer.message, answer.calls[0].result(marker)], tools=TOOLS)
    assert error["param"] == "messages[2].tool_call_id"
    assert model.requests_with(marker) == []


@requirement("tools.unknown-call")
async def test_a_call_made_to_one_key_cannot_be_answered_by_another(
    serve: Serve, milo: str, model: ScriptedModel, marker: str
) -> None:
    keys = [{"name": name, "sha256": sha256(name.encode()).hexdigest()} for name in ("ann", "bob")]
    gateway = serve(keys=keys)
    async with gateway.client(api_key="ann") as one, gateway.client(api_key="bob") as two:
        asked, answer = await asked_for_weather(Chat(one, milo))
        said = [asked, answer.message, answer.calls[0].result(marker)]
        error = await refused(Chat(two, milo), said, tools=TOOLS)
        assert error["param"] == "messages[2].tool_call_id"
        assert model.requests_with(marker) == []
        assert (await Chat(one, milo).ask(said, tools=TOOLS)).identity == "lineage"
    assert len(model.requests_with(marker)) == 1


# --- what clients do besides -------------------------------------------------------------------------------------


@requirement("tools.then-user")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_user_message_may_follow_a_result(chat: Chat, model: ScriptedModel, marker: str, stream: bool) -> None:
    asked, answer = await asked_for_weather(chat)
    said = [asked, answer.message, answer.calls[0].result(f"sunny {marker}"), user(f"@say Go on {marker}.")]
    end = await chat.ask(said, tools=TOOLS, stream=stream)
    assert end.text == f"Go on {marker}."
    (request,) = model.requests_with(marker)
    assert [role for role, _ in heard(request)] == ["user", "assistant", "tool", "user"]
    assert told(request) == ("OK", f"sunny {marker}")
    assert heard(request)[-1] == ("user", f"@say Go on {marker}.")


@requirement("tools.abandoned")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_new_message_goes_through_although_a_call_was_never_answered(
    chat: Chat, model: ScriptedModel, marker: str, stream: bool
) -> None:
    await chat.ask(f"@call get_weather {{}}\n@call get_time {{}}\n@@{marker}-one", tools=TOOLS, pin=marker)
    answer = await chat.ask(f"@say Never mind {marker}-two", tools=TOOLS, pin=marker, stream=stream)
    assert answer.text == f"Never mind {marker}-two"
    (request,) = model.requests_with(f"{marker}-two")
    assert [role for role, _ in heard(request)] == ["user", "assistant", "tool", "tool", "user"]
    assert [told(request, call)[0] for call in range(2)] == ["Failed", "Failed"]


@requirement("tools.late")
async def test_a_result_for_an_abandoned_call_is_not_lost(chat: Chat, model: ScriptedModel, marker: str) -> None:
    """The client answers a call after the conversation has gone on: the result is told as text, in a conversation of
    its own."""
    asked = user("@call get_weather {}")
    first = await chat.ask([asked], tools=TOOLS, pin=marker)
    await chat.ask("@say Never mind", pin=marker)
    said = [asked, first.message, first.calls[0].result(f"late {marker}"), user(f"@say {marker}-end")]
    assert (await chat.ask(said, tools=TOOLS)).text == f"{marker}-end"
    (request,) = model.requests_with(f"{marker}-end")
    assert any(f"returned: late {marker}" in text for _, text in heard(request))


@requirement("tools.retry")
@pytest.mark.parametrize("pin", [False, True], ids=["unpinned", "pinned"])
async def test_a_result_sent_twice_does_not_come_twice(
    chat: Chat, model: ScriptedModel, marker: str, pin: bool
) -> None:
    """As by a client which lost the answer on its way, and sends the same request again."""
    place = marker if pin else ""
    asked = user(f"@call get_weather {{}}\n@then\n@say Sunny {marker}.")
    answer = await chat.ask([asked], tools=TOOLS, pin=place)
    said = [asked, answer.message, answer.calls[0].result(f"sunny {marker}")]
    first = await chat.ask(said, tools=TOOLS, pin=place)
    second = await chat.ask(said, tools=TOOLS, pin=place)
    assert first.text == f"Sunny {marker}."
    assert second.conversation != first.conversation
    again = model.requests_with(f"sunny {marker}")[-1]
    assert heard(again)[-1] == ("assistant", f"[The tool call get_weather({{}}) returned: sunny {marker}]")
    end = await chat.ask([*said, first.message, user("@say On.")], tools=TOOLS, pin=first.conversation)
    assert end.text == "On."
    last = model.requests_with(f"sunny {marker}")[-1]
    assert [role for role, _ in heard(last)] == ["user", "assistant", "tool", "assistant", "user"]


@requirement("tools.retry")
async def test_a_result_sent_twice_at_the_same_time_breaks_nothing(chat: Chat, marker: str) -> None:
    asked = user(f"@call get_weather {{}}\n@then\n@slow 0.3\n@say Sunny {marker}.")
    answer = await chat.ask([asked], tools=TOOLS)
    said = [asked, answer.message, answer.calls[0].result("sunny")]
    answers = await asyncio.gather(*(chat.ask(said, tools=TOOLS) for _ in range(2)))
    assert {each.identity for each in answers} == {"lineage"}
    assert f"Sunny {marker}." in {each.text for each in answers}


@requirement("tools.retry-after-failure")
@pytest.mark.parametrize("pin", [False, True], ids=["unpinned", "pinned"])
@pytest.mark.parametrize("more", [False, True], ids=["result alone", "and a message"])
async def test_after_a_failure_the_same_result_goes_on_where_it_stopped(
    chat: Chat, model: ScriptedModel, marker: str, pin: bool, more: bool
) -> None:
    """The model provider failed once the agent had the results: it has them still."""
    place = marker if pin else ""
    fail = "@fail-times 1 500 should-retry=false"
    asked = user(f"@call get_weather {{}}\n@call get_time {{}}\n@then\n{fail}\n@say Sunny {marker}.")
    answer = await chat.ask([asked], tools=TOOLS, pin=place)
    said = [asked, answer.message, answer.calls[0].result(f"sunny {marker}")]
    said += [user(f"{fail}\n@say And on {marker}.")] if more else []
    with pytest.raises(openai.InternalServerError):
        await chat.ask(said, tools=TOOLS, pin=place)
    end = await chat.ask(said, tools=TOOLS, pin=place)
    assert end.text == (f"And on {marker}." if more else f"Sunny {marker}.")
    assert (end.identity, end.conversation) == ("lineage", answer.conversation)
    request = model.requests_with(f"sunny {marker}")[-1]
    assert [role for role, _ in heard(request)] == ["user", "assistant", "tool", "tool", "user"]
    assert answers_by_tool(request.messages)["get_weather"] == ("OK", f"sunny {marker}")


@requirement("tools.history")
async def test_tool_exchanges_of_an_unknown_transcript_are_told_as_text(
    chat: Chat, model: ScriptedModel, marker: str
) -> None:
    """The ids may be anybody's: the client may have talked to another model before."""
    calls = [
        {"id": f"toolu_{n}", "type": "function", "function": {"name": "get_weather", "arguments": f'{{"n":{n}}}'}}
        for n in range(3)
    ]
    said = [
        system("Be brief."),
        user("What is it like?"),
        assistant("Let me look.", tool_calls=calls),
        {"role": "tool", "tool_call_id": "toolu_0", "content": "sunny"},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "Error: down"},
        assistant("Sunny, I think."),
        user(f"@say {marker}"),
    ]
    answer = await chat.ask(said, tools=TOOLS)
    assert answer.identity == "seeded"
    (request,) = model.requests_with(marker)
    assert [text for role, text in heard(request) if role != "system"] == [
        "What is it like?",
        "Let me look.",
        '[The tool call get_weather({"n":0}) returned: sunny]',
        '[The tool call get_weather({"n":1}) failed: Error: down]',
        '[The tool call get_weather({"n":2}) was not answered]',
        "Sunny, I think.",
        f"@say {marker}",
    ]


async def test_a_function_message_of_the_old_kind_answers_its_call(
    chat: Chat, model: ScriptedModel, marker: str
) -> None:
    said = [
        user("What is it like?"),
        assistant(None, function_call={"name": "get_weather", "arguments": "{}"}),
        {"role": "function", "name": "get_weather", "content": f"sunny {marker}"},
        assistant("Sunny."),
        user(f"@say {marker}"),
    ]
    await chat.ask(said)
    (request,) = model.requests_with(f"sunny {marker}")
    assert ("assistant", f"[The tool call get_weather({{}}) returned: sunny {marker}]") in heard(request)
