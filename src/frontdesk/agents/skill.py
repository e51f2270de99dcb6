"""Skills: tools, hooks, prompts, endpoints and handoffs that belong together, for any agent to have."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from frontdesk.agents.declarations import check_names, declarations
from frontdesk.agents.errors import AgentError
from frontdesk.agents.services import Services
from frontdesk.agents.tools import Tool

if TYPE_CHECKING:
    from frontdesk.agents.agent import Agent


class Skill:
    """Derive from it, and decorate methods.

    One skill may serve several agents, and many turns at once: what belongs to a turn is in `context()`, never on the
    skill. `requires` are skills which an agent that has this one must have too.
    """

    name: str = ""
    requires: "ClassVar[tuple[type[Skill], ...]]" = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_names(cls, ("name", "requires", "tools", "join", "lifespan"))

    def tools(self) -> Sequence[Tool]:
        """Its tools at this moment, asked before every model call: the decorated ones, unless this is overridden."""
        return declarations(self).tools

    def join(self, agent: "Agent") -> None:
        """Told of each agent that has this skill, when that is made, after the skills which this one requires:
        `agent.skill(Memory)` gives one of those."""

    @asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncGenerator[None]:
        """What it holds open while the app serves, once for all its agents; entered and left in one task."""
        yield


def in_order(skills: Sequence[Skill], owner: str) -> tuple[Skill, ...]:
    """Those which others require, first. Raises AgentError for one that is missing, and for circles."""
    done: list[Skill] = []
    for skill in skills:
        _place(skill, skills, owner, done, ())
    return tuple(done)


def _place(skill: Skill, skills: Sequence[Skill], owner: str, done: list[Skill], path: tuple[Skill, ...]) -> None:
    if any(each is skill for each in path):
        circle = " → ".join(type(each).__name__ for each in (*path, skill))
        raise AgentError(f"The skills of {owner} require each other in a circle: {circle}. One must do without.")
    if any(each is skill for each in done):
        return
    for needed in skill.requires:
        found = [each for each in skills if isinstance(each, needed) and each is not skill]
        if not found:
            raise AgentError(
                f"The skill {type(skill).__name__} of {owner} requires {needed.__name__}: add it to the agent's skills."
            )
        for each in found:
            _place(each, skills, owner, done, (*path, skill))
    done.append(skill)
