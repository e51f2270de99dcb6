"""The words of a text, as they are searched: the same on every database. Pure.

Accents and other marks count for nothing, nor does the case. What is written without spaces, as Chinese is, is taken
apart into pairs of characters.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

MAX_WORD = 64
MAX_QUERY = 4000
"""Characters of a query; what comes after these is not looked for …"""

MAX_WANTED = 32
"""… nor are more words than these."""

LETTERS_OF_BEGINNING = 3
"""A word of a query that is at least so long also finds words that begin so."""

UNSPACED = (  # Thai, Lao, Burmese, Khmer, Japanese, Chinese
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
RUN = re.compile(rf"((?:(?=[^\W_])[{UNSPACED}])+)|((?:(?![{UNSPACED}])[^\W_])+)")


def words(text: str) -> list[str]:
    """All of them, in order."""
    found: list[str] = []
    for unspaced, word in RUN.findall(folded(text)):
        found += [unspaced[at : at + 2] for at in range(len(unspaced))] if unspaced else [word[:MAX_WORD]]
    return found


def wanted(query: str) -> list[tuple[str, bool]]:
    """The words of a query, each once, and whether others that begin so are wanted too."""
    found: dict[str, bool] = {}
    for unspaced, word in RUN.findall(folded(query[:MAX_QUERY])):
        if len(unspaced) == 1:
            found[unspaced] = True
        elif unspaced:
            found |= {unspaced[at : at + 2]: False for at in range(len(unspaced) - 1)}
        else:
            found[word[:MAX_WORD]] = len(word) >= LETTERS_OF_BEGINNING
    return list(found.items())[:MAX_WANTED]


def folded(text: str) -> str:
    apart = unicodedata.normalize("NFKD", text)
    bare = "".join(letter for letter in apart if not unicodedata.category(letter).startswith("M"))
    return unicodedata.normalize("NFC", bare.casefold())


# --- as a database is told -----------------------------------------------------------------------------------------
# Every word is marked with its memory: a search never walks through those of another, whatever it asks for. Nothing but
# letters and digits is left, so no query is a wrong one.


def marked(memory: int, text: str, tags: Iterable[str]) -> list[str]:
    """A passage as it is indexed."""
    return [*(f"{memory}w{word}" for word in words(text)), *(tag_word(memory, tag) for tag in tags)]


def tag_word(memory: int, tag: str) -> str:
    return f"{memory}t{hashlib.blake2b(folded(tag).encode(), digest_size=12).hexdigest()}"


def fts5(memory: int, query: str, tags: Sequence[str], every_tag: bool) -> str:
    """A query as SQLite has it; empty if nothing is asked for."""
    return _both(
        " OR ".join(f'"{memory}w{word}"{"*" if begins else ""}' for word, begins in wanted(query)),
        (" AND " if every_tag else " OR ").join(f'"{tag_word(memory, tag)}"' for tag in tags),
        "AND",
    )


def tsquery(memory: int, query: str, tags: Sequence[str], every_tag: bool) -> str:
    """The same for Postgres."""
    return _both(
        " | ".join(f"'{memory}w{word}'{':*' if begins else ''}" for word, begins in wanted(query)),
        (" & " if every_tag else " | ").join(f"'{tag_word(memory, tag)}'" for tag in tags),
        "&",
    )


def _both(one: str, other: str, and_: str) -> str:
    return f"({one}) {and_} ({other})" if one and other else one or other


def tsvector(marked: Sequence[str]) -> str:
    """An indexed passage as Postgres has it, with the places of its words."""
    return " ".join(f"'{word}':{min(place, MAX_PLACE)}" for place, word in enumerate(marked, 1))


MAX_PLACE = 16_383
"""Source: https://www.postgresql.org/docs/current/textsearch-limitations.html"""
