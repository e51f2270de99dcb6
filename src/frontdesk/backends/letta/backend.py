"""Letta as a backend: agents, conversations, turns.

Each turn runs in a Letta conversation (its own history, the agent's shared memory). Client tools travel with the turn,
so nothing is ever created on the server but conversations, and modern twins of older agents (see `twins`). Those have
one thread per agent, as all have on a server without conversations.
"""

import asyncio
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any, Literal, cast

import structlog

from frontdesk.backends.letta import encode, settings
from frontdesk.backends.letta.blocks import Blocks
from frontdesk.backends.letta.client import LettaClient, Stream
from frontdesk.backends.letta.failures import AwaitingApproval, HeldByRun, WrongCallIds
from frontdesk.backends.letta.outcome import ACTIVE, Row, calls, of_turn, outcome, untracked
from frontdesk.backends.letta.prompts import Prompts
from frontdesk.backends.letta.structured import repair
from frontdesk.backends.letta.translate import ServerSentEvents, Translator, awaits
from frontdesk.backends.letta.twins import KEPT_SECONDS, MODERN, Twins, Wanted, twin_in
from frontdesk.errors import (
    AgentFailed,
    BackendUnavailable,
    ConnectionLost,
    ConversationBusy,
    EndpointNotFound,
    GatewayError,
    InvalidRequest,
    NotFound,
)
from frontdesk.policies.structured import checked
from frontdesk.ports import Dropped, Kept, Outcome, Placement, Running
from frontdesk.turn import (
    Agent,
    Batch,
    Call,
    Event,
    Format,
    Item,
    Options,
    StopReason,
    Text,
    Thread,
    ToolCall,
    ToolResult,
    ToolRun,
    ToolRunFinished,
    ToolRunStarted,
    Turn,
    TurnFinished,
    Usage,
    unanswered,
)

log = structlog.get_logger(__name__)

OWN_THREAD = Thread(str(uuid.UUID(int=0)), own=True)
"""The thread an agent has before any conversation is made."""

LABEL = "Frontdesk"
PAGE = 200
LATEST = 30  # messages: more than one step has
LOOKED_THROUGH = 1000  # messages, in search of a turn
MARKED = 4  # messages at the beginning of a turn, one of which Letta keeps with our id
LONGEST_PAUSE = 4.0
CANCEL_ATTEMPTS = 3
CANCEL_SECONDS = 0.6  # a run looks whether it was cancelled every half second; only then is it known what was kept
REMEMBERED = 10_000  # conversations whose settings are known
MODELS_SECONDS = 60.0
MOST_STRETCHES = 25  # of one turn, between which the agent's own calls are decided on

RESERVED_TOOLS = frozenset(
    {
        "archival_memory_insert",
        "archival_memory_search",
        "conversation_search",
        "core_memory_append",
        "core_memory_replace",
        "memory",
        "memory_apply_patch",
        "memory_finish_edits",
        "memory_insert",
        "memory_replace",
        "memory_rethink",
        "send_message",
    }
)


@dataclass(frozen=True, slots=True)
class LettaSettings:
    """One Letta server and which of its agents to serve. Empty filters let all through."""

    name: str = "letta"
    base_url: str = "http://localhost:8283"
    api_key: str = ""
    project: str = ""
    tags: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # shell patterns
    include_hidden: bool = False
    include_sleeptime: bool = False
    silence_seconds: float = 120.0
    busy_seconds: float = 30.0
    memory_seconds: float | None = 5.0  # how long a look at an agent's memory is good for; None leaves prompts alone
    alone: bool = False  # no other process gives turns to the same conversations
    bridge: Literal["twin", "reject"] = "twin"  # what becomes of the caller's tools where an agent is of an older type
    approvals: Literal["deny", "surface"] = "deny"  # what becomes of the agent's own calls that wait for a human
    allowed_tools: tuple[str, ...] = ()  # shell patterns of the tools which it may run without asking
    replicas: Mapping[str, int] = field(default_factory=dict[str, int])  # twins of agents, by name or id; `*`: of older
    kept_seconds: float = KEPT_SECONDS  # how long a conversation may be gone on with


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
        self._set_to: OrderedDict[str, dict[str, Any]] = OrderedDict()  # conversation → its model and settings
        self._models: tuple[float, Mapping[str, Row]] = (0.0, {})  # until when they are known, and by handle
        self._has_conversations = True
        self._forks = True
        self._forks_at = True
        self._waiting: set[str] = set()  # turns which Letta has refused so far
        self._run_ids: dict[str, str] = {}  # turn → run, while it may have to be cancelled

    @property
    def name(self) -> str:
        return self._settings.name

    # --- agents --------------------------------------------------------------------------------------------------

    async def agents(self) -> Sequence[Agent]:
        found: dict[str, Agent] = {}
        after: str | None = None
        while True:
            page = await self._client.get("/v1/agents/", self._query(limit=PAGE, after=after))
            fresh = [row for row in page if row["id"] not in found]
            found.update({agent.id: agent for agent in self._chosen(fresh)})
            if not fresh or len(page) < PAGE:
                return list(found.values())
            after = page[-1]["id"]

    async def find(self, name: str) -> Sequence[Agent]:
        with as_letta_speaks():
            if re.fullmatch(r"agent-[0-9a-f-]{36}", name):
                with suppress(NotFound, InvalidRequest):
                    return self._chosen([await self._client.get(f"/v1/agents/{name}", self._query())])
            return self._chosen(await self._client.get("/v1/agents/", self._query(name=name)))

    async def ping(self) -> str:
        return str((await self._client.get("/v1/health/")).get("version", ""))

    def _query(self, **more: Any) -> list[tuple[str, str]]:
        query = [(key, str(value)) for key, value in more.items() if value is not None]
        if self._settings.tags:  # Letta leaves the tags out of its answers unless asked, and that is slow
            query += [("tags", tag) for tag in self._settings.tags] + [("include", "agent.tags")]
        return query + ([("show_hidden_agents", "true")] if self._settings.include_hidden else [])

    def _chosen(self, rows: Sequence[Mapping[str, Any]]) -> list[Agent]:
        return [self._agent(row) for row in rows if self._served(row)]

    def _served(self, row: Mapping[str, Any]) -> bool:
        settings = self._settings
        if row.get("agent_type") == "sleeptime_agent" and not settings.include_sleeptime:
            return False
        if twin_in(row) or (row.get("hidden") and not settings.include_hidden):
            return False
        if settings.tags and not set(settings.tags) & set(row.get("tags") or ()):
            return False
        return not settings.names or any(fnmatchcase(row["name"], pattern) for pattern in settings.names)

    def _agent(self, row: Mapping[str, Any]) -> Agent:
        modern = row.get("agent_type") in MODERN
        replicas = self._replicas(row) if self._has_conversations else 0
        bridged = not (modern or replicas) and self._has_conversations and self._settings.bridge == "twin"
        config: Mapping[str, Any] = row.get("llm_config") or {}
        model = row.get("model") or config.get("handle") or config.get("model") or ""
        return Agent(
            id=row["id"],
            name=row["name"],
            backend=self.name,
            created=seconds(row.get("created_at")),
            description=row.get("description") or "",
            tags=tuple(row.get("tags") or ()),
            model=model,
            context_window=config.get("context_window"),
            client_tools=modern or bridged or replicas > 0,
            conversations=(modern or replicas > 0) and self._has_conversations,
            bridged=bridged,
            tools_alone=modern,
            honours=settings.honoured(model, row.get("model_settings")),
            honours_alone=settings.ALWAYS,
            reserved_tools=RESERVED_TOOLS,
            approvals=self._settings.approvals,
            allowed_tools=self._settings.allowed_tools,
            settings={
                "model_settings": row.get("model_settings"),
                "agent_type": row.get("agent_type"),
                "replicas": replicas,
            },
        )

    def _replicas(self, row: Row) -> int:
        """How many twins share an agent's conversations; 0 if they are the agent's own."""
        of = self._settings.replicas
        others = 0 if row.get("agent_type") in MODERN else of.get("*", 0)
        return of.get(row["name"], of.get(row["id"], others))

    def _wanted(self, row: Row) -> Wanted:
        """How many twins an agent is to have."""
        replicas, modern = self._replicas(row), row.get("agent_type") in MODERN
        bridges = not modern and self._settings.bridge == "twin"
        return Wanted(max(replicas, int(bridges)), lost=not (modern or bridges or replicas))

    async def hidden(self) -> int:
        with as_letta_speaks():
            return await self._twins.count()

    # --- conversations -------------------------------------------------------------------------------------------

    async def open(self, agent: Agent, turn: Turn) -> Thread:
        if turn.mode == "single" or not (agent.bridged or self._separates(agent) or replicas_of(agent)):
            return OWN_THREAD
        model = await self._model_body(agent, turn.options)
        body = {"summary": LABEL} | model
        try:
            with as_letta_speaks():
                if agent.bridged or replicas_of(agent):
                    among = replicas_of(agent) or 1
                    thread = thread_of(await self._twins.open(agent.id, body, turn.id, among))
                else:
                    thread = thread_of(await self._client.post("/v1/conversations/", body, {"agent_id": agent.id}))
                self._prompts.opened(thread)
                self._note_set(thread, model)
                return thread
        except EndpointNotFound as error:
            self._has_conversations = False  # a server from before conversations: each agent has one thread
            if agent.bridged or (turn.tools and not is_modern(agent)):
                raise InvalidRequest("This Letta server is too old for the caller's tools.", param="tools") from error
            return OWN_THREAD

    def _separates(self, agent: Agent) -> bool:
        """Whether the agent itself has conversations, and not only its twins."""
        return agent.conversations and self._has_conversations and is_modern(agent)

    def _on_twin(self, agent: Agent, thread: Thread) -> bool:
        """Whether a conversation may be one of the agent's twins."""
        return on_twin(agent, thread) or (not thread.own and self._twins.has(agent.id))

    async def calls(self, agent: Agent, thread: Thread) -> Sequence[Call]:
        return calls_in(await self._latest(agent, thread))

    async def _latest(self, agent: Agent, thread: Thread, limit: int = LATEST) -> Sequence[Row]:
        """The latest messages of a conversation as the agent sees it, newest first."""
        if thread.own:
            return await self._listed(agent, thread, limit)
        # Letta numbers the messages of a condensed conversation anew, and lists what it put away among the others: what
        # the agent still sees, and in which order, only the conversation itself tells.
        path = conversation(thread)
        rows, row = await asyncio.gather(self._listed(agent, thread, limit), self._client.get(path))
        ids: Sequence[str] = row.get("in_context_message_ids") or ()
        if not ids:
            return rows
        if all(each["id"] != ids[-1] for each in rows):
            after = {"after": ids[-limit]} if len(ids) > limit else {}
            rows = await self._client.get(f"{path}/messages", {"limit": LOOKED_THROUGH, "order": "asc"} | after)
        return in_context(rows, ids)

    async def _listed(self, agent: Agent, thread: Thread, limit: int) -> Sequence[Row]:
        """The latest messages of a conversation as Letta lists them, newest first."""
        query: dict[str, Any] = {"limit": limit, "order": "desc"}
        if not thread.own:
            return await self._client.get(f"{conversation(thread)}/messages", query)
        # Of an agent's own thread Letta gives the latest messages too, but oldest first whatever it is asked.
        if self._separates(agent):
            query |= {"agent_id": agent.id}
            return turned(await self._client.get("/v1/conversations/default/messages", query))
        return turned(await self._client.get(f"/v1/agents/{agent.id}/messages", query))

    async def fork(self, agent: Agent, thread: Thread, at: str = "") -> Thread | None:
        """A new conversation with the same history: all of it, or with `at` up to and including that message.

        Messages are shared, so it costs the same however long the history is; pending calls wait in both. None where
        the server cannot do that: then nothing was made. Do not fork while a run is active: it would hold half a turn.
        """
        if not (self._separates(agent) or on_twin(agent, thread)) or not self._forks:
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
            own, news = await self._own_answers(turn, placement)
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
                        if translator.run_id and turn.id not in self._run_ids:
                            self._run_ids[turn.id] = translator.run_id
                        yield events
                    if translator.done:
                        stream.done()
                    elif not (translator.failed or translator.stopped):  # the run may go on, with nobody to hear it
                        raise ConnectionLost("The Letta server's stream broke off before the agent's turn had ended.")
                self._run_ids.pop(turn.id, None)  # it has ended, one way or the other
                if not (asked := translator.awaiting):
                    finished = translator.finish()
                    break
                if stretch == MOST_STRETCHES:
                    raise AgentFailed("The agent asks again and again for tools of its own that nobody lets it run.")
                own = self._decided(asked, placement.thread)
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
                asked = [each for each in await self._own_calls(turn, placement) if each.call_id in error.expected]
                ruled = {each.call_id for each in own}
                left = [each for each in asked if each.call_id not in ruled]
                ours = self._decided(left, placement.thread, beside=True)
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
        await asyncio.gather(self._set(turn, agent, thread), self._refreshed(placement))
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

    async def _set(self, turn: Turn, agent: Agent, thread: Thread) -> None:
        """Give the conversation the settings of this turn, unless it has them. Turns of one conversation follow one
        another, so that they are this turn's own; the next turn sets them again."""
        if thread.own or not (wanted := await self._model_body(agent, turn.options)):
            return
        known = self._set_to.pop(thread.id, None)
        if known is None:
            row: Row = await self._client.get(conversation(thread))
            known = None if settings.differs(row, wanted) else wanted
        if known != wanted:
            await self._client.patch(conversation(thread), wanted)
        if self._settings.alone:
            self._note_set(thread, wanted)

    def _note_set(self, thread: Thread, body: dict[str, Any]) -> None:
        """What was written last. Where others write too, that is good only for the turn that made the thread."""
        self._set_to[thread.id] = body
        if len(self._set_to) > REMEMBERED:
            self._set_to.popitem(last=False)

    async def _model_body(self, agent: Agent, options: Options) -> dict[str, Any]:
        return settings.body(agent, options, await self._model(options.model) if options.model else None)

    async def _model(self, handle: str) -> Row:
        """A model as Letta describes it. Raises InvalidRequest for one it does not have."""
        until, models = self._models
        if handle not in models or time.monotonic() > until:
            rows: Sequence[Row] = await self._client.get("/v1/models/")
            models = {row["handle"]: row for row in rows}
            self._models = (time.monotonic() + MODELS_SECONDS, models)
        if handle not in models:
            raise InvalidRequest(
                f"The Letta server has no model {handle[:200]!r}.", param="model", code="model_not_found"
            )
        return models[handle]

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
                    ended = holder if await self._has_ended(holder) else ""
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

    # --- the agent's own tools that wait for a human -----------------------------------------------------------------

    async def awaiting(self, agent: Agent, thread: Thread) -> Sequence[ToolRun]:
        """The agent's own calls in a conversation on which a caller may decide."""
        if self._settings.approvals == "deny" or thread.own:
            return ()
        asked = await self._gated(agent, await self._latest(agent, thread))
        return [ToolRun(each.call_id, each.name, each.arguments) for each in asked if not self._allows(each)]

    async def _own_calls(self, turn: Turn, placement: Placement) -> Sequence[ToolRunStarted]:
        """The pending calls of a conversation which are not the caller's."""
        agent = placement.agent
        theirs = {tool.name for tool in turn.tools}
        asked = await self._gated(agent, await self._latest(agent, placement.thread))
        return [each for each in asked if each.name not in theirs]

    async def _gated(self, agent: Agent, rows: Sequence[Row]) -> Sequence[ToolRunStarted]:
        """The pending calls among the latest messages of a conversation that need a human's approval."""
        pending = {call.call_id for call in calls_in(rows) if call.pending}
        if not pending:
            return ()
        gated = await self._gated_tools(agent)
        requests = [row for row in rows if row.get("message_type") == "approval_request_message"]
        found = [ToolRunStarted(*call) for row in requests for call in calls(row)]
        return [each for each in found if each.call_id in pending and each.name in gated]

    async def _gated_tools(self, agent: Agent) -> frozenset[str]:
        """The tools which the agent may use only with a human's approval."""
        rules: Sequence[Row] = (await self._client.get(f"/v1/agents/{agent.id}")).get("tool_rules") or ()
        return frozenset(str(rule.get("tool_name")) for rule in rules if rule.get("type") == "requires_approval")

    def _allows(self, call: ToolRunStarted) -> bool:
        return any(fnmatchcase(call.name, pattern) for pattern in self._settings.allowed_tools)

    def _decided(self, asked: Sequence[ToolRunStarted], thread: Thread, *, beside: bool = False) -> list[ToolResult]:
        """Which of these calls the agent may run. `beside`: the caller's tools were called in the same step, and wait.

        Raises ApprovalRequired if that is for the caller to say; in the thread that all callers share, nobody may.
        """
        surfaces = self._settings.approvals == "surface" and not thread.own
        denied = [each for each in asked if not self._allows(each)]
        if denied and surfaces and not beside:
            raise awaits(denied)
        reason = (Text(encode.BESIDE if surfaces else encode.NOBODY),)
        return [
            ToolResult(each.call_id, reason if each in denied else (), approved=each not in denied) for each in asked
        ]

    async def _own_answers(self, turn: Turn, placement: Placement) -> tuple[list[ToolResult], list[Event]]:
        """The decisions on calls of the agent's own among those which the turn answers, and how they are shown."""
        given = (
            [item for item in placement.deliver if isinstance(item, ToolResult)] if encode.resumes(placement) else []
        )
        told = {each.call_id: each for each in given if each.approved is not None}
        left = {each.call_id for each in given if each == unanswered(each.call_id)}
        if not (told or left):
            return [], []
        asked = await self._own_calls(turn, placement)
        ruled = self._decided([each for each in asked if each.call_id in left], placement.thread, beside=True)
        own = [*told.values(), *ruled]
        return own, shown(asked, own)

    # --- sending -------------------------------------------------------------------------------------------------

    def _request(
        self, turn: Turn, placement: Placement, messages: Sequence[dict[str, Any]], prompt: str, stretch: int
    ) -> tuple[str, dict[str, Any]]:
        agent, thread = placement.agent, placement.thread
        if not thread.own:
            return f"{conversation(thread)}/messages", encode.message_body(turn, messages, prompt, stretch=stretch)
        if turn.tools and not is_modern(agent):  # a conversation from before it had twins
            raise InvalidRequest("In its own thread this agent cannot use the caller's tools.", param="tools")
        if self._separates(agent):
            body = encode.message_body(turn, messages, prompt, stretch=stretch) | {"agent_id": agent.id}
            return "/v1/conversations/default/messages", body
        # The older loop's token stream is escaped JSON which ends at the first quotation mark; whole steps are right.
        body = encode.message_body(turn, messages, prompt, tokens=is_modern(agent), stretch=stretch)
        return f"/v1/agents/{agent.id}/messages/stream", body

    def run_id(self, turn_id: str) -> str:
        """Letta's run of a turn, from its first batch on. A turn may be given a second run before it has said anything:
        ask with every batch."""
        return self._run_ids.get(turn_id, "")

    async def cancel(self, turn: Turn, placement: Placement) -> tuple[Item, ...]:
        if turn.id in self._waiting:  # Letta never took it: what runs there is another client's
            self._waiting.discard(turn.id)
            return placement.deliver
        await self.stop(turn.id, placement.agent, placement.thread)
        return await self.dropped(turn.id, placement)

    async def stop(self, turn_id: str, agent: Agent, thread: Thread, run_id: str = "") -> None:
        """End the agent's run of a turn, and wait until it is known what is kept of it."""
        run_id = self._run_ids.pop(turn_id, "") or run_id
        for _ in range(CANCEL_ATTEMPTS):
            stopped = await self._stop(agent, thread, run_id)
            await asyncio.sleep(CANCEL_SECONDS)
            if stopped or run_id:  # without a run id it may not have begun yet
                return

    async def _stop(self, agent: Agent, thread: Thread, run_id: str) -> bool:
        """Ask Letta to stop. False if nothing was running: it may have ended by itself just now."""
        try:
            if not thread.own:
                await self._client.post(f"{conversation(thread)}/cancel")
            else:
                run_ids = [run_id] if run_id else [*await self.active(agent, thread)][:1]
                if not run_ids:
                    return False
                await self._client.post(f"/v1/agents/{agent.id}/messages/cancel", {"run_ids": run_ids})
        except GatewayError:
            return False
        return True

    async def dropped(self, turn_id: str, placement: Placement) -> tuple[Item, ...]:
        """What of a turn's input is not in the conversation, now that its run has ended."""
        latest = await self._latest(placement.agent, placement.thread)
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
        """What became of a turn. `call_ids` are those of Letta's which it answered: by them it is known if it gave the
        agent nothing but tool results, and its run is not known.

        Not to be asked in the first second after a turn was sent, when Letta may not yet know of it.
        """
        run_id = run_id or self.run_id(turn_id)
        found = await self._came_to(run_id) if run_id else Dropped()
        if found == Dropped():  # a run may have been refused, and the turn given to another one
            found = await self._searched(turn_id, agent, thread, call_ids)
        if isinstance(found, Kept):
            found = await self._taken_on(found, agent, thread)
        if found != Running():
            self._run_ids.pop(turn_id, None)
        return found

    async def active(self, agent: Agent, thread: Thread) -> Sequence[str]:
        """The ids of the runs at work in a conversation, whoever began them. It goes on being said of a run whose
        server died, until it is cancelled."""
        query: dict[str, Any] = {"active": "true"} | ({"agent_id": agent.id} if thread.own else {})
        rows = await self._client.get("/v1/runs/", query | ({} if thread.own else {"conversation_id": conv(thread)}))
        return [row["id"] for row in rows if not (thread.own and row.get("conversation_id"))]

    async def _has_ended(self, run_id: str) -> bool:
        return (await self._client.get(f"/v1/runs/{run_id}"))["status"] not in ACTIVE

    async def _came_to(self, run_id: str) -> Outcome:
        path, query = f"/v1/runs/{run_id}", {"limit": LOOKED_THROUGH}
        try:
            run = await self._client.get(path)
        except (NotFound, InvalidRequest):
            return Dropped()
        if run["status"] in ACTIVE:
            return Running()
        rows, steps = await asyncio.gather(
            self._client.get(f"{path}/messages", query), self._client.get(f"{path}/steps", query)
        )
        return outcome(run, rows, steps)

    async def _searched(self, turn_id: str, agent: Agent, thread: Thread, call_ids: Collection[str]) -> Outcome:
        """What became of a turn of which only its messages' ids are known, or the calls it answered."""
        if await self.active(agent, thread):
            return Running()
        rows = turned(await self._listed(agent, thread, LOOKED_THROUGH))
        start = of_turn(rows, encode.otids(turn_id, MARKED), call_ids)
        if start is None:
            return Dropped()
        if run_id := rows[start].get("run_id"):
            return await self._came_to(run_id)
        return outcome(untracked(rows[start:]), rows[start:])

    async def _taken_on(self, kept: Kept, agent: Agent, thread: Thread) -> Outcome:
        """The same, with what the agent did after its own calls were decided on: without that it is not complete."""
        called = [part for part in kept.reply if isinstance(part, ToolCall)]
        gated = await self._gated_tools(agent) if called else ()
        own = {part.call_id for part in called if part.name in gated}
        if not own:
            return kept
        reply = tuple(
            as_run(part) if isinstance(part, ToolCall) and part.call_id in own else part for part in kept.reply
        )
        if len(own) < len(called):  # the caller's wait beside them, and bring on the next turn
            return replace(kept, reply=reply)
        rows = await self._listed(agent, thread, LOOKED_THROUGH)
        run_id = next((row.get("run_id") for row in rows if decides_on(row, own)), None)
        after = await self._came_to(run_id) if run_id else Dropped()
        if isinstance(after, Kept):
            after = await self._taken_on(after, agent, thread)
        match after:
            case Running():
                return after
            case Dropped():
                return replace(kept, reply=reply, complete=False)
            case Kept():
                ran = {part.call_id: part for part in after.reply if isinstance(part, ToolRun)}
                before = [finished(part, ran) if isinstance(part, ToolRun) else part for part in reply]
                rest = [part for part in after.reply if not (isinstance(part, ToolRun) and part.call_id in own)]
                usage, condensed = added(kept.usage, after.usage), kept.condensed or after.condensed
                return replace(after, reply=(*before, *rest), usage=usage, condensed=condensed)

    async def sweep(self) -> int:
        """Take away twins and blocks which nobody needs. Gives how many that were."""
        with as_letta_speaks():
            return await self._twins.sweep(self._wanted) + await self._blocks.sweep()

    async def aclose(self) -> None:
        await self._twins.aclose()
        await self._client.aclose()


@contextmanager
def as_letta_speaks() -> Generator[None]:
    """JSON of another shape means that something else listens there."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise BackendUnavailable("Something answers at the Letta server's address, but not as Letta does.") from error


def seconds(moment: str | None) -> int:
    """Letta's time of day → seconds since 1970."""
    return int(datetime.fromisoformat(moment).timestamp()) if moment else 0


def pauses(seconds: float) -> Iterator[float]:
    """Growing pauses, `seconds` in all."""
    pause = 0.25
    while seconds > 0:
        yield min(pause, seconds)
        seconds, pause = seconds - pause, min(2 * pause, LONGEST_PAUSE)


def on_twin(agent: Agent, thread: Thread) -> bool:
    """Whether a conversation is one of the agent's modern twins, by how the agent is set up now."""
    return (agent.bridged or replicas_of(agent) > 0) and not thread.own


def replicas_of(agent: Agent) -> int:
    """How many twins share the agent's conversations."""
    return agent.settings.get("replicas", 0)


def is_modern(agent: Agent) -> bool:
    return agent.settings.get("agent_type") in MODERN


def conversation(thread: Thread) -> str:
    """The address of a conversation."""
    return f"/v1/conversations/{'default' if thread.own else conv(thread)}"


def conv(thread: Thread) -> str:
    return f"conv-{thread.id}"


def overlaid(prompt: str, text: str) -> str:
    return f"{prompt}\n\n{text}"


def turned(rows: Sequence[Row]) -> list[Row]:
    """The other way round. One message may be listed in several parts, which stay in order."""
    messages = [list(parts) for _, parts in groupby(rows, key=lambda row: row["id"])]
    return [part for message in reversed(messages) for part in message]


def in_context(rows: Sequence[Row], ids: Sequence[str]) -> list[Row]:
    """Those of the messages which the agent sees, newest first."""
    place = {each: number for number, each in enumerate(ids)}
    return sorted((row for row in rows if row["id"] in place), key=lambda row: -place[row["id"]])


def thread_of(row: Mapping[str, Any]) -> Thread:
    return Thread(row["id"].removeprefix("conv-"))


def shown(asked: Sequence[ToolRunStarted], decided: Sequence[ToolResult]) -> list[Event]:
    """The agent's own calls on which was decided: those it may not run as runs that have failed."""
    by_id = {each.call_id: each for each in decided}
    told: list[Event] = []
    for call in asked:
        if result := by_id.get(call.call_id):
            told.append(call)
            if not result.approved:
                told.append(ToolRunFinished(call.call_id, result.text or "It was denied.", is_error=True))
    return told


def as_run(call: ToolCall) -> ToolRun:
    return ToolRun(call.call_id, call.name, call.arguments)


def finished(run: ToolRun, ran: Mapping[str, ToolRun]) -> ToolRun:
    """With what came of it later."""
    later = ran.get(run.call_id, run)
    return replace(run, output=later.output, is_error=later.is_error)


def decides_on(row: Row, own: Collection[str]) -> bool:
    """Whether it says that these calls may run, or may not; but not that a later turn has given them up."""
    given: Sequence[Row] = row.get("approvals") or ()
    return any(each.get("tool_call_id") in own and each.get("reason") != encode.SUPERSEDED for each in given)


def added(before: Usage, last: Usage) -> Usage:
    """The tokens of both; `context_tokens` is the size of the last call alone."""
    return Usage(
        before.input_tokens + last.input_tokens,
        before.output_tokens + last.output_tokens,
        before.cached_tokens + last.cached_tokens,
        before.cache_write_tokens + last.cache_write_tokens,
        before.reasoning_tokens + last.reasoning_tokens,
        last.context_tokens,
    )


def calls_in(rows: Sequence[Mapping[str, Any]]) -> list[Call]:
    """The tool calls among the latest messages, newest first. Only calls of the very last step can be pending."""
    found: list[Call] = []
    pending, answered, spoke, denied = True, False, False, False
    for row in rows:
        kind = row.get("message_type")
        if kind == "approval_request_message":
            raw: Any = row.get("tool_calls") or [row.get("tool_call")]
            calls = cast("list[Mapping[str, Any]]", raw if isinstance(raw, list) else [raw])
            found += [Call(call["tool_call_id"], call.get("name") or "", pending, answered) for call in calls if call]
        elif kind in ("tool_return_message", "approval_response_message"):
            denied = denied or is_denial(row)
            pending, answered = False, not (spoke or found or denied)
        elif kind in ("assistant_message", "reasoning_message", "hidden_reasoning_message"):
            spoke = True
        else:
            pending, answered, spoke = False, False, True
    return found


def is_denial(row: Row) -> bool:
    """Whether it says that a call was given up, as `encode.denials` does when the caller goes on without it."""
    told: list[Mapping[str, Any]] = [row, *(row.get("approvals") or ())]
    return any(each.get("approve") is False for each in told) or encode.SUPERSEDED in str(row.get("tool_return") or "")
