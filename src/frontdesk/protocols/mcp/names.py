"""What agents are called as tools. Pure.

Agents are called as people like, tools as models can write. A tool's name does not depend on which others there are: a
client may keep it.
"""

import re
import unicodedata
from collections.abc import Iterable
from hashlib import blake2b

from frontdesk.turn import Agent

PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
STEM_CHARACTERS = 48

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode's categories of what nobody sees, and a model reads all the same."""


def tools(named: Iterable[tuple[str, Agent]]) -> dict[str, Agent]:
    """Agents by their tools' names, in the order of these. Of the names of one agent the first counts.

    Where two agents would take one name, the older has it.
    """
    agents: dict[tuple[str, str], tuple[str, Agent]] = {}
    for name, agent in named:
        agents.setdefault((agent.backend, agent.id), (name, agent))
    taken: dict[str, Agent] = {}
    for name, agent in sorted(agents.values(), key=lambda each: (each[1].created, each[1].backend, each[1].id)):
        wanted = tool_name(name, agent)
        taken.setdefault(wanted if wanted not in taken else marked(name, agent), agent)
    return dict(sorted(taken.items()))


def tool_name(name: str, agent: Agent) -> str:
    """The name itself, if it will do; else what will do of it, and a mark that tells it from its like."""
    return name if PLAIN.fullmatch(name) else marked(name, agent)


def marked(name: str, agent: Agent) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    stem = UNFIT.sub("_", plain)[:STEM_CHARACTERS].strip("_-")
    mark = blake2b(f"{agent.backend}\0{agent.id}".encode(), digest_size=4).hexdigest()
    return f"{stem or 'agent'}_{mark}"


def shown(text: str, characters: int) -> str:
    """A text as it can be shown to people and models alike: on one line, nothing in it unseen, and not without end."""
    seen = "".join(" " if each.isspace() else each for each in text if not hidden(each))
    short = " ".join(seen.split())
    return short if len(short) <= characters else f"{short[: characters - 1]}…"


def hidden(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) in UNSEEN
