"""What a turn has said, for those who come later: all of it, once, in order."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from frontdesk.conversations import broadcast
from frontdesk.conversations.broadcast import Broadcast, condensed, said_again
from frontdesk.stream import Collector
from frontdesk.turn import (
    Batch,
    Event,
    Message,
    Part,
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

words = st.text(min_size=1, max_size=5)
ids = st.sampled_from("abc")
events = st.one_of(
    st.builds(TextDelta, words, ids),
    st.builds(ReasoningDelta, words, ids),
    ids.flatmap(lambda call: st.builds(ToolCallDelta, st.just(call), st.just(f"tool-{call}"), words)),
    st.builds(ToolRunStarted, ids.map(lambda each: f"run-{each}"), words, words),
    st.builds(ToolRunFinished, ids.map(lambda each: f"run-{each}"), words),
)
turns = st.lists(events, max_size=30)


def parts(told: Batch) -> tuple[Part, ...]:
    collector = Collector()
    collector.add([*told, END])
    return collector.reply().parts


@given(turns)
def test_what_is_joined_says_the_same(told: list[Event]) -> None:
    assert parts(condensed(told)) == parts(told)
    assert condensed(condensed(told)) == condensed(told)


@given(turns)
def test_a_broadcast_gives_the_parts_of_its_turn_however_it_ended(told: list[Event]) -> None:
    whole, cut = Broadcast(), Broadcast()
    for event in told:
        whole.add((event,))
        cut.add((event,))
    whole.add((END,))
    assert whole.parts() == cut.parts() == parts(told)


def test_thousands_of_tokens_are_kept_as_few_events() -> None:
    one = Broadcast()
    for number in range(20_000):
        one.add((TextDelta(f"{number} ", "a"),))
    assert len(one._events) <= broadcast.DENSE + 1  # pyright: ignore[reportPrivateUsage]
    (text,) = one.parts()
    assert isinstance(text, Message)
    assert text.text == "".join(f"{number} " for number in range(20_000))


async def heard(one: Broadcast) -> list[Event]:
    return [event async for batch in one.listen() for event in batch]


async def test_each_listener_hears_all_of_it_whenever_it_came() -> None:
    one = Broadcast()
    listeners: list[asyncio.Task[list[Event]]] = []
    for number in range(5):
        listeners.append(asyncio.create_task(heard(one)))
        await asyncio.sleep(0)
        one.add((TextDelta(str(number), "a"),))
    one.add((END,))
    one.end()
    listeners.append(asyncio.create_task(heard(one)))
    for told in await asyncio.gather(*listeners):
        assert condensed(told) == [TextDelta("01234", "a"), END]
    assert one.listeners == 0


async def test_what_comes_while_a_listener_takes_in_the_past_is_not_lost() -> None:
    one = Broadcast()
    one.add((TextDelta("past ", "a"),))
    listening = one.listen()
    told = [*await anext(listening)]
    one.add((TextDelta("present", "a"), END))
    one.end()
    told += [event async for batch in listening for event in batch]
    assert condensed(told) == [TextDelta("past present", "a"), END]


async def test_who_stops_listening_is_no_listener() -> None:
    one = Broadcast()
    listening = one.listen()
    await anext(listening)
    assert one.listeners == 1
    await listening.aclose()
    assert one.listeners == 0


async def test_a_broadcast_tells_why_it_ended() -> None:
    one, why = Broadcast(), ValueError("why")
    one.end(why)
    one.end(None)
    assert one.error is why
    assert await heard(one) == []
    assert not one.spoke


KEPT = [
    Message("assistant", (Text("Hello"),)),
    ToolRun("run-1", "look", "{}", "found", is_error=True),
    Message("assistant", (Text("there"),)),
    Message("assistant", (Text("again"),)),
    ToolCall("call-1", "read", '{"a": 1}'),
    ToolCall("call-2", "read", "{}"),
]


def test_a_kept_reply_is_said_again_as_it_was() -> None:
    collector = Collector()
    collector.add(said_again(KEPT, END))
    assert list(collector.reply().parts) == KEPT
