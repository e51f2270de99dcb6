"""Calls an agent's hooks, one after the other, each with what the one before has made of it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import structlog

from frontdesk.agents.authors import contained
from frontdesk.agents.hooks import Hook, Moment
from frontdesk.errors import AgentFailed, GatewayError

log = structlog.get_logger(__name__)

M = TypeVar("M", bound=Moment)


async def called(hooks: Mapping[type[Moment], Sequence[Hook]], moment: M) -> M:
    """The moment, as the hooks have left it. Raises what a hook raises: a GatewayError as it is, all else as
    AgentFailed."""
    for hook in hooks.get(type(moment), ()):
        try:
            async with asyncio.timeout(hook.timeout_seconds):
                with contained():
                    changed: Any = await hook.run(moment)
        except Exception as error:
            if hook.on_error == "ignore":
                log.warning("a hook failed", hook=name_of(hook), error=repr(error))
                continue
            if isinstance(error, GatewayError):
                raise
            log.exception("a hook failed", hook=name_of(hook))
            raise AgentFailed(f"The agent's hook {name_of(hook)!r} failed.") from error
        if changed is None:
            continue
        if type(changed) is not type(moment):
            raise AgentFailed(f"The agent's hook {name_of(hook)!r} returned something else than it was given.")
        moment = changed
    return moment


def name_of(hook: Hook) -> str:
    return getattr(hook.function, "__name__", "hook")
