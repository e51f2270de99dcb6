"""One turn at a time per conversation: callers stand in line, first come first served, for a bounded time.

Without Redis a Letta server neither locks nor notices two turns at once in one conversation, and loses messages.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from frontdesk.errors import ConversationBusy

MAX_LINE = 50


@dataclass(slots=True)
class _Line:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    give_way: Callable[[], object] | None = None
    work: asyncio.Future[None] | None = None


class Leases:
    """Leases within this process."""

    def __init__(self, wait_seconds: float = 30.0) -> None:
        self._wait_seconds = wait_seconds
        self._lines: dict[str, _Line] = {}

    @property
    def waiting(self) -> int:
        return sum(line.users - line.lock.locked() for line in self._lines.values())

    @asynccontextmanager
    async def hold(self, key: str, give_way: Callable[[], object] | None = None) -> AsyncGenerator[bool, None]:
        """Hold `key`; yields whether that took waiting. `give_way` is called when somebody else comes for it.

        Raises ConversationBusy when the wait runs out; nothing was appended then.
        """
        line = self._lines.setdefault(key, _Line())
        if line.users > MAX_LINE:  # each of them holds a place that others need
            raise ConversationBusy("Too many turns wait for this conversation already.", retry_after_seconds=2)
        line.users += 1
        waited = line.users > 1  # a lease just given back is not free: the next in line has yet to wake up
        try:
            if line.give_way:
                line.give_way()
            await self._acquire(line)
        except BaseException:
            self._leave(key, line)
            raise
        try:
            line.give_way = give_way
            if give_way and line.users > 1:
                give_way()
            yield waited
        finally:
            line.give_way = None
            if line.work:
                line.work.add_done_callback(lambda _: self._give_on(key, line))
            else:
                self._give_on(key, line)

    def keep(self, key: str, work: asyncio.Future[None]) -> None:
        """The lease which is held now lasts until this work is done, however long its holder stays."""
        self._lines[key].work = work

    def _give_on(self, key: str, line: _Line) -> None:
        line.work = None
        line.lock.release()
        self._leave(key, line)

    def _leave(self, key: str, line: _Line) -> None:
        line.users -= 1
        if not line.users:
            del self._lines[key]

    async def _acquire(self, line: _Line) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await line.lock.acquire()
        except TimeoutError as error:
            raise ConversationBusy(
                f"Another turn of this conversation is still running after {self._wait_seconds:g} seconds of waiting. "
                "Nothing was sent; try again when it has ended.",
                retry_after_seconds=2,
            ) from error
