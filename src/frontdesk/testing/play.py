"""Playing a script: steps become OpenAI's answers, chunk by chunk, for whoever carries them to the client."""

import asyncio
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from frontdesk.testing.script import (
    Break,
    Call,
    Fail,
    Finish,
    Hang,
    Json,
    Pace,
    Refuse,
    Say,
    SayMessages,
    SayTools,
    SayWords,
    Spoken,
    StreamError,
    Think,
    Usage,
    Wait,
    moment,
    plan,
    text_of,
)

# --- speaking: steps become deltas, chunks and completions -------------------------------------------------------

MAX_PIECES = 2_000
_PIECE = re.compile(r" ?[A-Za-z0-9]{1,6}|.", re.DOTALL)


def pieces(text: str) -> list[str]:
    """Cut a text into tokens: short bits of words, and every other character alone.

    So cuts fall inside emoji sequences, between a backslash and its letter, around quotes and newlines; never inside a
    code point. Very long texts have larger pieces, at most `MAX_PIECES`.
    """
    tokens = cast("list[str]", _PIECE.findall(text))
    size = -(-len(tokens) // MAX_PIECES)
    return tokens if size <= 1 else ["".join(tokens[start : start + size]) for start in range(0, len(tokens), size)]


def deltas(step: Spoken, calls: int) -> Iterator[Json]:
    """What a step adds to a message, token by token. `calls` is the number of tool calls before it."""
    match step:
        case Say(text):
            return ({"content": piece} for piece in pieces(text))
        case SayWords(count):
            return ({"content": f"word{number}" if number == 1 else f" word{number}"} for number in range(1, count + 1))
        case Think(text):
            return ({"reasoning_content": piece} for piece in pieces(text))
        case Refuse(text):
            return ({"refusal": piece} for piece in pieces(text))
        case Call():
            return _call_deltas(step, calls)


def _call_deltas(call: Call, index: int) -> Iterator[Json]:
    call_id = f"call_{uuid.uuid4().hex[:24]}"  # 29 characters, as OpenAI's; Letta cuts longer ones
    function = {"name": call.name, "arguments": ""}
    yield {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
    for piece in pieces(call.arguments):
        yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def spoken_message(said: Iterable[Json]) -> Json:
    """Fold deltas into the message of a plain reply."""
    texts: dict[str, list[str]] = {}
    calls: list[Json] = []
    for delta in said:
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                calls.append({"id": call["id"], "type": "function", "function": dict(call["function"])})
            else:
                calls[-1]["function"]["arguments"] += call["function"]["arguments"]
        for key, text in delta.items():
            if key != "tool_calls":
                texts.setdefault(key, []).append(text)
    folded: Json = {"role": "assistant", "content": None, "refusal": None}
    folded.update({key: "".join(parts) for key, parts in texts.items()})
    return {**folded, "tool_calls": calls} if calls else folded


def usage_json(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": 0},
    }


# OpenAI's own words, by status and code; the first of a status is its default.
_ERRORS: tuple[tuple[int, str | None, str, str | None, str], ...] = (
    (400, None, "invalid_request_error", None, "The request is not valid."),
    (
        400,
        "context_length_exceeded",
        "invalid_request_error",
        "messages",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130001 tokens. "
        "Please reduce the length of the messages.",
    ),
    (
        401,
        "invalid_api_key",
        "invalid_request_error",
        None,
        "Incorrect API key provided: scripted. "
        "You can find your API key at https://platform.openai.com/account/api-keys.",
    ),
    (
        403,
        "unsupported_country_region_territory",
        "request_forbidden",
        None,
        "Country, region, or territory not supported",
    ),
    (
        404,
        "model_not_found",
        "invalid_request_error",
        None,
        "The model `scripted` does not exist or you do not have access to it.",
    ),
    (
        429,
        "rate_limit_exceeded",
        "requests",
        None,
        "Rate limit reached for scripted on requests per min (RPM): Limit 3, Used 3, Requested 1. "
        "Please try again in 20s. Visit https://platform.openai.com/account/rate-limits to learn more.",
    ),
    (
        429,
        "insufficient_quota",
        "insufficient_quota",
        None,
        "You exceeded your current quota, please check your plan and billing details. "
        "For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
    ),
    (500, None, "server_error", None, "The server had an error while processing your request. Sorry about that!"),
    (503, None, "server_error", None, "The engine is currently overloaded, please try again later."),
)


def error_json(
    text: str, *, type_: str = "invalid_request_error", code: str | None = None, param: str | None = None
) -> Json:
    return {"error": {"message": text, "type": type_, "param": param, "code": code}}


def failure(fail: Fail) -> Json:
    """The body of an HTTP error, in OpenAI's words where we know them."""
    known = [row for row in _ERRORS if row[0] == fail.status and fail.code in ("", row[1])]
    if known:
        _, code, type_, param, words = known[0]
        return error_json(words, type_=type_, code=code, param=param)
    type_ = "server_error" if fail.status >= 500 else "invalid_request_error"
    return error_json(f"The scripted model fails with status {fail.status}.", type_=type_, code=fail.code or None)


# --- a reply under way: deltas go in, bytes come out -------------------------------------------------------------

_BURST = 32  # tokens per write where there is no pace


@dataclass(frozen=True, slots=True)
class Document:
    """A whole answer in JSON."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


Piece = Document | bytes
"""What goes to the client: one document, or some of an event stream."""


class Reply:
    """`ready` gives what there is to send by now."""

    def __init__(self, model: str) -> None:
        self.said = 0
        self.reasoned = 0
        self.calls = 0
        self._head: Json = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def say(self, delta: Json) -> None:
        self.said += 1
        self.reasoned += "reasoning_content" in delta
        self._put(delta)

    def open(self) -> None:
        """Make sure that the client has the head of the reply, if it can have it before the end."""

    def ready(self, least: int = 1) -> Iterator[Piece]:
        """All that waits, if it is as much as this."""
        return iter(())

    def finish(self, reason: str, usage: Usage) -> Iterator[Piece]:
        raise NotImplementedError

    def error(self, text: str) -> Iterator[Piece]:
        yield Document(encoded(error_json(text, type_="server_error")), 500)

    def _put(self, delta: Json) -> None:
        raise NotImplementedError

    def _document(self, kind: str, **fields: Any) -> Json:
        return {**self._head, "object": kind, "system_fingerprint": "fp_scripted", **fields}


class PlainReply(Reply):
    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._deltas: list[Json] = []

    def finish(self, reason: str, usage: Usage) -> Iterator[Piece]:
        choice = {"index": 0, "message": spoken_message(self._deltas), "logprobs": None, "finish_reason": reason}
        yield Document(encoded(self._document("chat.completion", choices=[choice], usage=usage_json(usage))))

    def _put(self, delta: Json) -> None:
        self._deltas.append(delta)


class StreamedReply(Reply):
    def __init__(self, model: str, *, include_usage: bool) -> None:
        super().__init__(model)
        self._usage: Json = {"usage": None} if include_usage else {}
        self._waiting: list[bytes] = []
        self._opened = False

    def open(self) -> None:
        if not self._opened:
            self._opened = True
            self._frame(self._chunk({"role": "assistant", "content": ""}))

    def ready(self, least: int = 1) -> Iterator[Piece]:
        if len(self._waiting) >= least:
            frames, self._waiting = b"".join(self._waiting), []
            yield frames

    def finish(self, reason: str, usage: Usage) -> Iterator[Piece]:
        self.open()
        self._frame(self._chunk({}, reason))
        if self._usage:
            self._frame(self._document("chat.completion.chunk", choices=[], usage=usage_json(usage)))
        self._waiting.append(b"data: [DONE]\n\n")
        return self.ready()

    def error(self, text: str) -> Iterator[Piece]:
        self.open()
        self._frame(error_json(text, type_="server_error"))
        return self.ready()

    def _put(self, delta: Json) -> None:
        self.open()
        self._frame(self._chunk(delta))

    def _chunk(self, delta: Json, reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._document("chat.completion.chunk", choices=[choice], **self._usage)

    def _frame(self, document: Json) -> None:
        self._waiting.append(b"data: " + encoded(document) + b"\n\n")


def encoded(document: Json) -> bytes:
    """JSON with characters as they are; half a surrogate pair, which no text can hold, becomes a question mark."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


# --- the play ----------------------------------------------------------------------------------------------------

Outcome = Literal["playing", "finished", "failed", "broken", "gone"]

Failures = Counter[tuple[str, Fail]]
"""How often a message was answered with a failure."""


class Performance:
    """The answer to one request. `outcome` is `gone` until `pieces` has come to its end; at `broken` the connection is
    to be closed."""

    def __init__(self, body: Json, pace_seconds: float, failures: Failures) -> None:
        self.outcome: Outcome = "gone"
        self._body = body
        self._pace = pace_seconds
        self._failures = failures

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """Play a stage to its end, or to the step that ends it early."""
        reply = reply_to(self._body)
        pace, reason, usage = self._pace, "", None
        for step in plan(self._body):
            match step:
                case Wait(seconds):
                    for piece in reply.ready():
                        yield piece
                    await asyncio.sleep(seconds)
                case Pace(seconds):
                    pace = seconds
                case Finish():
                    reason = step.reason
                case Usage():
                    usage = step
                case Fail():
                    if self._still_fails(step):
                        self.outcome = "failed"
                        yield Document(encoded(failure(step)), step.status, dict(step.headers))
                        return
                case Hang() | Break():
                    reply.open()
                    for piece in reply.ready():
                        yield piece
                    if isinstance(step, Hang):
                        await asyncio.Event().wait()  # until we are cancelled, because the client went away
                    self.outcome = "broken"
                    return
                case StreamError(text):
                    for piece in reply.error(text):
                        yield piece
                    self.outcome = "failed"
                    return
                case SayMessages() | SayTools():
                    raise AssertionError("resolved by plan()")
                case Say() | SayWords() | Think() | Refuse() | Call():
                    for delta in deltas(step, reply.calls):
                        reply.say(delta)
                        for piece in reply.ready(1 if pace else _BURST):
                            yield piece
                        if pace:
                            await asyncio.sleep(pace)
                    reply.calls += isinstance(step, Call)
        default_reason = "tool_calls" if reply.calls else "stop"
        for piece in reply.finish(reason or default_reason, usage or _derived_usage(self._body, reply)):
            yield piece
        self.outcome = "finished"

    def _still_fails(self, fail: Fail) -> bool:
        key = (moment(self._body["messages"]).prompt, fail)
        self._failures[key] += 1
        return fail.times is None or self._failures[key] <= fail.times


def reply_to(body: Json) -> Reply:
    model = str(body.get("model") or "scripted")
    if not body.get("stream"):
        return PlainReply(model)
    options = cast("Json", body.get("stream_options") or {})
    return StreamedReply(model, include_usage=bool(options.get("include_usage")))


def _derived_usage(body: Json, reply: Reply) -> Usage:
    """About four characters of input to a token; each delta of output is one."""
    size = sum(len(text_of(message.get("content"))) for message in body["messages"])
    return Usage(size // 4 + 1, reply.said, 0, reply.reasoned)


def body_of(raw: bytes) -> Json | str:
    """The request, or what is wrong with it."""
    try:
        body = json.loads(raw)
    except ValueError:
        return "We could not parse the JSON body of your request."
    messages = cast("Json", body).get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not messages:
        return "Missing required parameter: 'messages'."
    if not all(isinstance(message, dict) for message in cast("list[Any]", messages)):
        return "Invalid type for 'messages': expected objects."
    return cast("Json", body)
