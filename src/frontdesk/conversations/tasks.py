"""Background tasks: what chat clients ask a model for on their own, such as a chat's title or tags.

No agent should hear them as messages of its user. Here they are recognised, answered without a model, and a model's
answer is brought into the shape the client reads. Pure. The prompts and the shapes are those of Open WebUI
(`backend/open_webui/config.py`, `utils/middleware.py`, `src/lib/apis/index.ts`) and of LibreChat (`@librechat/agents`).
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, NoReturn, cast

from frontdesk.turn import Message, Text, Turn

Policy = Literal["utility_model", "agent_model", "canned", "ephemeral", "reject"]

HEADER = "X-OpenWebUI-Task"

MOA = "moa_response_generation"
COMPACTION = "context_compaction"
FUNCTION_CALLING = "function_calling"
EMOJI = "emoji_generation"
TITLE = "title"  # in plain text, for other clients than Open WebUI
OTHER = "other"

JSON_ANSWERS: dict[str, tuple[str, str | list[str]]] = {
    "title_generation": ("title", ""),
    "tags_generation": ("tags", ["General"]),
    "follow_up_generation": ("follow_ups", []),
    "query_generation": ("queries", []),
    "autocomplete_generation": ("text", ""),
    "image_prompt_generation": ("prompt", ""),
    FUNCTION_CALLING: ("tool_calls", []),
}
"""Kinds that are answered by a JSON object: its key, and the value that does nothing."""

KINDS = frozenset({*JSON_ANSWERS, MOA, COMPACTION, EMOJI})
"""Open WebUI's names, as in its `{{TASK}}`."""

NEEDS_A_MODEL = frozenset({FUNCTION_CALLING, COMPACTION, OTHER})
"""What a fixed answer would spoil: a tool that is never called, a chat that is forgotten, something we do not know."""

TITLE_WORDS = 6
TITLE_CHARS = 50
NO_TITLE = "New chat"


@dataclass(frozen=True, slots=True)
class Task:
    """`kind` is Open WebUI's name for it, `title` or `other`. `text` is everything that was said, as one prompt."""

    kind: str
    text: str


def policy_for(task: Task, policy: Policy) -> Policy:
    """How this task is answered, where `policy` is the operator's wish for tasks at large.

    Merged answers (MOA) are no background work: a person has asked for one, reads it as this agent's, and cannot send
    the request elsewhere. So the agent writes it, in a conversation that is thrown away.
    """
    if task.kind == MOA or (policy == "canned" and task.kind in NEEDS_A_MODEL):
        return "ephemeral"
    return policy


# --- recognising -------------------------------------------------------------------------------------------------

OPENINGS: tuple[tuple[str, str], ...] = (
    ("Your task is to reflect the speaker's likely facial expression through a fitting emoji.", EMOJI),
    ("You have been provided with a set of responses from various models to the latest user query:", MOA),
    ("Provide a concise, 5-word-or-less title for the conversation, using ", TITLE),  # LibreChat
    ("Please generate a concise title (max 40 characters) for a conversation that starts with:", TITLE),  # LibreChat
    ("You are a professional conversation summarizer. Generate a concise title", TITLE),  # LobeChat
    ("Summarize the given session as a 10-word title using user language,", TITLE),  # Cherry Studio
)
"""How fixed prompts begin, in the message or in the system prompt."""

_HEADING = "### Task:"
_COMPACTING = "### Messages Being Compacted:"
_WANTS_JSON = re.compile(r"### Output:\s+(?:Strictly return in )?JSON format")
_KEY = re.compile(r'\{\s*"(title|tags|follow_ups|queries|text|prompt)"\s*:')
_KIND_OF_KEY = {key: kind for kind, (key, _) in JSON_ANSWERS.items()}


def recognised(turn: Turn, streaming: bool, patterns: Sequence[re.Pattern[str]] = (), header: str = "") -> Task | None:
    """The background task a request is, or None for a message to the agent.

    `header` is the value of `X-OpenWebUI-Task`: whatever has one is a task. `patterns` are the operator's: they are
    searched in the last user message and in the system prompt. Without these it must be a client's own request in
    every respect.
    """
    name = header.strip()
    if name and "{{" not in name and "${" not in name:  # a template that was not filled in says nothing
        return Task(name if name in KINDS else OTHER, _whole(turn))
    last = turn.input[-1] if turn.input else None
    if not isinstance(last, Message):
        return None
    if any(pattern.search(last.text) or pattern.search(turn.instructions) for pattern in patterns):
        return Task(_likely_kind(turn.instructions, last.text), _whole(turn))
    alone = len(turn.input) == 1 and all(isinstance(part, Text) for part in last.content)
    if streaming or turn.tools or turn.history or not alone:
        return None
    kind = _known_kind(turn.instructions, last.text)
    return Task(kind, _whole(turn)) if kind else None


def _known_kind(instructions: str, said: str) -> str:
    if said.startswith(_HEADING):
        return _open_webui_kind(said)
    if '"tool_calls"' in instructions and "Available Tools: " in instructions and said.startswith("Query: History:"):
        return FUNCTION_CALLING
    return next(
        (kind for opening, kind in OPENINGS if said.startswith(opening) or instructions.startswith(opening)), ""
    )


def _open_webui_kind(said: str) -> str:
    """Open WebUI heads its prompt for documents in the same way, but there a person asks: `<context>` tells it."""
    before, after, quoted = _parts(said)
    if "<context>" in before:
        return ""
    if _COMPACTING in before:
        return COMPACTION
    asked = _KEY.search(before) or _KEY.search(after)
    if quoted is not None:
        return _KIND_OF_KEY[asked[1]] if asked else OTHER
    return _KIND_OF_KEY[asked[1]] if asked and _WANTS_JSON.search(before) else ""


def _likely_kind(instructions: str, said: str) -> str:
    """What an operator's own prompt asks for."""
    before, after, _ = _parts(said)
    asking = "\n".join((instructions, before, after))
    if asked := _KEY.search(asking):
        return _KIND_OF_KEY[asked[1]]
    return TITLE if "title" in asking.lower() else OTHER


def _whole(turn: Turn) -> str:
    """Everything the request says, as one prompt. Open WebUI's own prompts need no persona put before them."""
    messages = [item for item in (*turn.history, *turn.input) if isinstance(item, Message)]
    said = messages.pop().text if messages else ""
    if not messages and said.startswith(_HEADING):
        return said
    lines = [f"{item.role.upper()}: {item.text}" for item in messages]
    return "\n\n".join(part for part in (turn.instructions, "\n".join(lines), said) if part)


# --- answering without a model -----------------------------------------------------------------------------------


def canned(task: Task) -> str:
    """An answer in the shape the client reads, made of the chat that the prompt quotes. It never fails."""
    match task.kind:
        case "title_generation":
            # Open WebUI's page makes " of ' before it parses the JSON, so the apostrophe is another character.
            return _json(task.kind, _title(task.text).translate(_APOSTROPHES))
        case "image_prompt_generation":
            # It looks for the last brace: there must be only one.
            return _json(task.kind, " ".join(_last_said(task.text).translate(_NO_BRACES).split()))
        case kind if kind in JSON_ANSWERS:
            return _json(kind, JSON_ANSWERS[kind][1])
        case "emoji_generation":
            return "🙂"
        case "context_compaction":
            return ""  # then Open WebUI makes its own extract
        case "moa_response_generation":
            return [*task.text.split('"""', 2), "", ""][1]  # the first of the answers
        case _:
            return _title(task.text)


_ROLE = re.compile(r"^[ \t]*(user|human|assistant|ai|system|tool)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_TAG = re.compile(r"<[^<>]*>")
_EMPHASIS = "*_~`|"
_QUOTES = '"“”'
_LINE_MARKS = "#>-=+"
_STOPS = " .,;:-…。，、"
_JOINERS = "\u200c\u200d"  # needed inside Persian words, and in emoji
_APOSTROPHES = str.maketrans({"'": "ʼ", "‘": "ʼ", "’": "ʼ", "`": ""})
_NO_BRACES = str.maketrans({"{": "(", "}": ")"})
_READ_CHARS = 100_000  # of a quoted chat
_SAID_CHARS = 2000  # of one message


def _json(kind: str, value: str | list[str]) -> str:
    return json.dumps({JSON_ANSWERS[kind][0]: value}, ensure_ascii=False)


def _parts(text: str) -> tuple[str, str, str | None]:
    """What stands before and after the quoted chat, and the chat; None if there is none."""
    before, _, rest = text.partition("<chat_history>")
    chat, closed, after = rest.rpartition("</chat_history>")
    return (before, after, chat) if closed else (text, "", None)


def _messages(text: str) -> Iterator[tuple[str, str]]:
    """Quoted messages as role and text: `USER:` at the beginning of a line begins one."""
    marks = list(_ROLE.finditer(text))
    for mark, following in zip_longest(marks, marks[1:]):
        yield mark[1].lower(), text[mark.end() : following.start() if following else None]


def _said_by_user(text: str) -> Iterator[str]:
    for role, said in _messages(text):
        if role in ("user", "human") and (plain := _plain(said)):
            yield plain


def _first_said(text: str) -> str:
    chat = _parts(text)[2]
    return next(_said_by_user((text if chat is None else chat)[:_READ_CHARS]), "")


def _last_said(text: str) -> str:
    chat = _parts(text)[2]
    *_, last = ("", *_said_by_user((text if chat is None else chat)[-_READ_CHARS:]))
    return last


def _plain(said: str) -> str:
    """The beginning of a message, without markup and what cannot be seen."""
    seen = "".join(c if c.isprintable() or c in _JOINERS else " " for c in said[:_SAID_CHARS])
    words = (word.strip(_EMPHASIS) for word in _TAG.sub(" ", _LINK.sub(r"\1", seen)).split())
    return " ".join(word for word in words if word.strip(_LINE_MARKS))


def _title(text: str) -> str:
    return shortened(_first_said(text)) or NO_TITLE


def shortened(said: str) -> str:
    """The first words, with an ellipsis if there were more."""
    title = " ".join(said.split()[:TITLE_WORDS])
    if len(title) >= TITLE_CHARS:
        cut = title[: TITLE_CHARS - 1]
        title = cut.rpartition(" ")[0] or cut
    title = title.rstrip(_STOPS)
    return f"{title}…" if title and len(title) < len(said.rstrip(_STOPS)) else title


# --- shaping a model's answer ------------------------------------------------------------------------------------

_THOUGHT_ENDS = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_THOUGHT_BEGINS = re.compile(r"<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_PICTURE = re.compile(r"[\u2600-\u27bf\U0001f300-\U0001faff]")  # the greater part of Unicode's Extended_Pictographic
_LABEL = re.compile(r"^title\s*:\s*", re.IGNORECASE)
_TRIES = 100


def shaped(task: Task, answer: str) -> str:
    """A model's answer as the client can read it: no thoughts, no code fence, the JSON alone where JSON is asked for.

    What cannot be read so becomes the canned answer.
    """
    said = _THOUGHT_BEGINS.split(_THOUGHT_ENDS.split(answer)[-1])[0].strip()
    if task.kind in JSON_ANSWERS:
        return _object(task.kind, said) or canned(task)
    if task.kind == EMOJI:
        found = _PICTURE.search(said)
        return found[0] if found else canned(task)
    if task.kind == TITLE:
        return _one_line(said) or canned(task)
    return said or canned(task)


def _one_line(said: str) -> str:
    """The first line, out of its quotation marks."""
    lines = (line.lstrip(f"{_LINE_MARKS} ").strip(f"{_EMPHASIS}{_QUOTES} ") for line in said.splitlines())
    first = next((line for line in lines if line), "")
    return _LABEL.sub("", first).strip(f"{_EMPHASIS}{_QUOTES} ")[:200]


def _object(kind: str, said: str) -> str:
    """The last JSON object that is an answer, as the model wrote it: models may try before they answer."""
    found, at = "", said.find("{")
    for _ in range(_TRIES):
        if at < 0:
            break
        try:
            value, end = _STRICT.raw_decode(said, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            found = said[at:end] if _answers(kind, value) else found
        at = said.find("{", end)
    return found


def _answers(kind: str, value: dict[str, Any]) -> bool:
    key, nothing = JSON_ANSWERS[kind]
    got = value.get(key)
    if kind == FUNCTION_CALLING:  # Open WebUI takes one call without the list, too
        return isinstance(got, list) or isinstance(value.get("name"), str)
    if isinstance(nothing, list):
        return isinstance(got, list) and all(isinstance(each, str) for each in cast("list[Any]", got))
    return isinstance(got, str)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_STRICT = json.JSONDecoder(parse_constant=_refuse)
