"""One turn of a Python agent: its runs, one for each agent that it is handed to, as one stream of events.

Pydantic AI loops over the calls of the model and runs the agent's own tools. What ends a run here: an answer, calls
which the caller has to run, a handoff, or the limit of steps.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Protocol, cast

from pydantic_ai import Agent as Engine
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import ContentFilterError, UsageLimitExceeded
from pydantic_ai.messages import (
    FunctionToolResultEvent,
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.run import AgentRun
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import DeferredToolRequests, RunContext
from pydantic_ai.toolsets import AbstractToolset
from pydantic_ai.usage import RunUsage, UsageLimits
from pydantic_core import to_json

from frontdesk.agents.agent import Agent
from frontdesk.agents.authors import contained
from frontdesk.agents.context import Context
from frontdesk.agents.handoffs import Handoff
from frontdesk.agents.hooks import AfterModelCall, BeforeModelCall, Chunk, HandingOver
from frontdesk.agents.models import held, settings
from frontdesk.backends.python import history
from frontdesk.backends.python.hooks import called
from frontdesk.backends.python.models import Models
from frontdesk.backends.python.silence import Silence
from frontdesk.backends.python.toolset import (
    UNBOUNDED,
    Once,
    OwnTools,
    Ran,
    StepEnders,
    callers,
    transfer_definition,
    transfers,
)
from frontdesk.backends.python.translate import Translator
from frontdesk.directory import may_use
from frontdesk.errors import InvalidRequest
from frontdesk.policies.budgets import tokens_of
from frontdesk.ports import Stretch
from frontdesk.turn import Agent as Described
from frontdesk.turn import (
    Batch,
    Event,
    StopReason,
    TextDelta,
    ToolCallDelta,
    ToolRunFinished,
    Turn,
    Usage,
)

OUTPUT_CALL = "final_result"
"""Pydantic AI's name for the call by which an agent gives its structured output."""

NOBODY = "Nobody can approve of this call here."

SPOKEN = (PartStartEvent, PartDeltaEvent)

Lookup = Callable[[str], Awaitable[Agent | None]]
"""Finds an agent which a handoff names."""


class Journal(Protocol):
    """Keeps each step of a turn when it is done, so that the turn can go on in another process."""

    @property
    def once(self) -> Once: ...

    @property
    def goes_on(self) -> bool: ...

    def engine(self, agent: Agent, model: Model) -> Engine[Any, Any]:
        """One that keeps what the model answers. Raises AgentFailed for an agent that brings its own."""
        ...

    def begin(self, course: "Course") -> None:
        """What the engine tells from here on is about this turn."""
        ...

    def tell(self, batch: Batch) -> None: ...

    def keep(self, stretch: Stretch) -> None: ...


@dataclass
class Course:
    """`messages` is the whole thread; those from `fresh` on are this turn's. It ends with `stop` set, and where the
    caller has to run tools, with those calls in `pending`: their names by their ids."""

    agent: Agent
    context: Context
    turn: Turn
    messages: list[ModelMessage]
    fresh: int
    models: Models
    described: Callable[[Agent], Described]
    find: Lookup
    silence_seconds: float
    overlay: str = ""
    journal: Journal | None = None
    stop: StopReason | None = None
    pending: dict[str, str] = field(default_factory=dict[str, str])
    spoke: bool = False
    begun: set[str] = field(default_factory=set[str])  # the calls of its own tools
    outputs: dict[str, ToolReturnPart] = field(default_factory=dict[str, ToolReturnPart])  # what they gave
    _usage: RunUsage = field(default_factory=RunUsage)
    _told: int = 0  # tokens of the conversation, as of the last call of the model
    _asked: int = 0  # … and about as many as it was last called with

    # --- what there is to keep -------------------------------------------------------------------------------------

    @property
    def new(self) -> Sequence[ModelMessage]:
        return self.messages[self.fresh :]

    def salvage(self) -> Sequence[ModelMessage]:
        """What of a turn that was cut short is to stay: its steps up to the last one in which something was done."""
        return history.closed(self.new, self.outputs) if self.acted else ()

    @property
    def acted(self) -> bool:
        """Whether a tool of the agent's own has run, or has begun to."""
        return bool(self.outputs or self.begun)

    @property
    def usage(self) -> Usage:
        return history.usage_of(self.new)

    # --- its way ---------------------------------------------------------------------------------------------------

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """What the agent says, but for the end of the turn. Raises what Pydantic AI raises, and GatewayError."""
        if self.journal:
            self.journal.begin(self)
        with Silence(self.silence_seconds) as self._silence:
            while self.stop is None:
                async with aclosing(self._run()) as run:
                    async for batch in run:
                        self.spoke = True
                        yield batch

    async def _run(self) -> AsyncGenerator[Batch, None]:
        """The turn of the agent who is at work, to its answer, or to what it cannot do alone."""
        handoffs = transfers(self.agent.parts.handoffs, self.context, self._taken)
        self._translator = translator = Translator(self._taken)
        # An answer that is itself a call leaves no other call of its step standing, and is known at its end.
        translator.streams_calls = self.agent.engine is None or self.agent.engine.output_type is str
        async with AsyncExitStack() as stack:
            run = await self._begun(handoffs, stack)
            try:
                async for node in run:
                    if Engine.is_model_request_node(node):
                        translator.step()
                    elif not Engine.is_call_tools_node(node):
                        continue
                    else:
                        await self._has_called(node.model_response, run.usage)
                        if history.is_silent(node.model_response):  # which is an answer too: nobody asks again
                            self.stop = history.stop_of([node.model_response])
                            break
                        if not node.model_response.tool_calls:  # nothing more is to be heard of this step
                            continue
                    async with (
                        node.stream(run.ctx) as stream,
                        aclosing(self._heard(self._new(stream), translator)) as events,
                    ):
                        async for event in events:
                            yield (event,)
            except UsageLimitExceeded:
                self.stop = StopReason.LENGTH
            except ContentFilterError:  # of an answer of which nothing is left
                self.stop = StopReason.CONTENT_FILTER
            finally:
                self.messages = run.all_messages()
        if run.result:
            for batch in await self._after(run.result.output, handoffs, translator.shown):
                yield batch

    async def _begun(self, handoffs: Mapping[str, Handoff], stack: AsyncExitStack) -> AgentRun[Any, Any]:
        agent, turn, context = self.agent, self.turn, self.context
        model = self.models.of(agent)
        engine = self.journal.engine(agent, model) if self.journal else agent.engine or bare()
        context.agent = agent.name
        taken = self._taken
        enders = [*callers(turn.tools), *(transfer_definition(name, each) for name, each in handoffs.items())]
        ours: list[AbstractToolset[Any]] = []  # an engine takes time for each, also where it is empty
        if agent.parts.has_tools:
            ours.append(OwnTools(agent.parts, context, taken, Ran(self.begun, self.outputs), self._once))
        if enders:
            ours.append(StepEnders(enders))
        if agent.engine and taken:
            kept = [each.filtered(lambda _, tool: tool.name not in taken) for each in engine.toolsets]
            stack.enter_context(engine.override(tools=[], toolsets=[*kept, *ours]))
        check_names(engine, taken)
        return await stack.enter_async_context(
            engine.iter(
                message_history=self.messages,
                model=model,
                output_type=[engine.output_type, DeferredToolRequests],
                instructions=await self._instructions(agent),
                deps=agent.deps(context) if agent.deps else None,
                model_settings=wishes(agent, turn, model),
                usage=self._usage,
                usage_limits=UsageLimits(request_limit=agent.max_steps),
                toolsets=ours,
                capabilities=[Watch(self)] if self._watched and not self.journal else [],
                infer_name=False,
            )
        )

    @property
    def _taken(self) -> frozenset[str]:
        """The names which the caller's tools have in this turn."""
        return frozenset(tool.name for tool in self.turn.tools)

    @property
    def _watched(self) -> bool:
        """Whether anything is to be done before the model is called: an engine takes time for each chunk then."""
        options = self.turn.options
        formed = options.format is not None and options.format.enforced
        paid = self.context.hold is not None and self.context.hold.binds
        return formed or paid or bool(options.must_call) or BeforeModelCall in self.agent.parts.hooks

    async def _heard(self, stream: AsyncIterable[Any], translator: Translator) -> AsyncGenerator[Event, None]:
        """One step of the engine, in our words. Raises AgentTimeout."""
        hooks = self.agent.parts.hooks
        listens = Chunk in hooks
        async for event in self._silence.of(stream):
            if type(event) is FunctionToolResultEvent:
                self.outputs.setdefault(event.tool_call_id, event.part)
            said = translator(event)
            if listens and type(said) is TextDelta:
                changed = await called(hooks, Chunk(said.text))
                said = replace(said, text=changed.text) if changed.text else None
            if said:
                yield said

    @property
    def _once(self) -> Once | None:
        return self.journal.once if self.journal else None

    def _new(self, stream: AsyncIterable[Any]) -> AsyncIterable[Any]:
        """What of a step has not been overheard."""
        return (event async for event in stream if type(event) not in SPOKEN) if self.journal else stream

    async def overhear(self, events: AsyncIterable[Any]) -> None:
        """The model as it speaks. Where there is a journal, its whole answer is one step, and all is over after it."""
        assert self.journal
        spoken = (event async for event in events if type(event) in SPOKEN)
        async with aclosing(self._heard(spoken, self._translator)) as heard:
            async for event in heard:
                self.spoke = True
                self.journal.tell((event,))

    async def _instructions(self, agent: Agent) -> str:
        """The agent's own, what its prompts add for this caller, and what the caller says for this turn."""
        prompts = [each for each in agent.parts.prompts if self.context.principal.holds(each.scope)]
        with contained():
            texts = [agent.instructions, *[await each.run(self.context) for each in prompts]]
        return "\n\n".join(text for text in (*texts, self.overlay) if text)

    # --- after a run -----------------------------------------------------------------------------------------------

    async def _after(self, output: Any, handoffs: Mapping[str, Handoff], shown: Collection[str]) -> Sequence[Batch]:
        """What a run has come to: an answer, calls that wait, or another agent to go on with."""
        if not isinstance(output, DeferredToolRequests):
            self.stop = history.stop_of(self.messages)
            # A plain agent's own structured output comes by a call, and nobody has seen it yet.
            return () if isinstance(output, str) else [(TextDelta(to_json(output, fallback=str).decode(), "output"),)]
        for call in output.approvals:
            history.add(self.messages, ToolReturnPart(call.tool_name, NOBODY, call.tool_call_id, outcome="denied"))
        moves = [call for call in output.calls if call.tool_name in handoffs]
        self.pending = {call.tool_call_id: call.tool_name for call in output.calls if call not in moves}
        if self.pending:
            self.stop = StopReason.TOOL_CALLS
        for call in moves[1:]:
            self._answer(call, "The conversation was handed over to another agent in the same step.")
        unseen = [call for call in output.calls if call.tool_call_id in self.pending and call.tool_call_id not in shown]
        moved = await self._moved(moves[0], handoffs[moves[0].tool_name]) if moves else ()
        return [*([tuple(whole(call) for call in unseen)] if unseen else []), *moved]

    async def _moved(self, call: ToolCallPart, handoff: Handoff) -> Sequence[Batch]:
        said, failed = await self._hand_over(handoff)
        self._answer(call, said, failed=failed)
        return [(ToolRunFinished(call.tool_call_id, said, failed),)]

    def _answer(self, call: ToolCallPart, said: str, *, failed: bool = False) -> None:
        outcome = "failed" if failed else "success"
        history.add(self.messages, ToolReturnPart(call.tool_name, said, call.tool_call_id, outcome=outcome))

    async def _hand_over(self, handoff: Handoff) -> tuple[str, bool]:
        """What the model is told of it, and whether it failed. From here on the other agent is at work."""
        target = await self.find(handoff.name) if isinstance(handoff.target, str) else handoff.target
        if target is None:
            return f"There is no agent {handoff.name!r} to hand over to.", True
        if not may_use(self.context.principal, self.described(target)):
            return f"This caller may not use {handoff.name!r}.", True
        await called(self.agent.parts.hooks, HandingOver(self.agent.name, target.name))
        if hold := self.context.hold:
            await hold.hand_over(self.described(target))
        self.agent = target
        return f"The conversation is yours now, {target.name}.", False

    # --- what it spends --------------------------------------------------------------------------------------------

    async def may_call(self, request: ModelRequestContext) -> None:
        """The model is about to be called. Raises InsufficientBudget."""
        if (hold := self.context.hold) and hold.binds:
            most = (request.model_settings or {}).get("max_tokens")
            tools = (len(str(tool.parameters_json_schema)) for tool in request.model_request_parameters.function_tools)
            self._asked = max(self._told, tokens_of([*history.sizes(request.messages), *tools]))
            await hold.call_model(self.models.name(self.agent), self._asked, most)

    async def _has_called(self, response: ModelResponse, usage: RunUsage) -> None:
        self.context.usage = history.counted(usage)
        await called(self.agent.parts.hooks, AfterModelCall(response, self.context.usage))
        if hold := self.context.hold:
            used = history.usage_of([response])
            if not used.input_tokens + used.output_tokens:  # many servers tell none: it is not free for that
                used = Usage(self._asked, tokens_of(history.sizes([response])))
            self._told = used.input_tokens + used.output_tokens
            hold.used(self.models.name(self.agent), used)


@cache
def bare() -> Engine[Any, str]:
    """The engine of all agents that bring none: whatever is theirs is handed to each run."""
    return Engine(name="frontdesk", retries={"tools": UNBOUNDED})


def check_names(engine: AbstractAgent[Any, Any], taken: Collection[str]) -> None:
    """A plain agent's structured output comes by a call. Raises InvalidRequest if its name is a caller's tool's."""
    if engine.output_type is not str and OUTPUT_CALL in taken:
        raise InvalidRequest(
            f"The name {OUTPUT_CALL!r} is that of the agent's own answer. Rename the tool.",
            param="tools",
            code="invalid_value",
        )


# --- what the engine calls ---------------------------------------------------------------------------------------


@dataclass
class Watch(AbstractCapability[Any]):
    """Stands before each call of the model: the agent's hooks, the form of the answer, what it may cost."""

    course: Course

    async def before_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        course = self.course
        hooks = course.agent.parts.hooks
        if BeforeModelCall in hooks:
            moment = await called(hooks, BeforeModelCall(tuple(request_context.messages), ctx.run_step))
            request_context = replace(request_context, messages=list(moment.messages))
        wanted = course.turn.options.format
        if wanted and wanted.enforced:
            parameters = held(request_context.model_request_parameters, wanted, request_context.model)
            request_context = replace(request_context, model_request_parameters=parameters)
        if course.turn.options.must_call:
            choice = ModelSettings(tool_choice=[tool.name for tool in course.turn.tools])
            wished = cast("ModelSettings", {**(request_context.model_settings or {}), **choice})
            request_context = replace(request_context, model_settings=wished)
        await course.may_call(request_context)
        return request_context


def whole(call: ToolCallPart) -> ToolCallDelta:
    return ToolCallDelta(call.tool_call_id, call.tool_name, call.args_as_json_str())


def wishes(agent: Agent, turn: Turn, model: Model) -> ModelSettings:
    """The agent's settings, and over them the caller's."""
    asked = {**(agent.settings or {}), **settings(turn.options, model)}
    return cast("ModelSettings", asked)
