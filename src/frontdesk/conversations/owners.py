"""Which processes are alive, and what becomes of the turns of one that is not.

Every process counts up in the store. One whose count stands still for the length of a lease, by the watching process's
own clock, is dead: nobody's wall clock is asked, so that it may jump. Its turns are taken over, by whoever is first.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from frontdesk.errors import GatewayError, Overloaded
from frontdesk.store import records
from frontdesk.store.database import Database
from frontdesk.store.records import Node
from frontdesk.store.transaction import Transaction

log = structlog.get_logger(__name__)

LEASE_SECONDS = 15.0
BEATS_IN_LEASE = 6
LOOK_SECONDS = 0.1
TOLD_SECONDS = 1.0


class Owners:
    """`recover` is called with each turn that was taken over, and whether it is to be stopped if it runs still; `mine`
    tells which turns this process is at work on; `cancel` is called with each of those that nobody wants any more."""

    def __init__(
        self,
        database: Database,
        owner: str,
        mine: Callable[[], set[str]],
        recover: Callable[[Node, bool], Coroutine[Any, Any, None]],
        lease_seconds: float = LEASE_SECONDS,
        cancel: Callable[[str], object] = lambda turn_id: None,
    ) -> None:
        self._database = database
        self._owner = owner
        self._mine = mine
        self._recover = recover
        self._lease_seconds = lease_seconds
        self._cancel = cancel
        self._seen: dict[str, tuple[int, float]] = {}  # count, and since when it stands
        self._strays: set[str] = set()
        self._recovering: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._look()
        self._task = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        """Turns that are still ours are left for others to take over."""
        tasks = [*self._recovering.values(), *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await self._database.do(lambda tx: records.forget_owner(tx, self._owner))
        except GatewayError as error:
            log.warning("could not sign off in the store", error=error.message)

    async def is_alive(self, owner: str) -> bool:
        """Wait until a process has shown that it is alive, or must be dead."""
        if owner == self._owner:
            return True
        count = await self._database.read(lambda tx: records.beat_of(tx, owner))
        deadline = time.monotonic() + self._lease_seconds
        while time.monotonic() < deadline:
            await asyncio.sleep(self._lease_seconds / BEATS_IN_LEASE / 4)
            beat = await self._database.read(lambda tx: records.beat_of(tx, owner))
            if beat is None:  # it has signed off, or was found dead
                return False
            if beat != count:
                return True
        return False

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / BEATS_IN_LEASE)
            try:
                await self._look()
            except GatewayError as error:
                log.warning("the store cannot be reached", error=error.message)
            except Exception:  # the beat must go on: without it others would take our turns over
                log.exception("looking after the ledger failed")

    async def _look(self) -> None:
        counts = await self._database.do(lambda tx: records.beat(tx, self._owner))
        now = time.monotonic()
        self._seen = {
            owner: (count, now) if (seen := self._seen.get(owner)) is None or seen[0] != count else seen
            for owner, count in counts.items()
        }
        for owner, (count, since) in self._seen.items():
            if owner != self._owner and (count == 0 or now - since >= self._lease_seconds):
                await self._take_over(owner)
        await self._adopt_strays()
        for turn_id in await self._database.read(lambda tx: records.unwanted(tx, self._owner)):
            self._cancel(turn_id)

    async def _take_over(self, owner: str) -> None:
        def take(tx: Transaction) -> list[Node]:
            left = records.turns_of(tx, owner)
            taken = [node for node in left if records.take_over(tx, node.id, owner, self._owner)]
            records.forget_owner(tx, owner)
            return taken

        for node in await self._database.do(take):
            log.warning("taking over a turn of a process that is gone", turn=node.id, state=node.state)
            self._begin(node, stop=False)

    async def _adopt_strays(self) -> None:
        """Rows of ours without a turn behind them: of a turn whose end we could not find out, or could not write."""
        mine = await self._database.read(lambda tx: records.turns_of(tx, self._owner))
        strays = {node.id: node for node in mine if node.id not in self._mine() and node.id not in self._recovering}
        for node in strays.values():
            if node.id in self._strays:  # seen twice, so it is not about to be written
                self._begin(node, stop=True)
        self._strays = set(strays)

    def _begin(self, node: Node, *, stop: bool) -> None:
        task = asyncio.create_task(self._until_recovered(node, stop))
        self._recovering[node.id] = task
        task.add_done_callback(lambda _: self._recovering.pop(node.id, None))

    async def _until_recovered(self, node: Node, stop: bool) -> None:
        while True:
            try:
                await self._recover(node, stop)
                return
            except GatewayError as error:
                log.warning("a turn cannot be recovered yet", turn=node.id, error=error.message)
            await asyncio.sleep(2.0)


class Line:
    """Waiting for one's turn in a conversation. Turns of this process wake each other; others are looked for."""

    def __init__(self, wait_seconds: float, max_waiting: int = 1000) -> None:
        self._wait_seconds = wait_seconds
        self._max_waiting = max_waiting
        self._waiting: dict[str, set[asyncio.Event]] = {}

    @property
    def waiting(self) -> int:
        return sum(len(line) for line in self._waiting.values())

    def move(self, conversation_id: str) -> None:
        """A turn of this conversation has ended."""
        for event in self._waiting.get(conversation_id, ()):
            event.set()

    async def wait(
        self, conversation_id: str, come: Callable[[], Awaitable[bool]], told: bool, *, patient: bool = False
    ) -> bool:
        """Wait until `come` says that it is our turn. False when that took too long, unless one is patient.

        `told`: who is before us runs here, and will say when it has ended; else we look for that now and then. Raises
        Overloaded when too many wait in this process.
        """
        if self.waiting >= self._max_waiting:
            raise Overloaded("Too many turns wait on this server. Try again shortly.", retry_after_seconds=2)
        event = asyncio.Event()
        self._waiting.setdefault(conversation_id, set()).add(event)
        deadline = time.monotonic() + (math.inf if patient else self._wait_seconds)
        try:
            while not await come():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                try:
                    async with asyncio.timeout(min(TOLD_SECONDS if told else LOOK_SECONDS, left)):
                        await event.wait()
                except TimeoutError:
                    pass
                event.clear()
            return True
        finally:
            line = self._waiting[conversation_id]
            line.discard(event)
            if not line:
                del self._waiting[conversation_id]
