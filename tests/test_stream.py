"""Frames open and close parts; a reply is a fold of the same frames."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontdesk.errors import AgentFailed
from frontdesk.stream import Collector, Frame, Frames, PartDelta, PartFinished, PartStarted
from frontdesk.turn import (
    Event,
    Message,
    Reasoning,
    ReasoningDelta,
    StopReason,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolRun,
    ToolRunFinished,
    ToolRunStarted,
    TurnFinished,
)

END = TurnFinished(StopReason.STOP)


def frames(*events: Event) -> list[Frame]:
    return list(Frames()(events))


def test_fragments_of_one_message_make_one_part() -> None:
    said = Message("assistant", ())
    assert frames(TextDelta("Hel", "a"), TextDelta("lo", "a"), END) == [
        PartStarted(0, said),
        PartDelta(0, said, "Hel"),
        PartDelta(0, said, "lo"),
        PartFinished(0, Message("assistant", (Text("Hello"),))),
        END,
    ]


def test_another_part_id_starts_another_message() -> None:
    finished = [
        frame.part for frame in frames(TextDelta("a", "1"), TextDelta("b", "2"), END) if type(frame) is PartFinished
    ]
    assert finished == [Message("assistant", (Text("a"),)), Message("assistant", (Text("b"),))]


def test_reasoning_ends_where_text_begins() -> None:
    order = frames(ReasoningDelta("hm", "1"), TextDelta("yes", "1"), END)
    assert [type(frame) for frame in order[:3]] == [PartStarted, PartDelta, PartFinished]
    assert order[2] == PartFinished(0, Reasoning("hm"))


def test_parallel_calls_are_parts_of_their_own() -> None:
    events = [ToolCallDelta("1", "f", '{"a":'), ToolCallDelta("2", "g", "{}"), ToolCallDelta("1", "f", "1}"), END]
    finished = [frame for frame in frames(*events) if isinstance(frame, PartFinished)]
    assert finished == [PartFinished(0, ToolCall("1", "f", '{"a":1}')), PartFinished(1, ToolCall("2", "g", "{}"))]


def test_a_call_without_arguments_has_an_empty_object() -> None:
    assert PartFinished(0, ToolCall("1", "f", "{}")) in frames(ToolCallDelta("1", "f", ""), END)


def test_a_tool_run_is_open_until_it_finishes() -> None:
    run = ToolRun("1", "f", "{}")
    assert frames(ToolRunStarted("1", "f", "{}"), TextDelta("x"), ToolRunFinished("1", "out"), END) == [
        PartStarted(0, run),
        PartStarted(1, Message("assistant", ())),
        PartDelta(1, Message("assistant", ()), "x"),
        PartFinished(1, Message("assistant", (Text("x"),))),
        PartFinished(0, ToolRun("1", "f", "{}", "out")),
        END,
    ]


def test_nothing_comes_after_the_end() -> None:
    with pytest.raises(AgentFailed):
        frames(END, TextDelta("more"))


def test_a_stream_that_merely_stops_is_a_failure() -> None:
    collector = Collector()
    collector.add([TextDelta("half")])
    with pytest.raises(AgentFailed):
        collector.reply()


deltas = st.one_of(
    st.builds(TextDelta, st.text(), st.sampled_from(["a", "b"])),
    st.builds(ReasoningDelta, st.text(), st.sampled_from(["a", "b"])),
    st.builds(ToolCallDelta, st.sampled_from(["1", "2"]), st.just("f"), st.text()),
    st.builds(ToolRunStarted, st.sampled_from(["r", "s"]), st.just("g"), st.just("{}")),
    st.builds(ToolRunFinished, st.sampled_from(["r", "s"]), st.text()),
)


@given(st.lists(deltas))
def test_however_events_fall_every_part_opens_and_closes_once_and_no_text_is_lost(events: list[Event]) -> None:
    seen = frames(*events, END)
    opened = [frame.index for frame in seen if isinstance(frame, PartStarted)]
    closed = [frame.index for frame in seen if isinstance(frame, PartFinished)]
    assert len(set(closed)) == len(closed)
    assert sorted(opened) == sorted(closed)
    said = "".join(frame.delta for frame in seen if isinstance(frame, PartDelta) and isinstance(frame.part, Message))
    assert said == "".join(event.text for event in events if isinstance(event, TextDelta))
    assert seen[-1] == END


@given(st.lists(deltas), st.integers(1, 5))
def test_batches_make_no_difference(events: list[Event], size: int) -> None:
    whole, pieces = Collector(), Collector()
    whole.add([*events, END])
    for start in range(0, len(events) + 1, size):
        pieces.add([*events, END][start : start + size])
    assert whole.reply() == pieces.reply()
