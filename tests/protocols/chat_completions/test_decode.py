"""What a request means, and what is wrong with it: tables, without any server."""

import json
from typing import Any

import pytest

from frontdesk.errors import InvalidRequest
from frontdesk.policies.options import Rules, settled
from frontdesk.protocols.chat_completions.decode import Caller, decode, parse
from frontdesk.turn import Agent, Image, Item, Message, Principal, Text, Tool, ToolCall, ToolResult, Turn
from tests.requirements import requirement

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


MILO = Agent("agent-1", "Milo", "letta", honours=frozenset({"parallel_tool_calls"}))


def turn(rules: Rules | None = None, **fields: Any) -> Turn:
    """The turn of a body with these fields, as an agent is given it which can honour next to nothing."""
    body = {"model": "Milo", "messages": HELLO} | fields
    asked = decode(parse(json.dumps(body).encode()), Caller(Principal("ann"), "pin"), "turn_1")
    return settled(asked, MILO, rules or Rules())


def refusal(rules: Rules | None = None, **fields: Any) -> tuple[str | None, str]:
    with pytest.raises(InvalidRequest) as info:
        turn(rules, **fields)
    return info.value.param, info.value.public_code


def said(text: str) -> Message:
    return Message("user", (Text(text),))


def answered(text: str) -> Message:
    return Message("assistant", (Text(text),))


# --- parameters --------------------------------------------------------------------------------------------------

IGNORED: dict[str, list[Any]] = {
    "stream": [True, False, None],
    "stream_options": [{"include_usage": True}, {"include_obfuscation": True}, {"unknown": 1}, None],
    "n": [1, None],
    "logprobs": [False, None],
    "top_logprobs": [0, None],
    "response_format": [{"type": "text"}, None],
    "tools": [[], None],
    "tool_choice": ["auto", "none", None],
    "parallel_tool_calls": [True, None],
    "modalities": [["text"], None],
    "audio": [{"voice": "alloy", "format": "wav"}],
    "prediction": [{"type": "content", "content": "x"}],
    "service_tier": ["auto", "flex", "priority"],
    "store": [True],
    "metadata": [{}, {"a": "b"}, None],
    "user": ["ann", 5, None],
    "safety_identifier": ["ann"],
    "prompt_cache_key": ["k"],
    "prompt_cache_retention": ["24h"],
    "functions": [None],
    "function_call": [None],
    "temperature": [None],
    "stop": [None],
    "reasoning": [{"effort": "high"}],
    "thinking": [{"type": "enabled", "budget_tokens": 1024}],
    "include_reasoning": [True],
    "chat_template_kwargs": [{"enable_thinking": False}],
    "top_k": [40],
    "min_p": [0.1],
    "keep_alive": ["5m"],
    "options": [{"num_ctx": 8192}],
    "provider": [{"order": ["x"]}],
    "plugins": [[]],
    "session_id": ["s"],
    "conversation_id": ["c"],
    "chat_id": ["c"],
    "id": ["i"],
    "x" * 1000: ["y"],
}


@requirement("chat.params.ignored")
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in IGNORED.items() for value in values])
def test_parameters_without_consequence_are_accepted(name: str, value: Any) -> None:
    for rules in (Rules(), Rules(strict_params=True)):
        assert turn(rules, **{name: value}).options.ignored == ()


REPORTED: dict[str, list[Any]] = {
    "temperature": [0, 1, 0.7, 2],
    "top_p": [0.1, 1],
    "max_tokens": [1, 100_000],
    "max_completion_tokens": [1],
    "frequency_penalty": [-2, 0, 2],
    "presence_penalty": [0.5],
    "logit_bias": [{"50256": -100}],
    "seed": [0, -1, 2**40],
    "stop": ["END", ["a", "b", "c", "d"], []],
    "reasoning_effort": ["none", "minimal", "low", "medium", "high", "xhigh", "max"],
    "verbosity": ["low", "medium", "high"],
    "web_search_options": [{}],
    "moderation": [{}],
    "response_format": [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        {"type": "json_schema", "json_schema": {"name": "x", "strict": False, "schema": {"type": "object"}}},
    ],
}


@requirement("chat.params.reported", "chat.params.strict")
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REPORTED.items() for value in values])
def test_parameters_nobody_can_honour_are_reported_or_refused(name: str, value: Any) -> None:
    assert turn(**{name: value}).options.ignored == (name,)
    assert refusal(Rules(strict_params=True), **{name: value}) == (name, "unsupported_parameter")


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"n": 2}, "n", "unsupported_value"),
    ({"logprobs": True}, "logprobs", "unsupported_parameter"),
    ({"logprobs": True, "top_logprobs": 5}, "logprobs", "unsupported_parameter"),
    ({"top_logprobs": 5}, "top_logprobs", "unsupported_parameter"),
    ({"modalities": ["text", "audio"]}, "modalities", "unsupported_value"),
    ({"functions": []}, "functions", "unsupported_parameter"),
    ({"function_call": "auto"}, "function_call", "unsupported_parameter"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {}}}},
        "response_format",
        "unsupported_value",
    ),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "invalid_value"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "response_format.json_schema",
        "invalid_value",
    ),
    ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
    ({"response_format": {}}, "response_format.type", "missing_required_parameter"),
    ({"tool_choice": "required"}, "tool_choice", "unsupported_value"),
    ({"tool_choice": "any"}, "tool_choice", "invalid_value"),
    ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
    ({"verbosity": "loud"}, "verbosity", "invalid_value"),
    ({"n": 0}, "n", "invalid_value"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"max_completion_tokens": -1}, "max_completion_tokens", "invalid_value"),
    ({"temperature": 2.1}, "temperature", "invalid_value"),
    ({"top_p": -0.1}, "top_p", "invalid_value"),
    ({"frequency_penalty": 3}, "frequency_penalty", "invalid_value"),
    ({"stop": list("abcde")}, "stop", "invalid_value"),
    ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "invalid_value"),
    ({"model": ""}, "model", "invalid_value"),
    ({"messages": []}, "messages", "invalid_value"),
]


@requirement("chat.params.refused")
@pytest.mark.parametrize(("fields", "param", "code"), REFUSED)
def test_parameters_whose_loss_would_break_the_caller_are_refused(
    fields: dict[str, Any], param: str, code: str
) -> None:
    assert refusal(**fields) == (param, code)


WRONG_TYPES: dict[str, list[Any]] = {
    "model": [5, None, ["Milo"]],
    "messages": [{}, "hello", None, 5],
    "stream": ["true", 1],
    "stream_options": [True, "x"],
    "n": ["1", 1.5, True],
    "temperature": ["hot", [], {}],
    "top_p": ["x"],
    "max_tokens": ["100", 1.5],
    "seed": ["x", 1.5],
    "logit_bias": [[]],
    "stop": [5, {}],
    "logprobs": ["yes"],
    "response_format": ["json", []],
    "tools": [{}, "x"],
    "parallel_tool_calls": ["no", 0],
    "modalities": ["text"],
    "metadata": ["x", []],
    "tool_choice": [5, []],
}


@requirement("chat.params.types")
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG_TYPES.items() for value in values])
def test_a_value_of_a_wrong_type_is_refused_by_name(name: str, value: Any) -> None:
    param, code = refusal(**{name: value})
    assert (param, code) in ((name, "invalid_type"), (name, "invalid_value"))
    assert code == "invalid_type" or name == "tool_choice"


@requirement("chat.params.types")
@pytest.mark.parametrize("missing", ["model", "messages"])
def test_what_must_be_there_is_named_when_it_is_missing(missing: str) -> None:
    body = {"model": "Milo", "messages": HELLO}
    del body[missing]
    with pytest.raises(InvalidRequest) as info:
        parse(json.dumps(body).encode())
    assert (info.value.param, info.value.public_code) == (missing, "missing_required_parameter")


@requirement("chat.body.malformed")
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"model=Milo", "invalid_json"),
        (b'{"model": "Milo",}', "invalid_json"),
        (b'{"model": "\xff"}', "invalid_json"),
        (b'{"model": "Milo"} {}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"model": "Milo", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
        (b"[]", "invalid_type"),
        (b"null", "invalid_type"),
        (b'"hello"', "invalid_type"),
    ],
    ids=range(11),
)
def test_a_body_that_is_not_a_json_object_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(InvalidRequest) as info:
        parse(body)
    assert (info.value.param, info.value.public_code) == (None, code)


def test_metadata_is_passed_on_as_text() -> None:
    metadata = {"text": "a", "number": 5, "float": 1.5, "flag": True}
    assert turn(metadata=metadata).metadata == {"text": "a", "number": "5", "float": "1.5", "flag": "True"}


@pytest.mark.parametrize(("wish", "option"), [(True, True), (False, False), (None, None)])
def test_the_wish_for_parallel_calls_is_kept(wish: bool | None, option: bool | None) -> None:
    assert turn(parallel_tool_calls=wish).options.parallel_tool_calls is option


def test_the_envelope_is_kept() -> None:
    found = turn()
    assert (found.id, found.agent, found.principal, found.conversation) == ("turn_1", "Milo", Principal("ann"), "pin")


# --- messages ----------------------------------------------------------------------------------------------------

CALL: dict[str, Any] = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
TRANSCRIPTS: dict[str, tuple[list[Any], tuple[Item, ...], tuple[Item, ...], str]] = {
    "one message": ([{"role": "user", "content": "a"}], (), (said("a"),), ""),
    "parts are joined": (
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        (),
        (Message("user", (Text("a"), Text("b"))),),
        "",
    ),
    "marks on parts are dropped": (
        [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}],
        (),
        (said("a"),),
        "",
    ),
    "names": ([{"role": "user", "name": "Ada", "content": "a"}], (), (Message("user", (Text("a"),), "Ada"),), ""),
    "instructions in order": (
        [
            {"role": "system", "content": "one"},
            {"role": "user", "content": "a"},
            {"role": "developer", "content": [{"type": "text", "text": "two"}]},
            {"role": "system", "content": ""},
        ],
        (),
        (said("a"),),
        "one\n\ntwo",
    ),
    "all trailing messages are new": (
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
            {"role": "user", "content": "d"},
        ],
        (said("a"), answered("b")),
        (said("c"), said("d")),
        "",
    ),
    "an empty answer ends the past too": (
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "c"},
        ],
        (said("a"),),
        (said("c"),),
        "",
    ),
    "assistant last": (
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        (said("a"), answered("b")),
        (),
        "",
    ),
    "empty messages are none": (
        [{"role": "user", "content": ""}, {"role": "user", "content": []}, {"role": "user", "content": "a"}],
        (),
        (said("a"),),
        "",
    ),
    "reasoning is not taken back": (
        [
            {"role": "assistant", "content": "b", "reasoning_content": "x", "reasoning": "y", "thinking": "z"},
            {"role": "user", "content": "c"},
        ],
        (answered("b"),),
        (said("c"),),
        "",
    ),
    "refusals are text": (
        [
            {"role": "assistant", "content": None, "refusal": "no"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "never"}]},
            {"role": "user", "content": "c"},
        ],
        (answered("no"), answered("never")),
        (said("c"),),
        "",
    ),
    "a call and its result": (
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
        ],
        (said("a"), ToolCall("call_1", "f", '{"a":1}')),
        (ToolResult("call_1", (Text("ok"),)),),
        "",
    ),
    "text beside a call": (
        [{"role": "assistant", "content": "b", "tool_calls": [CALL]}, {"role": "user", "content": "c"}],
        (answered("b"), ToolCall("call_1", "f", '{"a":1}')),
        (said("c"),),
        "",
    ),
    "the old kind of call": (
        [
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": None},
        ],
        (ToolCall("f", "f", "{}"),),
        (ToolResult("f", (Text(""),)),),
        "",
    ),
}


@pytest.mark.parametrize(("messages", "history", "new", "instructions"), TRANSCRIPTS.values(), ids=TRANSCRIPTS.keys())
def test_a_transcript_has_a_past_what_is_new_and_instructions(
    messages: list[Any], history: tuple[Item, ...], new: tuple[Item, ...], instructions: str
) -> None:
    found = turn(messages=messages)
    assert (found.history, found.input, found.instructions) == (history, new, instructions)


@pytest.mark.parametrize(
    "image", [{"url": "https://x/y.png", "detail": "low"}, {"url": "https://x/y.png"}, "https://x/y.png"]
)
def test_a_picture_may_be_an_object_or_a_bare_string(image: Any) -> None:
    content = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": image}]
    (message,) = turn(messages=[{"role": "user", "content": content}]).input
    assert message == Message("user", (Text("a"), Image(url="https://x/y.png")))
    assert isinstance(message, Message)
    assert isinstance(picture := message.content[1], Image)
    assert picture.param == "messages[0].content[1].image_url.url"


@pytest.mark.parametrize(
    ("fields", "is_error"),
    [
        ({"content": "Error: no"}, True),
        ({"content": " error: no"}, True),
        ({"content": '{"error": "no"}'}, True),
        ({"content": '{"error": {"message": "no"}}'}, True),
        ({"content": [{"type": "text", "text": "Error: no"}]}, True),
        ({"content": "fine", "is_error": True}, True),
        ({"content": "fine", "status": "error"}, True),
        ({"content": "fine", "status": "success"}, False),
        ({"content": "fine", "is_error": False}, False),
        ({"content": "Errors: none"}, False),
        ({"content": '{"error": null}'}, False),
        ({"content": '{"error": '}, False),
        ({"content": '{"error": ' + "[" * 90_000}, False),
        ({"content": '{"errors": 1}'}, False),
        ({"content": ""}, False),
    ],
)
def test_a_failed_tool_is_told_from_what_clients_write(fields: Any, is_error: bool) -> None:
    (result,) = turn(messages=[{"role": "tool", "tool_call_id": "x", **fields}]).input
    assert isinstance(result, ToolResult)
    assert result.is_error is is_error


BAD_MESSAGES: list[tuple[Any, str, str]] = [
    ("hello", "messages[0]", "invalid_type"),
    (None, "messages[0]", "invalid_type"),
    ({"content": "x"}, "messages[0].role", "missing_required_parameter"),
    ({"role": "bot", "content": "x"}, "messages[0].role", "invalid_value"),
    ({"role": None, "content": "x"}, "messages[0].role", "invalid_value"),
    ({"role": "user"}, "messages[0].content", "missing_required_parameter"),
    ({"role": "user", "content": None}, "messages[0].content", "invalid_type"),
    ({"role": "user", "content": 5}, "messages[0].content", "invalid_type"),
    ({"role": "user", "content": {"type": "text"}}, "messages[0].content", "invalid_type"),
    ({"role": "user", "content": ["x"]}, "messages[0].content[0]", "invalid_type"),
    ({"role": "user", "content": [{"text": "x"}]}, "messages[0].content[0].type", "missing_required_parameter"),
    ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text", "missing_required_parameter"),
    ({"role": "user", "content": [{"type": "text", "text": 5}]}, "messages[0].content[0].text", "invalid_type"),
    (
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
        "messages[0].content[0].type",
        "unsupported_content_type",
    ),
    (
        {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "file", "file": {"file_id": "x"}}]},
        "messages[0].content[1].file.file_id",
        "unsupported_content_type",
    ),
    ({"role": "user", "content": [{"type": "file"}]}, "messages[0].content[0].file", "missing_required_parameter"),
    (
        {"role": "user", "content": [{"type": "file", "file": {"filename": "a.txt"}}]},
        "messages[0].content[0].file.file_data",
        "missing_required_parameter",
    ),
    (
        {"role": "user", "content": [{"type": "file", "file": {"file_data": "a b?"}}]},
        "messages[0].content[0].file.file_data",
        "invalid_value",
    ),
    (
        {"role": "system", "content": [{"type": "file", "file": {"file_data": "eA=="}}]},
        "messages[0].content[0].type",
        "unsupported_content_type",
    ),
    (
        {"role": "user", "content": [{"type": "image_url"}]},
        "messages[0].content[0].image_url",
        "missing_required_parameter",
    ),
    (
        {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
        "messages[0].content[0].image_url.url",
        "missing_required_parameter",
    ),
    (
        {"role": "system", "content": [{"type": "image_url", "image_url": "https://x"}]},
        "messages[0].content[0].type",
        "unsupported_content_type",
    ),
    ({"role": "tool", "content": "x"}, "messages[0].tool_call_id", "missing_required_parameter"),
    ({"role": "assistant", "tool_calls": {}}, "messages[0].tool_calls", "invalid_type"),
    ({"role": "assistant", "tool_calls": [{}]}, "messages[0].tool_calls[0].id", "missing_required_parameter"),
    (
        {"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": {}}}]},
        "messages[0].tool_calls[0].function.arguments",
        "invalid_type",
    ),
]


@requirement("chat.params.types")
@pytest.mark.parametrize(("message", "param", "code"), BAD_MESSAGES)
def test_a_message_that_cannot_be_read_is_refused_with_its_place(message: Any, param: str, code: str) -> None:
    assert refusal(messages=[message]) == (param, code)
    if param.startswith("messages[0]"):
        assert refusal(messages=[*HELLO, message]) == (param.replace("messages[0]", "messages[1]"), code)


# --- policies ----------------------------------------------------------------------------------------------------


def test_instructions_can_be_kept_from_the_agent() -> None:
    messages = [{"role": "system", "content": "You are a pirate."}, *HELLO]
    assert turn(Rules(remove_system_prompt=True), messages=messages).instructions == ""
    assert turn(messages=messages).instructions == "You are a pirate."


@requirement("chat.response-format")
def test_a_wish_for_json_is_told_to_the_agent() -> None:
    schema = {"type": "object", "properties": {"größe": {"type": "integer"}}}
    wish = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert turn(response_format={"type": "json_object"}).instructions.startswith("Answer with one JSON object")
    assert json.dumps(schema, ensure_ascii=False) in turn(response_format=wish).instructions
    assert turn(response_format={"type": "text"}).instructions == ""


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["f", "g"]),
        ("auto", ["f", "g"]),
        ("none", []),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]},
            },
            ["g"],
        ),
    ],
)
def test_the_tools_after_tool_choice(choice: Any, names: list[str]) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in "fg"]
    assert [tool.name for tool in turn(tools=tools, tool_choice=choice).tools] == names


def test_a_tool_is_kept_whole() -> None:
    parameters: Any = {"type": "object", "$defs": {"x": {}}, "additionalProperties": False}
    tool: Any = {"name": "f", "description": "d", "parameters": parameters, "strict": True, "unknown": 1}
    assert turn(tools=[{"type": "function", "function": tool}]).tools == (Tool("f", "d", parameters, strict=True),)
