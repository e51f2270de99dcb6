"""What counts as a word when memories are searched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontdesk.store.words import MAX_WANTED, MAX_WORD, fts5, tsquery, wanted, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The dog's name is Rex.", ["the", "dog", "s", "name", "is", "rex"]),
        ("snake_case, e-mail@example.org", ["snake", "case", "e", "mail", "example", "org"]),
        ("Straße CAFÉ naïve İzmir", ["strasse", "cafe", "naive", "izmir"]),
        ("Привет, Ёлка", ["привет", "елка"]),
        ("مَرْحَبًا", ["مرحبا"]),
        ("한국어", ["한국어"]),
        ("किताब", ["कतब"]),
        ("日本語", ["日本", "本語", "語"]),
        ("漢字 and ASCII漢", ["漢字", "字", "and", "ascii", "漢"]),
        ("2 × 3½", ["2", "31", "2"]),
        ("🎉 … \0 \ud800", []),
        ("", []),
    ],
)
def test_words_are_letters_and_digits_without_accents(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("a dog", [("a", False), ("dog", True)]),
        ("dog Dog DÒG", [("dog", True)]),
        ("日本語", [("日本", False), ("本語", False)]),
        ("犬", [("犬", True)]),
        ("?!", []),
    ],
)
def test_of_a_query_longer_words_find_what_begins_so(query: str, expected: list[tuple[str, bool]]) -> None:
    assert wanted(query) == expected


def test_a_query_of_any_length_asks_for_a_bounded_number_of_words() -> None:
    asked = wanted(" ".join(f"{number}" + "x" * 80 for number in range(100_000)))
    assert len(asked) == MAX_WANTED
    assert all(len(word) == MAX_WORD for word, _ in asked)


@given(st.text(), st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3), st.booleans())
def test_whatever_is_asked_for_a_query_holds_marked_words_and_nothing_else(
    query: str, tags: list[str], every: bool
) -> None:
    for quote, build in (('"', fts5), ("'", tsquery)):
        between, inside = (
            build(7, query, tags, every).split(quote)[::2],
            build(7, query, tags, every).split(quote)[1::2],
        )
        assert all(word.isalnum() and word.startswith(("7w", "7t")) for word in inside)
        assert set("".join(between)) <= set("ORAND|&()*: ")
