"""The waist: what callers ask and what agents say, in our own words.

Protocols decode requests into a `Turn` and encode `Event`s; backends run a `Turn` and yield `Event`s.
Nothing here knows OpenAI or Letta. Values only: frozen, compared by `==`, taken apart with `match`. The unions are
closed, so that a new kind becomes a type error wherever it is not yet handled. Standard library only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal

from frontdesk.amounts import Budget

# --- content -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A picture, by its bytes or, until the gateway has fetched it, by its address. `param` says where it stood."""

    media_type: str = ""
    data: bytes = b""
    url: str = ""
    param: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class File:
    """A file by its bytes. What is `text/…` is UTF-8. `param` says where it stood."""

    name: str
    media_type: str
    data: bytes
    param: str = field(default="", compare=False)

    @property
    def is_text(self) -> bool:
        return self.media_type.startswith("text/")

    @property
    def text(self) -> str:
        return self.data.decode() if self.is_text else ""


Content = Text | Image | File

Role = Literal["user", "assistant", "system"]
"""`system` only of what was put into a conversation by hand: a request's own instructions are the turn's."""

# --- what a transcript holds -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: tuple[Content, ...]
    name: str = ""

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content if isinstance(part, Text))


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The caller is asked to run this. `arguments` is JSON text, as the model wrote it."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolRun:
    """The agent ran this itself: shown, never asked."""

    call_id: str
    name: str
    arguments: str
    output: str = ""
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The caller's answer to a `ToolCall`. `param` says where in the request it stood, for error messages."""

    call_id: str
    content: tuple[Content, ...]
    is_error: bool = False
    param: str = field(default="", compare=False)
    approved: bool | None = None  # whether the agent may run its own tool, where it asked for that; `content` says why

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content if isinstance(part, Text))


def unanswered(call_id: str) -> ToolResult:
    """What the agent is told of a call for which the caller sent nothing."""
    return ToolResult(call_id, (Text("The caller sent no result for this call."),), is_error=True)


Part = Message | Reasoning | ToolCall | ToolRun
Item = Message | ToolCall | ToolResult

# --- what is asked -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool which the caller runs. `parameters` is a JSON Schema, passed on verbatim."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    strict: bool = False
    param: str = field(default="", compare=False)  # where in the request its name stood, for error messages


@dataclass(frozen=True, slots=True)
class Format:
    """Answer with JSON: any object, or with `schema` what that describes. `strict`: nothing else will do.

    `enforced`: the agent's model is held to it. Else the agent is told, and its answer looked at.
    """

    schema: Mapping[str, Any] | None = None
    name: str = ""
    strict: bool = False
    enforced: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller wishes of the model; `None` unless asked. Which of it is carried out, `Agent.honours` tells.

    `model`: another one than the agent's, for this turn. `must_call`: the answer is to be a call of one of the turn's
    tools. `names` are the caller's words for what is asked
    here, by ours; `ignored` is what was asked for and is not carried out, in the caller's words.
    """

    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Mapping[str, Any] | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    format: Format | None = None
    parallel_tool_calls: bool | None = None
    model: str | None = None
    must_call: bool | None = None
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    ignored: tuple[str, ...] = ()

    def name(self, ours: str) -> str:
        """The caller's word for one of ours."""
        return self.names.get(ours, ours)

    @property
    def asked(self) -> tuple[str, ...]:
        """What is asked for, in our words."""
        return tuple(name for name in OPTIONS if getattr(self, name) is not None)


OPTIONS = tuple(each.name for each in fields(Options) if each.default is None)


RANKS = ("public", "user", "owner", "admin")
"""Scopes of which each includes those before it. Whoever asks is `public`; whoever has a key, `user`. Others, which the
operator names, stand beside them and include nothing."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. Conversations of one principal are never found by another."""

    id: str = "anonymous"
    agents: tuple[str, ...] | None = None  # names or ids this key may use; None means all
    mode: "Mode | None" = None  # how its requests find their conversation; None: as the agent has it, or the server
    system_prompt: "SystemPrompt | None" = None  # where its instructions go; None: as the agent has it, or the server
    scopes: frozenset[str] = frozenset({"user"})  # what it may do: see `holds`
    at: tuple[str, str] | None = None  # backend and id of the one agent it has come to, by that agent's own URL

    def holds(self, scope: str) -> bool:
        """Whether it may do what asks for this scope: it has that, or of the four ranks a higher one."""
        if scope not in RANKS:
            return scope in self.scopes
        return scope == RANKS[0] or not self.scopes.isdisjoint(RANKS[RANKS.index(scope) :])

    @property
    def stranger(self) -> bool:
        """Whether nobody knows who it is. Nothing is kept for strangers or found by them: all of them are called so."""
        return not self.holds("user")

    def may_use(self, *names: str) -> bool:
        return self.agents is None or any(name in self.agents for name in names)

    def comes_to(self, backend: str, agent_id: str) -> bool:
        """Whether it asks for this agent, or for any: to who comes by an agent's own URL, there is no other."""
        return self.at is None or self.at == (backend, agent_id)


Mode = Literal["auto", "pinned_only", "stateless", "single"]
"""How a request finds its conversation. `auto`: by its name, else by what was said before. `pinned_only`: by its name,
else as `stateless`: one for this request alone. `single`: the agent's own thread, as a companion has it."""

SystemPrompt = Literal["override", "message", "block", "ignore"]
"""Where a caller's instructions go. `override`: behind the agent's own prompt, for this turn. `message`: into the
conversation, when they are new. `block`: into the agent's memory. `ignore`: nowhere."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What a request tells of its place among others, beside its transcript. Empty where it tells nothing."""

    digest: str = ""  # of the body, but for what only concerns how the answer is sent
    key: str = ""  # an idempotency key
    retried: bool = False  # the client says that it has sent this before
    message: str = ""  # the client's id for the answer it asks for
    parent: str = ""  # … and for the answer before that
    resends: bool = False  # the conversation's name is a chat's: whoever sends it sends the whole transcript too
    temporary: bool = False  # the client will forget this chat
    task: str = ""  # what a chat client's background request is for
    payment: str = ""  # what it pays with, as x402 has it
    trace: tuple[str, ...] = ()  # marks of the agents through which the question has come, in order


@dataclass(frozen=True, slots=True)
class Turn:
    """One request to one agent.

    `input` is what is new, `history` what went before it: chat clients resend the whole transcript, while most agents
    keep their own. `instructions` are the caller's system and developer messages, in order.
    """

    id: str
    agent: str  # as the caller wrote it
    input: tuple[Item, ...]
    history: tuple[Item, ...] = ()
    instructions: str = ""
    system_prompt: SystemPrompt = "message"
    tools: tuple[Tool, ...] = ()
    options: Options = Options()
    conversation: str = ""  # the caller's pin: free text, or an id of ours
    after: str = ""  # the turn which this one comes after, if the caller says so; then `input` is all that is told
    receipt: Mapping[str, Any] | None = None  # the protocol's own words, kept for when the caller asks for it by its id
    background: bool = False  # it runs without its caller, who may come to hear it later, from any point on
    signals: Signals = Signals()
    mode: Mode = "auto"
    principal: Principal = Principal()
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


TEXT_FILES = frozenset({"text/*"})
"""What any agent can be told, in words."""

# --- who answers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Skill:
    """Something that an agent can do, told to whoever may use it: nothing here is secret."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as its backend describes it. `created` is in seconds since 1970."""

    id: str
    name: str
    backend: str
    created: int = 0
    description: str = ""
    tags: tuple[str, ...] = ()
    skills: tuple[Skill, ...] = ()  # what it can do, by which it is found: its tools, where the backend tells them
    model: str = ""
    context_window: int | None = None
    client_tools: bool = True
    conversations: bool = True  # False: one thread, shared by everybody who talks to it
    bridged: bool = False  # of one thread, but a conversation in which the caller's tools are used is one of its own
    tools_alone: bool = True  # whether its own thread knows the caller's tools
    honours: frozenset[str] = frozenset()  # which `OPTIONS` are carried out in a conversation
    honours_alone: frozenset[str] = frozenset()  # … and which in its own thread
    reserved_tools: frozenset[str] = frozenset()  # names of its own which a caller's tool must not take
    approvals: Literal["deny", "surface"] = "deny"  # what becomes of its own tools that wait for a human's approval
    allowed_tools: tuple[str, ...] = ()  # shell patterns of those which it may run without asking
    scope: str = "user"  # what a caller must hold to use or see it
    listed: bool = True  # False: it is found by its name alone
    outlives: bool = True  # its turns go on when this process ends, for another to find out their end
    recalls: bool = False  # a branch can be made from any point of a conversation, so that no copies need be kept
    files: frozenset[str] = TEXT_FILES  # patterns of the media types it can be given
    budgets: tuple[Budget, ...] = ()  # its own, beside those of the settings
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])  # the backend's own, opaque to others


class Identity(StrEnum):
    """How a request found its conversation; shown as `x-frontdesk-identity`."""

    HEADER = "header"
    LINEAGE = "lineage"
    RESPONSE = "response"
    SEEDED = "seeded"
    STATELESS = "stateless"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation at the backend, by the backend's own id. `own`: the agent's one thread, shared by its callers."""

    id: str
    own: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as the backend keeps it: `pending` while it waits for the caller's answer, `stalled` when it has that
    but the agent failed before it went on. Either way the answer may be given (again)."""

    call_id: str
    name: str
    pending: bool
    stalled: bool = False


# --- what an agent says, as it says it ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str
    part_id: str = ""  # a change starts a new part


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    text: str
    part_id: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A fragment of the arguments. Fragments of one call follow one another; `name` is on every one of them."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolRunStarted:
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolRunFinished:
    call_id: str
    output: str
    is_error: bool = False


class StopReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, summed over every model call of the turn; `context_tokens` is the size of the last call alone."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    context_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TurnFinished:
    """The last event of a turn, exactly once."""

    stop_reason: StopReason
    usage: Usage = Usage()
    mark: str = ""  # the backend's id of the reply's last message
    condensed: bool = False  # the agent's history was shortened: what the caller had instructed may be gone from it


Event = TextDelta | ReasoningDelta | ToolCallDelta | ToolRunStarted | ToolRunFinished | TurnFinished

Batch = Sequence[Event]
"""What one read from upstream brought. An empty batch says only that the backend is alive and has taken the turn."""
