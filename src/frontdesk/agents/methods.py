"""Decorated functions in class bodies: each object of the class has its own, bound to it."""

from collections.abc import Callable
from functools import partial
from inspect import isroutine
from typing import Any, Generic, Self, TypeVar, cast

T = TypeVar("T")

Function = Callable[..., Any]

MADE = "_frontdesk_made"


class Method(Generic[T]):
    """A function in a class body, of which `make` makes a T (a tool, a hook …) for each object of the class."""

    def __init__(self, function: Function, make: Callable[[Function], T]) -> None:
        self.function = function
        self.make = make
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __get__(self, instance: object | None, owner: type | None = None) -> "T | Self":
        if instance is None:
            return self
        if isinstance(instance, type):  # inside of a classmethod
            return self.make(self.function.__get__(instance))
        made: dict[Method[Any], Any] = vars(instance).setdefault(MADE, {})
        if self not in made:
            made[self] = self.make(self.function.__get__(instance, owner))
        return made[self]


def declared(function: Function, make: Callable[[Function], T]) -> T:
    """What `make` gives for a function: at once, or where the function stands in a class body, for each object."""
    if isinstance(function, staticmethod):
        return make(cast("Function", function.__func__))
    return cast("T", Method(function, make)) if in_class_body(function) else make(function)


def in_class_body(function: Function) -> bool:
    """Whether it is being defined in a class body: by its qualified name, which is all that is known by then."""
    around = getattr(function, "__qualname__", "").rpartition(".")[0]
    return bool(around) and not around.endswith("<locals>") and not hasattr(function, "__self__")


def plain(function: Function) -> Function:
    """The function or method that does the work: behind partials, and of an object that can be called."""
    while isinstance(function, partial):
        function = cast("Function", function.func)
    return function if isroutine(function) else function.__call__


def told(function: Function) -> str:
    """A function as an author knows it, for messages."""
    inner = plain(function)
    return f"{inner.__module__}.{inner.__qualname__}"
