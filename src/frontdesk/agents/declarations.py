"""What the objects of a class declare by decorated methods, and by tools, hooks … among their attributes."""

import inspect
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from typing import Any, cast

from frontdesk.agents.endpoints import Endpoint
from frontdesk.agents.errors import AgentError
from frontdesk.agents.handoffs import Handoff
from frontdesk.agents.hooks import Hook
from frontdesk.agents.methods import Method
from frontdesk.agents.prompts import Prompt
from frontdesk.agents.tools import Tool

KINDS = {"tools": Tool, "hooks": Hook, "prompts": Prompt, "endpoints": Endpoint, "handoffs": Handoff}

MINE = "_frontdesk_declarations"


@dataclass(frozen=True)
class Declarations:
    """In the order in which they stand in the class, those of its bases first."""

    tools: tuple[Tool, ...] = ()
    hooks: tuple[Hook, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    handoffs: tuple[Handoff, ...] = ()


def declarations(owner: object) -> Declarations:
    """Those of an object. Looked for once: what it is given later is not among them."""
    if MINE not in vars(owner):
        found = list(dict.fromkeys(_found(owner)))
        by_kind = {
            each.name: tuple(x for x in found if isinstance(x, KINDS[each.name])) for each in fields(Declarations)
        }
        vars(owner)[MINE] = Declarations(**cast("dict[str, Any]", by_kind))
    return cast("Declarations", vars(owner)[MINE])


def _found(owner: object) -> Iterator[object]:
    classes = reversed(type(owner).__mro__)
    for name in dict.fromkeys([*(name for each in classes for name in vars(each)), *list(vars(owner))]):
        if isinstance(value := _value(owner, name), tuple(KINDS.values())):
            yield value


def _value(owner: object, name: str) -> object:
    """An attribute, where no property has to be run for it."""
    value: object = inspect.getattr_static(owner, name)
    if isinstance(value, Method | classmethod):
        return getattr(owner, name)
    if isinstance(value, staticmethod):
        inner = cast("Any", value).__func__
        return cast("Method[Any]", inner).make(inner.function) if isinstance(inner, Method) else inner
    return value


def check_names(owner: type, reserved: Collection[str]) -> None:
    """Raises AgentError if a class uses one of our names for a decorated method."""
    for name, value in vars(owner).items():
        if name in reserved and isinstance(value, Method):
            raise AgentError(
                f"{owner.__name__}.{name} is decorated, but {name!r} has a meaning of its own here. Rename the method; "
                f'@tool(name="{name}") still shows it to the model under this name.'
            )
