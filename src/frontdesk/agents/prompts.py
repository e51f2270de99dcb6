"""Prompts: instructions that are written anew for each turn, in order of priority, behind the agent's own."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, overload

from frontdesk.agents.context import Context
from frontdesk.agents.errors import AgentError
from frontdesk.agents.methods import Function, declared, told

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class Prompt:
    """One prompt. Lower priorities come first; of equal ones, in the order in which they were declared.

    `run` gives the text, empty for none. `scope` is what the caller must hold for the model to be told it.
    """

    run: Callable[[Context], Awaitable[str]]
    priority: int = 50
    scope: str = "user"
    function: Function | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What was decorated, called as if it were not."""
        return (self.function or self.run)(*args, **kwargs)

    @classmethod
    def of(cls, function: Function, priority: int = 50, scope: str = "user") -> "Prompt":
        """A function, or a coroutine function, as a prompt. Raises AgentError where it cannot be one."""
        given = _takes_context(function)

        async def run(context: Context) -> str:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = function(context) if given else function()
                text = await answer if inspect.isawaitable(answer) else answer
            if text is not None and not isinstance(text, str):
                raise TypeError(f"The prompt {told(function)} gave a {type(text).__name__}: it must return a text.")
            return (text or "").encode("utf-8", "replace").decode()  # without half characters

        return cls(run, priority, scope, function)


@overload
def prompt(function: Function, /) -> Prompt: ...
@overload
def prompt(*, priority: int = 50, scope: str = "user") -> Callable[[Function], Prompt]: ...
def prompt(
    function: Function | None = None, /, *, priority: int = 50, scope: str = "user"
) -> Prompt | Callable[[Function], Prompt]:
    """Have a function of nothing, or of the Context, write instructions for each turn: `@prompt`, or `@prompt(…)`.

    priority: lower ones come first.
    scope: what the caller must hold for the model to be told it.

    Functions that are no coroutines are called where the server does everything else: they must not wait for anything.
    """

    def decorate(function: Function) -> Prompt:
        return declared(function, partial(Prompt.of, priority=priority, scope=scope))

    return decorate(function) if function else decorate


def _takes_context(function: Function) -> bool:
    """Raises AgentError where it takes something else."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise AgentError(f"{told(function)} cannot be a prompt: it yields. A prompt returns its whole text.")
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    match [p.kind for p in needed if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]:
        case []:
            return False
        case [inspect.Parameter.POSITIONAL_ONLY | inspect.Parameter.POSITIONAL_OR_KEYWORD]:
            return True
        case _:
            raise AgentError(f"{told(function)} cannot be a prompt: it must take nothing, or a Context.")
