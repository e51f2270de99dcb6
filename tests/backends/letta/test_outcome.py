"""What Letta kept of a run → what became of the turn, by tables. The shapes are those a live 0.16.7 lists."""

from typing import Any

import pytest

from frontdesk.backends.letta.backend import pauses
from frontdesk.backends.letta.messages import in_context, turned
from frontdesk.backends.letta.outcome import of_turn, outcome, parts, untracked, usage
from frontdesk.ports import Dropped, Kept, Running
from frontdesk.turn import Message, Reasoning, StopReason, Text, ToolCall, ToolRun, Usage

ENDED = {"status": "completed", "stop_reason": "end_turn"}


def row(kind: str, message_id: str = "message-1", **fields: Any) -> dict[str, Any]:
    return {"message_type": f"{kind}_message", "id": message_id, **fields}


def call(call_id: str, name: str = "get_weather") -> dict[str, str]:
    return {"tool_call_id": call_id, "name": name, "arguments": "{}"}


def answer(call_id: str, **fields: Any) -> dict[str, Any]:
    return {"type": "tool", "tool_call_id": call_id, "tool_return": "sun", "status": "success", **fields}


SAID = row("assistant", "message-2", content="Hi")


@pytest.mark.parametrize("status", ["created", "running"])
def test_a_run_that_goes_on_is_running_whatever_it_kept(status: str) -> None:
    assert outcome({"status": status}, [SAID]) == Running()


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_run_that_kept_nothing_was_dropped(status: str) -> None:
    assert outcome({"status": status, "stop_reason": "error"}, []) == Dropped()


@pytest.mark.parametrize(
    ("status", "stop", "reason", "complete"),
    [
        ("completed", "end_turn", StopReason.STOP, True),
        ("completed", "max_steps", StopReason.LENGTH, True),
        ("completed", "llm_api_error", StopReason.STOP, False),  # what Letta says of a failure after the first step
        ("failed", "llm_api_error", StopReason.STOP, False),
        ("cancelled", "cancelled", StopReason.STOP, False),
    ],
)
def test_a_reply_is_complete_if_the_agent_ended_it(status: str, stop: str, reason: StopReason, complete: bool) -> None:
    found = outcome({"status": status, "stop_reason": stop}, [row("user", content="Hello"), SAID])
    assert found == Kept((Message("assistant", (Text("Hi"),)),), reason, Usage(), complete, "message-2")


def test_a_reply_that_asks_for_tools_says_so() -> None:
    rows = [row("reasoning", reasoning="hm"), row("approval_request", tool_calls=[call("A"), call("B")])]
    found = outcome({"status": "completed", "stop_reason": "requires_approval"}, rows)
    assert isinstance(found, Kept)
    assert found.stop_reason is StopReason.TOOL_CALLS
    assert found.reply == (Reasoning("hm"), ToolCall("A", "get_weather", "{}"), ToolCall("B", "get_weather", "{}"))


def test_a_notice_of_condensing_is_no_part_but_is_told() -> None:
    notice = row("user", content='{"type": "system_alert", "message": "Note", "compaction_stats": {}}')
    found = outcome(ENDED, [row("user", content="{"), SAID, notice])
    assert isinstance(found, Kept)
    assert (len(found.reply), found.condensed, found.mark) == (1, True, "message-2")
    assert outcome(ENDED, [row("user", content='{"compaction": 1}'), SAID]) == Kept(
        found.reply, StopReason.STOP, Usage(), True, "message-2"
    )


def test_a_tool_run_stands_where_it_was_called_with_what_it_gave() -> None:
    rows = [
        row("tool_call", tool_call=call("M", "memory_insert")),
        row("tool_return", "message-2", tool_call_id="M", tool_return="full", status="error"),
        row("assistant", "message-3", content=[{"type": "text", "text": "Alas."}]),
    ]
    assert parts(rows) == (
        ToolRun("M", "memory_insert", "{}", "full", is_error=True),
        Message("assistant", (Text("Alas."),)),
    )


def test_results_of_the_callers_are_not_the_agents_runs() -> None:
    rows = [
        row("approval_response", approvals=[answer("A"), {"type": "approval", "tool_call_id": "B", "approve": False}]),
        row("tool_return", tool_call_id="A", tool_returns=[answer("A"), answer("B"), answer("M")], name="get_weather"),
        SAID,
    ]
    assert parts(rows) == (ToolRun("M", "", "", "sun"), Message("assistant", (Text("Hi"),)))


def test_pieces_of_one_message_are_one_part() -> None:
    pieces = [row("assistant", "message-2", content="A"), row("assistant", "message-2", content="B")]
    assert parts([*pieces, SAID, row("assistant", "message-3", content="C")]) == (
        Message("assistant", (Text("ABHi"),)),
        Message("assistant", (Text("C"),)),
    )


def test_what_older_agents_say_by_a_tool_is_said_once() -> None:
    assert parts([SAID, row("tool_return", name="send_message", tool_call_id="S", tool_return="None")]) == (
        Message("assistant", (Text("Hi"),)),
    )


def test_usage_is_summed_and_the_context_is_the_last_calls() -> None:
    last = {
        "prompt_tokens": 30,
        "completion_tokens": 3,
        "total_tokens": 33,
        "prompt_tokens_details": {"cached_tokens": 8, "cache_read_tokens": 8, "cache_creation_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    first = {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22, "prompt_tokens_details": None}
    assert usage([last, first]) == Usage(50, 5, 8, cache_write_tokens=2, reasoning_tokens=1, context_tokens=33)
    assert usage([]) == Usage()


def test_a_turn_begins_at_a_message_with_our_id_or_at_the_answer_to_its_calls() -> None:
    rows = [
        row("user", otid="other"),
        row("approval_response", approvals=[answer("A")]),
        row("user", otid="ours"),
    ]
    assert of_turn(rows, {"ours"}) == 2
    assert of_turn(rows, {"ours"}, ["A"]) == 1
    assert of_turn(rows, {"nobody's"}, ["B"]) is None
    assert of_turn(rows, {"nobody's"}) is None


def test_without_a_record_of_runs_the_last_message_tells_whether_the_agent_had_done() -> None:
    user = row("user", "message-1", content="Hello")
    assert untracked([user, SAID]) == ENDED
    assert untracked([user]) == untracked([]) == {"status": "completed", "stop_reason": None}


def test_what_was_put_away_is_not_in_context() -> None:
    rows = [{"id": each, "part": number} for number, each in enumerate("xyabbz")]
    assert [each["part"] for each in in_context(rows, ["b", "a"])] == [2, 3, 4]


def test_messages_are_turned_but_not_their_parts() -> None:
    rows = [{"id": each, "part": number} for number, each in enumerate("abbc")]
    assert [each["part"] for each in turned(rows)] == [3, 1, 2, 0]


@pytest.mark.parametrize("seconds", [0.0, 0.1, 1.0, 30.0])
def test_pauses_grow_and_end(seconds: float) -> None:
    made = list(pauses(seconds))
    assert sum(made) == pytest.approx(seconds)
    assert made[:-1] == sorted(made[:-1])
    assert len(made) < 15
