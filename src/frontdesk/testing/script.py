r"""What a scripted model does: a script is read from the conversation, and made into steps. Pure.

A script is the lines of the **last user message** which begin with `@name`. They play in order.

| Directive | What the model does |
|---|---|
| `@say TEXT` | says the text |
| `@think TEXT` | reasons (`reasoning_content`) |
| `@echo` | says the message's other lines, exactly |
| `@table` | says `TABLE`: markdown full of characters that break careless code |
| `@long N` | says N numbered words, one per token |
| `@list` | says the messages it was sent, as JSON: role, content, tool_calls, tool_call_id |
| `@tools` | says the names of the tools it was offered, as a sorted JSON list |
| `@refuse [TEXT]` | refuses (`refusal`) |
| `@empty` | says nothing |
| `@call NAME [{json}]` | calls a tool; several lines are parallel calls |
| `@badjson NAME` | calls a tool with arguments which are not JSON |
| `@then` | what follows is for after the tool results; each `@then` is one more round |
| `@slow SECONDS` | waits, also before the first byte |
| `@pace SECONDS` | waits this long after each token from here on |
| `@hang` | is silent, with the stream open, until the client goes away (outcome `gone`) |
| `@break` | closes the connection |
| `@error [MESSAGE]` | sends an error inside the stream (HTTP 500 when not streaming) |
| `@fail STATUS [CODE] [retry-after=S] [should-retry=false]` | answers with OpenAI's HTTP error |
| `@fail-times N STATUS …` | fails the first N requests with this very message, then plays on |
| `@finish REASON` | says it stopped for this reason: `length`, `content_filter` … |
| `@usage IN OUT [CACHED [REASONING]]` | reports these token counts instead of derived ones |

TEXT is the rest of the line, or a JSON string if it begins with a quote (`@say "two\nlines"`). A line which begins with
`@@` is text that begins with `@`. After tool results, a script without a `@then` for that round says
`Tool results: <content> | <content>`. What cannot be read is answered with `script error: …`.

A message without a script gets a natural reply, after a little reasoning: questions about the weather go to a weather
tool if one is offered, names and "remember …" go to the agent's memory tools, "what is my name?" is answered from its
memory. A message with a word of an agent's name goes to that agent, where it can be handed over to. Letta's own
messages in between (alerts, heartbeats) are not taken for the user's, and its summariser gets `Summary.`, followed by
the user's message if that is a script which nobody has answered yet: so it goes on playing after
`@fail 400 context_length_exceeded`.

`@fail` knows OpenAI's words for 400 (also `context_length_exceeded`), 401, 403, 404, 429 (also `insufficient_quota`),
500 and 503; any other status or code works too. No `Retry-After` is sent unless asked for. OpenAI's clients, Letta's
among them, retry 408, 409, 429 and 5xx twice; `should-retry=false` tells them not to.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile, takewhile
from typing import Any, cast

Json = dict[str, Any]

TABLE = (
    "| Name | Value | Note |\n"
    "|:-----|------:|------|\n"
    '| quotes | "double" \'single\' `tick` | \\"escaped\\" |\n'
    "| backslashes | C:\\new\\table\\ | \\n is not a newline, \\u00e9 is not é, \\\\ is two |\n"
    "| tabs |\t1\t|\tend\t|\n"
    "| emoji | 👩\u200d👩\u200d👧\u200d👦 👍🏽 🇩🇪 🏳️\u200d🌈 1️⃣ | 🙂🙂 |\n"
    "| CJK | 漢字かな交じり文 한국어 𠮷 | 。、 |\n"
    "| RTL | שלום עולם | مرحبا بالعالم |\n"
    "| combining | e\u0301 n\u0303 Z\u0351\u036b\u0343 | é ñ |\n"
    "| invisible | a\u200bb\u200cc\u2060d\ufeffe | no\u00a0break\u2028line\u2029paragraph\u0085next |\n"
    "| tags | <think>not a thought</think> | <|im_end|> &amp; <b> |\n"
    '| frames | data: {"choices":[]} | data: [DONE] event: error |\n'
    "\n"
    "\n"
    "```python\n"
    "print(\"%s {0} ${x} \\x1b[0m\" % '[DONE]')  # 100 %\n"
    "```\n"
    "data: [DONE]\n"
    ": a comment\n"
    "\n"
    "The end \\"
)
"""What `@table` says: compare with it byte for byte. Ends in a backslash, not in a newline."""

# --- steps: what a script is made of -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class SayWords:
    """Numbered words, one per token however many."""

    count: int


@dataclass(frozen=True, slots=True)
class SayMessages:
    pass


@dataclass(frozen=True, slots=True)
class SayTools:
    pass


@dataclass(frozen=True, slots=True)
class Think:
    text: str


@dataclass(frozen=True, slots=True)
class Refuse:
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: str  # JSON text, exactly as it is sent


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    seconds: float


@dataclass(frozen=True, slots=True)
class Hang:
    pass


@dataclass(frozen=True, slots=True)
class Break:
    pass


@dataclass(frozen=True, slots=True)
class StreamError:
    message: str


@dataclass(frozen=True, slots=True)
class Fail:
    status: int
    code: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    times: int | None = None  # None: always


@dataclass(frozen=True, slots=True)
class Finish:
    reason: str


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


Spoken = Say | SayWords | Think | Refuse | Call
Step = Spoken | SayMessages | SayTools | Wait | Pace | Hang | Break | StreamError | Fail | Finish | Usage
Stage = tuple[Step, ...]

# --- reading a script --------------------------------------------------------------------------------------------


class ScriptError(Exception):
    """A directive cannot be read; the message says which and why. The model says so in its reply."""


_DIRECTIVE = re.compile(r"@([a-z][a-z-]*)(?:[ \t]+(.*))?")


def parse(message: str) -> tuple[Stage, ...] | None:
    """The stages of a script: the first answers the user, each next one a round of tool results. None: no script.

    Raises ScriptError.
    """
    prose, directives = split(message)
    if not directives:
        return None
    stages: list[list[Step]] = [[]]
    for name, argument in directives:
        if name == "then":
            _nothing(name, argument)
            stages.append([])
        elif name != "empty":
            stages[-1].append(_step(name, argument, prose))
    for stage in stages:
        _check_order(stage)
    return tuple(tuple(stage) for stage in stages)


def split(message: str) -> tuple[str, list[tuple[str, str]]]:
    """The message's text without directives, and its directives as names and arguments."""
    prose: list[str] = []
    directives: list[tuple[str, str]] = []
    for line in message.split("\n"):
        if match := _DIRECTIVE.fullmatch(line.rstrip("\r")):
            directives.append((match[1], (match[2] or "").strip(" \t")))
        else:
            prose.append(line[1:] if line.startswith("@@") else line)
    return "\n".join(prose), directives


def _step(name: str, argument: str, prose: str) -> Step:
    if name == "echo":
        _nothing(name, argument)
        return Say(prose)
    if name not in _STEPS:
        raise ScriptError(f"there is no directive @{name}; known are {', '.join('@' + known for known in NAMES)}")
    try:
        return _STEPS[name](argument)
    except ValueError as error:
        raise ScriptError(f"@{name}: {error}") from error


def _check_order(stage: Sequence[Step]) -> None:
    """An HTTP status goes out before everything else."""
    late = dropwhile(lambda step: isinstance(step, Wait | Pace | Fail | Finish | Usage), stage)
    if any(isinstance(step, Fail) for step in late):
        raise ScriptError("@fail and @fail-times must stand before what is said; inside a stream use @error")


def _nothing(name: str, argument: str) -> None:
    if argument:
        raise ScriptError(f"@{name} takes no argument, but has {argument!r}")


def _alone(step: Step) -> Callable[[str], Step]:
    def read(argument: str) -> Step:
        if argument:
            raise ValueError(f"takes no argument, but has {argument!r}")
        return step

    return read


def _text(argument: str, default: str = "") -> str:
    if not argument.startswith('"'):
        return argument or default
    try:
        return cast("str", json.loads(argument))
    except ValueError as error:
        raise ValueError(f"what begins with a quote must be one JSON string: {error}") from error


def _seconds(argument: str) -> float:
    try:
        seconds = float(argument)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"needs a number of seconds, but has {argument!r}")
    return seconds


def _count(argument: str) -> int:
    if not (argument.isascii() and argument.isdigit()):
        raise ValueError(f"needs a whole number, but has {argument!r}")
    return int(argument)


def _call(argument: str) -> Call:
    name, _, arguments = argument.partition(" ")
    arguments = arguments.strip() or "{}"
    if not name or name.startswith("{"):
        raise ValueError("needs a tool's name")
    try:
        value = json.loads(arguments)
    except ValueError as error:
        raise ValueError(f"arguments are not JSON: {error}; for that there is @badjson") from error
    if not isinstance(value, dict):
        raise ValueError("arguments must be a JSON object")
    return Call(name, arguments)


def _bad_call(argument: str) -> Call:
    if not argument:
        raise ValueError("needs a tool's name")
    return Call(argument, '{"city": "Par')


def _fail(argument: str) -> Fail:
    words = argument.split()
    status = _count(words[0] if words else "")
    if not 400 <= status <= 599:
        raise ValueError(f"needs a status from 400 to 599, but has {status}")
    options = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    codes = [word for word in words[1:] if "=" not in word]
    if len(codes) > 1 or not options.keys() <= _FAIL_HEADERS.keys():
        raise ValueError(f"cannot read {argument!r}; options are {', '.join(key + '=' for key in _FAIL_HEADERS)}")
    return Fail(status, codes[0] if codes else "", tuple((_FAIL_HEADERS[key], value) for key, value in options.items()))


def _fail_times(argument: str) -> Fail:
    times, _, failure = argument.partition(" ")
    return replace(_fail(failure), times=_count(times))


def _finish(argument: str) -> Finish:
    if not argument:
        raise ValueError("needs a reason")
    return Finish(argument)


def _usage(argument: str) -> Usage:
    counts = [_count(word) for word in argument.split()]
    if not 2 <= len(counts) <= 4:
        raise ValueError("needs two to four numbers: IN OUT [CACHED [REASONING]]")
    return Usage(*counts)


_FAIL_HEADERS = {"retry-after": "Retry-After", "should-retry": "x-should-retry"}

_STEPS: dict[str, Callable[[str], Step]] = {
    "say": lambda argument: Say(_text(argument)),
    "think": lambda argument: Think(_text(argument)),
    "table": _alone(Say(TABLE)),
    "long": lambda argument: SayWords(_count(argument)),
    "list": _alone(SayMessages()),
    "tools": _alone(SayTools()),
    "refuse": lambda argument: Refuse(_text(argument, "I'm sorry, I can't help with that.")),
    "call": _call,
    "badjson": _bad_call,
    "slow": lambda argument: Wait(_seconds(argument)),
    "pace": lambda argument: Pace(_seconds(argument)),
    "hang": _alone(Hang()),
    "break": _alone(Break()),
    "error": lambda argument: StreamError(_text(argument, "The server had an error while processing your request.")),
    "fail": _fail,
    "fail-times": _fail_times,
    "finish": _finish,
    "usage": _usage,
}

NAMES = tuple(sorted((*_STEPS, "echo", "empty", "then")))

# --- reading a request -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a conversation stands: what the user said last, and what happened since."""

    prompt: str = ""
    calls: tuple[tuple[str, Json], ...] = ()  # the last round's tool calls: names and arguments
    results: tuple[str, ...] = ()  # the last round's tool results
    rounds: int = 0  # of tool calls since the prompt


# How the prompts of Letta's summarisers begin (letta/prompts/, 0.16.7): as system prompt, or as the last user message.
SUMMARISERS = (
    "Your task is to create a detailed summary of the conversation so far",
    "The following messages are being evicted from",
    "The previous messages are being evicted from",
    "Your job is to summarize a history of previous messages",
    "You are a memory-recall assistant that preserves conversational context",
    "You have been working on the task described above but have not yet completed it. Write a continuation summary",
)
_ACKNOWLEDGED = "I understand. Let me summarize."  # Letta puts this into our mouth before it asks for a summary
_SPEAKER = re.compile(r"\n\[(?:MessageRole\.)?(user|assistant|tool|system)\] ")
CARRIED = " The user's request, not answered yet:\n"


def text_of(content: Any) -> str:
    """The text of a message's content, which is a string, a list of parts, or null."""
    if isinstance(content, str):
        return content
    parts = cast("list[Any]", content) if isinstance(content, list) else []
    objects = [cast("Json", part) for part in parts if isinstance(part, dict)]
    return "\n".join(str(part["text"]) for part in objects if "text" in part)


def moment(messages: Sequence[Json]) -> Moment:
    """Find the prompt, stepping over what Letta says in the user's name, and count the rounds of tool calls since."""
    position = _prompt_position(messages)
    since = messages[position + 1 :]
    rounds = [index for index, message in enumerate(since) if message.get("tool_calls")]
    prompt = _user_text(messages[position]).rpartition(CARRIED)[2] if position >= 0 else ""
    if not rounds:
        return Moment(prompt)
    latest = since[rounds[-1]]
    results = (text_of(message.get("content")) for message in since[rounds[-1] :] if message.get("role") == "tool")
    return Moment(prompt, tuple(_calls(latest)), tuple(results), len(rounds))


def _prompt_position(messages: Sequence[Json]) -> int:
    """The last user message, or one with a script that stands directly before it; -1 if there is none."""
    last = -1
    for position in range(len(messages) - 1, -1, -1):
        match messages[position].get("role"):
            case "user" if not _is_notice(messages[position]):
                if split(_user_text(messages[position]))[1]:
                    return position
                last = max(last, position)
            case "assistant" | "tool" if last >= 0:
                return last
            case _:
                pass
    return last if last >= 0 else _carried_position(messages)


def _carried_position(messages: Sequence[Json]) -> int:
    """Where Letta, having compacted everything, hands on a script inside our own summary; -1 if nowhere."""
    carrying = [index for index, message in enumerate(messages) if CARRIED in _user_text(message)]
    return carrying[-1] if carrying else -1


def _is_notice(message: Json) -> bool:
    """Letta's alerts, heartbeats and keep-alive pings come as user messages."""
    text = text_of(message.get("content")).lstrip()
    return text.startswith("<system-alert>") or _packed(text).get("type") in ("system_alert", "heartbeat", "login")


def _user_text(message: Json) -> str:
    """Letta's older agents wrap what the user says into JSON, as all do with alerts."""
    text = text_of(message.get("content"))
    packed = _packed(text)
    return str(packed["message"]) if packed.get("type") in ("user_message", "system_alert") else text


def _packed(text: str) -> Json:
    if not text.lstrip().startswith("{"):
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return cast("Json", value) if isinstance(value, dict) else {}


def _calls(message: Json) -> Iterator[tuple[str, Json]]:
    for call in cast("list[Json]", message.get("tool_calls") or []):
        function = cast("Json", call.get("function") or {})
        yield str(function.get("name") or ""), _packed(str(function.get("arguments") or ""))


def _asks_for_summary(messages: Sequence[Json]) -> bool:
    first, last = messages[0], messages[-1]
    prompts = [first] if first.get("role") in ("system", "developer") else []
    prompts += [last] if last.get("role") == "user" else []
    return any(text_of(prompt.get("content")).lstrip().startswith(SUMMARISERS) for prompt in prompts)


def _summary(messages: Sequence[Json]) -> str:
    history = _summarised(messages)
    prompt = moment(history).prompt
    waits = bool(history) and history[-1].get("role") == "user" and bool(split(prompt)[1])
    return f"Summary.{CARRIED}{prompt}" if waits else "Summary."


def _summarised(messages: Sequence[Json]) -> Sequence[Json]:
    """What is to be summed up: a transcript in the last message, or the messages before the request to do so."""
    text = text_of(messages[-1].get("content"))
    if not text.startswith("<start_transcript>"):
        before = messages[:-1]
        return before[:-1] if text_of(before[-1].get("content") if before else "") == _ACKNOWLEDGED else before
    parts = _SPEAKER.split(text.partition("\n<end_transcript>")[0])[1:]
    return [{"role": role, "content": said} for role, said in zip(parts[::2], parts[1::2], strict=True)]


def functions(body: Json) -> dict[str, Json]:
    """The tools on offer: their parameters by name."""
    functions = [cast("Json", tool.get("function") or {}) for tool in cast("list[Json]", body.get("tools") or [])]
    return {str(function.get("name")): cast("Json", function.get("parameters") or {}) for function in functions}


# --- deciding what to play ---------------------------------------------------------------------------------------


def plan(body: Json) -> Stage:
    """The steps which answer a request."""
    messages = cast("list[Json]", body["messages"])
    if _asks_for_summary(messages):
        return (Say(_summary(messages)),)
    now = moment(messages)
    try:
        script = parse(now.prompt)
    except ScriptError as error:
        return (Say(f"script error: {error}"),)
    if script is None:
        return natural(now, body)
    if now.rounds >= len(script):
        return (Say(f"Tool results: {' | '.join(now.results)}"),)
    return tuple(_resolve(step, body) for step in script[now.rounds])


def _resolve(step: Step, body: Json) -> Step:
    match step:
        case SayMessages():
            return Say(json.dumps([_shown(message) for message in body["messages"]], ensure_ascii=False))
        case SayTools():
            return Say(json.dumps(sorted(functions(body)), ensure_ascii=False))
        case _:
            return step


def _shown(message: Json) -> Json:
    shown = ("role", "content", "tool_calls", "tool_call_id")
    return {key: message[key] for key in shown if message.get(key) is not None}


# --- natural replies, for demonstrations -------------------------------------------------------------------------

_WEATHER = re.compile(r"\bweather\b", re.IGNORECASE)
_NAME = re.compile(
    r"\b(?:my name is|my name[’']s|i am called|i[’']m called) ([^\W\d_][\w'’-]*(?: (?-i:[A-Z])[\w'’-]*)*)",
    re.IGNORECASE,
)
_REMEMBER = re.compile(
    r"(?:^|[.!?,:]\s*|\b(?:please|can you|could you) )remember\b[\s:,]*(?:that\b\s*)?(.+)", re.IGNORECASE | re.DOTALL
)
_WHO = re.compile(r"\b(?:what(?:'s|’s| is) my name|who am i|know my name|remember my name)\b", re.IGNORECASE)
_RECALL = re.compile(r"\b(?:what|do|did) (?:do |did )?you (?:still )?(?:remember|know about me)\b", re.IGNORECASE)
_KNOWN_NAME = re.compile(r"\bname(?: is|'s|’s|:)\s+([^\W\d_][\w'’-]*)", re.IGNORECASE)
_HUMAN = re.compile(r"<human>.*?<value>\n?(.*?)\n?</value>.*?</human>", re.DOTALL)
_LINE_NUMBER = re.compile(r"^\d+→ ?", re.MULTILINE)
_WORD = re.compile(r"[^\W\d_][\w'’-]*(?: [^\W\d_][\w'’-]*)*")
_NOT_A_CITY = re.compile(
    "a|and|can|check|could|do|does|for|forecast|get|give|hello|hey|hi|how|i|i[’']m|in|is|it|like|me|my|of|please|show|tell|"
    "the|today|tomorrow|use|weather|what|what[’']?s|will|you|your",
    re.IGNORECASE,
)
_MEMORY_TOOLS = ("memory_insert", "core_memory_append", "memory")
_TRANSFER = "transfer_to_"


def natural(now: Moment, body: Json) -> Stage:
    """A little reasoning and a friendly reply, or the call of a tool that fits."""
    handed_over = bool(now.calls) and now.calls[-1][0].startswith(_TRANSFER)
    if now.rounds and not handed_over:
        return _report(now)
    if not _NAME.search(now.prompt) and (_WHO.search(now.prompt) or _RECALL.search(now.prompt)):
        return _recall(now.prompt, cast("list[Json]", body["messages"]))
    everything = functions(body)
    offered = {name: parameters for name, parameters in everything.items() if not name.startswith(_TRANSFER)}
    if _WEATHER.search(now.prompt) and (name := next((name for name in offered if "weather" in name.lower()), "")):
        return _ask_weather(now.prompt, name, offered[name])
    if not handed_over and (name := _expert(now.prompt, everything.keys() - offered.keys())):
        return Think("There is somebody for this. I shall hand the conversation over."), Call(name, "{}")
    if fact := _fact(now.prompt):
        return _remember(fact, offered)
    quote = now.prompt.strip() or "…"
    quote = quote if len(quote) <= 300 else quote[:300] + "…"
    return (
        Think("The user would like an answer. I only have a script, so I shall be friendly and honest."),
        Say(f"Hello! I am the scripted model, so I answer without thinking much. You said: “{quote}”"),
    )


def _expert(prompt: str, transfers: Iterable[str]) -> str:
    """The handoff to an agent of whose name the prompt has a word; empty if there is none."""
    said = {word.lower() for phrase in _WORD.findall(prompt) for word in phrase.split(" ")}
    names = {name: re.split(r"[_-]+", name.removeprefix(_TRANSFER).lower()) for name in sorted(transfers)}
    return next((name for name, words in names.items() if any(len(word) > 3 and word in said for word in words)), "")


def _ask_weather(prompt: str, name: str, parameters: Json) -> Stage:
    city = city_in(prompt)
    if not city:
        return Think("The user wants the weather, but for where?"), Say("Gladly! For which city?")
    return (
        Think(f"The user wants the weather in {city}. I have a tool for that: {name}."),
        Call(name, json.dumps(_weather_arguments(city, parameters), ensure_ascii=False)),
    )


def city_in(text: str) -> str:
    """The last capitalised words of a text that are no everyday words: `New York` in `Is it cold in New York today?`"""
    for phrase in reversed(_WORD.findall(text)):
        words = reversed(cast("str", phrase).split(" "))
        for word in words:
            if _may_be_city(word):
                name = [word, *takewhile(_may_be_city, words)]
                return " ".join(reversed(name))
    return ""


def _may_be_city(word: str) -> bool:
    return word[0].isupper() and not _NOT_A_CITY.fullmatch(word)


def _weather_arguments(city: str, parameters: Json) -> Json:
    """The city where the schema wants it; for other required enumerations their first value."""
    properties = cast("dict[str, Json]", parameters.get("properties") or {})
    places = [name for name in ("city", "location", "place") if name in properties]
    places += [name for name, schema in properties.items() if schema.get("type") == "string" and "enum" not in schema]
    place = places[0] if places else "city"
    required = cast("list[str]", parameters.get("required") or [])
    choices = {name: properties[name]["enum"][0] for name in required if properties.get(name, {}).get("enum")}
    return {place: city, **{name: value for name, value in choices.items() if name != place}}


def _fact(prompt: str) -> str:
    if match := _NAME.search(prompt):
        return f"The user's name is {match[1]}."
    if match := _REMEMBER.search(prompt):
        fact = match[1].strip().rstrip(".!?")
        return f"{fact[:1].upper()}{fact[1:]}." if fact else ""
    return ""


def _remember(fact: str, functions: Mapping[str, Json]) -> Stage:
    name = next((name for name in _MEMORY_TOOLS if name in functions), "")
    if not name:
        return Think("I should remember this, but I was given no tool for it."), Say(f"Noted, for now: {fact}")
    return (
        Think("This is worth remembering. I shall write it into my memory of the user."),
        Call(name, json.dumps(_memory_arguments(name, fact), ensure_ascii=False)),
    )


def _memory_arguments(name: str, fact: str) -> Json:
    match name:
        case "memory_insert":
            return {"label": "human", "new_string": fact, "insert_line": -1}
        case "core_memory_append":
            return {"label": "human", "content": fact}
        case _:  # `memory` of Letta 0.16.7 fails without insert_line, although its schema calls it optional
            return {"command": "insert", "path": "/memories/human", "insert_text": fact, "insert_line": -1}


def _recall(prompt: str, messages: Sequence[Json]) -> Stage:
    known = memory_of(messages)
    names = _KNOWN_NAME.findall(known)
    thought = Think("The user asks what I know. I shall look into my memory of them.")
    if _WHO.search(prompt):
        return thought, Say(f"Your name is {names[-1]}." if names else "I do not know your name yet. What is it?")
    if not known:
        return thought, Say("I do not know anything about you yet.")
    return thought, Say(f"This is what I remember about you:\n\n{known}")


def memory_of(messages: Sequence[Json]) -> str:
    """What the agent knows of its user: the `human` block of the system prompt, and what it wrote down since.

    A conversation may go on with the system prompt it began with, so a fresh memory may be in its tool calls only.
    """
    system = (message for message in messages if message.get("role") in ("system", "developer"))
    prompts = (text_of(message.get("content")) for message in system)
    blocks = (_LINE_NUMBER.sub("", match[1]).strip() for prompt in prompts for match in _HUMAN.finditer(prompt))
    lines = [line for block in blocks for line in block.split("\n") if line.strip()]
    written = (call for message in messages for call in _calls(message))
    notes = (_written(arguments) for name, arguments in written if name in _MEMORY_TOOLS)
    return "\n".join(dict.fromkeys([*lines, *(note for note in notes if note)]))


def _written(arguments: Json) -> str:
    return str(arguments.get("new_string") or arguments.get("content") or arguments.get("insert_text") or "")


def _report(now: Moment) -> Stage:
    name, arguments = now.calls[-1]
    status, result = _unwrapped(now.results[-1] if now.results else "")
    if status == "Failed":
        return Think("That did not work."), Say(f"I am sorry, {name} failed: {result}")
    if "weather" in name.lower():
        place = next((value for value in arguments.values() if isinstance(value, str)), "")
        return Think("Now I know the weather."), Say(f"Here is the weather in {place}: {result}. Enjoy your day!")
    if name in _MEMORY_TOOLS:
        return Think("It is written down."), Say(f"I will remember that: {_written(arguments)}")
    return Think("The tools have answered."), Say(f"Tool results: {' | '.join(now.results)}")


def _unwrapped(result: str) -> tuple[str, str]:
    """Letta wraps what a tool returned: `{"status": "OK", "message": …, "time": …}`."""
    packed = _packed(result)
    if "status" not in packed or "message" not in packed:
        return "OK", result
    message = packed["message"]
    return str(packed["status"]), message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
