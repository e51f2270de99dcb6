"""Finding agents by what one wants of them: their names, skills, tags and descriptions, compared with it. Pure.

The ranking is BM25, with a field's weight for how often a word is there (https://doi.org/10.1561/1500000019). Words
are compared without case and accents, and for half as much by their beginnings: who looks for `translation` is helped
by who can `translate`. What is written without spaces is taken apart into pairs of characters.
"""

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from frontdesk.turn import Agent

QUERY_CHARACTERS = 512
QUERY_TERMS = 32
TEXT_CHARACTERS = 4000
SKILLS = 200
KNOWN = 20_000

NAME, LABEL, TEXT = 3.0, 2.0, 1.0
"""What a word counts in a name; in what a skill or a tag is called; in what is told about them."""
BEGINNING = 0.5
"""What it counts that two words only begin alike."""
SATURATION, LENGTH = 1.2, 0.5
"""How soon a word that comes again counts no more, and how far long texts are held against their agents."""

RUN = re.compile(r"[^\W\d_]+|\d+")
PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")

EMPTY_WORDS = frozenset(
    RUN.findall(
        "a about agent an and any are as at be by can could do does find for from get give has have help how i in"
        " is it me my need of on one or please show some something that the there this to want we what which who will"
        " with would you your"
    )
)
"""Which say nothing of what is wanted."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The terms of an agent by their weight, and the sum of all."""

    terms: dict[str, float]
    length: float


class Search:
    """Remembers the terms of agents: to find them takes longer than to compare them."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Agent, Profile]] = {}

    def ranked(self, query: str, agents: Sequence[Agent]) -> list[Agent]:
        """Those of these agents which have something of what is asked for, the likeliest first."""
        wanted = asked(query)
        profiles = [self._profile(agent) for agent in agents]
        mean = sum(profile.length for profile in profiles) / max(len(profiles), 1)
        worth = {term: rarity(term, profiles) * weight for term, weight in wanted.items()}
        scored = [(score(worth, profile, mean), agent) for profile, agent in zip(profiles, agents, strict=True)]
        found = [each for each in scored if each[0] > 0]
        return [agent for _, agent in sorted(found, key=lambda each: (-each[0], each[1].name, each[1].id))]

    def _profile(self, agent: Agent) -> Profile:
        known = self._known.get((agent.backend, agent.id))
        if known and (known[0] is agent or known[0] == agent):
            return known[1]
        if len(self._known) >= KNOWN:
            self._known.clear()
        made = profile(agent)
        self._known[agent.backend, agent.id] = agent, made
        return made


def profile(agent: Agent) -> Profile:
    skills = agent.skills[:SKILLS]
    fields: list[tuple[float, str]] = [(NAME, agent.name), (TEXT, agent.description)]
    fields += [(LABEL, tag) for tag in agent.tags[:SKILLS]]
    fields += [(LABEL, skill.name) for skill in skills] + [(TEXT, skill.description) for skill in skills]
    counted: defaultdict[str, float] = defaultdict(float)
    for weight, text in fields:
        for term, share in terms(text[:TEXT_CHARACTERS]):
            counted[term] += weight * share
    return Profile(dict(counted), sum(counted.values()))


def asked(query: str) -> dict[str, float]:
    """The terms of a query, by how much they count."""
    found: dict[str, float] = {}
    for term, share in terms(query[:QUERY_CHARACTERS]):
        found[term] = max(found.get(term, 0.0), share)
    telling = {term: share for term, share in found.items() if term.rstrip("~") not in EMPTY_WORDS}
    return dict(list((telling or found).items())[:QUERY_TERMS])


def rarity(term: str, profiles: Iterable[Profile]) -> float:
    """How much it says that a term is there: the more, the fewer have it."""
    having = [term in profile.terms for profile in profiles]
    return math.log(1 + (len(having) - sum(having) + 0.5) / (sum(having) + 0.5))


def score(worth: dict[str, float], profile: Profile, mean: float) -> float:
    room = SATURATION * (1 - LENGTH + LENGTH * profile.length / mean) if mean else 1.0
    counts = ((value, profile.terms[term]) for term, value in worth.items() if term in profile.terms)
    return sum(value * count * (SATURATION + 1) / (count + room) for value, count in counts)


def terms(text: str) -> Iterator[tuple[str, float]]:
    """Each word with 1, and its beginning, marked as such, with less."""
    for word in words(text):
        yield word, 1.0
        yield beginning(word), BEGINNING


def words(text: str) -> Iterator[str]:
    for run in RUN.findall(unicodedata.normalize("NFKC", text)):
        if UNSPACED.search(run):
            yield from pairs(run)
            continue
        plain = bare(run)
        yield plain.casefold()
        pieces = PIECE.findall(plain)
        if len(pieces) > 1:  # likeThis
            yield from (piece.casefold() for piece in pieces)


def bare(word: str) -> str:
    """Without accents."""
    if word.isascii():
        return word
    return "".join(each for each in unicodedata.normalize("NFKD", word) if not unicodedata.combining(each))


def pairs(run: str) -> list[str]:
    return [run] if len(run) < 2 else [run[index : index + 2] for index in range(len(run) - 1)]


def beginning(word: str) -> str:
    if len(word) > 6:
        return f"{word[:6]}~"
    return f"{word[:-1] if len(word) > 3 and word.endswith('s') else word}~"
