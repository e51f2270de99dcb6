"""Letta's runs: which of them is a turn's, how it is ended, and what became of a turn whose stream nobody read to its
end."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from frontdesk.backends.letta import encode
from frontdesk.backends.letta.approvals import Approvals
from frontdesk.backends.letta.client import LettaClient
from frontdesk.backends.letta.messages import LOOKED_THROUGH, Messages, turned
from frontdesk.backends.letta.outcome import ACTIVE, added, of_turn, outcome, untracked
from frontdesk.backends.letta.server import conv, conversation
from frontdesk.errors import GatewayError, InvalidRequest, NotFound
from frontdesk.ports import Dropped, Kept, Outcome, Running
from frontdesk.turn import Agent, Thread, ToolCall, ToolRun

Row = Mapping[str, Any]

MARKED = 4  # messages at the beginning of a turn, one of which Letta keeps with our id
CANCEL_ATTEMPTS = 3
CANCEL_SECONDS = 0.6  # a run looks whether it was cancelled every half second; only then is it known what was kept


class Runs:
    def __init__(self, client: LettaClient, messages: Messages, approvals: Approvals) -> None:
        self._client = client
        self._messages = messages
        self._approvals = approvals
        self.ids: dict[str, str] = {}
        """Turn → run, while it may have to be ended."""

    async def stop(self, turn_id: str, agent: Agent, thread: Thread, run_id: str = "") -> None:
        """End the agent's run of a turn, and wait until it is known what is kept of it."""
        run_id = self.ids.pop(turn_id, "") or run_id
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

    async def outcome(
        self, turn_id: str, agent: Agent, thread: Thread, run_id: str = "", call_ids: Collection[str] = ()
    ) -> Outcome:
        """What became of a turn. `call_ids` are those of Letta's which it answered: by them it is known if it gave the
        agent nothing but tool results, and its run is not known.

        Not to be asked in the first second after a turn was sent, when Letta may not yet know of it.
        """
        run_id = run_id or self.ids.get(turn_id, "")
        found = await self._came_to(run_id) if run_id else Dropped()
        if found == Dropped():  # a run may have been refused, and the turn given to another one
            found = await self._searched(turn_id, agent, thread, call_ids)
        if isinstance(found, Kept):
            found = await self._taken_on(found, agent, thread)
        if found != Running():
            self.ids.pop(turn_id, None)
        return found

    async def active(self, agent: Agent, thread: Thread) -> Sequence[str]:
        """The ids of the runs at work in a conversation, whoever began them. It goes on being said of a run whose
        server died, until it is cancelled."""
        query: dict[str, Any] = {"active": "true"} | ({"agent_id": agent.id} if thread.own else {})
        rows = await self._client.get("/v1/runs/", query | ({} if thread.own else {"conversation_id": conv(thread)}))
        return [row["id"] for row in rows if not (thread.own and row.get("conversation_id"))]

    async def has_ended(self, run_id: str) -> bool:
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
        rows = turned(await self._messages.listed(agent, thread, LOOKED_THROUGH))
        start = of_turn(rows, encode.otids(turn_id, MARKED), call_ids)
        if start is None:
            return Dropped()
        if run_id := rows[start].get("run_id"):
            return await self._came_to(run_id)
        return outcome(untracked(rows[start:]), rows[start:])

    async def _taken_on(self, kept: Kept, agent: Agent, thread: Thread) -> Outcome:
        """The same, with what the agent did after its own calls were decided on: without that it is not complete."""
        called = [part for part in kept.reply if isinstance(part, ToolCall)]
        gated = await self._approvals.gated_tools(agent) if called else ()
        own = {part.call_id for part in called if part.name in gated}
        if not own:
            return kept
        reply = tuple(
            as_run(part) if isinstance(part, ToolCall) and part.call_id in own else part for part in kept.reply
        )
        if len(own) < len(called):  # the caller's wait beside them, and bring on the next turn
            return replace(kept, reply=reply)
        rows = await self._messages.listed(agent, thread, LOOKED_THROUGH)
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
