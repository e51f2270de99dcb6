"""Letta's stream of messages → our events. Pure: bytes and values in, values out.

Token mode sends fragments, step mode (and providers Letta cannot stream) whole messages in the same shapes; both are
read here. Letta's stream may grow, so unknown messages are passed over.
Source: https://docs.letta.com/guides/agents/streaming and what a live 0.16.7 sends.
"""

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from frontdesk.backends.letta.failures import failure
from frontdesk.errors import AgentFailed, ApprovalRequired, GatewayError
from frontdesk.turn import (
    Event,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCallDelta,
    ToolRunFinished,
    ToolRunStarted,
    TurnFinished,
    Usage,
)


class Token(msgspec.Struct, gc=False):
    """What there is to know of a token of text or reasoning, which nearly every message is."""

    message_type: str = ""
    id: str | None = None
    content: Any = ""
    reasoning: str | None = ""


class CallFragment(msgspec.Struct, gc=False):
    tool_call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class ReturnItem(msgspec.Struct):
    tool_call_id: str | None = None
    tool_return: Any = None
    func_response: Any = None
    status: str | None = None


class StreamMessage(msgspec.Struct, gc=False):
    """One `data:` of Letta's stream; only what we read. Fields that are absent keep their defaults."""

    message_type: str = ""
    id: str | None = None
    run_id: str | None = None
    content: Any = ""
    reasoning: str | None = ""
    tool_call: CallFragment | None = None
    tool_calls: list[CallFragment] | CallFragment | None = None
    tool_call_id: str | None = None
    tool_return: Any = None
    tool_returns: list[ReturnItem] | None = None
    status: str | None = None
    stop_reason: str | None = None
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    context_tokens: int | None = None
    error_type: str | None = None
    message: Any = None
    detail: Any = None


STOP = {
    "end_turn": StopReason.STOP,
    "tool_rule": StopReason.STOP,
    "requires_approval": StopReason.TOOL_CALLS,
    "max_tokens_exceeded": StopReason.LENGTH,
    "max_steps": StopReason.LENGTH,
}

SPOKEN: dict[str, type[TextDelta | ReasoningDelta]] = {
    "assistant_message": TextDelta,
    "reasoning_message": ReasoningDelta,
}

TOOL_MESSAGES = frozenset({"approval_request_message", "tool_call_message", "tool_return_message"})

SHOWN_CHARACTERS = 500  # of a call's arguments, in an error

DONE = b"[DONE]"

_tokens = msgspec.json.Decoder(Token)
_messages = msgspec.json.Decoder(StreamMessage)


class ServerSentEvents:
    """Cuts a byte stream at blank lines and gives the `data` of each event, as it becomes complete."""

    def __init__(self) -> None:
        self._rest = b""

    def __call__(self, data: bytes) -> list[bytes]:
        if self._rest:
            data = self._rest + data
        if b"\r" in data:
            # A lone CR at the end may be half of a CRLF, and is left for the next read.
            cut = len(data) - 1 if data.endswith(b"\r") else len(data)
            data = data[:cut].replace(b"\r\n", b"\n") + data[cut:]
        if data.startswith(b"data: ") and data.endswith(b"\n\n"):
            regular = data[6:-2].split(b"\n\ndata: ")
            if data.count(b"\n") == 2 * len(regular):  # one line of data in every event, and nothing else
                self._rest = b""
                return regular
        blocks = data.split(b"\n\n")
        self._rest = blocks.pop()
        return [block[6:] if block.startswith(b"data: ") and b"\n" not in block else payload(block) for block in blocks]


def payload(block: bytes) -> bytes:
    """The joined `data` lines of an event; empty for a comment."""
    lines = (line for line in block.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)


def decode(data: bytes) -> Token | StreamMessage:
    """One message. Raises AgentFailed if it is not what Letta sends."""
    try:
        token = _tokens.decode(data)
        return token if token.message_type in SPOKEN else _messages.decode(data)
    except msgspec.DecodeError:
        return _decode_leniently(data)


def _decode_leniently(data: bytes) -> Token | StreamMessage:
    """The standard library reads half a surrogate pair, which a model may send when it splits an emoji."""
    try:
        message = json.loads(data)
        return msgspec.convert(message, Token if message.get("message_type") in SPOKEN else StreamMessage)
    except AttributeError as error:
        raise AgentFailed("The Letta server sent something that is not a message of its stream.") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise AgentFailed("The Letta server sent something that is not a message of its stream.") from error


class Translator:
    """Messages of one Letta stream → events. Call it with what each read brought, then `finish` at the end.

    `failed` is set when Letta reports an error: what came before it is still worth showing, so it is not raised here.
    With `one_call` only the first call of a step is the client's: Letta streams the others too, but does not keep them.
    `answered` are the calls to which the turn brings the client's results, which Letta may show among its own.
    """

    def __init__(
        self,
        client_tools: Iterable[str],
        *,
        answered: Iterable[str] = (),
        one_call: bool = False,
        thread_tool: str = "send_message",
    ) -> None:
        self._client_tools = frozenset(client_tools)
        self._answered = frozenset(answered)
        self._one_call = one_call
        self._thread_tool = thread_tool
        self._names: dict[str, str] = {}  # call id → tool, for calls of either side
        self._arguments: dict[str, list[str]] = {}  # of the agent's own calls which are still being written
        self._awaiting: dict[str, ToolRunStarted] = {}  # the agent's own calls which wait for a human
        self._surrogate = ""
        self._stop: str | None = None
        self._usage = Usage()
        self._called: str | None = None  # the id of the client's first call
        self._mark = ""  # the id under which Letta keeps the latest message
        self.run_id: str = ""
        self.spoke = False
        self.done = False
        self.compacted = False
        self.ran_tools = False  # of the agent's own
        self.failed: GatewayError | None = None

    def __call__(self, payloads: Iterable[bytes]) -> list[Event]:
        """Tokens of one part which came in one read make one delta: under load, the cost of a token falls."""
        events: list[Event] = []
        stretch: list[str] = []
        kind, part_id = TextDelta, ""
        try:
            for data in payloads:
                if data == DONE:
                    self.done = True
                    continue
                if not data:
                    continue
                message = decode(data)
                spoken = SPOKEN.get(message.message_type)
                if stretch and (spoken is not kind or message.id != part_id):
                    self._say(kind, part_id, stretch, events)
                if isinstance(message, Token):
                    kind, part_id = SPOKEN[message.message_type], message.id or ""
                    stretch.append(words(message))
                else:
                    self._rare(message, events)
        except AgentFailed as error:
            self.failed = self.failed or error
        self._say(kind, part_id, stretch, events)
        self.spoke = self.spoke or bool(events)
        return events

    def _say(
        self, kind: type[TextDelta | ReasoningDelta], part_id: str, stretch: list[str], events: list[Event]
    ) -> None:
        if not stretch:
            return
        self._mark = part_id
        if text := self._whole("".join(stretch)):
            events.append(kind(text, part_id))
        stretch.clear()

    @property
    def stopped(self) -> bool:
        """Whether Letta has said why the agent stopped."""
        return self._stop is not None

    @property
    def awaiting(self) -> tuple[ToolRunStarted, ...]:
        """The agent's own calls for which it stopped, to be let run or not; none where it stopped for the client's."""
        over = self.failed or self._stop != "requires_approval" or self._called is not None
        return () if over else tuple(self._awaiting.values())

    @property
    def usage(self) -> Usage:
        return self._usage

    def finish(self) -> TurnFinished:
        """How the turn ended. Raises what Letta reported, or AgentFailed if the stream merely stopped."""
        if self.failed:
            raise self.failed
        if self._stop == "cancelled":
            raise AgentFailed("The run was cancelled on the Letta server by somebody else.")
        if self._awaiting and self._called is None:
            raise awaits(tuple(self._awaiting.values()))
        if self._stop is None:
            raise AgentFailed("The Letta server's stream broke off before the agent's turn had ended.")
        if self._stop not in STOP:
            raise failure(stop_reason=self._stop)
        reason = StopReason.TOOL_CALLS if self._called is not None else STOP[self._stop]
        return TurnFinished(reason, self._usage, self._mark, self.compacted)

    def _rare(self, message: StreamMessage, events: list[Event]) -> None:
        if message.message_type in TOOL_MESSAGES:
            self._mark = message.id or self._mark
        match message.message_type:
            case "ping":
                self.run_id = message.run_id or self.run_id
            case "approval_request_message":
                for call in fragments(message):
                    self._client_call(call, events)
            case "tool_call_message":
                for call in fragments(message):
                    self._own_call(call, message.id or "", events)
            case "tool_return_message":
                self._own_returns(message, events)
            case "stop_reason":
                # It may come twice before an error; the first one is the agent's, the second the server's.
                self._stop = self._stop or message.stop_reason
            case "usage_statistics":
                self._usage = usage(message)
            case "error_message":
                self.failed = self.failed or failure(message.error_type, message.message, message.detail)
            case "user_message":
                self.compacted = True  # the server tells the agent that its history was condensed
            case _:
                if message.error_type:  # `event: error` frames of some paths have no message_type
                    self.failed = self.failed or failure(message.error_type, message.message, message.detail)

    def _name(self, call: CallFragment) -> tuple[str, str]:
        """The id and name of a call; later fragments have neither, or repeat them."""
        call_id = call.tool_call_id or next(reversed(self._names), "")
        if call.name and call_id not in self._names:
            self._names[call_id] = call.name
        return call_id, self._names.get(call_id, "")

    def _client_call(self, call: CallFragment, events: list[Event]) -> None:
        call_id, name = self._name(call)
        if name in self._client_tools:
            if self._one_call and self._awaiting:  # Letta keeps the first call of the step, which is the agent's own
                return
            if self._called is None:
                self._called = call_id
            if self._one_call and call_id != self._called:
                return
            events.append(ToolCallDelta(call_id, name, call.arguments or ""))
        elif name:
            known = self._awaiting.get(call_id)
            arguments = (known.arguments if known else "") + (call.arguments or "")
            self._awaiting[call_id] = ToolRunStarted(call_id, name, arguments)

    def _own_call(self, call: CallFragment, part_id: str, events: list[Event]) -> None:
        """Collect the arguments; the call is shown when they are complete, which is before the tool has run."""
        call_id, name = self._name(call)
        pieces = self._arguments.setdefault(call_id, [])
        if call.arguments:
            pieces.append(call.arguments)
        arguments = "".join(pieces)
        if not (call.arguments or "").rstrip().endswith("}") or (parsed := parse(arguments)) is None:
            return
        del self._arguments[call_id]
        if name == self._thread_tool:
            if text := str(parsed.get("message", "")):
                events.append(TextDelta(text, f"{part_id}/{call_id}"))
        else:
            events.append(ToolRunStarted(call_id, name, arguments))

    def _own_returns(self, message: StreamMessage, events: list[Event]) -> None:
        self.ran_tools = True
        items = message.tool_returns or [
            ReturnItem(message.tool_call_id, tool_return=message.tool_return, status=message.status)
        ]
        for item in items:
            call_id = item.tool_call_id or message.tool_call_id or ""
            name = self._names.get(call_id, "")
            if name == self._thread_tool or name in self._client_tools or call_id in self._answered:
                continue
            if call_id in self._arguments:  # the call itself came without arguments, or with broken ones
                events.append(ToolRunStarted(call_id, name, "".join(self._arguments.pop(call_id))))
            output = item.tool_return if item.tool_return is not None else item.func_response
            events.append(ToolRunFinished(call_id, text_of(output), (item.status or message.status) == "error"))

    def _whole(self, text: str) -> str:
        """Join the halves of a character which the model split: half a surrogate pair cannot be encoded."""
        if text.isascii() and not self._surrogate:
            return text
        text, self._surrogate = self._surrogate + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._surrogate = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def awaits(calls: Iterable[ToolRunStarted]) -> ApprovalRequired:
    """The error for calls which a human has to decide on. What a caller is to do about it, the gateway adds."""
    asked = ", ".join(f"{call.name}({call.arguments[:SHOWN_CHARACTERS]})" for call in calls)
    return ApprovalRequired(f"The agent waits for a human to approve its own tool: {asked}.")


def words(message: Token) -> str:
    """The text of a message that has some."""
    if message.message_type == "reasoning_message":
        return message.reasoning or ""
    return message.content if type(message.content) is str else text_of(message.content)


def fragments(message: StreamMessage) -> list[CallFragment]:
    """The calls of a message: one as `tool_call`; in step mode `tool_calls` is the list of all of them."""
    if isinstance(message.tool_calls, list) and message.tool_calls:
        return message.tool_calls
    return [message.tool_call] if message.tool_call else []


def text_of(content: Any) -> str:
    """Text of a content field: a string, or a list of parts."""
    match content:
        case None:
            return ""
        case str():
            return content
        case [*parts]:
            return "".join(str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in parts)  # type: ignore[reportUnknownMemberType]
        case _:
            return json.dumps(content, ensure_ascii=False)


def parse(arguments: str) -> dict[str, Any] | None:
    """Complete JSON arguments, or None."""
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any])
    except msgspec.DecodeError:
        return None


def usage(message: StreamMessage) -> Usage:
    return Usage(
        input_tokens=message.prompt_tokens or 0,
        output_tokens=message.completion_tokens or 0,
        cached_tokens=message.cached_input_tokens or 0,
        cache_write_tokens=message.cache_write_tokens or 0,
        reasoning_tokens=message.reasoning_tokens or 0,
        context_tokens=message.context_tokens or 0,
    )
