"""Notices when an agent gives no sign of work. One timer for a turn: a deadline for each chunk would cost more than the
chunk's translation."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from types import TracebackType
from typing import Any, Self

from frontdesk.errors import AgentTimeout


class Silence:
    """Around a turn: what is awaited within `of` and takes longer than `seconds`, is cut off."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._since = 0.0  # when we began to wait; 0 while we do not
        self._overdue = False

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(self._seconds, self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        left = self._since + self._seconds - now if self._since else self._seconds
        if left <= 0 and self._task:
            self._overdue = True
            self._task.cancel()
            return
        self._timer = self._loop.call_later(left, self._look)

    async def of(self, events: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
        """The same events. Raises AgentTimeout when the next does not come."""
        upstream, clock = aiter(events), self._loop.time
        while True:
            self._since = clock()
            try:
                event = await anext(upstream)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                if not self._overdue or self._task is None or self._task.uncancel():
                    raise
                raise AgentTimeout(f"The agent gave no sign of work for {self._seconds:g} seconds.") from None
            finally:
                self._since = 0.0
            yield event
