"""Agents written in Python: what they are told, what they can do, and which model they think with.

An agent is a value: no turn changes it, and a thousand turns may use it at the same time.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any, TypeGuard, TypeVar, cast

import structlog
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings

from frontdesk.agents.context import Context
from frontdesk.agents.declarations import Declarations, check_names, declarations
from frontdesk.agents.endpoints import Endpoint
from frontdesk.agents.errors import AgentError
from frontdesk.agents.handoffs import Handoff, handoff
from frontdesk.agents.hooks import EVENTS, Hook, Moment
from frontdesk.agents.prompts import Prompt
from frontdesk.agents.skill import Skill, in_order
from frontdesk.agents.tools import Tool, tools_of
from frontdesk.turn import RANKS

log = structlog.get_logger(__name__)

T = TypeVar("T")
S = TypeVar("S", bound=Skill)

Engine = AbstractAgent[Any, Any]

MAX_STEPS = 20

NAME = re.compile(r"\w([\w .-]{0,62}\w)?")

SETTINGS = frozenset(ModelSettings.__annotations__)
PROVIDERS = ("anthropic_", "bedrock_", "google_", "groq_", "mistral_", "ollama_", "openai_", "openrouter_", "xai_")
"""How the names of those settings begin which only one provider knows."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Everything of an agent and of its skills.

    `tools` are those which do not change; `now()` gives what there is at this moment, with what skills have found.
    """

    tools: tuple[Tool, ...]
    hooks: Mapping[type[Moment], tuple[Hook, ...]]  # by priority
    prompts: tuple[Prompt, ...]  # by priority
    endpoints: tuple[Endpoint, ...]
    handoffs: tuple[Handoff, ...]
    skills: tuple[Skill, ...]  # those which others require, first

    @property
    def has_tools(self) -> bool:
        """Whether there are tools, or skills that may find some."""
        return bool(self.tools or self._finding)

    def now(self) -> Sequence[Tool]:
        """The tools to offer to the next model call. Of two with one name the first counts: what a skill has found,
        at a server say, never takes the place of what is declared."""
        if not self._finding:
            return self.tools
        offered = {tool.name: tool for tool in self.tools}
        taken = {*offered, *(handoff.tool_name for handoff in self.handoffs)}
        for tool in (tool for skill in self._finding for tool in skill.tools()):
            if tool.name not in taken:
                offered[tool.name] = tool
                taken.add(tool.name)
            elif tool is not offered.get(tool.name) and tool.name not in self._hidden:
                self._hidden.add(tool.name)
                log.warning("a tool is left out, for another one has its name", tool=tool.name)
        return tuple(offered.values())

    @cached_property
    def _finding(self) -> tuple[Skill, ...]:
        return tuple(skill for skill in self.skills if finds_tools(skill))

    @cached_property
    def _hidden(self) -> set[str]:
        """Names of which it has been said already that they are left out."""
        return set()


class Agent:
    """An agent. Give it everything as arguments, or derive a class and decorate methods, or both.

    name: by which callers know it: 1 to 64 letters, digits, spaces, and . _ -
    model: `provider/model`, or a model of Pydantic AI, or several: the second if the first fails, and so on.
    instructions: what it is told before everything else. Callers never see them.
    description: what it is for. Callers see it.
    tools: functions, or what `@tool` made of them.
    skills, hooks, prompts, endpoints: more of what it can do.
    handoffs: agents, or names of agents, or `handoff(…)`, to which it may hand the turn over.
    scope: what a caller must hold to see and to use it.
    api_key, base_url: for the provider of the first model; else as the server is set up.
    settings: for the model, such as `{"temperature": 0.2}`; what a request asks for goes first.
    fallbacks: more models, for when the first fails.
    max_steps: model calls in a turn. A turn that would need more ends with `finish_reason: "length"`.
    engine: a `pydantic_ai.Agent`, to be served as it is; with `deps`, which makes its dependencies for a turn.
    durable: whether its turns go on in another process when theirs has died, by DBOS.

    Raises AgentError, with a sentence that says what mends it.
    """

    name: str = ""
    model: str | Model | Sequence[str | Model] = ""
    instructions: str = ""
    description: str = ""
    tags: Sequence[str] = ()
    tools: Sequence[Any] = ()
    skills: Sequence[Skill] = ()
    hooks: Sequence[Hook] = ()
    prompts: Sequence[Any] = ()
    endpoints: Sequence[Endpoint] = ()
    handoffs: "Sequence[Handoff | Agent | str]" = ()
    scope: str = "user"
    api_key: str = ""
    base_url: str = ""
    settings: ModelSettings | None = None
    fallbacks: Sequence[str | Model] = ()
    max_steps: int = MAX_STEPS
    engine: Engine | None = None
    deps: Callable[[Context], Any] | None = None
    durable: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_names(cls, (*Agent.__annotations__, "models", "parts", "skill"))

    def __init__(
        self,
        name: str | None = None,
        *,
        model: str | Model | Sequence[str | Model] | None = None,
        instructions: str | None = None,
        description: str | None = None,
        tags: Sequence[str] | None = None,
        tools: Sequence[Any] | None = None,
        skills: Sequence[Skill] | None = None,
        hooks: Sequence[Hook] | None = None,
        prompts: Sequence[Any] | None = None,
        endpoints: Sequence[Endpoint] | None = None,
        handoffs: "Sequence[Handoff | Agent | str] | None" = None,
        scope: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        settings: ModelSettings | None = None,
        fallbacks: Sequence[str | Model] | None = None,
        max_steps: int | None = None,
        engine: Engine | None = None,
        deps: Callable[[Context], Any] | None = None,
        durable: bool | None = None,
    ) -> None:
        given = {key: value for key, value in locals().items() if key in Agent.__annotations__ and value is not None}
        vars(self).update(given)
        if not self.name and self.engine is not None and self.engine.name:
            self.name = self.engine.name
        self._check()
        for skill in self.parts.skills:
            skill.join(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    @cached_property
    def models(self) -> tuple[str | Model, ...]:
        """The first, then those to fall back to. Empty where the engine brings its own."""
        first = (self.model,) if isinstance(self.model, str | Model) else tuple(self.model)
        return tuple(each for each in (*first, *self.fallbacks) if each != "")

    @cached_property
    def parts(self) -> Parts:
        """What it can do, with what its skills can do."""
        skills = in_order(self._all("skills", Skill), self.name)
        own = declarations(self)
        declared = [
            Declarations(
                tools=(*tools_of(self._listed("tools"), self.name), *own.tools),
                hooks=(*self._all("hooks", Hook), *own.hooks),
                prompts=(*map(_prompt, self._listed("prompts")), *own.prompts),
                endpoints=(*self._all("endpoints", Endpoint), *own.endpoints),
                handoffs=(*map(_handoff, self._listed("handoffs")), *own.handoffs),
            ),
            *(_unchanging(skill) for skill in skills),
        ]
        hooks = sorted(_once(declared, "hooks", Hook), key=lambda each: each.priority)
        parts = Parts(
            tools=_once(declared, "tools", Tool),
            hooks={
                event: found
                for event in EVENTS.values()
                if (found := tuple(each for each in hooks if each.event is event))
            },
            prompts=tuple(sorted(_once(declared, "prompts", Prompt), key=lambda each: each.priority)),
            endpoints=_once(declared, "endpoints", Endpoint),
            handoffs=_once(declared, "handoffs", Handoff),
            skills=skills,
        )
        self._check_distinct(parts)
        return parts

    def skill(self, kind: type[S]) -> S:
        """Its skill of this kind, the first of several. Raises AgentError if it has none."""
        for each in self.parts.skills:
            if isinstance(each, kind):
                return each
        raise AgentError(f"{self.name} has no skill {kind.__name__}: add it to the agent's skills.")

    # --- is it as it must be? --------------------------------------------------------------------------------------

    def _check(self) -> None:
        self._check_name()
        self._check_models()
        self._check_durable()
        if not isinstance(cast("Any", self.instructions), str):
            raise AgentError(f"The instructions of {self.name} must be a text. What changes is for a @prompt.")
        if not isinstance(cast("Any", self.max_steps), int) or self.max_steps < 1:
            raise AgentError(f"{self.name} cannot have max_steps={self.max_steps!r:.50}: it must be 1 or more.")
        self._all("tags", str)
        unknown = [key for key in self.settings or {} if key not in SETTINGS and not key.startswith(PROVIDERS)]
        if unknown:
            raise AgentError(
                f"{self.name} has settings that no model knows: {', '.join(unknown)}. "
                f"There are {', '.join(sorted(SETTINGS))}, and such as begin with a provider's name."
            )

    def _check_name(self) -> None:
        name = cast("Any", self.name)
        if not name:
            raise AgentError(f'{type(self).__name__} has no name: give it one, such as Agent("weather", …).')
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise AgentError(
                f"An agent cannot be called {name!r:.100}: use 1 to 64 letters, digits, spaces, and . _ - "
                "with a letter or a digit at each end."
            )

    def _check_models(self) -> None:
        from frontdesk.agents.models import check

        if self.engine is not None and not is_engine(cast("object", self.engine)):
            raise AgentError(f"The engine of {self.name} must be a pydantic_ai.Agent, not {self.engine!r:.100}.")
        if not self.models and self.engine is None:
            raise AgentError(f'{self.name} has no model: give it one, such as model="openai/gpt-5-mini".')
        for model in self.models:
            if isinstance(model, str):
                check(model)
            elif not isinstance(cast("Any", model), Model):
                raise AgentError(f'{self.name} has {model!r:.100} as a model: write "provider/model".')

    def _check_durable(self) -> None:
        if not self.durable:
            return
        if find_spec("dbos") is None:
            raise AgentError(f"{self.name} is durable, which needs DBOS: pip install 'frontdesk[dbos]'")
        if self.engine is not None:
            raise AgentError(
                f"{self.name} cannot be durable with an engine of its own: give it the model, the instructions and the "
                "tools instead."
            )

    def _check_distinct(self, parts: Parts) -> None:
        count = Counter([*(each.name for each in parts.tools), *(each.tool_name for each in parts.handoffs)])
        for name, times in count.items():
            if times > 1:
                raise AgentError(
                    f"{self.name} has {times} tools that are called {name}: give each its own name. "
                    '@tool(name="…") gives a function another one.'
                )
        routes = Counter((method, each.path) for each in parts.endpoints for method in each.methods)
        for (method, path), times in routes.items():
            if times > 1:
                raise AgentError(f"{self.name} has {times} endpoints for {method} {path}: give each its own path.")

    def _listed(self, field: str) -> Sequence[Any]:
        value = getattr(self, field)
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise AgentError(f"The {field} of {self.name} must be a list, such as {field}=[…], not {value!r:.100}.")
        return tuple(cast("Iterable[Any]", value))

    def _all(self, field: str, kind: type[T]) -> list[T]:
        """What is listed there, where all must be of one kind."""
        for each in (listed := list(self._listed(field))):
            if isinstance(each, kind):
                continue
            mend = f"write {each.__name__}()" if isinstance(each, type) and issubclass(each, kind) else MEND[kind]
            raise AgentError(f"{self.name} lists {each!r:.100} among its {field}: {mend}.")
        return listed


MEND: Mapping[type, str] = {
    Skill: "a skill is an object of a class derived from Skill",
    Hook: '@hook("…") makes one of a function',
    Endpoint: '@http("/…") makes one of a function',
    str: "each must be a text",
}


def finds_tools(skill: Skill) -> bool:
    """Whether it says itself, again and again, which tools it has."""
    return type(skill).tools is not Skill.tools


def _unchanging(skill: Skill) -> Declarations:
    return replace(declarations(skill), tools=()) if finds_tools(skill) else declarations(skill)


def _prompt(given: Any) -> Prompt:
    if isinstance(given, Prompt):
        return given
    if not callable(given):
        raise AgentError(f"{given!r:.100} is no prompt: @prompt makes one of a function. Fixed text is `instructions`.")
    return Prompt.of(given)


def _handoff(given: Any) -> Handoff:
    if isinstance(given, Handoff):
        return given
    if not isinstance(given, str | Agent):
        raise AgentError(f"{given!r:.100} is no handoff: list an agent, the name of one, or handoff(to=…).")
    return handoff(given)


def _once(declared: Sequence[Declarations], field: str, kind: type[T]) -> tuple[T, ...]:
    """All of a kind, each once, in the order in which they were declared."""
    return tuple(dict.fromkeys(each for some in declared for each in cast("tuple[T, ...]", getattr(some, field))))


def is_engine(value: object) -> TypeGuard[Engine]:
    """Whether it is a plain agent of Pydantic AI."""
    return isinstance(value, AbstractAgent)


def wrapped(engine: Engine, name: str) -> Agent:
    """A plain agent of Pydantic AI as one of ours, under its own name or else this one. Raises AgentError."""
    if not engine.name and not name:
        raise AgentError('an agent of Pydantic AI has no name: pydantic_ai.Agent(…, name="…") gives it one.')
    return Agent(engine.name or name, engine=engine)


def reachable(agent: Agent) -> list[Agent]:
    """The agent, and those to which the turn may go from it that it holds itself, each once."""
    found, open_ends = dict[Agent, None](), [agent]
    while open_ends:
        if (here := open_ends.pop()) not in found:
            found[here] = None
            open_ends += [each.target for each in here.parts.handoffs if isinstance(each.target, Agent)]
    return list(found)


def check_scopes(agent: Agent, known: Collection[str]) -> None:
    """Raises AgentError if the agent asks for a scope that is neither one of the ranks nor `known`."""
    for what, scope in _scopes(agent):
        if scope not in RANKS and scope not in known:
            raise AgentError(
                f"{what} asks for the scope {scope!r:.100}, which is not known. Use {', '.join(RANKS)}, "
                "or name it in `scopes` (FRONTDESK_SCOPES)."
            )


def _scopes(agent: Agent) -> Iterator[tuple[str, str]]:
    """Each scope that is asked for, and by what."""
    for each in reachable(agent):
        name, parts = each.name, each.parts
        yield f"The agent {name}", each.scope
        yield from ((f"The tool {tool.name} of {name}", tool.scope) for tool in parts.tools)
        yield from ((f"The prompt {_told(prompt)} of {name}", prompt.scope) for prompt in parts.prompts)
        yield from ((f"The endpoint {endpoint.path} of {name}", endpoint.scope) for endpoint in parts.endpoints)
        yield from ((f"The handoff of {name} to {handoff.name}", handoff.scope) for handoff in parts.handoffs)
        for skill in parts.skills:
            told = f"skill {skill.name or type(skill).__name__} of {name}"
            yield from ((f"The tool {tool.name} of the {told}", tool.scope) for tool in declarations(skill).tools)
            if isinstance(scope := getattr(skill, "scope", None), str):  # of tools which it will find
                yield f"The {told}", scope


def _told(prompt: Prompt) -> str:
    return getattr(prompt.function, "__name__", "")
