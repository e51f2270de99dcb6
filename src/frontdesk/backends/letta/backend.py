"""Letta as a backend: agents, conversations, turns.

Each turn runs in a Letta conversation (its own history, the agent's shared memory). Client tools travel with the turn,
so nothing is ever created on the server but conversations, and modern twins of older agents (see `twins`). Those have
one thread per agent, as all have on a server without conversations.

Here are conversations and the turns in them. `roster` knows the agents, `model_settings` what each conversation is set
to, `messages` what it holds, `approvals` the agent's own calls that wait for a human, `runs` what Letta makes of turns.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from frontdesk.backends.letta import encode, settings
from frontdesk.backends.letta.approvals import Approvals, shown
from frontdesk.backends.letta.blocks import Blocks
from frontdesk.backends.letta.client import LettaClient, Stream
from frontdesk.backends.letta.failures import AwaitingApproval, HeldByRun, WrongCallIds
from frontdesk.backends.letta.messages import Messages, calls_in
from frontdesk.backends.letta.model_settings import ModelSettings
from frontdesk.backends.letta.outcome import Row, added
from frontdesk.backends.letta.prompts import Prompts
from frontdesk.backends.letta.roster import Roster, is_modern, on_twin, replicas_of
from frontdesk.backends.letta.runs import Runs
from frontdesk.backends.letta.server import OWN_THREAD, LettaSettings, as_letta_speaks, conv, conversation, thread_of
from frontdesk.backends.letta.structured import repair
from frontdesk.backends.letta.translate import ServerSentEvents, Translator
from frontdesk.backends.letta.twins import Twins
from frontdesk.errors import (
    AgentFailed,
    ConnectionLost,
    ConversationBusy,
    EndpointNotFound,
    GatewayError,
    InvalidRequest,
    NotFound,
)
from frontdesk.policies.structured import checked
from frontdesk.ports import Outcome, Placement
from frontdesk.turn import (
    Agent,
    Batch,
    Call,
    Format,
    Item,
    Options,
    StopReason,
    Thread,
    ToolResult,
    ToolRun,
    Turn,
    TurnFinished,
    Usage,
)

log = structlog.get_logger(__name__)

LABEL = "Frontdesk"
LONGEST_PAUSE = 4.0
MOST_STRETCHES = 25  # of one turn, between which the agent's own calls are decided on

Recorder = Callable[[bytes], object]


class LettaBackend:
    def __init__(
        self,
        settings: LettaSettings,
        client: LettaClient,
        recorder: Callable[[str], Recorder | None] = lambda turn_id: None,
    ) -> None:
        self._settings = settings
        self._client = client
        self._recorder = recorder
        self._twins = Twins(client, kept_seconds=settings.kept_seconds)
        self._prompts = Prompts(client, settings.memory_seconds)
        self._blocks = Blocks(client)
        self._roster = Roster(settings, client)
        self._model_settings = ModelSettings(client, settings.alone)
        self._messages = Messages(client, self._roster)
        self._approvals = Approvals(settings, client, self._messages)
        self._runs = Runs(client, self._messages, self._approvals)
        self._forks = True
        self._forks_at = True
        self._waiting: set[str] = set()  # turns which Letta has refused so far

    @property
    def name(self) -> str:
        return self._settings.name

    # --- agents --------------------------------------------------------------------------------------------------

    async def agents(self) -> Sequence[Agent]:
        return await self._roster.all()

    async def find(self, name: str) -> Sequence[Agent]:
        return await self._roster.find(name)

    async def ping(self) -> str:
        return str((await self._client.get("/v1/health/")).get("version", ""))

    async def hidden(self) -> int:
        with as_letta_speaks():
            return await self._twins.count()

    # --- conversations -------------------------------------------------------------------------------------------

    async def open(self, agent: Agent, turn: Turn) -> Thread:
        if turn.mode == "single" or not (agent.bridged or self._roster.separates(agent) or replicas_of(agent)):
            return OWN_THREAD
        model = await self._model_settings.body(agent, turn.options)
        body = {"summary": LABEL} | model
        try:
            with as_letta_speaks():
                if agent.bridged or replicas_of(agent):
                    among = replicas_of(agent) or 1
                    thread = thread_of(await self._twins.open(agent.id, body, turn.id, among))
                else:
                    thread = thread_of(await self._client.post("/v1/conversations/", body, {"agent_id": agent.id}))
                self._prompts.opened(thread)
                self._model_settings.noted(thread, model)
                return thread
        except EndpointNotFound as error:
            self._roster.has_conversations = False  # a server from before conversations: each agent has one thread
            if agent.bridged or (turn.tools and not is_modern(agent)):
                raise InvalidRequest("This Letta server is too old for the caller's tools.", param="tools") from error
            return OWN_THREAD

    def _on_twin(self, agent: Agent, thread: Thread) -> bool:
        """Whether a conversation may be one of the agent's twins."""
        return on_twin(agent, thread) or (not thread.own and self._twins.has(agent.id))

    async def calls(self, agent: Agent, thread: Thread) -> Sequence[Call]:
        return await self._messages.calls(agent, thread)

    async def awaiting(self, agent: Agent, thread: Thread) -> Sequence[ToolRun]:
        return await self._approvals.awaiting(agent, thread)

    async def fork(self, agent: Agent, thread: Thread, at: str = "") -> Thread | None:
        """A new conversation with the same history: all of it, or with `at` up to and including that message.

        Messages are shared, so it costs the same however long the history is; pending calls wait in both. None where
        the server cannot do that: then nothing was made. Do not fork while a run is active: it would hold half a turn.
        """
        if not (self._roster.separates(agent) or on_twin(agent, thread)) or not self._forks:
            return None
        try:
            if at and not self._forks_at and await self._end(agent, thread) != at:
                return None
            return await self._fork(agent, thread, at)
        except EndpointNotFound:
            self._forks = False
            return None
        except (NotFound, InvalidRequest):  # the conversation is gone, or does not hold that message
            return None

    async def _fork(self, agent: Agent, thread: Thread, at: str) -> Thread | None:
        query = ({"agent_id": agent.id} if thread.own else {}) | ({"message_id": at} if at and self._forks_at else {})
        row = await self._client.post(f"{conversation(thread)}/fork", params=query)
        with as_letta_speaks():
            forked = thread_of(row)
        if at and await self._end(agent, forked) != at:
            self._forks_at = False  # servers up to 0.16.7, at least, fork the whole history whatever they are asked
            await self.delete(agent, forked)
            return None
        if thread.own:  # which has no settings of its own that could have been taken over
            await self._client.patch(conversation(forked), {"summary": LABEL} | settings.body(agent, Options()))
        return forked

    async def _end(self, agent: Agent, thread: Thread) -> str:
        """The last message of what the agent sees in a conversation."""
        path, name = conversation(thread), "in_context_message_ids"
        if thread.own:
            path, name = f"/v1/agents/{agent.id}", "message_ids"
        ids: Sequence[str] = (await self._client.get(path)).get(name) or ()
        return ids[-1] if ids else ""

    async def delete(self, agent: Agent, thread: Thread) -> None:
        """Take a conversation away. Its forks keep what they share with it."""
        if not thread.own:
            with suppress(NotFound):
                await self._client.delete(conversation(thread))

    async def generate(
        self,
        agent: Agent,
        prompt: str,
        system: str = "",
        max_characters: int = 4000,
        schema: Mapping[str, Any] | None = None,
    ) -> str:
        """An answer of the agent's model alone: without history, tools and memory, and without a trace in them. With
        `schema` it is JSON.

        Raises EndpointNotFound where the server cannot do that.
        """
        body: dict[str, Any] = {"prompt": prompt} | ({"system_prompt": system} if system else {})
        body |= {"response_schema": schema} if schema else {}
        path = f"/v1/agents/{agent.id}/generate"
        answer = await self._client.post(path, body, wait_seconds=self._settings.silence_seconds)
        with as_letta_speaks():
            return str(answer["content"])[:max_characters]

    # --- turns ---------------------------------------------------------------------------------------------------

    def run(self, turn: Turn, placement: Placement) -> AsyncGenerator[Batch, None]:
        wanted = turn.options.format
        if wanted is None or wanted.enforced:
            return self._run(turn, placement)
        return checked(self._run(turn, placement), wanted, lambda text: self._repaired(placement.agent, wanted, text))

    async def _repaired(self, agent: Agent, wanted: Format, text: str) -> str:
        """An answer as it was wanted, by the agent's model alone: empty if that fails too."""
        try:
            return await self.generate(agent, **repair(text, wanted))
        except GatewayError as error:
            log.warning("an answer could not be repaired", agent=agent.name, error=error.message)
            return ""

    async def _run(self, turn: Turn, placement: Placement) -> AsyncGenerator[Batch, None]:
        with as_letta_speaks():
            prompt = await self._prepared(turn, placement)
            own, news = await self._approvals.own_answers(turn, placement)
        messages = encode.messages(placement, own)
        mended, stretch, used = False, 0, Usage()
        while True:
            translator, cut = self._translator(turn, placement, own), ServerSentEvents()
            try:
                with await self._stream(turn, placement, messages, prompt, stretch) as stream:
                    while not (translator.done or translator.failed) and (data := await stream.next()):
                        events = translator(cut(data))
                        if events:
                            stream.feed()
                            if news:
                                events, news = [*news, *events], []
                        if translator.run_id and turn.id not in self._runs.ids:
                            self._runs.ids[turn.id] = translator.run_id
                        yield events
                    if translator.done:
                        stream.done()
                    elif not (translator.failed or translator.stopped):  # the run may go on, with nobody to hear it
                        raise ConnectionLost("The Letta server's stream broke off before the agent's turn had ended.")
                self._runs.ids.pop(turn.id, None)  # it has ended, one way or the other
                if not (asked := translator.awaiting):
                    finished = translator.finish()
                    break
                if stretch == MOST_STRETCHES:
                    raise AgentFailed("The agent asks again and again for tools of its own that nobody lets it run.")
                own = self._approvals.decided(asked, placement.thread)
                news += shown(asked, own)
                older = placement.thread.own and not is_modern(placement.agent)
                messages, mended, stretch = [encode.decisions(own, older=older)], False, stretch + 1
                used = added(used, translator.usage)
            except (AwaitingApproval, WrongCallIds) as error:
                # Letta appended nothing: this is the same turn, not another.
                if mended or translator.spoke:
                    raise
                mended = True
                if isinstance(error, AwaitingApproval):
                    messages = await self._giving_up(messages, placement)
                    continue
                asked = [
                    each for each in await self._approvals.own_calls(turn, placement) if each.call_id in error.expected
                ]
                ruled = {each.call_id for each in own}
                left = [each for each in asked if each.call_id not in ruled]
                ours = self._approvals.decided(left, placement.thread, beside=True)
                own, news = [*own, *ours], [*news, *shown(left, ours)]
                messages = [encode.exactly(messages[0], error.expected, own), *messages[1:]]
                continue
            finally:
                if translator.ran_tools:
                    self._prompts.edited(placement.agent.id)
                if translator.compacted:
                    self._prompts.forget(placement.thread)
            yield news  # there, and before the tools are run
            news = []
        finished = await self._at_its_limit(finished, turn, placement, translator)
        yield (*news, replace(finished, usage=added(used, finished.usage)))

    async def _at_its_limit(
        self, finished: TurnFinished, turn: Turn, placement: Placement, translator: Translator
    ) -> TurnFinished:
        """The same; but Letta says nothing of an answer that was cut where the model may give no more tokens."""
        most = None if placement.thread.own else settings.limit(settings.body(placement.agent, turn.options))
        if finished.stop_reason is not StopReason.STOP or most is None or finished.usage.output_tokens < most:
            return finished
        if translator.ran_tools:  # then that is the sum of several answers
            steps: Sequence[Row] = await self._client.get(f"/v1/runs/{translator.run_id}/steps", {"order": "desc"})
            if not steps or (steps[0].get("completion_tokens") or 0) < most:
                return finished
        return replace(finished, stop_reason=StopReason.LENGTH)

    # --- before a turn -------------------------------------------------------------------------------------------

    async def _prepared(self, turn: Turn, placement: Placement) -> str:
        """What stands in place of the agent's own prompt for this turn, if anything does. The conversation has the
        turn's settings then, and its prompt shows the agent's memory as it is."""
        agent, thread = placement.agent, placement.thread
        await asyncio.gather(self._model_settings.set(turn, agent, thread), self._refreshed(placement))
        if thread.own and (placement.overlay or turn.system_prompt == "block"):
            in_block = turn.system_prompt == "block"
            row = await self._blocks.show(agent.id, placement.overlay if in_block else "")
            return "" if in_block else overlaid(await self._prompts.own(row), placement.overlay)
        return overlaid(await self._prompts.text(thread), placement.overlay) if placement.overlay else ""

    async def _refreshed(self, placement: Placement) -> None:
        agent, thread = placement.agent, placement.thread
        if encode.resumes(placement):
            return
        if self._on_twin(agent, thread) and await self._twins.keep_in_step(agent.id, conv(thread)):
            self._prompts.edited(agent.id)
        await self._prompts.refresh(agent.id, thread)

    def _translator(self, turn: Turn, placement: Placement, own: Sequence[ToolResult]) -> Translator:
        results = {item.call_id for item in placement.deliver if isinstance(item, ToolResult)}
        denied = {each.call_id for each in own if not each.approved}
        return Translator(
            (tool.name for tool in turn.tools),
            answered=results.difference(each.call_id for each in own) | denied,
            one_call=turn.options.parallel_tool_calls is False,
        )

    async def _stream(
        self, turn: Turn, placement: Placement, messages: Sequence[dict[str, Any]], prompt: str, stretch: int
    ) -> Stream:
        """Send the turn; again, while Letta takes nothing because of a run of another client."""
        path, body = self._request(turn, placement, messages, prompt, stretch)
        record = self._recorder(turn.id)
        waits = pauses(self._settings.busy_seconds)
        told, ended = False, ""
        while True:
            try:
                return await self._client.stream(path, body, self._settings.silence_seconds, record)
            except ConversationBusy as error:
                if "agent_id" in body and (holder := error.run_id if isinstance(error, HeldByRun) else ""):
                    # With Redis, a run that is cancelled leaves an agent's own thread locked for minutes: by this way
                    # Letta does not look at the lock. One that ends in order unlocks it within moments.
                    if holder == ended:
                        path = f"/v1/agents/{body.pop('agent_id')}/messages/stream"
                        continue
                    ended = holder if await self._runs.has_ended(holder) else ""
                if (pause := next(waits, None)) is None:
                    raise
            if not told:
                log.info("conversation is busy with a run of another client", thread=placement.thread.id)
                told = True
            self._waiting.add(turn.id)
            await asyncio.sleep(pause)
            self._waiting.discard(turn.id)  # cut short in the pause it stays, for `cancel`

    async def _giving_up(self, messages: list[dict[str, Any]], placement: Placement) -> list[dict[str, Any]]:
        """The same messages, after the calls that nobody will answer."""
        pending = [call for call in await self.calls(placement.agent, placement.thread) if call.pending]
        log.info("calls that waited for an answer are given up", tools=[call.name for call in pending])
        return [encode.denials([call.call_id for call in pending]), *messages]

    # --- sending -------------------------------------------------------------------------------------------------

    def _request(
        self, turn: Turn, placement: Placement, messages: Sequence[dict[str, Any]], prompt: str, stretch: int
    ) -> tuple[str, dict[str, Any]]:
        agent, thread = placement.agent, placement.thread
        if not thread.own:
            return f"{conversation(thread)}/messages", encode.message_body(turn, messages, prompt, stretch=stretch)
        if turn.tools and not is_modern(agent):  # a conversation from before it had twins
            raise InvalidRequest("In its own thread this agent cannot use the caller's tools.", param="tools")
        if self._roster.separates(agent):
            body = encode.message_body(turn, messages, prompt, stretch=stretch) | {"agent_id": agent.id}
            return "/v1/conversations/default/messages", body
        # The older loop's token stream is escaped JSON which ends at the first quotation mark; whole steps are right.
        body = encode.message_body(turn, messages, prompt, tokens=is_modern(agent), stretch=stretch)
        return f"/v1/agents/{agent.id}/messages/stream", body

    def run_id(self, turn_id: str) -> str:
        """Letta's run of a turn, from its first batch on. A turn may be given a second run before it has said anything:
        ask with every batch."""
        return self._runs.ids.get(turn_id, "")

    async def cancel(self, turn: Turn, placement: Placement) -> tuple[Item, ...]:
        if turn.id in self._waiting:  # Letta never took it: what runs there is another client's
            self._waiting.discard(turn.id)
            return placement.deliver
        await self.stop(turn.id, placement.agent, placement.thread)
        return await self.dropped(turn.id, placement)

    async def stop(self, turn_id: str, agent: Agent, thread: Thread, run_id: str = "") -> None:
        await self._runs.stop(turn_id, agent, thread, run_id)

    async def dropped(self, turn_id: str, placement: Placement) -> tuple[Item, ...]:
        """What of a turn's input is not in the conversation, now that its run has ended."""
        latest = await self._messages.latest(placement.agent, placement.thread)
        # A step is kept whole or not at all, so its last message tells. It stands one further on where a call of an
        # earlier turn had to be denied first.
        last = encode.otids(turn_id, len(encode.messages(placement)) + 1)[-2:]
        if any(row.get("otid") in last for row in latest):
            return ()
        pending = {call.call_id for call in calls_in(latest) if call.pending}
        results = {item.call_id for item in placement.deliver if isinstance(item, ToolResult)}
        if encode.resumes(placement) and not pending & results:
            return tuple(item for item in placement.deliver if not isinstance(item, ToolResult))  # results are kept
        return placement.deliver

    # --- turns whose stream nobody read to its end ---------------------------------------------------------------

    async def outcome(
        self, turn_id: str, agent: Agent, thread: Thread, run_id: str = "", call_ids: Collection[str] = ()
    ) -> Outcome:
        return await self._runs.outcome(turn_id, agent, thread, run_id, call_ids)

    async def active(self, agent: Agent, thread: Thread) -> Sequence[str]:
        return await self._runs.active(agent, thread)

    async def sweep(self) -> int:
        """Take away twins and blocks which nobody needs. Gives how many that were."""
        with as_letta_speaks():
            return await self._twins.sweep(self._roster.wanted) + await self._blocks.sweep()

    async def aclose(self) -> None:
        await self._twins.aclose()
        await self._client.aclose()


def pauses(seconds: float) -> Iterator[float]:
    """Growing pauses, `seconds` in all."""
    pause = 0.25
    while seconds > 0:
        yield min(pause, seconds)
        seconds, pause = seconds - pause, min(2 * pause, LONGEST_PAUSE)


def overlaid(prompt: str, text: str) -> str:
    return f"{prompt}\n\n{text}"
