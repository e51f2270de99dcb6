"""The tools of a turn, as Pydantic AI's toolsets: the agent's own, which run here, and those which end the step.

Whether a caller may use a tool is looked at when it is listed, and again when it runs.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
from pydantic_ai.exceptions import ApprovalRequired, ModelRetry, ToolFailed
from pydantic_ai.messages import ToolReturnPart
from pydantic_ai.tools import RunContext, ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ExternalToolset, ToolsetTool

from frontdesk.agents.agent import Parts
from frontdesk.agents.authors import contained
from frontdesk.agents.context import Context
from frontdesk.agents.handoffs import Handoff
from frontdesk.agents.hooks import AfterToolCall, BeforeToolCall
from frontdesk.agents.tools import Tool
from frontdesk.backends.python.hooks import called
from frontdesk.backends.python.outputs import tellable, text
from frontdesk.errors import GatewayError
from frontdesk.turn import Tool as CallersTool

log = structlog.get_logger(__name__)

UNBOUNDED = 1_000_000
"""What an engine allows of wrong calls: they end with the steps of the turn, and discard no answer."""

MOST_CALLS = 128
"""In one step."""

MOST_SAID = 2000
"""Characters of an exception."""

Once = Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Does something under a name, and keeps what it gave or raised: it is not done again when the turn begins anew."""


@dataclass(frozen=True)
class Ran:
    """The calls of the agent's own tools in a turn, by their ids: which have begun, and what they gave. So what has had
    its effect is known, also where the step was cut short."""

    begun: set[str]
    outputs: dict[str, ToolReturnPart]


class OwnTools(AbstractToolset[Any]):
    """The agent's own tools, as one caller may use them. `taken`: names which the caller's tools have in this turn.

    Where there is `once`, they run through it.
    """

    def __init__(
        self,
        parts: Parts,
        context: Context,
        taken: Collection[str],
        ran: Ran,
        once: Once | None = None,
    ) -> None:
        self._parts = parts
        self._context = context
        self._taken = taken
        self._ran = ran
        self._once = once
        self._in_step: Counter[int] = Counter()

    @property
    def id(self) -> str | None:
        return "own"

    def _usable(self) -> dict[str, Tool]:
        found: dict[str, Tool] = {}
        for tool in self._parts.now():
            if tool.name not in self._taken and self._context.principal.holds(tool.scope):
                found[tool.name] = tool
        return found

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        return {
            name: ToolsetTool(
                toolset=self, tool_def=tool.definition, max_retries=UNBOUNDED, args_validator=tool.validator
            )
            for name, tool in self._usable().items()
        }

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        own = self._usable().get(name)
        if own is None:
            raise ToolFailed(f"There is no tool {name!r} for this caller.")
        number = ctx.tool_call_id or ""
        self._in_step[ctx.run_step] += 1
        if self._in_step[ctx.run_step] > MOST_CALLS:
            raise ToolFailed(f"No more than {MOST_CALLS} calls are run in one step.")
        self._ran.begun.add(number)
        run = partial(self._run, own, number, tool_args, ctx.retry)
        try:
            output = await (self._once(name, run) if self._once else run())
        except ToolFailed as error:
            self._ran.outputs[number] = ToolReturnPart(name, error.message, number, outcome="failed")
            raise
        self._ran.outputs[number] = ToolReturnPart(name, output, number)
        return output

    async def _run(self, tool: Tool, number: str, arguments: dict[str, Any], retries: int) -> Any:
        """Raises ToolFailed, ModelRetry, GatewayError."""
        hooks = self._parts.hooks
        before = await called(hooks, BeforeToolCall(number, tool.name, arguments))
        if tool.price and self._context.hold:
            await self._context.hold.call_tool(tool.price)
        failed: ToolFailed | None = None
        output: Any = None
        limit = asyncio.timeout(tool.timeout_seconds)
        try:
            async with limit:
                with contained():
                    output = tellable(await tool.run(before.arguments))
        except ToolFailed as error:
            failed = ToolFailed(text(error.message))
        except ModelRetry as error:
            failed = ToolFailed(text(error.message))
            if retries < tool.retries:
                raise ModelRetry(failed.message) from error
        except (GatewayError, ApprovalRequired):
            raise
        except Exception as error:
            log.warning("a tool failed", tool=tool.name, error=repr(error)[:MOST_SAID])
            failed = ToolFailed(what_of(error, tool, late=limit.expired()))
        told = failed.message if failed else output
        after = await called(hooks, AfterToolCall(number, tool.name, before.arguments, told, failed is not None))
        if failed:
            raise failed if after.output == failed.message else ToolFailed(str(after.output))
        if after.output is output:
            return output
        try:
            return tellable(after.output)
        except ValueError as error:
            raise ToolFailed(what_of(error, tool, late=False)) from error


def what_of(error: Exception, tool: Tool, *, late: bool) -> str:
    """What the model is told of a tool that failed."""
    if late:
        return f"The tool {tool.name!r} did not answer within {tool.timeout_seconds:g} seconds."
    return text(f"{type(error).__name__}: {error}"[:MOST_SAID])


@dataclass(frozen=True)
class Lenient:
    """The caller's tools are called with whatever the model has written: it is theirs to say what is wrong with it."""

    def validate_json(self, input: str | bytes | bytearray, **_: Any) -> Any:
        return {}

    def validate_python(self, input: Any, **_: Any) -> Any:
        return {}


class StepEnders(ExternalToolset[Any]):
    """Tools which are not run in the step that calls them: the caller's, and handing over to another agent."""

    def __init__(self, definitions: Sequence[ToolDefinition]) -> None:
        super().__init__(list(definitions), id="step-enders")

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        tools = await super().get_tools(ctx)
        return {name: replace(tool, args_validator=Lenient()) for name, tool in tools.items()}


def callers(tools: Iterable[CallersTool]) -> list[ToolDefinition]:
    return [
        ToolDefinition(
            name=tool.name,
            description=tool.description or None,
            parameters_json_schema=dict(tool.parameters) or {"type": "object", "properties": {}},
            strict=tool.strict or None,
        )
        for tool in tools
    ]


def transfers(handoffs: Iterable[Handoff], context: Context, taken: Collection[str]) -> Mapping[str, Handoff]:
    """The handoffs this caller may cause, by the names of their tools."""
    usable = (each for each in handoffs if context.principal.holds(each.scope))
    return {each.tool_name: each for each in usable if each.tool_name not in taken}


def transfer_definition(name: str, handoff: Handoff) -> ToolDefinition:
    return ToolDefinition(
        name=name, description=handoff.told, parameters_json_schema={"type": "object", "properties": {}}
    )
