"""Tidying up: conversations that nobody comes back to are deleted, here and at the backend. Only those made here.

First a conversation is doomed: nobody finds it any more. Then it is buried: its thread is deleted at the backend and
what was said here. If the backend cannot be reached, that is tried again each time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog

from frontdesk.conversations.ledger import DAY, Ledger
from frontdesk.errors import BackendRejectedKey, BackendUnavailable, ConversationBusy, GatewayError
from frontdesk.ports import Agents, Backend
from frontdesk.store import records
from frontdesk.store.database import Database
from frontdesk.store.records import Conversation
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Agent, Thread

log = structlog.get_logger(__name__)

FIRST_SECONDS = 60.0  # after the start: not each process lives for an hour
EVERY_SECONDS = 3600.0
AT_A_TIME = 200
"""Chats of one kind. A clock that was wrong for an hour then costs no more than this."""
FLEETING_AT_A_TIME = 2000
"""Of those that go after a day anyway, there may be many."""


class Housekeeping:
    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        agents: Agents,
        retention_days: float,
        unused_days: float,
        clock: Callable[[], float] = time.time,
        *,
        responses_days: float = 30.0,
        chores: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        """`chores` is what else is to be done each time."""
        self._database = database
        self._ledger = ledger
        self._agents = agents
        self._retention_seconds = retention_days * DAY
        self._unused_seconds = min(unused_days, retention_days) * DAY
        self._responses_seconds = min(responses_days, retention_days) * DAY
        self._clock = clock
        self._chores = chores
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_tidy())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_tidy(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock() + FIRST_SECONDS
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                if clock() >= due:
                    due = clock() + EVERY_SECONDS
                    await self.tidy()
                    await self._sweep()
                    for chore in self._chores:
                        await chore()
                else:
                    await self._bury_doomed()
            except Exception:  # one bad hour must not end it
                log.exception("tidying up failed")

    async def tidy(self) -> int:
        """Delete what is due. Gives how many conversations that were.

        Agents' own threads are nobody's to delete, but what our ledger holds of them is not kept for ever.
        """
        now = self._clock()
        await self._database.do(lambda tx: records.trim_own(tx, now - self._retention_seconds), long=True)
        await self._database.do(lambda tx: records.trim_receipts(tx, now - self._responses_seconds), long=True)
        for row in await self._database.read(self._due, long=True):
            await self._database.do(lambda tx, row=row: doom_if_unused(tx, row))
        return await self._bury_doomed()

    async def _sweep(self) -> None:
        for backend in self._agents.backends:
            try:
                await backend.sweep()
            except GatewayError as error:
                log.warning("a backend cannot be swept yet", backend=backend.name, error=error.message)

    def _due(self, tx: Transaction) -> list[Conversation]:
        now = self._clock()
        day, unused, long = now - DAY, now - self._unused_seconds, now - self._retention_seconds
        return [
            *records.stale(tx, "stateless", day, FLEETING_AT_A_TIME),
            *records.stale(tx, "temporary", day, FLEETING_AT_A_TIME),
            *records.stale(tx, "snapshot", long, AT_A_TIME),
            *records.stale(tx, "chat", unused, AT_A_TIME, begun=True),
            *records.stale(tx, "chat", long, AT_A_TIME),
        ]

    async def delete(self, conversation_id: str) -> bool:
        """Delete a conversation: here at once, at its backend soon after, or as soon as that can be reached. False if
        there is none.

        Raises ConversationBusy while a turn is in it.
        """
        found = await self._database.do(lambda tx: doom_if_idle(tx, conversation_id))
        self.hurry()
        return found

    def hurry(self) -> None:
        """Something has been doomed whose thread should not stay long."""
        self._wanted.set()

    async def _bury_doomed(self) -> int:
        """Each of them once, but none of a backend that turns out to be away."""
        buried, last, away = 0, "", set[str]()
        while rows := await self._database.read(lambda tx, last=last: records.doomed(tx, AT_A_TIME, last), long=True):
            last = rows[-1].id
            for row in rows:
                if row.backend in away:
                    continue
                try:
                    await self._bury(row)
                    buried += 1
                except GatewayError as error:
                    log.warning("a conversation cannot be deleted yet", backend=row.backend, error=error.message)
                    if isinstance(error, BackendUnavailable | BackendRejectedKey):
                        away.add(row.backend)
        return buried

    async def _bury(self, row: Conversation) -> None:
        """Also where the agent is gone, or is not served any more: a thread is deleted by its own id."""
        agent = Agent(row.agent, "", row.backend)
        if row.thread and (backend := self._backend(agent)):
            await backend.delete(agent, Thread(row.thread))
        await self._ledger.bury(row.id)

    def _backend(self, agent: Agent) -> Backend | None:
        """None for one that is not configured any more: what is there stays there."""
        try:
            return self._agents.backend(agent)
        except KeyError:
            return None


def doom_if_unused(tx: Transaction, seen: Conversation) -> bool:
    """Unless somebody has come back to it since."""
    row = records.conversation(tx, seen.id, lock=True)
    if row is None or row.used != seen.used or records.live_in(tx, row.id):
        return False
    return records.doom(tx, row.id)


def doom_if_idle(tx: Transaction, conversation_id: str) -> bool:
    row = records.conversation(tx, conversation_id, lock=True)
    if row and records.live_in(tx, row.id):
        raise ConversationBusy(
            "A turn of this conversation is running. Delete it when that has ended.", retry_after_seconds=2
        )
    return records.doom(tx, conversation_id)
