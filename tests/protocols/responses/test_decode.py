"""What a Responses request means, and what is wrong with it: tables, without any server."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from openai.types.responses import Response
from openai.types.responses.response_item import ResponseItem
from pydantic import TypeAdapter

from frontdesk.errors import InvalidRequest
from frontdesk.policies.options import Rules, settled
from frontdesk.protocols.requests import Caller
from frontdesk.protocols.responses.decode import (
    decode,
    echo,
    given,
    parse,
    references,
    response_id,
    stores,
    turn_of,
    wants_encrypted_content,
)
from frontdesk.turn import (
    Agent,
    Format,
    Image,
    Item,
    Message,
    Part,
    Principal,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    ToolRun,
    Turn,
)

MILO = Agent("agent-1", "Milo", "letta", honours=frozenset({"parallel_tool_calls"}))


def asked(**fields: Any) -> bytes:
    return json.dumps({"model": "Milo", "input": "hello"} | fields).encode()


def turn(rules: Rules | None = None, referenced: Mapping[str, Item | Part] | None = None, **fields: Any) -> Turn:
    """The turn of a body with these fields, as an agent is given it which can honour next to nothing."""
    found = decode(parse(asked(**fields)), Caller(Principal("ann"), "pin"), "turn_1", referenced or {})
    return settled(found, MILO, rules or Rules())


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
    "stream_options": [{"include_obfuscation": True}, {"unknown": 1}, None],
    "store": [True, False, None],
    "background": [True, False, None],
    "top_logprobs": [0, None],
    "include": [["reasoning.encrypted_content"], ["message.output_text.logprobs", "future.thing"], [], None],
    "truncation": ["auto", "disabled", None],
    "context_management": [[{"type": "compaction", "compact_threshold": 1000}]],
    "text": [{}, {"format": {"type": "text"}}, {"format": None, "verbosity": None}, None],
    "reasoning": [{}, {"summary": "auto"}, {"mode": "pro", "context": "auto", "effort": None}, None],
    "tools": [[], None],
    "tool_choice": ["auto", "none", None],
    "parallel_tool_calls": [True, None],
    "service_tier": ["auto", "flex"],
    "metadata": [{}, {"a": "b"}, None],
    "user": ["ann", 5, None],
    "safety_identifier": ["ann"],
    "prompt_cache_key": ["k"],
    "prompt_cache_retention": ["24h"],
    "prompt": [None],
    "previous_response_id": ["resp_0", None],
    "conversation": ["conv_x", {"id": "conv_x"}, None],
    "instructions": ["", "Be kind.", None],
    "client_metadata": [{"x": "y"}],
    "x" * 1000: ["y"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in IGNORED.items() for value in values])
def test_parameters_without_consequence_are_accepted(name: str, value: Any) -> None:
    for rules in (Rules(), Rules(strict_params=True)):
        assert turn(rules, **{name: value}).options.ignored == ()


REPORTED: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 0}, "temperature"),
    ({"top_p": 0.1}, "top_p"),
    ({"max_output_tokens": 1}, "max_output_tokens"),
    ({"max_tool_calls": 3}, "max_tool_calls"),
    ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
    ({"text": {"verbosity": "low"}}, "text.verbosity"),
    ({"text": {"format": {"type": "json_object"}}}, "text.format"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}, "text.format"),
    ({"moderation": {"model": "x"}}, "moderation"),
    ({"tools": [{"type": "web_search"}]}, "tools.web_search"),
    ({"tools": [{"type": "custom", "name": "a b"}, {"type": "custom", "name": "c"}]}, "tools.custom"),
    ({"tools": [{"type": "evil\r\nheader: 1"}]}, "tools.other"),
    ({"tools": [{"type": "function", "name": "f", "strict": True}]}, "tools.strict"),
    ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input.web_search_call"),
    ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input.compaction"),
    ({"input": [{"type": "Ünknown, really"}]}, "input.other"),
]


@pytest.mark.parametrize(("fields", "name"), REPORTED)
def test_parameters_nobody_can_honour_are_reported_or_refused(fields: dict[str, Any], name: str) -> None:
    assert turn(**fields).options.ignored == (name,)
    assert refusal(Rules(strict_params=True), **fields) == (name, "unsupported_parameter")


def test_the_report_of_kinds_has_a_bound() -> None:
    tools = [{"type": f"kind_{index}"} for index in range(1000)]
    assert len(turn(tools=tools).options.ignored) == 20


FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
SCHEMA = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
    ({"previous_response_id": "resp_0", "conversation": "c"}, "previous_response_id", "invalid_value"),
    ({"background": True, "store": False}, "background", "unsupported_value"),
    ({"top_logprobs": 5}, "top_logprobs", "unsupported_parameter"),
    ({"top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ({"text": {"format": SCHEMA | {"strict": True}}}, "text.format", "unsupported_value"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "missing_required_parameter"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "missing_required_parameter"),
    ({"text": {"format": SCHEMA | {"schema": 5}}}, "text.format.schema", "invalid_type"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
    ({"text": {"verbosity": "loud"}}, "text.verbosity", "invalid_value"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "invalid_value"),
    ({"tool_choice": "required"}, "tool_choice", "unsupported_value"),
    ({"tool_choice": "any"}, "tool_choice", "invalid_value"),
    ({"tool_choice": {"type": "function", "name": "g"}, "tools": [FUNCTION]}, "tool_choice", "invalid_value"),
    ({"tool_choice": {"type": "function"}, "tools": [FUNCTION]}, "tool_choice", "invalid_value"),
    ({"tool_choice": {"type": "web_search"}, "tools": [{"type": "web_search"}]}, "tool_choice", "unsupported_value"),
    ({"tool_choice": {"type": "custom", "name": "f"}, "tools": [FUNCTION]}, "tool_choice", "unsupported_value"),
    (
        {"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "mcp"}]}, "tools": [FUNCTION]},
        "tool_choice",
        "invalid_value",
    ),
    ({"tools": [FUNCTION, FUNCTION]}, "tools[1].name", "invalid_value"),
    ({"tools": [{"type": "mcp"}, FUNCTION | {"name": "a b"}]}, "tools[1].name", "invalid_value"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name", "missing_required_parameter"),
    ({"tools": [{"name": "f"}]}, "tools[0].type", "missing_required_parameter"),
    ({"truncation": "half"}, "truncation", "invalid_value"),
    ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
    ({"temperature": 2.1}, "temperature", "invalid_value"),
    ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "invalid_value"),
    ({"conversation": ""}, "conversation", "invalid_value"),
    ({"conversation": {"id": "x" * 257}}, "conversation.id", "invalid_value"),
    ({"conversation": {}}, "conversation.id", "missing_required_parameter"),
    ({"previous_response_id": "resp_xyz"}, "previous_response_id", "previous_response_not_found"),
    ({"previous_response_id": ""}, "previous_response_id", "previous_response_not_found"),
    ({"model": ""}, "model", "invalid_value"),
    ({"input": []}, "input", "invalid_value"),
    ({"input": None}, "input", "missing_required_parameter"),
]


@pytest.mark.parametrize(("fields", "param", "code"), REFUSED)
def test_parameters_whose_loss_would_break_the_caller_are_refused(
    fields: dict[str, Any], param: str, code: str
) -> None:
    assert refusal(**fields) == (param, code)


WRONG_TYPES: dict[str, list[Any]] = {
    "model": [5, None, ["Milo"]],
    "input": [{}, 5, True],
    "instructions": [["a"], 5],
    "stream": ["true", 1],
    "store": ["no"],
    "background": [1],
    "previous_response_id": [5, {}],
    "conversation": [5, []],
    "temperature": ["hot", []],
    "max_output_tokens": ["100", 1.5],
    "tools": [{}, "x"],
    "include": ["x"],
    "text": ["x"],
    "reasoning": ["high"],
    "parallel_tool_calls": ["no", 0],
    "metadata": ["x", []],
    "top_logprobs": [True, "1"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG_TYPES.items() for value in values])
def test_a_value_of_a_wrong_type_is_refused_by_name(name: str, value: Any) -> None:
    assert refusal(**{name: value}) == (name, "invalid_type")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"{", None, "invalid_json"),
        (b"[" * 100_000, None, "invalid_json"),
        (b"[]", None, "invalid_type"),
        (b'{"input": "a"}', "model", "missing_required_parameter"),
    ],
    ids=range(4),
)
def test_a_body_that_is_no_request_is_refused(body: bytes, param: str | None, code: str) -> None:
    with pytest.raises(InvalidRequest) as info:
        parse(body)
    assert (info.value.param, info.value.public_code) == (param, code)


def test_what_is_wished_of_the_model_is_kept() -> None:
    request = parse(
        asked(
            max_output_tokens=7,
            temperature=0.5,
            top_p=0.2,
            reasoning={"effort": "low"},
            text={"format": SCHEMA | {"strict": True}, "verbosity": "high"},
            parallel_tool_calls=False,
            tools=[FUNCTION],
            tool_choice="required",
        )
    )
    found = decode(request, Caller(Principal("ann")), "turn_1", {}).options
    assert (found.max_output_tokens, found.temperature, found.top_p) == (7, 0.5, 0.2)
    assert (found.reasoning_effort, found.verbosity, found.parallel_tool_calls) == ("low", "high", False)
    assert found.format == Format({"type": "object"}, "x", strict=True)
    assert found.must_call is True


F, G = Tool("f", "", {"type": "object"}), Tool("g", "say", {}, strict=True)
OFFERED: list[Any] = [
    FUNCTION,
    {"type": "mcp", "server_label": "x"},
    {"type": "function", "name": "g", "description": "say", "strict": True},
]
ALLOWED = {"type": "allowed_tools", "mode": "auto"}


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        (None, (F, G)),
        ("auto", (F, G)),
        ("none", ()),
        (ALLOWED | {"tools": [{"type": "function", "name": "g"}, {"type": "mcp", "server_label": "x"}]}, (G,)),
        (ALLOWED | {"tools": [{"type": "mcp", "server_label": "x"}]}, ()),
    ],
)
def test_the_callers_functions_are_offered_as_the_choice_has_it(choice: Any, left: tuple[Tool, ...]) -> None:
    found = turn(tools=OFFERED, tool_choice=choice)
    assert found.tools == left
    assert "tools.mcp" in found.options.ignored


def test_a_function_that_is_to_be_called_is_the_only_one() -> None:
    choice = {"type": "function", "name": "g"}
    found = decode(parse(asked(tools=OFFERED, tool_choice=choice)), Caller(Principal("ann")), "turn_1", {})
    assert (found.tools, found.options.must_call) == ((G,), True)
    assert found.tools[0].param == "tools[2].name"


def test_the_envelope_is_kept() -> None:
    found = turn(metadata={"n": 5}, background=True)
    assert (found.id, found.agent, found.principal, found.conversation) == ("turn_1", "Milo", Principal("ann"), "pin")
    assert (found.metadata, found.background, found.after) == ({"n": "5"}, True, "")


def test_a_request_says_where_it_goes_on() -> None:
    assert turn(previous_response_id="resp_0a1").after == "turn_0a1"
    assert turn(conversation="conv_x").conversation == "conv_x"
    assert turn(conversation={"id": "conv_x"}).conversation == "conv_x"
    assert turn(previous_response_id="resp_0", input=None).input == ()
    assert turn_of(response_id("turn_0a1")) == "turn_0a1"


def test_what_else_is_asked_can_be_told() -> None:
    assert [stores(parse(asked(store=store))) for store in (None, True, False)] == [True, True, False]
    wanted = [None, [], ["x"], ["x", "reasoning.encrypted_content"]]
    assert [wants_encrypted_content(include) for include in wanted] == [False, False, False, True]


# --- input -------------------------------------------------------------------------------------------------------

OURS = "call_" + "A" * 35
CALL = {"type": "function_call", "call_id": OURS, "name": "f", "arguments": '{"a":1}'}
RESULT = {"type": "function_call_output", "call_id": OURS, "output": "ok"}
FOREIGN = [CALL | {"call_id": "toolu_1"}, RESULT | {"call_id": "toolu_1"}]
PAIR = [
    CALL | {"id": "fc_5ao0", "call_id": "run_5ao0", "status": "completed"},
    RESULT | {"id": "fco_5ao0", "call_id": "run_5ao0", "status": "completed"},
]
REASONING: dict[str, Any] = {"type": "reasoning", "id": "rs_5ao0", "summary": [], "encrypted_content": None}
MCP = {"type": "mcp_call", "id": "mcp_5ao1", "server_label": "agent", "name": "f", "arguments": "", "output": "x"}
USER_A, USER_C = {"role": "user", "content": "a"}, {"type": "message", "role": "user", "content": "c"}
OUTPUT_B: dict[str, Any] = {
    "type": "message",
    "id": "msg_5ao2",
    "role": "assistant",
    "status": "completed",
    "phase": "final_answer",
    "content": [{"type": "output_text", "text": "b", "annotations": [], "logprobs": []}],
}
CALLED = ToolCall(OURS, "f", '{"a":1}')
RETURNED = ToolResult(OURS, (Text("ok"),))

TRANSCRIPTS: dict[str, tuple[Any, tuple[Item, ...], tuple[Item, ...], str]] = {
    "a string": ("a", (), (said("a"),), ""),
    "an empty string": ("", (), (), ""),
    "a message without a type": ([USER_A], (), (said("a"),), ""),
    "a message whose type is null": ([USER_A | {"type": None}], (), (said("a"),), ""),
    "parts": (
        [{"role": "user", "content": [{"type": "input_text", "text": "a"}, "b"]}],
        (),
        (Message("user", (Text("a"), Text("b"))),),
        "",
    ),
    "all after the agent's last word is new": (
        [USER_A, OUTPUT_B, USER_C, USER_C],
        (said("a"), answered("b")),
        (said("c"), said("c")),
        "",
    ),
    "what the agent said, in other forms": (
        [
            {"role": "assistant", "content": "b"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "assistant", "content": [{"type": "input_text", "text": "b"}]},
            USER_C,
        ],
        (answered("b"), answered("no"), answered("b")),
        (said("c"),),
        "",
    ),
    "instructions in order": (
        [
            {"role": "developer", "content": [{"type": "input_text", "text": "one"}]},
            USER_A,
            {"role": "system", "content": "two"},
            {"role": "system", "content": ""},
        ],
        (),
        (said("a"),),
        "zero\n\none\n\ntwo",
    ),
    "a call and its result": ([USER_A, CALL, RESULT], (said("a"), CALLED), (RETURNED,), ""),
    "a foreign call and its result": (
        [USER_A, *FOREIGN, OUTPUT_B, USER_C],
        (
            said("a"),
            ToolCall("toolu_1", "f", '{"a":1}'),
            ToolResult("toolu_1", (Text("ok"),)),
            answered("b"),
        ),
        (said("c"),),
        "",
    ),
    "a result in parts": (
        [CALL, RESULT | {"output": [{"type": "input_text", "text": "o"}, {"type": "input_text", "text": "k"}]}],
        (CALLED,),
        (ToolResult(OURS, (Text("o"), Text("k"))),),
        "",
    ),
    "two calls of one turn, each beside its result": (
        [
            CALL | {"id": "fc_5ao0"},
            RESULT,
            CALL | {"id": "fc_5ao1", "call_id": "call_2"},
            RESULT | {"call_id": "call_2"},
        ],
        (CALLED, ToolCall("call_2", "f", '{"a":1}')),
        (RETURNED, ToolResult("call_2", (Text("ok"),))),
        "",
    ),
    "two calls of two turns": (
        [
            CALL | {"id": "fc_5ao0"},
            RESULT,
            CALL | {"id": "fc_6bo0", "call_id": "call_2"},
            RESULT | {"call_id": "call_2"},
        ],
        (CALLED, RETURNED, ToolCall("call_2", "f", '{"a":1}')),
        (ToolResult("call_2", (Text("ok"),)),),
        "",
    ),
    "the agent's own doings are no history": (
        [USER_A, REASONING, MCP, *PAIR, OUTPUT_B, USER_C],
        (said("a"), answered("b")),
        (said("c"),),
        "",
    ),
    "thoughts show that the agent has spoken": ([USER_A, REASONING, USER_C], (said("a"),), (said("c"),), ""),
    "so does a tool of its own": ([USER_A, MCP, USER_C], (said("a"),), (said("c"),), ""),
    "and one that is shown as a pair": ([USER_A, *PAIR, USER_C], (said("a"),), (said("c"),), ""),
    "unknown kinds show nothing": (
        [USER_A, {"type": "web_search_call", "id": "ws_1"}, USER_C],
        (),
        (said("a"), said("c")),
        "",
    ),
    "empty messages are none": (
        [{"role": "user", "content": ""}, {"role": "user", "content": []}, USER_A],
        (),
        (said("a"),),
        "",
    ),
    "the agent's word last": ([USER_A, OUTPUT_B], (said("a"), answered("b")), (), ""),
}


@pytest.mark.parametrize(("input", "history", "new", "instructions"), TRANSCRIPTS.values(), ids=TRANSCRIPTS.keys())
def test_a_transcript_has_a_past_what_is_new_and_instructions(
    input: Any, history: tuple[Item, ...], new: tuple[Item, ...], instructions: str
) -> None:
    found = turn(input=input, instructions="zero" if instructions else None)
    assert (found.history, found.input, found.instructions) == (history, new, instructions)


ONLY_NEW: dict[str, tuple[Any, tuple[Item, ...]]] = {
    "a message": ("c", (said("c"),)),
    "a result": ([RESULT], (RETURNED,)),
    "a result beside its call": ([CALL, RESULT], (RETURNED,)),
    "with what led to it": ([REASONING, OUTPUT_B, CALL | {"id": "fc_5ao3"}, RESULT, USER_C], (RETURNED, said("c"))),
    "the agent's own doings": ([MCP, *PAIR, USER_C], (said("c"),)),
    "words of others put into its mouth": ([USER_A, {"role": "assistant", "content": "b"}], (said("a"), answered("b"))),
}


@pytest.mark.parametrize("place", [{"previous_response_id": "resp_5a"}, {"conversation": "conv_x"}])
@pytest.mark.parametrize(("input", "new"), ONLY_NEW.values(), ids=ONLY_NEW.keys())
def test_a_request_that_says_where_it_goes_on_says_only_what_is_new(
    place: dict[str, Any], input: Any, new: tuple[Item, ...]
) -> None:
    found = turn(input=input, **place)
    assert (found.history, found.input) == ((), new)


# --- references --------------------------------------------------------------------------------------------------


def named(*ids: str) -> list[Any]:
    return [{"type": "item_reference", "id": id} for id in ids]


KEPT: dict[str, Item | Part] = {
    "msg_5ai0": said("a"),
    "rs_5ao0": Reasoning("hm"),
    "mcp_5ao1": ToolRun("r", "f", "{}", "x"),
    "msg_5ao2": answered("b"),
    "fc_5ao3": CALLED,
    "fco_6bi0": RETURNED,
}


def test_references_are_told_with_their_places() -> None:
    request = parse(asked(input=[USER_A, *named("msg_1"), {"id": "rs_1"}, {"type": None, "id": "fc_1"}]))
    assert references(request) == {"msg_1": "input[1].id", "rs_1": "input[2].id", "fc_1": "input[3].id"}
    assert references(parse(asked(input="a"))) == {}


@pytest.mark.parametrize(
    ("ids", "history", "new"),
    [
        (("msg_5ao2",), (said("a"), answered("b")), (said("c"),)),
        (("rs_5ao0", "mcp_5ao1", "msg_5ao2"), (said("a"), answered("b")), (said("c"),)),
        (("rs_5ao0",), (said("a"),), (said("c"),)),
        (("mcp_5ao1",), (said("a"),), (said("c"),)),
        (("fc_5ao3", "fco_6bi0"), (said("a"), CALLED), (RETURNED, said("c"))),
        (("msg_5ai0",), (), (said("a"), said("a"), said("c"))),
    ],
)
def test_a_reference_stands_for_its_item(ids: tuple[str, ...], history: Any, new: Any) -> None:
    found = turn(referenced=KEPT, input=[USER_A, *named(*ids), USER_C])
    assert (found.history, found.input) == (history, new)


def test_the_agents_own_words_are_not_told_again_where_they_stand() -> None:
    found = turn(referenced=KEPT, input=[*named(*KEPT), USER_C], previous_response_id="resp_5a")
    assert (found.history, found.input) == ((), (said("a"), RETURNED, said("c")))


def test_an_unknown_reference_is_refused_with_its_place() -> None:
    assert refusal(referenced=KEPT, input=[USER_A, *named("msg_9ao9")]) == ("input[1].id", "item_not_found")


# --- content -----------------------------------------------------------------------------------------------------


def test_a_picture_keeps_its_place() -> None:
    picture = {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"}
    input = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, picture]},
        RESULT | {"output": [picture]},
    ]
    asking, result = turn(input=input).input
    assert asking == Message("user", (Text("a"), Image(url="https://x/y.png")))
    for item, param in ((asking, "input[0].content[1].image_url"), (result, "input[1].output[0].image_url")):
        assert isinstance(item, Message | ToolResult)
        assert isinstance(found := item.content[-1], Image)
        assert found.param == param


def test_a_result_tells_where_it_stood_and_whether_it_failed() -> None:
    for output, failed in (("ok", False), ("Error: no", True), ('{"error": "no"}', True)):
        (result,) = turn(input=[CALL, RESULT | {"output": output}]).input
        assert isinstance(result, ToolResult)
        assert (result.param, result.is_error) == ("input[1].call_id", failed)


USER = {"role": "user"}
BROKEN: list[tuple[list[Any], str, str]] = [
    (["hello"], "input[0]", "invalid_type"),
    ([None], "input[0]", "invalid_type"),
    ([{"content": "a"}], "input[0].role", "missing_required_parameter"),
    ([{}], "input[0].role", "missing_required_parameter"),
    ([{"role": "tool", "content": "a"}], "input[0].role", "invalid_value"),
    ([{"type": 5}], "input[0].type", "invalid_type"),
    ([{"type": "message", "role": "user"}], "input[0].content", "missing_required_parameter"),
    ([USER | {"content": None}], "input[0].content", "invalid_type"),
    ([USER | {"content": [5]}], "input[0].content[0]", "invalid_type"),
    ([USER | {"content": [{"text": "a"}]}], "input[0].content[0].type", "missing_required_parameter"),
    ([USER | {"content": [{"type": "input_text"}]}], "input[0].content[0].text", "missing_required_parameter"),
    ([USER | {"content": ["a", {"type": "input_audio"}]}], "input[0].content[1].type", "unsupported_content_type"),
    ([USER | {"content": [{"type": "input_file"}]}], "input[0].content[0].file_data", "missing_required_parameter"),
    *(
        (
            [USER | {"content": [{"type": "input_file", elsewhere: "x", "filename": "a.txt"}]}],
            f"input[0].content[0].{elsewhere}",
            "unsupported_content_type",
        )
        for elsewhere in ("file_id", "file_url")
    ),
    (
        [USER | {"content": [{"type": "input_image", "file_id": "f"}]}],
        "input[0].content[0].file_id",
        "unsupported_content_type",
    ),
    (
        [USER | {"content": [{"type": "input_image"}]}],
        "input[0].content[0].image_url",
        "missing_required_parameter",
    ),
    (
        [{"role": "system", "content": ["a", {"type": "input_image", "image_url": "https://x"}]}],
        "input[0].content[1].type",
        "unsupported_content_type",
    ),
    ([{"type": "function_call", "name": "f", "arguments": ""}], "input[0].call_id", "missing_required_parameter"),
    ([CALL | {"arguments": {}}], "input[0].arguments", "invalid_type"),
    ([CALL, RESULT | {"output": {}}], "input[1].output", "invalid_type"),
    (
        [RESULT | {"output": [{"type": "input_file", "file_data": "?"}]}],
        "input[0].output[0].file_data",
        "invalid_value",
    ),
    ([{"type": "item_reference"}], "input[0].id", "missing_required_parameter"),
]


@pytest.mark.parametrize(("input", "param", "code"), BROKEN)
def test_what_is_wrong_with_the_input_is_named_with_its_place(input: list[Any], param: str, code: str) -> None:
    assert refusal(input=input) == (param, code)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "id", "call_id", "output", "name", "arguments", "text", "x"]),
            inner
            | st.sampled_from(
                ["message", "user", "assistant", "input_text", "function_call", "item_reference", "reasoning"]
            ),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@for_all(st.dictionaries(st.sampled_from(["input", "tools", "tool_choice", "text", "conversation"]), json_values))
def test_any_body_is_a_turn_or_refused(fields: dict[str, Any]) -> None:
    place: str | None = ""
    try:
        request = parse(asked(**fields))
        decode(request, Caller(Principal("ann")), "turn_1", {})
    except InvalidRequest as error:
        place = error.param
    else:
        json.dumps(echo(request))
        json.dumps(given(request, "turn_1", {}))
    assert place is not None


# --- what is shown of it -----------------------------------------------------------------------------------------


def shown(**fields: Any) -> dict[str, Any]:
    """The settings as a response shows them, which OpenAI's client takes."""
    body = json.loads(json.dumps(echo(parse(asked(**fields)))))
    facts: dict[str, Any] = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "output": []}
    Response.model_validate(facts | body, strict=True)
    return body


def test_a_response_shows_what_was_assumed() -> None:
    assert shown() == {
        "model": "Milo",
        "background": False,
        "frequency_penalty": 0.0,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "presence_penalty": 0.0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
    }


def test_a_response_shows_what_was_asked() -> None:
    asked_for: dict[str, Any] = {
        "background": True,
        "instructions": "Be kind.",
        "max_output_tokens": 7,
        "max_tool_calls": 3,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "previous_response_id": "resp_0",
        "prompt_cache_key": "k",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "s",
        "temperature": 0.5,
        "text": {"format": SCHEMA | {"description": "d", "strict": True}, "verbosity": "low"},
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        "top_p": 0.5,
        "truncation": "auto",
        "user": "ann",
    }
    body = shown(**asked_for)
    assert {name: body[name] for name in asked_for} == asked_for


def test_tools_are_shown_as_they_were_sent_but_for_keys() -> None:
    mcp = {"type": "mcp", "server_label": "x", "server_url": "https://x", "require_approval": "never"}
    secret = {"authorization": "Bearer s3cret", "headers": {"x-key": "s3cret"}}
    assert shown(tools=[FUNCTION, mcp | secret])["tools"] == [FUNCTION | {"description": None, "strict": False}, mcp]


def items(referenced: Mapping[str, Item | Part] | None = None, **fields: Any) -> list[dict[str, Any]]:
    bodies = json.loads(json.dumps(given(parse(asked(**fields)), "turn_1", referenced or {})))
    for body in bodies:
        TypeAdapter[Any](ResponseItem).validate_python(body, strict=True)
    return bodies


def test_a_string_is_an_item() -> None:
    assert items(input="hello") == [
        {
            "type": "message",
            "id": "msg_1i0",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": "hello"}],
        }
    ]


def test_items_are_shown_in_their_order_and_each_has_an_id() -> None:
    picture = {"type": "input_image", "image_url": "https://x/y.png"}
    input: list[Any] = [
        {"role": "developer", "content": "one"},
        USER_A,
        {"type": "web_search_call"},
        REASONING,
        *named("mcp_5ao1"),
        OUTPUT_B,
        CALL,
        RESULT | {"output": [picture]},
        USER_C | {"id": "mine"},
    ]
    bodies = items(KEPT, input=input)
    assert [(body["type"], body.get("role")) for body in bodies] == [
        ("message", "developer"),
        ("message", "user"),
        ("reasoning", None),
        ("mcp_call", None),
        ("message", "assistant"),
        ("function_call", None),
        ("function_call_output", None),
        ("message", "user"),
    ]
    # What is new comes first, then what went before, then what is part of neither.
    assert [body["id"] for body in bodies] == [
        "msg_1i5",
        "msg_1i2",
        "rs_5ao0",
        "mcp_5ao1",
        "msg_5ao2",
        "fc_1i4",
        "fco_1i0",
        "mine",
    ]
    assert bodies[4]["content"] == OUTPUT_B["content"]
    assert bodies[6]["output"] == [picture | {"detail": "auto", "file_id": None}]
