"""Ids that carry what they mean, and are good for one caller only."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from frontdesk.conversations.ids import CALL, CONVERSATION, Ids, fingerprint
from tests.requirements import requirement

IDS = Ids(b"a secret")
conversations = st.uuids().map(lambda each: each.hex)
names = st.text(max_size=30)


@requirement("security.ids.round-trip")
@given(conversations, names, names)
def test_a_conversation_id_finds_its_conversation(conversation: str, principal: str, agent: str) -> None:
    given_out = IDS.conversation(conversation, principal, agent)
    assert IDS.conversation_of(given_out, principal, agent) == conversation
    assert given_out.startswith(CONVERSATION)
    assert given_out.isascii()
    assert given_out.isprintable()


@requirement("security.ids.round-trip")
@given(conversations, names, names, st.lists(names, min_size=1, max_size=5, unique=True), st.data())
def test_a_call_id_finds_its_call(
    conversation: str, principal: str, agent: str, calls: list[str], data: st.DataObject
) -> None:
    meant = data.draw(st.sampled_from(calls))
    given_out = IDS.call(meant, conversation, principal, agent)
    assert len(given_out) <= 40
    assert IDS.conversation_of_call(given_out) == conversation
    assert IDS.upstream(given_out, calls, conversation, principal, agent) == meant


@requirement("security.ids.private")
@given(conversations, names, names, names, names)
def test_another_callers_or_agents_id_is_none(
    conversation: str, principal: str, agent: str, other: str, other_agent: str
) -> None:
    given_out = IDS.conversation(conversation, principal, agent)
    call = IDS.call("call_1", conversation, principal, agent)
    for who, what in ((other, agent), (principal, other_agent), (agent, principal)):
        if (who, what) != (principal, agent):
            assert IDS.conversation_of(given_out, who, what) is None
            assert IDS.upstream(call, ["call_1"], conversation, who, what) is None


@requirement("security.ids.private")
@given(conversations, st.tuples(names, names), st.tuples(names, names))
def test_parts_do_not_run_into_one_another(conversation: str, one: tuple[str, str], two: tuple[str, str]) -> None:
    if one != two:
        assert IDS.conversation(conversation, *one) != IDS.conversation(conversation, *two)
        assert IDS.call("call_1", conversation, *one) != IDS.call("call_1", conversation, *two)


@requirement("security.ids.tampering")
@given(conversations, st.integers(0, 25), st.integers(1, 255))
def test_a_changed_id_is_none(conversation: str, place: int, change: int) -> None:
    given_out = IDS.conversation(conversation, "p", "a")
    packed = bytearray(base64.urlsafe_b64decode(given_out.removeprefix(CONVERSATION) + "=="))
    packed[place] ^= change
    forged = CONVERSATION + base64.urlsafe_b64encode(bytes(packed)).decode().rstrip("=")
    assert IDS.conversation_of(forged, "p", "a") is None
    call = CALL + forged.removeprefix(CONVERSATION)
    assert IDS.upstream(call, ["call_1", ""], bytes(packed[:16]).hex(), "p", "a") is None


@requirement("security.ids.tampering")
@given(st.text(max_size=60))
def test_what_is_no_id_of_ours_is_none(text: str) -> None:
    for value in (text, CONVERSATION + text, CALL + text):
        assert IDS.conversation_of(value, "p", "a") is None
        assert IDS.upstream(value, ["call_1"], f"{1:032x}", "p", "a") is None
        IDS.conversation_of_call(value)


@requirement("security.ids.tampering")
def test_one_conversation_has_one_id() -> None:
    """Base64 has several spellings of some bytes; only ours is taken."""
    given_out = IDS.conversation(f"{5:032x}", "p", "a")
    for other in (given_out + "=", given_out + "\n", " " + given_out, given_out.replace(CONVERSATION, "")):
        assert IDS.conversation_of(other, "p", "a") is None


def test_another_secret_signs_otherwise() -> None:
    given_out = Ids(b"one").conversation(f"{5:032x}", "p", "a")
    assert Ids(b"two").conversation_of(given_out, "p", "a") is None


@given(st.text())
def test_a_fingerprint_tells_texts_apart(text: str) -> None:
    assert fingerprint(text) == fingerprint(text)
    assert (fingerprint(text) == "") == (text == "")
    assert fingerprint(text) != fingerprint(text + "x")


def test_a_fingerprint_takes_half_a_character() -> None:
    assert fingerprint("\ud800")
