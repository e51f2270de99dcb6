"""Tidying up: conversations that nobody comes back to are deleted, here and at the backend. Only those made here."""

import asyncio
import time
from collections.abc import Callable

import structlog
from sqlalchemy import Connection

from frontdesk.conversations.ledger import DAY, Ledger
from frontdesk.directory import Directory
from frontdesk.errors import GatewayError, NotFound
from frontdesk.store import records
from frontdesk.store.database import Database
from frontdesk.store.records import Conversation
from frontdesk.turn import Thread

log = structlog.get_logger(__name__)

EVERY_SECONDS = 3600.0
AT_A_TIME = 200
"""A clock that was wrong for an hour then costs no more than this."""


class Housekeeping:
    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        directory: Directory,
        retention_days: float,
        unused_days: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._directory = directory
        self._retention_seconds = retention_days * DAY
        self._unused_seconds = min(unused_days, retention_days) * DAY
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_tidy())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_tidy(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.tidy()
            except Exception:  # one bad hour must not end it
                log.exception("tidying up failed")

    async def tidy(self) -> int:
        """Delete what is due. Gives how many conversations that were."""
        for conversation_id in await self._database.read(self._due):
            await self.doom(conversation_id)
        return await self._bury_doomed()

    def _due(self, tx: Connection) -> list[str]:
        now = self._clock()
        short, unused, long = now - DAY, now - self._unused_seconds, now - self._retention_seconds
        return [
            *records.stale(tx, "stateless", short, AT_A_TIME),
            *records.stale(tx, "temporary", short, AT_A_TIME),
            *records.stale(tx, "snapshot", long, AT_A_TIME),
            *records.stale(tx, "chat", unused, AT_A_TIME, continued_once=False),
            *records.stale(tx, "chat", long, AT_A_TIME, continued_once=True),
        ]

    async def delete(self, conversation_id: str) -> bool:
        """Delete a conversation now, as far as its backend can be reached; else with the next tidying. False if there
        is none."""
        if not await self.doom(conversation_id):
            return False
        await self._bury_doomed()
        return True

    async def doom(self, conversation_id: str) -> bool:
        return await self._database.do(lambda tx: records.doom(tx, conversation_id))

    async def _bury_doomed(self) -> int:
        buried = 0
        for row in await self._database.read(lambda tx: records.doomed(tx, AT_A_TIME)):
            try:
                await self._bury(row)
                buried += 1
            except GatewayError as error:
                log.warning("a conversation cannot be deleted yet", backend=row.backend, error=error.message)
        return buried

    async def _bury(self, row: Conversation) -> None:
        if row.thread:
            try:
                agent = await self._directory.by_id(row.backend, row.agent)
            except NotFound:
                agent = None
            if agent:
                await self._directory.backend(agent).delete(agent, Thread(row.thread))
        await self._ledger.bury(row.id)
