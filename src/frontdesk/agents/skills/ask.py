"""Asking other agents, in plain words: those of this desk, Letta's too, and others elsewhere.

    skills=[AskAgent(["Milo", "weather"])]
    skills=[AskAgent({"lawyer": Remote("https://other.example.com/v1", model="lawyer", api_key="…")})]

Only agents which the author has named are asked. What they answer is the tool's result, and what goes wrong its error.
"""

import asyncio
import hashlib
import importlib
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, cast

import httpx
import structlog
from pydantic import BaseModel, Field
from pydantic_ai.exceptions import ToolFailed

from frontdesk.agents.context import Context, context
from frontdesk.agents.errors import AgentError
from frontdesk.agents.services import Services
from frontdesk.agents.skill import Skill
from frontdesk.agents.skills import outward
from frontdesk.agents.tools import Tool
from frontdesk.errors import GatewayError
from frontdesk.ports import Desk

log = structlog.get_logger(__name__)

MAX_MESSAGE_CHARACTERS = 100_000
MAX_ANSWER_CHARACTERS = 100_000
MAX_TARGETS = 100
MAX_NAME_CHARACTERS = 64

TIMEOUT_SECONDS = 100.0
"""Less than the silence after which a turn is given up (`silence_seconds`): the model is to hear of it."""

GRACE_SECONDS = 2.0
"""So much longer the tool may take, so that it is the asked agent that is said to be slow."""

TRACE = "x-frontdesk-trace"
CONVERSATION = "x-frontdesk-conversation"

CUT_SHORT = "[The answer was cut short here.]"

# --- whom to ask -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Local:
    """An agent of this desk, by the name (or id, or alias) by which callers know it."""

    agent: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Remote:
    """An agent, or a model, behind an OpenAI-compatible API at `url`, such as `https://desk.example.com/v1`.

    The key is sent there and nowhere else. Another Frontdesk remembers what it was asked before; others do not.
    """

    url: str
    model: str = ""
    api_key: str = field(default="", repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    description: str = ""

    def __post_init__(self) -> None:
        outward.address(self.url, "a Remote agent")
        outward.headers_of(self.api_key, self.headers, "A Remote agent")


@dataclass(frozen=True, slots=True)
class A2A:
    """An agent that speaks A2A, by the URL under which its card is: `…/.well-known/agent-card.json` is added.

    The key is sent there and nowhere else.
    """

    url: str
    api_key: str = field(default="", repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    description: str = ""

    def __post_init__(self) -> None:
        outward.address(self.url, "an A2A agent")
        outward.headers_of(self.api_key, self.headers, "An A2A agent")


Target = Local | Remote | A2A


def target_of(given: Any, owner: str) -> Target:
    """What an author has written for a target: one of these, an agent or its name, or from a file a mapping."""
    if isinstance(given, Local | Remote | A2A):
        return given
    if isinstance(given, str) and given:
        return Local(given)
    if isinstance(given, Mapping):
        fields = dict(cast("Mapping[str, Any]", given))
        kind = Local if "agent" in fields else A2A if "a2a" in fields else Remote
        if "a2a" in fields:
            fields["url"] = fields.pop("a2a")
        try:
            return kind(**fields)
        except TypeError as error:
            raise AgentError(f"The target {owner!r} of AskAgent is not as it must be: {error}") from None
    if name := getattr(given, "name", ""):
        return Local(name)
    raise AgentError(
        f"The target {owner!r} of AskAgent must be the name of an agent, Remote(…) or A2A(…), not {given!r:.100}."
    )


def targets_of(given: Mapping[str, Any] | Iterable[Any]) -> dict[str, Target]:
    """The targets by the names which the model is told. Raises AgentError."""
    if isinstance(given, str):
        given = [given]
    if isinstance(given, Mapping):
        named = [(name, target_of(each, name)) for name, each in cast("Mapping[str, Any]", given).items()]
    else:
        listed = [target_of(each, str(each)[:100]) for each in given]
        named = [(each.agent, each) for each in listed if isinstance(each, Local)]
        if len(named) < len(listed):
            raise AgentError('A target elsewhere needs a name: AskAgent({"lawyer": Remote("https://…")}).')
    if not named or len(named) > MAX_TARGETS:
        raise AgentError(f"AskAgent needs at least one target, and takes up to {MAX_TARGETS}.")
    for name, _ in named:
        if not name or len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
            raise AgentError(f"A target of AskAgent cannot be called {name!r:.100}: use up to 64 characters.")
    if len(dict(named)) < len(named):
        raise AgentError("Two targets of AskAgent have the same name; give each its own.")
    return dict(named)


# --- asking them -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """`conversation` is the asking one's, empty where it is not to be remembered; `pin` stands for it elsewhere, where
    nobody is to know it. `trace` are the marks of those through whom the question has come, the asker's last."""

    message: str
    conversation: str
    pin: str
    trace: tuple[str, ...]

    @property
    def headers(self) -> dict[str, str]:
        return {TRACE: ",".join(self.trace)} | ({CONVERSATION: self.pin} if self.pin else {})


class Colleague(Protocol):
    async def ask(self, here: Context, question: Question) -> str:
        """Its answer. Raises ToolFailed, with what the model is to know, and GatewayError."""
        ...


class LocalColleague:
    def __init__(self, target: Local, desk: Desk) -> None:
        self._target = target
        self._desk = desk

    async def ask(self, here: Context, question: Question) -> str:
        trace = here.turn.signals.trace
        return await self._desk.ask(
            here.agent, self._target.agent, question.message, here.principal, question.conversation, trace
        )


class Said(BaseModel):
    content: str | None = None


class Choice(BaseModel):
    message: Said
    finish_reason: str | None = None


class Completion(BaseModel):
    """What is read of an answer."""

    choices: list[Choice] = Field(min_length=1)


class RemoteColleague:
    def __init__(self, target: Remote, http: httpx.AsyncClient) -> None:
        self._target = target
        self._http = http

    async def ask(self, here: Context, question: Question) -> str:
        target = self._target
        body: dict[str, Any] = {"messages": [{"role": "user", "content": question.message}]}
        if target.model:
            body["model"] = target.model
        url = f"{target.url.rstrip('/')}/chat/completions"
        response = await self._http.post(url, json=body, headers=question.headers)
        if response.status_code != 200:
            raise ToolFailed(REFUSALS.get(response.status_code, f"It answered with HTTP {response.status_code}."))
        choice = Completion.model_validate_json(response.content).choices[0]
        said = choice.message.content or ""
        return f"{said}\n\n{CUT_SHORT}" if choice.finish_reason == "length" else said


REFUSALS = {
    400: "It refused the question.",
    401: "It does not know the key that it was asked with.",
    402: "The budget there is used up.",
    403: "It may not be used with the key that it was asked with.",
    404: "There is no such agent there.",
    409: "It is busy with another question. Ask again later.",
    429: "It is busy. Ask again later.",
    503: "It is not available at the moment.",
}


# --- the skill ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Errand:
    """How many questions a turn, with those turns here which it causes, may still ask; `above` is of the one that has
    caused it."""

    left: int
    above: "Errand | None" = None

    def take(self) -> bool:
        """Whether there is one left, which is taken."""
        if self.left < 1 or (self.above and not self.above.take()):
            return False
        self.left -= 1
        return True


_errand: ContextVar[Errand | None] = ContextVar("frontdesk.agents.skills.ask", default=None)


class AskAgent(Skill):
    """A tool with which an agent asks others: `ask_agent(agent, message)`.

    targets: whom: names of agents of this desk, or a mapping from the names which the model is told to such names, or
        to `Remote(…)` and `A2A(…)`.
    max_depth: how many agents a question may have come through: with 1, whoever was asked by another asks nobody.
    max_questions: how many questions a turn may cause in all, those of the agents asked here included.
    timeout_seconds: how long an answer may take.

    An agent of this desk is asked for the same caller, who must be allowed to use it, in a conversation that belongs to
    this one: it remembers what it was asked before. No caller's key goes anywhere.
    """

    def __init__(
        self,
        targets: Mapping[str, Any] | Iterable[Any],
        *,
        max_depth: int = 3,
        max_questions: int = 10,
        timeout_seconds: float = TIMEOUT_SECONDS,
        name: str = "ask_agent",
        scope: str = "user",
    ) -> None:
        if max_depth < 1 or max_questions < 1 or timeout_seconds <= 0:
            raise AgentError("`max_depth`, `max_questions` and `timeout_seconds` of AskAgent must be more than 0.")
        self._targets = targets_of(targets)
        self._max_depth = max_depth
        self._max_questions = max_questions
        self._timeout_seconds = timeout_seconds
        self._colleagues: Mapping[str, Colleague] = {}
        self._desk: Desk | None = None
        self.name = name
        self.asking = Tool.of(
            self._function(),
            name=name,
            description=told(self._targets),
            scope=scope,
            timeout_seconds=timeout_seconds + GRACE_SECONDS,
        )

    def _function(self) -> Any:
        async def ask_agent(agent: str, message: str) -> str:
            return await self._ask(agent, message)

        ask_agent.__annotations__ = {
            "agent": Literal[tuple(self._targets)],
            "message": Annotated[str, Field(min_length=1, max_length=MAX_MESSAGE_CHARACTERS)],
            "return": str,
        }
        return ask_agent

    @asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncGenerator[None]:
        self._desk = services.desk
        async with AsyncExitStack() as stack:
            self._colleagues = {
                name: await self._colleague(name, target, stack) for name, target in self._targets.items()
            }
            try:
                yield
            finally:
                self._colleagues = {}

    async def _colleague(self, name: str, target: Target, stack: AsyncExitStack) -> Colleague:
        match target:
            case Local():
                if self._desk is None:
                    raise AgentError(f"AskAgent cannot ask {name!r}: there is no desk with other agents here.")
                return LocalColleague(target, self._desk)
            case Remote():
                return RemoteColleague(target, await stack.enter_async_context(self._http(target)))
            case A2A():
                http = await stack.enter_async_context(self._http(target))
                speaking = await asyncio.to_thread(importlib.import_module, "frontdesk.agents.skills.ask_a2a")
                colleague = speaking.A2AColleague(target.url, http)
                stack.push_async_callback(colleague.aclose)
                return colleague

    def _http(self, target: Remote | A2A) -> httpx.AsyncClient:
        headers = outward.headers_of(target.api_key, target.headers, "A target")
        return outward.client(target.url, headers, self._timeout_seconds)

    # --- a question ------------------------------------------------------------------------------------------------

    async def _ask(self, agent: str, message: str) -> str:
        """Raises ToolFailed, with what the model is to know."""
        here = context()
        colleague = self._colleagues.get(agent)
        if colleague is None:
            raise ToolFailed(f"{agent} cannot be asked now: the server is not at work.")
        if len(here.turn.signals.trace) >= self._max_depth:
            raise ToolFailed("Nobody can be asked: this question has come through too many agents already.")
        errand = self._errand(here)
        if not errand.take():
            raise ToolFailed("Nobody can be asked any more in this turn: it has caused too many questions.")
        token = _errand.set(errand)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answer = await colleague.ask(here, self._question(here, agent, message))
        except (TimeoutError, httpx.TimeoutException) as error:
            raise ToolFailed(f"{agent} did not answer within {self._timeout_seconds:g} seconds.") from error
        except ToolFailed as error:
            raise ToolFailed(f"{agent} could not be asked. {error.message}") from error
        except GatewayError as error:
            raise ToolFailed(f"{agent} could not be asked. {error.message}") from error
        except httpx.HTTPError as error:
            log.warning("an agent elsewhere cannot be asked", agent=agent, error=type(error).__name__)
            raise ToolFailed(f"{agent} cannot be reached at the moment.") from error
        except Exception as error:  # whatever comes from elsewhere, the turn goes on
            log.warning("an agent's answer cannot be read", agent=agent, error=type(error).__name__)
            raise ToolFailed(f"What {agent} answered cannot be read.") from error
        finally:
            _errand.reset(token)
        if not answer.strip():
            raise ToolFailed(f"{agent} answered nothing.")
        return outward.cut(answer, MAX_ANSWER_CHARACTERS)

    def _errand(self, here: Context) -> Errand:
        """This turn's."""
        errand = here.scratch.get(__name__)
        if not isinstance(errand, Errand):
            errand = here.scratch[__name__] = Errand(self._max_questions, _errand.get())
        return errand

    def _question(self, here: Context, agent: str, message: str) -> Question:
        conversation = "" if here.turn.mode == "stateless" else here.conversation
        pin = hashlib.sha256(f"{here.agent}\0{agent}\0{conversation}".encode()).hexdigest()[:32]
        mark = self._desk.mark(here.agent) if self._desk else "-"
        return Question(message, conversation, f"asked-{pin}" if conversation else "", (*here.turn.signals.trace, mark))


def told(targets: Mapping[str, Target]) -> str:
    """What the model is told of the tool."""
    described = [f"- {name}: {target.description}" for name, target in targets.items() if target.description]
    lines = [
        "Ask another agent in plain language, and get its answer. It knows nothing of this conversation but what you "
        "tell it, and remembers what you have asked it before in this conversation.",
        *described,
    ]
    return "\n".join(lines)


__all__: Sequence[str] = ("A2A", "AskAgent", "Local", "Remote")
