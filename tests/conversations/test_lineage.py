"""Recognising what was said: in whatever form a client gives it back, and nothing else."""

import re
import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from frontdesk.conversations.lineage import (
    ROOT,
    agrees,
    canonical,
    is_plain,
    is_tail,
    points,
    reply_point,
    sayings,
    wraps,
)
from frontdesk.turn import File, Image, Item, Message, Part, Reasoning, Role, Text, ToolCall, ToolResult, ToolRun

lines = st.text(st.characters(exclude_characters="<>\n", exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1)
texts = st.text(st.sampled_from("ab é\n\t<>/think") | st.characters(exclude_categories=("Cs",)), max_size=40)
roles: st.SearchStrategy[Role] = st.sampled_from(["user", "assistant"])


def message(role: Role, *texts: str) -> Message:
    return Message(role, tuple(Text(text) for text in texts))


def user(*texts: str) -> Message:
    return message("user", *texts)


def agent(*texts: str) -> Message:
    return message("assistant", *texts)


# --- text ----------------------------------------------------------------------------------------------------------


@given(texts)
def test_canonical_text_stays_as_it_is(text: str) -> None:
    assume(not re.search("<(details|think)", text))
    assert canonical(canonical(text)) == canonical(text)


@given(texts)
def test_clients_change_line_ends_and_letters_and_trim(text: str) -> None:
    assume("<" not in text)
    assert canonical(text.replace("\n", "\r\n")) == canonical(text)
    assert canonical(unicodedata.normalize("NFD", text)) == canonical(text)
    assert canonical(f"\n\n  {text.strip()}  \n") == canonical(text.strip())


@given(st.lists(lines, min_size=1, max_size=5))
def test_blank_lines_and_white_space_at_line_ends_do_not_count(told: list[str]) -> None:
    assert canonical("  \n\n".join(told)) == canonical("\n".join(told))


@given(st.text(st.sampled_from("ab \n"), max_size=12), st.text(st.sampled_from("ab \n"), max_size=12))
def test_words_and_the_beginnings_of_lines_do_count(one: str, other: str) -> None:
    def bare(text: str) -> list[str]:
        return [line.rstrip() for line in text.strip().split("\n") if line.strip()]

    assert (canonical(one) == canonical(other)) == (bare(one) == bare(other))


@pytest.mark.parametrize(
    "aside",
    [
        '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 s</summary>\n> hm\n</details>\n',
        '<details type="tool_calls" done="true" id="call_1" name="f">\n<summary>f</summary>\n</details>\n',
        "<details type=reasoning>hm</details>",
        "<think>\nhm\n</think>\n\n",
        "<thinking>hm</thinking>",
    ],
)
def test_what_clients_show_beside_a_reply_is_not_part_of_it(aside: str) -> None:
    assert canonical(f"{aside}Hello") == canonical(f"Hello\n{aside}") == "Hello"
    assert canonical(f"{aside}Hello {aside}") == "Hello"


@pytest.mark.parametrize("text", ["<details>kept</details>", "<think>not closed", "a < b", "<thinker>x</thinker>"])
def test_other_tags_are_text(text: str) -> None:
    assert canonical(text) == text


def test_what_a_user_writes_between_think_tags_was_said() -> None:
    one, other = [points([user(f"<think>{word}</think>"), agent("x")]) for word in ("yes", "no")]
    assert one != other


# --- wrapping ------------------------------------------------------------------------------------------------------


@given(lines, lines, lines)
def test_text_on_lines_of_its_own_is_wrapped(before: str, text: str, behind: str) -> None:
    text = text.strip()
    assume(text)
    assert wraps(f"{before}\n{text}\n{behind}", text)
    assert wraps(f"<query>{text}</query>", text)
    assert wraps(f"<query> {text} </query>", text)
    assert wraps(text, text)


@pytest.mark.parametrize(
    ("outer", "inner"),
    [("No, yes", "yes"), ("yes, but no", "yes"), ("yesterday", "yes"), ("x\ny", ""), ("yes", "yes\nno"), ("", "yes")],
)
def test_text_within_a_line_is_another_text(outer: str, inner: str) -> None:
    assert not wraps(outer, inner)


def test_a_later_place_may_be_the_one() -> None:
    assert wraps("yesterday you said:\nyes", "yes")


# --- sayings -------------------------------------------------------------------------------------------------------

transcripts = st.lists(st.tuples(roles, lines.filter(str.strip)), max_size=12)


@given(transcripts, st.data())
def test_the_same_telling_is_the_same_however_it_is_split(told: list[tuple[Role, str]], data: st.DataObject) -> None:
    """Into messages, and into the parts of a message."""
    whole = [message(role, text) for role, text in told]
    split: list[Item] = []
    for role, text in told:
        cut = data.draw(st.integers(0, len(text)))
        parts = [text[:cut], text[cut:]]
        if split and isinstance(last := split[-1], Message) and last.role == role and data.draw(st.booleans()):
            split[-1] = message(role, *[part.text for part in last.content if isinstance(part, Text)], "\n", *parts)
        else:
            split.append(message(role, *parts))
    assert [point.after for point in points(split)] == [point.after for point in points(whole)]
    assert [point.pair for point in points(split)] == [point.pair for point in points(whole)]


@given(transcripts, transcripts)
def test_other_tellings_are_others(one: list[tuple[Role, str]], other: list[tuple[Role, str]]) -> None:
    ended = [[*(message(*each) for each in told), agent("end")] for told in (one, other)]
    ends = [points(told)[-1].after for told in ended]
    alike = [[(each.role, each.text) for each in sayings(told)] for told in ended]
    assert (ends[0] == ends[1]) == (alike[0] == alike[1])


@given(transcripts)
def test_a_point_tells_how_much_is_over(told: list[tuple[Role, str]]) -> None:
    items = [message(*each) for each in told]
    for point in points(items):
        assert items[point.end - 1].role == "assistant"
        assert points(items[: point.end])[-1] == point


@given(transcripts)
def test_a_conversation_that_goes_on_stands_where_its_transcript_says(told: list[tuple[Role, str]]) -> None:
    """What the ledger counts turn by turn is what a transcript of it all comes to."""
    items: list[Message] = []
    base = ROOT
    for number, (_, text) in enumerate(told):
        news = [user(text), agent(f"reply {number}")]
        items += news
        base = reply_point(base, news)
        last = points(items)[-1]
        assert (base.after, base.spoken, base.said) == (last.after, last.spoken, last.said)
        assert base.pair == last.pair


def test_users_words_do_not_count_on_the_agents_side() -> None:
    one, other = points([user("a"), agent("x")]), points([user("b"), agent("x")])
    assert one[0].spoken == other[0].spoken
    assert one[0].after != other[0].after
    assert points([agent("x")])[0].spoken == one[0].spoken


def test_calls_count_by_their_ids_and_not_by_how_their_arguments_are_written() -> None:
    def called(call_id: str, arguments: str) -> str:
        return points([user("a"), ToolCall(call_id, "f", arguments)])[-1].after

    assert called("1", '{"a": 1}') == called("1", '{"a":1}')
    assert called("1", "{}") != called("2", "{}")


def test_results_and_pictures_count() -> None:
    def point(*items: Item) -> str:
        return points([*items, agent("x")])[-1].after

    one = point(ToolResult("1", (Text("sunny"),)))
    assert one != point(ToolResult("1", (Text("rainy"),)))
    assert one != point(ToolResult("2", (Text("sunny"),)))
    assert point(Message("user", (Image(url="a"),))) != point(Message("user", (Image(url="b"),)))
    file = Message("user", (File("a", "text/plain", b"a"),))
    assert point(file) != point(Message("user", (File("a", "text/plain", b"b"),)))
    assert point(ToolResult("1", file.content)) != point(ToolResult("1", ()))


def test_what_clients_do_not_send_back_does_not_count() -> None:
    told: Sequence[Item | Part] = [user("a"), Reasoning("hm"), ToolRun("1", "f", "{}", "x"), agent("x")]
    assert [each.digest for each in sayings(told)] == [each.digest for each in sayings([user("a"), agent("x")])]


def test_an_empty_transcript_has_no_point() -> None:
    assert points([]) == points([user("a")]) == []
    assert reply_point(ROOT, []) == ROOT


# --- comparing -----------------------------------------------------------------------------------------------------


@given(transcripts.filter(bool))
def test_the_latter_part_of_what_was_said_is_a_tail(told: list[tuple[Role, str]]) -> None:
    known = sayings([message(*each) for each in told])
    for cut in range(1, len(known)):
        assert is_tail(known[cut:], known)
    assert not is_tail(known, known)
    assert not is_tail([], known)
    assert agrees(known, known)
    assert not agrees(known[1:], known)


def test_a_tail_with_a_gap_is_none() -> None:
    known = sayings([user("a"), agent("1"), user("b"), agent("2"), user("c"), agent("3")])
    assert not is_tail([known[2], known[3], known[5]], known)
    assert not is_tail(known[:2], known)


def test_the_agents_words_must_be_its_own() -> None:
    known = sayings([user("a"), agent("yes")])
    assert agrees(sayings([user("context\na"), agent("yes")]), known)
    assert not agrees(sayings([user("a"), agent("context\nyes")]), known)


def test_what_a_seed_can_hold_is_plain() -> None:
    assert is_plain([user("a"), agent("b"), Reasoning("hm")])
    for item in (ToolCall("1", "f", "{}"), ToolResult("1", ()), ToolRun("1", "f", "{}")):
        assert not is_plain([user("a"), item])
