"""HTTP endpoints of an agent's own: plain markers, which the app mounts under `/agents/{name}/…`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from frontdesk.agents.errors import AgentError
from frontdesk.agents.methods import Function, declared, told

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A function that answers HTTP requests at a path below the agent's own, as FastAPI calls it.

    `path` begins with a slash and may hold parameters, `/orders/{id}`; `methods` are of METHODS. `scope` is what the
    caller must hold.
    """

    path: str
    methods: tuple[str, ...]
    scope: str
    function: Function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What was decorated, called as if it were not."""
        return self.function(*args, **kwargs)


def http(path: str, *, method: str | Sequence[str] = "get", scope: str = "user") -> Callable[[Function], Endpoint]:
    """Have a function answer HTTP requests to the agent, typed as FastAPI's are.

    path: below `/agents/{name}`, such as "/orders/{id}".
    method: one or more of get, post, put, patch, delete.
    scope: what the caller must hold.
    """
    methods = tuple(each.upper() for each in ([method] if isinstance(method, str) else method))

    def make(function: Function) -> Endpoint:
        if not path.startswith("/") or any(part in ("", ".", "..") for part in path[1:].split("/")):
            raise AgentError(f'{told(function)} cannot answer at {path!r:.100}: write a path such as "/orders/{{id}}".')
        if not methods or not set(methods) <= set(METHODS):
            raise AgentError(
                f"{told(function)} cannot answer to {' and '.join(methods) or 'nothing'}: "
                f"use one or more of {', '.join(METHODS).lower()}."
            )
        return Endpoint(path, methods, scope, function)

    return lambda function: declared(function, make)
