"""Agents, and what belongs to them, by import path: `module`, or `module:attribute`."""

import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard, cast

from frontdesk.agents.agent import Agent, is_engine, wrapped
from frontdesk.agents.errors import AgentError

PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?")
LIBRARIES = (
    *(sysconfig.get_path(each) for each in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parents[1]),
)


def load_agents(path: str) -> list[Agent]:
    """The agents at an import path.

    `module:attribute` is an Agent, a class of agents, a pydantic_ai.Agent, several of these in a list, a tuple or a
    mapping by name, or a function of no arguments that gives one of these. `module` alone means every agent there.
    Raises AgentError, naming the path.
    """
    value = load(path)
    try:
        found = _in_module(value) if isinstance(value, ModuleType) else _in_value(value, _last(path))
        agents = list(dict.fromkeys(found))
    except AgentError as error:
        raise AgentError(f"{path}: {error}") from error
    if not agents:
        raise AgentError(f"{path}: there is no agent. Name one that is, as module:attribute.")
    return agents


def load(path: str) -> Any:
    """What is at an import path. The working directory counts as a place for modules. Raises AgentError."""
    if not PATH.fullmatch(path) or path.partition(":")[0].endswith(".py"):
        raise AgentError(
            f"{path!r:.200} is no import path. Write module:attribute, with dots between packages, and without `.py`."
        )
    module, _, attribute = path.partition(":")
    found: Any = _import(module, path)
    for name in attribute.split(".") if attribute else ():
        if not hasattr(found, name):
            there = ", ".join([each for each in dir(found) if not each.startswith("_")][:20])
            raise AgentError(f"{path}: there is no {name!r} in it. There is: {there or 'nothing'}.")
        found = getattr(found, name)
    return found


def _import(module: str, path: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise AgentError(
                f"{path}: there is no module {error.name!r}. It is looked for in {here}, and among what is installed."
            ) from error
        raise AgentError(f"{path}: its module needs {error.name!r}, which is not installed{_place(error)}.") from error
    except AgentError as error:
        raise AgentError(f"{path}: {error}{_place(error)}") from error
    except SyntaxError as error:  # which tells the place itself
        raise AgentError(f"{path}: its module cannot be imported: {type(error).__name__}: {error}") from error
    except (Exception, SystemExit) as error:
        told = f"{type(error).__name__}: {error}{_place(error)}"
        raise AgentError(f"{path}: its module cannot be imported: {told}") from error


def _place(error: BaseException) -> str:
    """` (my_agents.py, line 3)`: the last line of the author's own code on the way to an error, or nothing."""
    own = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(("<", *LIBRARIES))
    ]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _last(path: str) -> str:
    return re.split(r"[.:]", path)[-1]


def _in_module(module: ModuleType) -> Iterator[Agent]:
    """Its agents; such classes of its own of which it holds no object; and engines which no agent of it has."""
    values: dict[str, Any] = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    agents = [value for value in values.values() if isinstance(value, Agent)]
    yield from agents
    used = [agent.engine for agent in agents]
    for name, value in values.items():
        if is_engine(value) and not any(value is each for each in used):
            yield wrapped(value, name)
        elif _is_class_of(value, module) and not any(isinstance(agent, value) for agent in agents):
            yield _made(value)


def _is_class_of(value: object, module: ModuleType) -> TypeGuard[type[Agent]]:
    """Whether it is a class of agents that the module defines, and that can be made: one with a name."""
    return (
        isinstance(value, type)
        and issubclass(value, Agent)
        and value.__module__ == module.__name__
        and bool(value.name)
    )


def _in_value(value: object, name: str) -> Iterator[Agent]:
    match value:
        case Agent():
            yield value
        case _ if is_engine(value):
            yield wrapped(value, name)
        case type() if issubclass(value, Agent):
            yield _made(value)
        case Mapping():
            for key, each in cast("Mapping[object, object]", value).items():
                yield from _under(str(key), each)
        case Sequence() if not isinstance(value, str | bytes):
            for each in cast("Sequence[object]", value):
                yield from _in_value(each, "")
        case _ if inspect.isroutine(value):
            yield from _in_value(_called(value), name)
        case _:
            raise AgentError(
                f"it is {value!r:.100}, which is no agent. It may be an Agent, a pydantic_ai.Agent, a list of "
                "them, or a function of no arguments that gives them."
            )


def _under(key: str, value: object) -> Iterator[Agent]:
    """What a mapping has under a name."""
    for agent in _in_value(value, key):
        if agent.name != key:
            raise AgentError(f"it has an agent called {agent.name!r} under the name {key!r}. Give it one name.")
        yield agent


def _made(kind: type[Agent]) -> Agent:
    return cast("Agent", _called(kind))


def _called(function: Any) -> object:
    try:
        inspect.signature(function).bind()
    except TypeError:
        raise AgentError(f"{function.__name__} takes arguments. It must be callable without any.") from None
    if inspect.iscoroutinefunction(function):
        raise AgentError(f"{function.__name__} is a coroutine function. A plain one can give agents.")
    try:
        return function()
    except AgentError:
        raise
    except Exception as error:
        raise AgentError(f"{function.__name__}() failed: {type(error).__name__}: {error}") from error
