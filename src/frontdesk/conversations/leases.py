"""One turn at a time per conversation: callers stand in line, first come first served, for a bounded time.

Without Redis a Letta server neither locks nor notices two turns at once in one conversation, and loses messages.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from frontdesk.errors import ConversationBusy


@dataclass(slots=True)
class _Line:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    give_way: Callable[[], object] | None = None


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
        line.users += 1
        try:
            waited = line.lock.locked()
            if line.give_way:
                line.give_way()
            await self._acquire(line)
            try:
                line.give_way = give_way
                if give_way and line.users > 1:
                    give_way()
                yield waited
            finally:
                line.give_way = None
                line.lock.release()
        finally:
            line.users -= 1
            if not line.users:
                self._lines.pop(key, None)

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
