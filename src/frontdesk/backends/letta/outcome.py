"""What became of a turn whose stream nobody read to its end, told from what Letta kept of it. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from frontdesk.backends.letta.translate import STOP, parse, text_of
from frontdesk.ports import Dropped, Kept, Outcome, Running
from frontdesk.turn import Message, Part, Reasoning, StopReason, Text, ToolCall, ToolRun, Usage

Row = Mapping[str, Any]

SPEAKS = "send_message"  # by this tool older agents speak; Letta lists the call as what was said
ACTIVE = frozenset({"created", "running"})


def outcome(run: Row, rows: Sequence[Row], steps: Sequence[Row] = ()) -> Outcome:
    """A run, its messages oldest first, and its model calls → what became of the turn."""
    if run.get("status") in ACTIVE:
        return Running()
    if not rows:
        return Dropped()
    reply = parts(rows)
    reason = STOP.get(run.get("stop_reason") or "")
    complete = reason is not None and run.get("status") == "completed"
    if complete and any(isinstance(part, ToolCall) for part in reply):
        reason = StopReason.TOOL_CALLS
    condensed = any(is_notice(row) for row in rows)
    return Kept(reply, reason or StopReason.STOP, usage(steps), complete, mark(rows), condensed)


def untracked(rows: Sequence[Row]) -> Row:
    """A run that has ended, as its messages tell it: for a server that keeps no record of runs."""
    done = bool(rows) and rows[-1].get("message_type") in ("assistant_message", "approval_request_message")
    return {"status": "completed", "stop_reason": "end_turn" if done else None}


def parts(rows: Iterable[Row]) -> tuple[Part, ...]:
    """What the agent said and did. Results which the caller sent are input, and left out."""
    told: list[Part] = []
    runs: dict[str, int] = {}  # where each tool run stands in `told`
    answered: set[str] = set()
    last: tuple[str, str] = ("", "")
    for row in rows:
        kind = str(row.get("message_type"))
        same, last = last == (kind, row.get("id")), (kind, str(row.get("id")))
        match kind:
            case "reasoning_message":
                said(told, Reasoning(row.get("reasoning") or ""), same)
            case "assistant_message":
                said(told, Message("assistant", (Text(text_of(row.get("content"))),)), same)
            case "approval_request_message":
                told += [ToolCall(*call) for call in calls(row)]
            case "tool_call_message":
                for call in calls(row):
                    runs[call[0]] = len(told)
                    told.append(ToolRun(*call))
            case "approval_response_message":
                answered |= answers(row)
            case "tool_return_message":
                for call_id, output, is_error in returns(row):
                    if call_id in runs:
                        run = cast("ToolRun", told[runs[call_id]])
                        told[runs[call_id]] = replace(run, output=output, is_error=is_error)
                    elif call_id not in answered and row.get("name") != SPEAKS:
                        # Called beside the caller's tools, in the turn before.
                        told.append(ToolRun(call_id, "", "", output, is_error))
            case _:
                pass
    return tuple(told)


def said(told: list[Part], part: Message | Reasoning, same: bool) -> None:
    """Add it, or join it to what was said last if that is of the `same` message."""
    match part, told[-1] if told and same else None:
        case Message(), Message() as before:
            told[-1] = replace(before, content=(Text(before.text + part.text),))
        case Reasoning(text), Reasoning(before):
            told[-1] = Reasoning(before + text)
        case Message(), _:
            if part.text:
                told.append(part)
        case Reasoning(text), _:
            if text:
                told.append(part)


def calls(row: Row) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call of a message."""
    found: Any = row.get("tool_calls") or row.get("tool_call") or []
    listed = cast("list[Row]", found if isinstance(found, list) else [found])
    return [(call["tool_call_id"], call.get("name") or "", call.get("arguments") or "{}") for call in listed]


def returns(row: Row) -> list[tuple[str, str, bool]]:
    """Call id, output and failure of each result of a message."""
    listed: list[Row] = row.get("tool_returns") or [row]
    return [
        (item.get("tool_call_id") or "", text_of(output_of(item)), (item.get("status") or row.get("status")) == "error")
        for item in listed
    ]


def output_of(item: Row) -> Any:
    output = item.get("tool_return")
    return item.get("func_response") if output is None else output


def answers(row: Row) -> set[str]:
    """The calls which a message of the caller's answers."""
    return {str(item.get("tool_call_id")) for item in row.get("approvals") or () if is_callers(item)}


def is_callers(answer: Row) -> bool:
    """Whether the caller ran the tool or refused to; else it let the agent run it."""
    return answer.get("type") == "tool" or not answer.get("approve")


def is_notice(row: Row) -> bool:
    """Whether Letta tells the agent here that its history was condensed."""
    if row.get("message_type") != "user_message":
        return False
    text = text_of(row.get("content"))
    return text.startswith("{") and "compaction_stats" in (parse(text) or {})


def mark(rows: Sequence[Row]) -> str:
    """The id of the last message of the agent's."""
    inputs = ("user_message", "system_message", "approval_response_message")
    return next((str(row["id"]) for row in reversed(rows) if row.get("message_type") not in inputs), "")


def usage(steps: Sequence[Row]) -> Usage:
    """The sum of a run's model calls, newest first. Letta's own sum leaves out what was cached or reasoned."""

    def total(name: str) -> int:
        return sum(step.get(name) or 0 for step in steps)

    def detail(kind: str, *names: str) -> int:
        details: list[Row] = [step.get(kind) or {} for step in steps]
        return sum(next((each[name] for name in names if each.get(name)), 0) for each in details)

    return Usage(
        input_tokens=total("prompt_tokens"),
        output_tokens=total("completion_tokens"),
        cached_tokens=detail("prompt_tokens_details", "cached_tokens", "cache_read_tokens"),
        cache_write_tokens=detail("prompt_tokens_details", "cache_creation_tokens"),
        reasoning_tokens=detail("completion_tokens_details", "reasoning_tokens"),
        context_tokens=(steps[0].get("total_tokens") or 0) if steps else 0,
    )


def of_turn(rows: Sequence[Row], otids: Collection[str], call_ids: Collection[str] = ()) -> int | None:
    """Where among the rows a turn begins: known by the ids we gave its messages, or by the calls which it answers.

    Letta forgets our id for a message of tool results alone.
    """
    for index, row in enumerate(rows):
        if row.get("otid") in otids:
            return index
        if any(item.get("tool_call_id") in call_ids for item in row.get("approvals") or ()):
            return index
    return None


def added(before: Usage, last: Usage) -> Usage:
    """The tokens of both; `context_tokens` is the size of the last call alone."""
    return Usage(
        before.input_tokens + last.input_tokens,
        before.output_tokens + last.output_tokens,
        before.cached_tokens + last.cached_tokens,
        before.cache_write_tokens + last.cache_write_tokens,
        before.reasoning_tokens + last.reasoning_tokens,
        last.context_tokens,
    )
