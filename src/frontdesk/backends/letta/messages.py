"""What a Letta conversation holds, as its agent sees it."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, cast

from frontdesk.backends.letta import encode
from frontdesk.backends.letta.client import LettaClient
from frontdesk.backends.letta.roster import Roster
from frontdesk.backends.letta.server import conversation
from frontdesk.turn import Agent, Call, Thread

Row = Mapping[str, Any]

LATEST = 30  # messages: more than one step has
LOOKED_THROUGH = 1000  # messages, in search of a turn


class Messages:
    def __init__(self, client: LettaClient, roster: Roster) -> None:
        self._client = client
        self._roster = roster

    async def calls(self, agent: Agent, thread: Thread) -> Sequence[Call]:
        return calls_in(await self.latest(agent, thread))

    async def latest(self, agent: Agent, thread: Thread, limit: int = LATEST) -> Sequence[Row]:
        """The latest messages of a conversation as the agent sees it, newest first."""
        if thread.own:
            return await self.listed(agent, thread, limit)
        # Letta numbers the messages of a condensed conversation anew, and lists what it put away among the others: what
        # the agent still sees, and in which order, only the conversation itself tells.
        path = conversation(thread)
        rows, row = await asyncio.gather(self.listed(agent, thread, limit), self._client.get(path))
        ids: Sequence[str] = row.get("in_context_message_ids") or ()
        if not ids:
            return rows
        if all(each["id"] != ids[-1] for each in rows):
            after = {"after": ids[-limit]} if len(ids) > limit else {}
            rows = await self._client.get(f"{path}/messages", {"limit": LOOKED_THROUGH, "order": "asc"} | after)
        return in_context(rows, ids)

    async def listed(self, agent: Agent, thread: Thread, limit: int) -> Sequence[Row]:
        """The latest messages of a conversation as Letta lists them, newest first."""
        query: dict[str, Any] = {"limit": limit, "order": "desc"}
        if not thread.own:
            return await self._client.get(f"{conversation(thread)}/messages", query)
        # Of an agent's own thread Letta gives the latest messages too, but oldest first whatever it is asked.
        if self._roster.separates(agent):
            query |= {"agent_id": agent.id}
            return turned(await self._client.get("/v1/conversations/default/messages", query))
        return turned(await self._client.get(f"/v1/agents/{agent.id}/messages", query))


def turned(rows: Sequence[Row]) -> list[Row]:
    """The other way round. One message may be listed in several parts, which stay in order."""
    messages = [list(parts) for _, parts in groupby(rows, key=lambda row: row["id"])]
    return [part for message in reversed(messages) for part in message]


def in_context(rows: Sequence[Row], ids: Sequence[str]) -> list[Row]:
    """Those of the messages which the agent sees, newest first."""
    place = {each: number for number, each in enumerate(ids)}
    return sorted((row for row in rows if row["id"] in place), key=lambda row: -place[row["id"]])


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
