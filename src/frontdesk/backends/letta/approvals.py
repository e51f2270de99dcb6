"""The agent's own calls that wait for a human: which there are, and what is decided on them."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from frontdesk.backends.letta import encode
from frontdesk.backends.letta.client import LettaClient
from frontdesk.backends.letta.messages import Messages, calls_in
from frontdesk.backends.letta.outcome import calls
from frontdesk.backends.letta.server import LettaSettings
from frontdesk.backends.letta.translate import awaits
from frontdesk.ports import Placement
from frontdesk.turn import (
    Agent,
    Event,
    Text,
    Thread,
    ToolResult,
    ToolRun,
    ToolRunFinished,
    ToolRunStarted,
    Turn,
    unanswered,
)

Row = Mapping[str, Any]


class Approvals:
    def __init__(self, settings: LettaSettings, client: LettaClient, messages: Messages) -> None:
        self._settings = settings
        self._client = client
        self._messages = messages

    async def awaiting(self, agent: Agent, thread: Thread) -> Sequence[ToolRun]:
        """The agent's own calls in a conversation on which a caller may decide."""
        if self._settings.approvals == "deny" or thread.own:
            return ()
        asked = await self._gated(agent, await self._messages.latest(agent, thread))
        return [ToolRun(each.call_id, each.name, each.arguments) for each in asked if not self._allows(each)]

    async def own_calls(self, turn: Turn, placement: Placement) -> Sequence[ToolRunStarted]:
        """The pending calls of a conversation which are not the caller's."""
        agent = placement.agent
        theirs = {tool.name for tool in turn.tools}
        asked = await self._gated(agent, await self._messages.latest(agent, placement.thread))
        return [each for each in asked if each.name not in theirs]

    async def _gated(self, agent: Agent, rows: Sequence[Row]) -> Sequence[ToolRunStarted]:
        """The pending calls among the latest messages of a conversation that need a human's approval."""
        pending = {call.call_id for call in calls_in(rows) if call.pending}
        if not pending:
            return ()
        gated = await self.gated_tools(agent)
        requests = [row for row in rows if row.get("message_type") == "approval_request_message"]
        found = [ToolRunStarted(*call) for row in requests for call in calls(row)]
        return [each for each in found if each.call_id in pending and each.name in gated]

    async def gated_tools(self, agent: Agent) -> frozenset[str]:
        """The tools which the agent may use only with a human's approval."""
        rules: Sequence[Row] = (await self._client.get(f"/v1/agents/{agent.id}")).get("tool_rules") or ()
        return frozenset(str(rule.get("tool_name")) for rule in rules if rule.get("type") == "requires_approval")

    def _allows(self, call: ToolRunStarted) -> bool:
        return any(fnmatchcase(call.name, pattern) for pattern in self._settings.allowed_tools)

    def decided(self, asked: Sequence[ToolRunStarted], thread: Thread, *, beside: bool = False) -> list[ToolResult]:
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

    async def own_answers(self, turn: Turn, placement: Placement) -> tuple[list[ToolResult], list[Event]]:
        """The decisions on calls of the agent's own among those which the turn answers, and how they are shown."""
        given = (
            [item for item in placement.deliver if isinstance(item, ToolResult)] if encode.resumes(placement) else []
        )
        told = {each.call_id: each for each in given if each.approved is not None}
        left = {each.call_id for each in given if each == unanswered(each.call_id)}
        if not (told or left):
            return [], []
        asked = await self.own_calls(turn, placement)
        ruled = self.decided([each for each in asked if each.call_id in left], placement.thread, beside=True)
        own = [*told.values(), *ruled]
        return own, shown(asked, own)


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
