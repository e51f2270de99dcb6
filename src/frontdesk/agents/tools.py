"""Tools which the agent itself runs: typed functions, with a schema taken from their hints and docstring."""

import inspect
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import partial
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints, overload

import pydantic_ai
from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from pydantic.errors import PydanticUserError
from pydantic_ai.exceptions import UserError
from pydantic_ai.tools import ToolDefinition
from pydantic_core import SchemaValidator

from frontdesk.agents.authors import contained
from frontdesk.agents.context import Context, context
from frontdesk.agents.errors import AgentError
from frontdesk.agents.methods import Function, Method, declared, plain, told

TIMEOUT_SECONDS = 60.0

THREADS = 100
"""Tools that are no coroutines run in threads, at most so many at once. One that has run out of time keeps its thread
until it returns; it never takes those of the server."""

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_places = RunVar[CapacityLimiter]("frontdesk.agents.tools")


@dataclass(frozen=True, eq=False)
class Tool:
    """A tool of an agent's own, however it came about: a function, a method of a skill, a tool of an MCP server.

    `run` is given what `validator` made of the model's JSON. What it raises is told to the model as the tool's error;
    a GatewayError ends the turn. `scope` is what the caller must hold, both to have it listed and to have it run.
    Raises AgentError where something is not as it must be.
    """

    definition: ToolDefinition  # name, description and JSON Schema, as the model is shown them
    validator: SchemaValidator = field(repr=False)
    run: Callable[[dict[str, Any]], Awaitable[Any]] = field(repr=False)
    scope: str = "user"
    timeout_seconds: float = TIMEOUT_SECONDS
    retries: int = 1  # how often the model is asked to call again by ModelRetry; then that is told as a failure
    price: Decimal | None = None  # US dollars a call
    function: Function | None = None  # what was decorated, still callable by itself
    metadata: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise AgentError(
                f"A tool cannot be called {self.name[:100]!r}: use 1 to 64 letters, digits, _ and -. "
                '@tool(name="…") gives a function another name.'
            )
        if not 0 < self.timeout_seconds < math.inf:
            raise AgentError(
                f"The tool {self.name} cannot have timeout_seconds={self.timeout_seconds}: it must be > 0."
            )
        if self.retries < 0:
            raise AgentError(f"The tool {self.name} cannot have retries={self.retries}: 0 means none.")
        if self.price is not None and not (self.price.is_finite() and self.price >= 0):
            raise AgentError(f"The tool {self.name} cannot cost {self.price}: a price is 0 or more US dollars.")

    @property
    def name(self) -> str:
        return self.definition.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What was decorated, called as if it were not."""
        if self.function is None:
            raise TypeError(f"the tool {self.name} is no Python function; await its run({{…}})")
        return self.function(*args, **kwargs)

    @classmethod
    def of(
        cls,
        function: Function,
        *,
        name: str = "",
        description: str = "",
        scope: str = "user",
        timeout_seconds: float = TIMEOUT_SECONDS,
        retries: int = 1,
        price: Decimal | int | str | None = None,
    ) -> "Tool":
        """A function as a tool. Its parameters make the schema; those annotated `Context` are filled in, and not shown.

        Raises AgentError where that cannot be done.
        """
        shown = _shown(function)
        try:
            built = pydantic_ai.Tool(shown, takes_ctx=False, name=name or None, description=description or None)
        except (UserError, PydanticUserError) as error:
            raise AgentError(f"{told(function)} cannot be a tool: {error}") from error
        call = cast("Callable[..., Awaitable[Any]]", built.function_schema.call)
        return cls(
            definition=built.tool_def,
            validator=built.function_schema.validator,
            run=lambda arguments: call(arguments, None),
            scope=scope,
            timeout_seconds=timeout_seconds,
            retries=retries,
            price=dollars(price),
            function=function,
        )


@overload
def tool(function: Function, /) -> Tool: ...
@overload
def tool(
    *,
    name: str = "",
    description: str = "",
    scope: str = "user",
    timeout_seconds: float = TIMEOUT_SECONDS,
    retries: int = 1,
    price: Decimal | int | str | None = None,
) -> Callable[[Function], Tool]: ...
def tool(function: Function | None = None, /, **options: Any) -> Tool | Callable[[Function], Tool]:
    """Make a function, or a method of an agent or a skill, a tool: `@tool`, or with any of its options `@tool(…)`.

    name: how the model calls it; the function's, if left out.
    description: what it is for; the docstring, if left out. The docstring's words on parameters go into the schema.
    scope: what the caller must hold.
    timeout_seconds: how long a call may take. Then the model is told that it took too long.
    retries: how often the model is asked to call again by ModelRetry. It may always mend arguments that do not fit.
    price: what a call costs, in US dollars, such as "0.002".
    """

    def decorate(function: Function) -> Tool:
        return declared(function, partial(Tool.of, **options))

    return decorate(function) if function else decorate


def tools_of(given: Sequence[Any], owner: str) -> list[Tool]:
    """What an author has listed as tools, as tools. Raises AgentError for what cannot be one."""
    return [_tool_of(each, owner) for each in given]


def _tool_of(given: Any, owner: str) -> Tool:
    match given:
        case Tool():
            return given
        case Method():
            raise AgentError(
                f"{owner} lists {told(given.function)}, which is a method: give the one of an object, or list a skill."
            )
        case pydantic_ai.Tool():
            raise AgentError(
                f"{owner} lists a tool of Pydantic AI, {given.name}: give its function, or serve the whole "
                'pydantic_ai.Agent with Agent("name", engine=…).'
            )
        case _ if callable(given) and not isinstance(given, type):
            return Tool.of(given)
        case _:
            raise AgentError(
                f"{owner} lists {given!r:.100} as a tool. Tools are functions, or what @tool made of them."
            )


def dollars(price: object) -> Decimal | None:
    """A price as it was written. A float is refused: 0.1 is not a tenth."""
    if price is None or isinstance(price, Decimal):
        return price
    if isinstance(price, bool) or not isinstance(price, int | str):
        raise AgentError(
            f'A price is a text, such as price="0.002", or a whole number or a Decimal, not {price!r:.50}.'
        )
    try:
        return Decimal(price)
    except InvalidOperation:
        raise AgentError(f'{price!r:.50} is no price. Write it in US dollars, such as price="0.002".') from None


def _shown(function: Function) -> Callable[..., Awaitable[Any]]:
    """A coroutine function that does the same, with only those parameters which the model fills in."""
    inner = plain(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise AgentError(f"{told(function)} cannot be a tool: it yields. A tool returns its whole result.")
    hints = hints_of(inner)
    _refuse_run_context(function, hints)
    signature = inspect.signature(function)
    contexts = [name for name in signature.parameters if is_context(hints.get(name))]
    call = _with_contexts(function, signature, contexts) if contexts else function
    run = call if inspect.iscoroutinefunction(inner) else partial(in_thread, call)

    async def shown(*args: Any, **kwargs: Any) -> Any:
        return await run(*args, **kwargs)

    told_as = cast("Any", shown)
    told_as.__name__ = inner.__name__ if inspect.isroutine(function) else _name_of(function)
    told_as.__qualname__, told_as.__module__ = inner.__qualname__, inner.__module__
    told_as.__doc__ = inspect.getdoc(inner)
    told_as.__annotations__ = {name: hint for name, hint in hints.items() if name not in contexts}
    told_as.__signature__ = signature.replace(
        parameters=[
            parameter.replace(annotation=hints.get(name, parameter.annotation))
            for name, parameter in signature.parameters.items()
            if name not in contexts
        ]
    )
    return shown


def _name_of(function: Function) -> str:
    """Of a partial, its function's name; of an object that can be called, its class's, as a function has it."""
    if isinstance(function, partial):
        return _name_of(cast("Function", function.func))
    return function.__name__ if inspect.isroutine(function) else type(function).__name__


def hints_of(function: Function) -> dict[str, Any]:
    """What its parameters are annotated with. Raises AgentError where a name in them means nothing."""
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise AgentError(
            f"The type hints of {told(function)} cannot be read: {error}. "
            "What they name must be defined in its module, outside of functions and of `if TYPE_CHECKING:`."
        ) from error


def is_context(hint: Any) -> bool:
    """Whether a parameter with this hint is to be given the turn's context: `Context`, also `Context | None`."""
    either = get_origin(hint) in (Annotated, Union, UnionType)
    return hint is Context or (either and any(is_context(each) for each in get_args(hint)))


def _refuse_run_context(function: Function, hints: Mapping[str, Any]) -> None:
    for name, hint in hints.items():
        if hint is pydantic_ai.RunContext or get_origin(hint) is pydantic_ai.RunContext:
            raise AgentError(
                f"{told(function)} takes a RunContext as {name}: annotate it with frontdesk.Context, or serve the "
                'whole pydantic_ai.Agent with Agent("name", engine=…).'
            )


def _with_contexts(function: Function, signature: inspect.Signature, contexts: Sequence[str]) -> Function:
    """The function with its parameters of type Context filled in."""
    rest = signature.replace(parameters=[p for name, p in signature.parameters.items() if name not in contexts])

    def call(*args: Any, **kwargs: Any) -> Any:
        given = rest.bind(*args, **kwargs).arguments | dict.fromkeys(contexts, context())
        in_order = {name: given[name] for name in signature.parameters if name in given}
        whole = inspect.BoundArguments(signature, cast("Any", in_order))
        return function(*whole.args, **whole.kwargs)

    return call


def quietly(function: Function, /, *args: Any, **kwargs: Any) -> Any:
    """In the thread itself, whose end would not be noticed."""
    with contained():
        return function(*args, **kwargs)


async def in_thread(function: Function, /, *args: Any, **kwargs: Any) -> Any:
    """Run it where it holds up nobody, with this turn's context. Who waits for it may give up; it then runs on."""
    try:
        places = _places.get()
    except LookupError:
        places = CapacityLimiter(THREADS)
        _places.set(places)
    call = partial(quietly, function, *args, **kwargs)
    answer = await to_thread.run_sync(call, abandon_on_cancel=True, limiter=places)
    return await answer if inspect.isawaitable(answer) else answer
