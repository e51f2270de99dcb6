"""Recognising a transcript by what was said in it, in a form that survives the way through a client. Pure.

A transcript is read as sayings: all that one side said before the other spoke again. Each saying of the agent's is a
point at which a conversation may stand. A point has two chains: of everything said up to it, and of the agent's side
alone, since clients wrap and change what users say (retrieved documents, the state of an editor) but not our replies.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from frontdesk.turn import (
    Content,
    File,
    Image,
    Item,
    Message,
    Part,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
    ToolRun,
)

"""`system` for instructions that were put into a conversation as items."""

_ASIDES = re.compile(
    r"<details\b[^>]*\btype=[\"']?(?:reasoning|tool_calls)\b.*?</details>|<(think|thinking)>.*?</\1>", re.DOTALL
)
"""What clients show of a reply beside its text, and some send back within it."""


@dataclass(frozen=True, slots=True)
class Saying:
    """What one side said in one go. `marks`: the ids of its tool calls or of those answered, its images and files."""

    role: Role
    text: str
    marks: tuple[str, ...]
    end: int  # how many items of the transcript are over with it

    @property
    def digest(self) -> str:
        return digest(self.role, self.text, *self.marks)


@dataclass(frozen=True, slots=True)
class Point:
    """After a saying of the agent's: where a conversation may stand. `said` is that saying alone."""

    end: int = 0  # how many items are over
    after: str = ""
    spoken: str = ""
    pair: str = ""  # of this saying and the one before it; empty at the first
    said: str = ""


ROOT = Point()


def digest(*parts: str) -> str:
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def canonical(text: str, role: Role = "assistant") -> str:
    """Text as it is compared: without blank lines, white space at line ends, or several forms of the same letters; the
    agent's also without asides."""
    if role == "assistant" and "<" in text:
        text = _ASIDES.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return "\n".join(line for raw in text.splitlines() if (line := raw.rstrip())).strip()


def sayings(items: Sequence[Item | Part]) -> list[Saying]:
    """Without instructions: where clients send those, they are no part of the transcript."""
    found: list[Saying] = []
    items = [item for item in items if side(item) != "system"]
    end = 0
    for role, group in groupby(items, key=side):
        told = list(group)
        end += len(told)
        text = canonical("\n".join(piece for item in told for piece in texts(item)), role)
        found.append(Saying(role, text, tuple(mark for item in told for mark in marks(item)), end))
    return found


def side(item: Item | Part) -> Role:
    match item:
        case Message(role=role):
            return role
        case ToolResult():
            return "user"
        case ToolCall() | Reasoning() | ToolRun():
            return "assistant"


def texts(item: Item | Part) -> Iterable[str]:
    match item:
        case Message() | ToolResult():
            return [item.text] if item.text else []
        case ToolCall() | Reasoning() | ToolRun():
            return []


def marks(item: Item | Part) -> Iterator[str]:
    match item:
        case Message(content=content):
            yield from attached(content)
        case ToolResult(call_id=call_id, content=content):
            yield call_id
            yield from attached(content)
        case ToolCall(call_id=call_id):
            yield call_id
        case Reasoning() | ToolRun():
            pass


def attached(content: Iterable[Content]) -> Iterator[str]:
    """The marks of pictures and files."""
    for part in content:
        match part:
            case Text():
                pass
            case Image(url=url, data=data):
                yield hashlib.blake2b(url.encode() or data, digest_size=16).hexdigest()
            case File(data=data):
                yield hashlib.blake2b(data, digest_size=16).hexdigest()


def follow(base: Point, told: Iterable[Saying]) -> Iterator[Point]:
    """The points of these sayings, which come after `base`."""
    point = base
    after = base.after
    for saying in told:
        own = saying.digest
        after = digest(after, own)
        if saying.role == "assistant":
            pair = digest(point.said, own) if point.said else ""
            point = Point(saying.end, after, digest(point.spoken, own), pair, own)
            yield point


def points(history: Sequence[Item]) -> list[Point]:
    """Every point of a transcript, oldest first."""
    return list(follow(ROOT, sayings(history)))


def reply_point(base: Point, told: Sequence[Item | Part]) -> Point:
    """Where a conversation stands which stood at `base`, and in which these things have been said since."""
    return next(iter(list(follow(base, sayings(told)))[-1:]), base)


def agrees(shown: Sequence[Saying], known: Sequence[Saying]) -> bool:
    """Whether a client shows what was said, if what users said may have been wrapped or unwrapped since."""
    return len(shown) == len(known) and all(map(same_saying, shown, known))


def same_saying(shown: Saying, known: Saying) -> bool:
    if shown.role != known.role or shown.marks != known.marks:
        return False
    if shown.role == "assistant":
        return shown.text == known.text
    return shown.text == known.text or wraps(shown.text, known.text) or wraps(known.text, shown.text)


def wraps(outer: str, inner: str) -> bool:
    """Whether `inner` stands in `outer` by itself, on lines of its own or between tags: else it is another text."""
    place = outer.find(inner) if inner else -1
    while place >= 0:
        before, behind = outer[:place].rstrip(" "), outer[place + len(inner) :].lstrip(" ")
        if before[-1:] in ("", "\n", ">") and behind[:1] in ("", "\n", "<"):
            return True
        place = outer.find(inner, place + 1)
    return False


def is_tail(shown: Sequence[Saying], known: Sequence[Saying]) -> bool:
    """Whether a client shows the latter part of what was said, without a gap: it forgets what is long past."""
    return 0 < len(shown) < len(known) and agrees(shown, known[-len(shown) :])


def is_plain(items: Iterable[Item | Part]) -> bool:
    """Whether there is nothing in it but what a seed can hold: no tool was used."""
    return not any(isinstance(item, ToolCall | ToolResult | ToolRun) for item in items)
