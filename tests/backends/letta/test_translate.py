"""Letta's stream → events, by tables. The shapes are those a live 0.16.7 sends."""

import json
from typing import Any

import pytest

from frontdesk.backends.letta.translate import ServerSentEvents, Translator
from frontdesk.errors import (
    AgentFailed,
    ApprovalRequired,
    ContextLengthExceeded,
    GatewayError,
    ProviderAuthentication,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderTimeout,
)
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


def message(kind: str, **fields: Any) -> bytes:
    return json.dumps({"message_type": kind, "id": "message-1", "otid": "x", "date": "2026", **fields}).encode()


END = message("stop_reason", stop_reason="end_turn")
USAGE = message("usage_statistics", prompt_tokens=20, completion_tokens=4, cached_input_tokens=8, reasoning_tokens=None)


def events(*payloads: bytes, tools: tuple[str, ...] = ("get_weather",)) -> list[Event]:
    translator = Translator(tools)
    return [*translator(payloads), translator.finish()]


def failure(*payloads: bytes, tools: tuple[str, ...] = ()) -> GatewayError:
    with pytest.raises(GatewayError) as info:
        events(*payloads, tools=tools)
    return info.value


def test_what_came_in_one_read_makes_one_delta_of_each_part() -> None:
    said = events(
        message("ping", run_id="run-1"),
        message("reasoning_message", reasoning="", source="reasoner_model"),
        message("reasoning_message", reasoning="hm", source="reasoner_model"),
        message("assistant_message", content="Hel"),
        message("assistant_message", content=[{"type": "text", "text": "lo"}]),
        END,
        USAGE,
        b"[DONE]",
    )
    assert said == [
        ReasoningDelta("hm", "message-1"),
        TextDelta("Hello", "message-1"),
        TurnFinished(StopReason.STOP, Usage(20, 4, cached_tokens=8), "message-1"),
    ]


def test_client_calls_in_token_mode_keep_their_name_and_pieces() -> None:
    def call(**fields: Any) -> bytes:
        return message("approval_request_message", tool_call=fields, tool_calls=fields)

    said = events(
        call(name="get_weather", arguments=None, tool_call_id="A"),
        call(name=None, arguments='{"city": "', tool_call_id="A"),
        call(name=None, arguments='Oslo"}', tool_call_id="A"),
        call(name="get_weather", arguments="{}", tool_call_id="B"),
        message("stop_reason", stop_reason="requires_approval"),
    )
    assert said == [
        ToolCallDelta("A", "get_weather", ""),
        ToolCallDelta("A", "get_weather", '{"city": "'),
        ToolCallDelta("A", "get_weather", 'Oslo"}'),
        ToolCallDelta("B", "get_weather", "{}"),
        TurnFinished(StopReason.TOOL_CALLS, mark="message-1"),
    ]


def test_client_calls_in_step_mode_come_as_a_list() -> None:
    calls = [{"name": "get_weather", "arguments": "{}", "tool_call_id": each} for each in "AB"]
    said = events(
        message("approval_request_message", tool_call=calls[0], tool_calls=calls),
        message("stop_reason", stop_reason="requires_approval"),
    )
    assert said[:2] == [ToolCallDelta("A", "get_weather", "{}"), ToolCallDelta("B", "get_weather", "{}")]


def test_the_agents_own_call_is_shown_before_it_has_run() -> None:
    translator = Translator(())
    call = {"name": "memory_insert", "tool_call_id": "M"}
    before = translator(
        [
            message("tool_call_message", tool_call=call),
            message("tool_call_message", tool_call={"arguments": '{"label":', "tool_call_id": "M"}),
            message("tool_call_message", tool_call={"arguments": '"human"}', "tool_call_id": "M"}),
        ]
    )
    assert before == [ToolRunStarted("M", "memory_insert", '{"label":"human"}')]
    after = translator([message("tool_return_message", tool_return="ok", status="success", tool_call_id="M")])
    assert after == [ToolRunFinished("M", "ok")]


def test_a_brace_inside_arguments_does_not_end_them() -> None:
    pieces = ['{"a": {"b": 1}', ', "c": "}"', "}"]
    said = events(
        message("tool_call_message", tool_call={"name": "f", "tool_call_id": "M", "arguments": pieces[0]}),
        *(message("tool_call_message", tool_call={"tool_call_id": "M", "arguments": piece}) for piece in pieces[1:]),
        END,
    )
    assert said[0] == ToolRunStarted("M", "f", "".join(pieces))


def test_send_message_of_older_loops_is_text() -> None:
    arguments = json.dumps({"message": 'say "hi"\n'})
    said = events(
        message("tool_call_message", tool_call={"name": "send_message", "tool_call_id": "S", "arguments": arguments}),
        message("tool_return_message", tool_return="Sent", status="success", tool_call_id="S"),
        END,
    )
    assert said == [TextDelta('say "hi"\n', "message-1/S"), TurnFinished(StopReason.STOP, mark="message-1")]


def test_the_callers_results_are_no_runs_of_the_agents() -> None:
    returns = [{"tool_call_id": each, "tool_return": "ok", "status": "success"} for each in "AM"]
    translator = Translator(("get_weather",), answered=["A"])
    assert translator([message("tool_return_message", tool_call_id="A", tool_returns=returns)]) == [
        ToolRunFinished("M", "ok")
    ]


def test_a_character_split_in_two_is_joined() -> None:
    halves = [
        b'{"message_type":"assistant_message","id":"m","content":"\\ud83d"}',
        b'{"message_type":"assistant_message","id":"m","content":"\\ude00!"}',
    ]
    said = events(*halves, END)
    assert "".join(event.text for event in said if isinstance(event, TextDelta)) == "😀!"


def test_unknown_messages_and_notices_are_passed_over() -> None:
    said = events(
        message("user_message", content='{"type":"system_alert"}'),
        message("hidden_reasoning_message", state="redacted", hidden_reasoning="x"),
        message("something_new", content={"a": 1}),
        END,
    )
    assert said == [TurnFinished(StopReason.STOP, condensed=True)]


def test_a_turn_is_marked_with_the_message_that_came_last() -> None:
    call = {"name": "get_weather", "arguments": "{}", "tool_call_id": "A"}
    said = message("assistant_message", id="message-2", content="Let me see.")
    asked = message("approval_request_message", id="message-1", tool_call=call)
    notice = message("user_message", id="message-3", content="{}")
    for payloads, mark in (((said,), "message-2"), ((said, asked), "message-1"), ((said, notice), "message-2")):
        finished = events(*payloads, END)[-1]
        assert isinstance(finished, TurnFinished)
        assert finished.mark == mark


@pytest.mark.parametrize(
    ("stop", "reason"),
    [("end_turn", "stop"), ("tool_rule", "stop"), ("max_steps", "length"), ("max_tokens_exceeded", "length")],
)
def test_stop_reasons(stop: str, reason: str) -> None:
    assert events(message("stop_reason", stop_reason=stop)) == [TurnFinished(StopReason(reason))]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"error_type": "llm_rate_limit"}, ProviderRateLimited),
        ({"error_type": "llm_rate_limit", "detail": "… insufficient_quota …"}, ProviderQuotaExceeded),
        ({"error_type": "llm_authentication"}, ProviderAuthentication),
        ({"error_type": "llm_timeout"}, ProviderTimeout),
        ({"error_type": "llm_error"}, ProviderError),
        ({"error_type": "internal_error", "detail": "RATE_LIMIT_EXCEEDED: slow down"}, ProviderRateLimited),
        ({"error_type": "internal_error", "detail": "UNAUTHENTICATED: no"}, ProviderAuthentication),
        ({"error_type": "internal_error", "detail": "CONTEXT_WINDOW_EXCEEDED: big"}, ContextLengthExceeded),
        ({"error_type": "context_window_overflow_in_system_prompt"}, ContextLengthExceeded),
        ({"error_type": "internal_error", "detail": "INTERNAL_SERVER_ERROR: x"}, ProviderError),
        ({"error_type": "internal_error", "detail": "actor='user-1' SELECT *"}, AgentFailed),
        ({"error_type": "stream_incomplete"}, AgentFailed),
    ],
)
def test_errors_after_http_200(error: dict[str, str], expected: type[GatewayError]) -> None:
    stop = message("stop_reason", stop_reason="error")
    found = failure(stop, message("error_message", **error), b"[DONE]")
    assert type(found) is expected
    assert "actor" not in found.message
    assert "SELECT" not in found.message


def test_roo_code_recognises_a_context_overflow_by_its_words() -> None:
    found = failure(message("error_message", error_type="internal_error", detail="CONTEXT_WINDOW_EXCEEDED: x"))
    assert "maximum context length" in found.message


def test_a_stream_without_a_stop_reason_is_a_failure() -> None:
    assert type(failure(message("assistant_message", content="half"))) is AgentFailed


def test_a_turn_cancelled_by_somebody_else_is_not_an_answer() -> None:
    assert type(failure(message("stop_reason", stop_reason="cancelled"))) is AgentFailed


def test_the_agents_own_tool_that_waits_for_a_human_is_named() -> None:
    call = {"name": "drop_tables", "arguments": "{}", "tool_call_id": "A"}
    found = failure(
        message("approval_request_message", tool_call=call), message("stop_reason", stop_reason="requires_approval")
    )
    assert type(found) is ApprovalRequired
    assert "drop_tables" in found.message


def test_garbage_is_a_failure() -> None:
    assert type(failure(message("assistant_message", content="so far"), b"<html>", END)) is AgentFailed


STREAM = b'data: {"a":1}\n\n: comment\n\nevent: error\ndata: {"b":\ndata: 2}\n\ndata: [DONE]\n\n'
PAYLOADS = [b'{"a":1}', b"", b'{"b":\n2}', b"[DONE]"]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_server_sent_events_are_cut_alike_however_they_arrive(ending: bytes, size: int) -> None:
    data = STREAM.replace(b"\n", ending)
    cut = ServerSentEvents()
    found = [payload for start in range(0, len(data), size) for payload in cut(data[start : start + size])]
    assert found == PAYLOADS
