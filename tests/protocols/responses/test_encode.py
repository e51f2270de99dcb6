"""Events → the events of a Responses stream, and the body of a plain reply: tables, without any server.

OpenAI's own types and the accumulator of its client judge both.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from frontdesk.errors import AgentFailed, GatewayError, InvalidRequest, ProviderRateLimited
from frontdesk.protocols.items import place_in_turn
from frontdesk.protocols.responses.decode import echo, parse
from frontdesk.protocols.responses.encode import EventEncoder, Head, Style, failure, reply_body, response_body
from frontdesk.stream import Collector, Reply
from frontdesk.turn import (
    Event,
    Message,
    ReasoningDelta,
    StopReason,
    Text,
    TextDelta,
    ToolCallDelta,
    ToolRun,
    ToolRunFinished,
    ToolRunStarted,
    TurnFinished,
    Usage,
)
from tests.requirements import requirement

ASKED = echo(parse(b'{"model": "Milo", "input": "hello"}'))
HEAD = Head(
    "resp_5a", 1_800_000_000, ASKED, turn_id=lambda: "turn_5a", conversation=lambda: "conv_x", now=lambda: 1_800_000_007
)
BEHIND = replace(HEAD, echo=ASKED | {"background": True})
STOP = TurnFinished(StopReason.STOP, Usage(100, 20, 64, 3, 7, 120))
CUT = TurnFinished(StopReason.LENGTH)
CALLS = TurnFinished(StopReason.TOOL_CALLS)
HELLO: list[Event] = [TextDelta("Hel"), TextDelta("lo"), STOP]
RUN: list[Event] = [ToolRunStarted("r", "look", '{"at":1}'), ToolRunFinished("r", "snow"), TextDelta("Snow."), STOP]
PAIRS = Style(tool_items="function_pair")

TYPES: dict[str, type[BaseModel]] = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(get_args(ResponseStreamEvent)[0])
}


def batches(events: Sequence[Event], size: int = 1) -> list[Sequence[Event]]:
    return [events[start : start + size] for start in range(0, len(events), size)]


def stream(
    events: Sequence[Event], style: Style | None = None, head: Head = HEAD, *, after: int | None = None, size: int = 1
) -> list[Any]:
    """The events of a whole stream; `size` of the agent's come with each read."""
    encoder = EventEncoder(head, style or Style(), after=after)
    spoken = [encoder.batch(batch) for batch in batches(events, size)]
    return told(b"".join([encoder.begin(), *spoken, encoder.end()]))


def told(data: bytes) -> list[Any]:
    """What a stream says. Each event has its name twice, and a client takes it."""
    *frames, done = data.decode().removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    return [read(frame) for frame in frames if not frame.startswith(":")]


def read(frame: str) -> Any:
    name, line = frame.split("\n")
    body = json.loads(line.removeprefix("data: "))
    assert name == f"event: {body['type']}"
    TYPES[body["type"]].model_validate(body, strict=True)
    return body


def plain(events: Sequence[Event], style: Style | None = None, head: Head = HEAD) -> Any:
    collector = Collector()
    collector.add(events)
    return judged(reply_body(head, style or Style(), collector.reply()))


def judged(body: Any) -> Any:
    body = json.loads(json.dumps(body))
    Response.model_validate(body, strict=True)
    return body


def kinds(events: Sequence[Any]) -> list[str]:
    return [each["type"].removeprefix("response.") for each in events]


# --- the order ---------------------------------------------------------------------------------------------------


def test_the_bytes_of_one_more_piece_of_text() -> None:
    encoder = EventEncoder(HEAD, Style())
    encoder.batch([TextDelta("Hé")])
    assert encoder.batch([TextDelta('"\n')]).decode() == (
        "event: response.output_text.delta\n"
        'data: {"type":"response.output_text.delta","item_id":"msg_5ao0","output_index":0,"content_index":0,'
        '"logprobs":[],"delta":"\\"\\n","sequence_number":5}\n\n'
    )


def test_a_text_is_opened_written_and_closed() -> None:
    events = stream(HELLO)
    place = {"item_id": "msg_5ao0", "output_index": 0, "content_index": 0}
    part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    item: dict[str, Any] = {
        "type": "message",
        "id": "msg_5ao0",
        "status": "in_progress",
        "role": "assistant",
        "content": [],
    }
    whole = part | {"text": "Hello"}
    written = item | {"status": "completed", "content": [whole]}
    created, progress, *rest, completed = events
    assert (created["type"], progress["type"]) == ("response.created", "response.in_progress")
    assert created["response"] == progress["response"]
    assert (created["response"]["status"], created["response"]["output"]) == ("in_progress", [])
    assert (created["response"]["usage"], created["response"]["completed_at"]) == (None, None)
    assert rest == [
        {"type": "response.output_item.added", "output_index": 0, "item": item, "sequence_number": 2},
        {"type": "response.content_part.added", **place, "part": part, "sequence_number": 3},
        {"type": "response.output_text.delta", **place, "delta": "Hel", "logprobs": [], "sequence_number": 4},
        {"type": "response.output_text.delta", **place, "delta": "lo", "logprobs": [], "sequence_number": 5},
        {"type": "response.output_text.done", **place, "text": "Hello", "logprobs": [], "sequence_number": 6},
        {"type": "response.content_part.done", **place, "part": whole, "sequence_number": 7},
        {"type": "response.output_item.done", "output_index": 0, "item": written, "sequence_number": 8},
    ]
    assert completed == {"type": "response.completed", "response": plain(HELLO), "sequence_number": 9}


def test_a_thought_is_a_summary_in_parts() -> None:
    events = stream([ReasoningDelta("Let me "), ReasoningDelta("see."), TextDelta("So."), STOP])
    assert kinds(events)[2:9] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    assert events[2]["item"] == {"type": "reasoning", "id": "rs_5ao0", "status": "in_progress", "summary": []}
    thought = {"type": "summary_text", "text": "Let me see."}
    assert events[8]["item"] == {"type": "reasoning", "id": "rs_5ao0", "status": "completed", "summary": [thought]}
    assert [each.get("output_index") for each in events[2:-1]] == [0] * 7 + [1] * 6


def test_calls_come_in_fragments_and_keep_apart() -> None:
    spoken: list[Event] = [
        TextDelta("Look:"),
        ToolCallDelta("call_1", "f", ""),
        ToolCallDelta("call_1", "f", '{"a"'),
        ToolCallDelta("call_2", "g", ""),
        ToolCallDelta("call_1", "f", ":1}"),
        CALLS,
    ]
    events = stream(spoken)[8:]
    opened = {"type": "function_call", "id": "fc_5ao1", "status": "in_progress", "call_id": "call_1", "name": "f"}
    assert events[0]["item"] == opened | {"arguments": ""}
    assert [(each["output_index"], each["delta"]) for each in events if "delta" in each] == [
        (1, '{"a"'),
        (1, ":1}"),
        (2, "{}"),
    ]
    done = [each for each in events if each["type"] == "response.function_call_arguments.done"]
    assert [(each["item_id"], each["name"], each["arguments"]) for each in done] == [
        ("fc_5ao1", "f", '{"a":1}'),
        ("fc_5ao2", "g", "{}"),
    ]
    assert events[-1]["response"]["status"] == "completed"
    assert [item["type"] for item in plain(spoken)["output"]] == ["message", "function_call", "function_call"]


@pytest.mark.parametrize(
    ("empty", "output"),
    [
        ([], []),
        ([TextDelta("")], [""]),
    ],
)
def test_an_answer_without_words_is_an_answer(empty: list[Event], output: list[str]) -> None:
    events = stream([*empty, STOP])
    assert kinds(events)[-1] == "completed"
    assert [item["content"][0]["text"] for item in events[-1]["response"]["output"]] == output


# --- the agent's own tools ---------------------------------------------------------------------------------------


def test_a_tool_of_the_agents_is_a_call_that_ran_elsewhere() -> None:
    events = stream(RUN)
    assert kinds(events)[2:8] == [
        "output_item.added",
        "mcp_call.in_progress",
        "mcp_call_arguments.delta",
        "mcp_call_arguments.done",
        "mcp_call.completed",
        "output_item.done",
    ]
    run = {"type": "mcp_call", "id": "mcp_5ao0", "server_label": "agent", "name": "look"}
    before = {"arguments": "", "output": None, "error": None, "status": "in_progress"}
    after = {"arguments": '{"at":1}', "output": "snow", "error": None, "status": "completed"}
    assert (events[2]["item"], events[7]["item"]) == (run | before, run | after)


def test_a_tool_that_failed_says_so() -> None:
    events = stream([ToolRunStarted("r", "look", ""), ToolRunFinished("r", "no", is_error=True), STOP])
    assert kinds(events)[2:7] == [
        "output_item.added",
        "mcp_call.in_progress",
        "mcp_call_arguments.done",
        "mcp_call.failed",
        "output_item.done",
    ]
    error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "no"}]}
    item = events[6]["item"]
    assert (item["status"], item["output"], item["error"]) == ("failed", None, error)


def test_a_pair_leaves_nothing_to_be_run() -> None:
    events = stream(RUN, PAIRS)
    assert kinds(events)[2:8] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "output_item.done",
    ]
    call, answer, text = events[-1]["response"]["output"]
    assert call == {
        "type": "function_call",
        "id": "fc_5ao0",
        "status": "completed",
        "call_id": "run_5ao0",
        "name": "look",
        "arguments": '{"at":1}',
    }
    assert answer == {
        "type": "function_call_output",
        "id": "fco_5ao0",
        "status": "completed",
        "call_id": "run_5ao0",
        "output": "snow",
    }
    assert (text["id"], events[-2]["output_index"]) == ("msg_5ao1", 2)


def test_what_is_hidden_takes_no_place_but_keeps_its_number() -> None:
    spoken: list[Event] = [ReasoningDelta("hm"), *RUN]
    (text,) = stream(spoken, Style(tool_items="off", show_reasoning=False))[-1]["response"]["output"]
    assert text["id"] == "msg_5ao2"
    assert {each["output_index"] for each in stream(spoken, Style(tool_items="off"))[2:-1]} == {0, 1}


def test_a_run_may_end_after_the_agent_went_on() -> None:
    spoken = [RUN[0], TextDelta("Meanwhile."), RUN[1], STOP]
    for style in (Style(), PAIRS):
        events = stream(spoken, style)
        assert events[-1]["response"] == plain(spoken, style)
    assert [item["type"] for item in events[-1]["response"]["output"]] == [
        "function_call",
        "function_call_output",
        "message",
    ]


# --- the end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "why"), [(StopReason.LENGTH, "max_output_tokens"), (StopReason.CONTENT_FILTER, "content_filter")]
)
def test_an_answer_that_was_cut_is_incomplete_and_so_is_its_last_item(reason: StopReason, why: str) -> None:
    events = stream([ReasoningDelta("hm"), TextDelta("Half"), TurnFinished(reason)])
    assert kinds(events)[-2:] == ["output_item.done", "incomplete"]
    response = events[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": why})
    assert response["completed_at"] is None
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert events[-2]["item"] == response["output"][-1]
    assert plain([ReasoningDelta("hm"), TextDelta("Half"), TurnFinished(reason)]) == response


def test_usage_has_its_details() -> None:
    assert plain(HELLO)["usage"] == {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 3},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 7},
        "total_tokens": 120,
    }


FAILURES: list[tuple[GatewayError, str]] = [
    (AgentFailed("It broke."), "server_error"),
    (ProviderRateLimited("Slow down."), "rate_limit_exceeded"),
    (InvalidRequest("No.", param="input[0]"), "invalid_prompt"),
]


@pytest.mark.parametrize(("error", "code"), FAILURES)
def test_a_failure_is_an_error_and_then_a_failed_response(error: GatewayError, code: str) -> None:
    encoder = EventEncoder(HEAD, Style())
    spoken = encoder.batch([ReasoningDelta("hm"), TextDelta("Ha")])
    events = told(encoder.begin() + spoken + encoder.error(error))
    said, failed = events[-2:]
    number = len(events) - 2
    assert said == {
        "type": "error",
        "code": error.public_code,
        "message": error.message,
        "param": error.param,
        "sequence_number": number,
    }
    assert (failed["type"], failed["sequence_number"]) == ("response.failed", number + 1)
    assert (failed["response"]["status"], failed["response"]["error"]) == (
        "failed",
        {"code": code, "message": error.message},
    )
    assert [item["type"] for item in failed["response"]["output"]] == ["reasoning"]


def test_a_stream_that_merely_stops_has_failed() -> None:
    assert kinds(stream([TextDelta("Ha")]))[-2:] == ["error", "failed"]


def test_an_answer_ends_only_once() -> None:
    encoder = EventEncoder(HEAD, Style())
    encoder.batch(HELLO)
    assert encoder.error(AgentFailed("It broke.")) == encoder.end() == b"data: [DONE]\n\n"
    encoder = EventEncoder(HEAD, Style())
    encoder.error(AgentFailed("It broke."))
    assert encoder.end() == b"data: [DONE]\n\n"


STORED: list[tuple[Any, dict[str, Any]]] = [
    ("queued", {}),
    ("in_progress", {"parts": (Message("assistant", (Text("Ha"),)),)}),
    ("completed", {"parts": (ToolRun("r", "look", "{}", "snow"),), "end": STOP, "completed_at": 1_800_000_009}),
    ("failed", {"error": failure("agent_error", "It broke.")}),
    ("cancelled", {"parts": (Message("assistant", (Text("Ha"),)),)}),
]


@pytest.mark.parametrize("style", [Style(), PAIRS])
@pytest.mark.parametrize(("status", "facts"), STORED)
def test_a_response_can_be_shown_at_any_time(style: Style, status: Any, facts: dict[str, Any]) -> None:
    body = judged(response_body(HEAD, style, status, **facts))
    assert body["status"] == status
    assert body["error"] == facts.get("error")
    assert body["completed_at"] == facts.get("completed_at")
    last = {"in_progress": "in_progress", "cancelled": "incomplete"}.get(status, "completed")
    assert all(item["status"] == last for item in body["output"])


def test_what_is_known_late_is_asked_late() -> None:
    conversation, turn = "", ""
    head = replace(HEAD, conversation=lambda: conversation, turn_id=lambda: turn)
    encoder = EventEncoder(head, Style())
    begun = encoder.begin()
    conversation, turn = "conv_y", "turn_77"
    events = told(begun + encoder.batch(HELLO) + encoder.end())
    assert events[0]["response"]["conversation"] is None
    assert events[-1]["response"]["conversation"] == {"id": "conv_y"}
    assert events[2]["item"]["id"] == "msg_77o0"


def test_hidden_thoughts_that_were_asked_for_are_said_to_be_none() -> None:
    spoken: list[Event] = [ReasoningDelta("hm"), STOP]
    head = replace(HEAD, encrypted_content=True)
    for item in (stream(spoken, head=head)[2]["item"], plain(spoken, head=head)["output"][0]):
        assert item["encrypted_content"] is None
    assert "encrypted_content" not in plain(spoken)["output"][0]


# --- silence -----------------------------------------------------------------------------------------------------


def beats(encoder: EventEncoder, count: int) -> list[str]:
    return [
        "comment" if data == b": keepalive\n\n" else read(data.decode().strip())["type"] if data else ""
        for data in (encoder.keepalive() for _ in range(count))
    ]


def test_a_long_silence_is_bridged_with_the_response_as_it_is() -> None:
    encoder = EventEncoder(HEAD, Style())
    begun = encoder.begin() + encoder.batch([ReasoningDelta("hm"), TextDelta("Hel")])
    whole = ["comment"] * 3 + ["response.in_progress"]
    assert beats(encoder, 3) == whole[:3]
    begun += encoder.batch([TextDelta("lo")])
    assert beats(encoder, 3) == whole[:3]
    bridged = encoder.keepalive()
    events = told(begun + bridged + encoder.batch([STOP]) + encoder.end())
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    (snapshot,) = [each for each in events[2:] if each["type"] == "response.in_progress"]
    assert [item["type"] for item in snapshot["response"]["output"]] == ["reasoning"]
    assert accumulated(events) == events[-1]["response"]["output"]


@pytest.mark.parametrize(
    ("head", "style", "expected"),
    [
        (BEHIND, Style(), "comment"),
        (HEAD, Style(keepalive="comment"), "comment"),
        (HEAD, Style(keepalive="off"), ""),
    ],
)
def test_some_streams_are_kept_alive_without_events(head: Head, style: Style, expected: str) -> None:
    assert beats(EventEncoder(head, style), 8) == [expected] * 8


# --- coming back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(-1, 9))
def test_whoever_comes_back_hears_the_rest(after: int) -> None:
    whole = stream(HELLO, head=BEHIND)
    assert stream(HELLO, head=BEHIND, after=after) == whole[after + 1 :]


@pytest.mark.parametrize("size", [1, 3])
def test_whoever_has_heard_all_hears_the_end(size: int) -> None:
    (end,) = stream(HELLO, head=BEHIND, after=500, size=size)
    assert (end["type"], end["sequence_number"]) == ("response.completed", 501)
    failed = stream(HELLO[:1], head=BEHIND, after=500)
    assert [(each["type"], each["sequence_number"]) for each in failed] == [("error", 501), ("response.failed", 502)]


# --- any answer --------------------------------------------------------------------------------------------------

words = st.text(max_size=5)
names = st.sampled_from("ab")
spoken = st.one_of(
    st.builds(TextDelta, words, names),
    st.builds(ReasoningDelta, words, names),
    st.builds(ToolCallDelta, names, st.just("f"), words),
    st.builds(ToolRunStarted, names, st.just("g"), words),
    st.builds(ToolRunFinished, names, words, st.booleans()),
)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Whatever an agent may say. A call is over when the agent speaks again, and its id is not used again."""
    events: list[Event] = []
    times = 0
    for event in draw(st.lists(spoken, max_size=12)):
        times += isinstance(event, TextDelta | ReasoningDelta)
        events.append(replace(event, call_id=f"{event.call_id}{times}") if isinstance(event, ToolCallDelta) else event)
    return [*events, TurnFinished(draw(st.sampled_from(StopReason)))]


styles = st.builds(Style, st.sampled_from(["mcp_call", "function_pair", "off"]), st.booleans())


def accumulated(events: Sequence[Any]) -> list[Any]:
    """The output as the pieces make it, as a client would hold it that looks at nothing else."""
    items: dict[int, Any] = {}
    for each in events:
        match each:
            case {"type": "response.output_item.added", "output_index": index, "item": item}:
                assert index not in items
                items[index] = json.loads(json.dumps(item))
            case {"type": "response.content_part.added", "output_index": index, "part": part}:
                items[index]["content"].append(part)
            case {"type": "response.reasoning_summary_part.added", "output_index": index, "part": part}:
                items[index]["summary"].append(part)
            case {"type": "response.output_text.delta", "output_index": index, "delta": delta}:
                items[index]["content"][0]["text"] += delta
            case {"type": "response.reasoning_summary_text.delta", "output_index": index, "delta": delta}:
                items[index]["summary"][0]["text"] += delta
            case {"type": str(kind), "output_index": index, "delta": delta} if "arguments.delta" in kind:
                items[index]["arguments"] += delta
            case {"type": "response.output_item.done", "output_index": index, "item": item}:
                if item["type"] in ("message", "reasoning", "function_call"):
                    assert items[index] | {"status": item["status"]} == item
                items[index] = item
            case _:
                pass
        if "item_id" in each:
            assert items[each["output_index"]]["id"] == each["item_id"]
    return [items[index] for index in sorted(items)]


def without_status(items: Sequence[Any]) -> list[Any]:
    return [{name: value for name, value in item.items() if name != "status"} for item in items]


@requirement("responses.stream")
@given(answers(), styles, st.integers(1, 13))
def test_a_stream_says_what_the_plain_reply_says(events: list[Event], style: Style, size: int) -> None:
    streamed = stream(events, style, size=size)
    body = plain(events, style)
    assert [each["sequence_number"] for each in streamed] == list(range(len(streamed)))
    assert streamed[-1]["response"] == body
    assert without_status(accumulated(streamed)) == without_status(body["output"])
    ids = [item["id"] for item in body["output"]]
    assert len(set(ids)) == len(ids)
    assert all(place_in_turn(id) for id in ids)


@given(answers(), styles)
def test_openais_client_takes_any_stream(events: list[Event], style: Style) -> None:
    state = ResponseStreamState(input_tools=omit, text_format=omit)
    streamed = stream(events, style)
    heard: list[Any] = []
    for each in streamed:
        heard += state.handle_event(TYPES[each["type"]].model_validate(each))  # type: ignore[arg-type]
    assert [item.id for item in heard[-1].response.output] == [
        item["id"] for item in streamed[-1]["response"]["output"]
    ]


SPOKEN_MEANWHILE: list[Event] = [
    ToolRunStarted("a", "g", ""),
    TextDelta("Hello", "b"),
    ToolRunFinished("a", "done"),
    TurnFinished(StopReason.LENGTH),
]


@example(SPOKEN_MEANWHILE, Style(), 1, 4)
@given(answers(), styles, st.integers(1, 13), st.integers(1, 13))
def test_numbers_do_not_depend_on_how_the_agents_words_came(
    events: list[Event], style: Style, one: int, other: int
) -> None:
    assert stream(events, style, BEHIND, size=one) == stream(events, style, BEHIND, size=other)


@given(answers(), styles, st.integers(0, 40))
def test_whoever_comes_back_at_any_time_hears_the_rest(events: list[Event], style: Style, after: int) -> None:
    whole = stream(events, style, BEHIND)
    rest = stream(events, style, BEHIND, after=after)
    assert rest[:-1] == whole[after + 1 : -1]
    assert rest[-1] == whole[-1] | {"sequence_number": max(after + 1, whole[-1]["sequence_number"])}


@given(answers(), styles)
def test_what_is_stored_is_shown_as_it_was_said(events: list[Event], style: Style) -> None:
    collector = Collector()
    collector.add(events)
    reply: Reply = collector.reply()
    status: Any = plain(events, style)["status"]
    at = HEAD.now() if status == "completed" else None
    assert judged(response_body(HEAD, style, status, reply.parts, end=reply.end, completed_at=at)) == plain(
        events, style
    )
