"""Events → the chunks of a stream and the body of a plain reply: tables, without any server."""

import itertools
import json
from collections.abc import Sequence
from typing import Any, get_args

import pytest

from frontdesk.errors import AgentFailed, ProviderRateLimited
from frontdesk.protocols.chat_completions.encode import ChunkEncoder, Head, ReasoningField, Style, completion
from frontdesk.stream import Collector
from frontdesk.turn import (
    Event,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCallDelta,
    ToolRunFinished,
    ToolRunStarted,
    TurnFinished,
    Usage,
)
from tests.requirements import requirement

HEAD = Head("chatcmpl-1", 1_800_000_000, "Milo")
STOP = TurnFinished(StopReason.STOP, Usage(100, 20, 64, 3, 7, 120))
CALLS = TurnFinished(StopReason.TOOL_CALLS)


def stream(events: Sequence[Event], style: Style | None = None, *, usage: bool = False, size: int = 1) -> str:
    """The whole stream as text; `size` events come with each read."""
    encoder = ChunkEncoder(HEAD, style or Style(), include_usage=usage)
    batches = [events[start : start + size] for start in range(0, len(events), size)]
    return b"".join([encoder.begin(), *(encoder.batch(batch) for batch in batches), encoder.end()]).decode()


def chunks(text: str) -> list[Any]:
    *frames, done = text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def deltas(text: str) -> list[Any]:
    return [choice["delta"] for chunk in chunks(text) for choice in chunk["choices"]]


def plain(events: Sequence[Event], style: Style | None = None) -> Any:
    collector = Collector()
    collector.add(events)
    return completion(HEAD, style or Style(), collector.reply())


@requirement("chat.stream.order")
def test_the_bytes_of_a_short_stream() -> None:
    head = '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1800000000,"model":"Milo","choices":'
    going_on = '"logprobs":null,"finish_reason":null}]}'
    assert stream([TextDelta("Hé"), TextDelta('"\n'), STOP]).split("\n\n") == [
        f'data: {head}[{{"index":0,"delta":{{"role":"assistant","content":""}},{going_on}',
        f'data: {head}[{{"index":0,"delta":{{"content":"Hé"}},{going_on}',
        f'data: {head}[{{"index":0,"delta":{{"content":"\\"\\n"}},{going_on}',
        f'data: {head}[{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"stop"}}]}}',
        "data: [DONE]",
        "",
    ]


@requirement("chat.stream.usage")
def test_usage_is_null_until_its_own_chunk() -> None:
    *ordinary, last = chunks(stream([TextDelta("a"), STOP], usage=True))
    assert [chunk["usage"] for chunk in ordinary] == [None] * 3
    assert (last["choices"], last["id"], last["model"]) == ([], "chatcmpl-1", "Milo")
    assert last["usage"] == {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 7},
    }


def test_a_plain_reply() -> None:
    assert plain([ReasoningDelta("hm"), TextDelta("Hello"), TextDelta("."), STOP]) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_800_000_000,
        "model": "Milo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello.", "refusal": None, "reasoning_content": "hm"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": chunks(stream([STOP], usage=True))[-1]["usage"],
    }


@requirement("tools.stream")
def test_parallel_calls_have_their_own_index_and_say_their_name_once() -> None:
    events = [
        TextDelta("Look:"),
        ToolCallDelta("call_1", "f", ""),
        ToolCallDelta("call_1", "f", '{"a"'),
        ToolCallDelta("call_1", "f", ":1}"),
        ToolCallDelta("call_2", "g", ""),
        CALLS,
    ]
    function = {"name": "f", "arguments": ""}
    assert deltas(stream(events))[2:-1] == [
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
        {"tool_calls": [{"index": 1, "id": "call_2", "type": "function", "function": function | {"name": "g"}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
    ]
    (choice,) = plain(events)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Look:"
    assert choice["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert plain(events[1:])["choices"][0]["message"]["content"] is None


@requirement("chat.reasoning.own-tools")
def test_the_agents_own_tools_are_lines_of_reasoning() -> None:
    run = [ToolRunStarted("1", "memory_insert", '{"a":1}'), ToolRunFinished("1", "x" * 600), STOP]
    long = "x" * 500 + "…"
    assert plain(run)["choices"][0]["message"] == {
        "role": "assistant",
        "content": "",
        "refusal": None,
        "reasoning_content": f'[memory_insert] {{"a":1}}\n[memory_insert] done: {long}',
    }
    failed = [ReasoningDelta("hm"), run[0], ToolRunFinished("1", "", is_error=True), ReasoningDelta("oh"), STOP]
    thought = 'hm\n\n[memory_insert] {"a":1}\n[memory_insert] failed\n\noh'
    assert plain(failed)["choices"][0]["message"]["reasoning_content"] == thought
    hidden = Style(show_tool_runs=False)
    assert plain(failed, hidden)["choices"][0]["message"]["reasoning_content"] == "hm\n\noh"


# --- streamed and plain say the same -----------------------------------------------------------------------------

ANSWERS: dict[str, list[Event]] = {
    "nothing": [STOP],
    "text": [TextDelta("a"), TextDelta("b"), STOP],
    "two messages": [TextDelta("a", "1"), TextDelta("b", "2"), STOP],
    "thought": [ReasoningDelta("a"), ReasoningDelta("b"), TextDelta("c"), STOP],
    "thoughts between": [ReasoningDelta("a", "1"), TextDelta("b"), ReasoningDelta("c", "2"), TextDelta("d"), STOP],
    "thought last": [TextDelta("b"), ReasoningDelta("c"), STOP],
    "own tool": [
        ReasoningDelta("a"),
        ToolRunStarted("1", "f", "{}"),
        ToolRunFinished("1", "ok"),
        ReasoningDelta("b"),
        TextDelta("c"),
        STOP,
    ],
    "own tools beside each other": [
        ToolRunStarted("1", "f", "{}"),
        ToolRunStarted("2", "g", "{}"),
        ToolRunFinished("2", "no", is_error=True),
        ToolRunFinished("1", "ok"),
        STOP,
    ],
    "a run that never ended": [ToolRunStarted("1", "f", "{}"), TextDelta("a"), STOP],
    "calls": [
        ReasoningDelta("a"),
        TextDelta("b"),
        ToolCallDelta("1", "f", '{"a":'),
        ToolCallDelta("2", "g", ""),
        ToolCallDelta("1", "f", "1}"),
        CALLS,
    ],
    "a call after a thought": [ReasoningDelta("a"), ToolCallDelta("1", "f", "{}"), CALLS],
}
STYLES = [Style(field, runs) for field, runs in itertools.product(get_args(ReasoningField), (True, False))]


@requirement("chat.equal")
@pytest.mark.parametrize("style", STYLES, ids=lambda style: f"{style.reasoning_field}-{style.show_tool_runs}")
@pytest.mark.parametrize("events", ANSWERS.values(), ids=ANSWERS.keys())
def test_streamed_and_plain_say_the_same_in_every_style(events: list[Event], style: Style) -> None:
    whole = plain(events, style)["choices"][0]
    for size in (1, 2, len(events)):
        folded = fold(deltas(stream(events, style, size=size)))
        message = {name: value for name, value in whole["message"].items() if value}
        assert sorted_thoughts(folded) == sorted_thoughts(message)


def fold(parts: list[Any]) -> dict[str, Any]:
    message: dict[str, Any] = {}
    for delta in parts:
        for name, value in delta.items():
            if name != "tool_calls":
                message[name] = message.get(name, "") + value
        for call in delta.get("tool_calls", ()):
            calls = message.setdefault("tool_calls", [])
            if call["index"] == len(calls):
                calls.append({"id": call["id"], "type": call["type"], "function": dict(call["function"])})
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return {name: value for name, value in message.items() if value}


def sorted_thoughts(message: dict[str, Any]) -> dict[str, Any]:
    """In `think` style a plain reply has its thoughts in one piece in front; a stream has them where they came."""
    text: str = message.get("content", "")
    if "<think>" not in text:
        return message
    outside = ""
    thoughts: list[str] = []
    for piece in text.split("<think>"):
        thought, closed, rest = piece.rpartition("</think>")
        thoughts += [thought] if closed else []
        outside += rest.removeprefix("\n\n") if closed else piece
    return message | {"content": outside, "thoughts": "".join(thoughts).replace("\n", "")}


def test_thoughts_in_the_text_are_closed_before_anything_else_comes() -> None:
    style = Style("think")
    events = ANSWERS["a call after a thought"]
    assert [delta for delta in deltas(stream(events, style)) if "content" in delta][1:] == [
        {"content": "<think>a"},
        {"content": "</think>\n\n"},
    ]
    assert deltas(stream(events, style))[-1] == {}


# --- trouble -----------------------------------------------------------------------------------------------------


@requirement("errors.in-band")
def test_an_error_in_mid_stream_is_a_frame_without_a_finish() -> None:
    encoder = ChunkEncoder(HEAD, Style(), include_usage=True)
    encoder.begin()
    encoder.batch([TextDelta("a")])
    frame, done, rest = encoder.error(ProviderRateLimited("Slow down.")).decode().split("\n\n")
    assert json.loads(frame.removeprefix("data: ")) == {
        "error": {"message": "Slow down.", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}
    }
    assert (done, rest) == ("data: [DONE]", "")


@requirement("errors.in-band")
def test_a_stream_that_merely_stops_is_an_error() -> None:
    encoder = ChunkEncoder(HEAD, Style(), include_usage=False)
    encoder.begin()
    encoder.batch([TextDelta("a")])
    assert '"code":"agent_error"' in encoder.end().decode()
    collector = Collector()
    collector.add([TextDelta("a")])
    with pytest.raises(AgentFailed):
        collector.reply()


@pytest.mark.parametrize(("kind", "parsed"), [("chunk", {}), ("comment", None), ("off", None)])
def test_keep_alives(kind: Any, parsed: Any) -> None:
    data = ChunkEncoder(HEAD, Style(keepalive=kind), include_usage=False).keepalive().decode()
    if kind == "chunk":
        assert json.loads(data.removeprefix("data: "))["choices"] == [
            {"index": 0, "delta": parsed, "logprobs": None, "finish_reason": None}
        ]
    else:
        assert data == {"comment": ": keepalive\n\n", "off": ""}[kind]
