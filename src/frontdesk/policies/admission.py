"""How many turns this server runs at once, and how many may wait for a place, first come first served."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from frontdesk.errors import Overloaded

RETRY_SECONDS = 2.0


class Admission:
    def __init__(self, max_turns: int, max_waiting: int, wait_seconds: float) -> None:
        self._max_turns = max_turns
        self._max_waiting = max_waiting
        self._wait_seconds = wait_seconds
        self._in_flight = 0
        self._line: deque[asyncio.Future[bool]] = deque()  # True: a place is yours; False: you have waited too long

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def waiting(self) -> int:
        return len(self._line)

    @asynccontextmanager
    async def hold(self, *, patient: bool = False) -> AsyncGenerator[None, None]:
        """Hold a place. Raises Overloaded at once when the line is full, or after `wait_seconds` in it unless one is
        patient."""
        if self._in_flight < self._max_turns:  # then nobody waits: a place that becomes free goes to the first in line
            self._in_flight += 1
        else:
            await self._stand_in_line(None if patient else self._wait_seconds)
        try:
            yield
        finally:
            self._give_on()

    async def _stand_in_line(self, wait_seconds: float | None) -> None:
        if len(self._line) >= self._max_waiting:
            raise _overloaded()
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._line.append(turn)
        timer = None if wait_seconds is None else loop.call_later(wait_seconds, self._expire, turn)
        try:
            admitted = await turn
        except asyncio.CancelledError:
            if turn in self._line:
                self._line.remove(turn)
            elif not turn.cancelled() and turn.result():  # given a place in the same moment
                self._give_on()
            raise
        finally:
            if timer:
                timer.cancel()
        if not admitted:
            raise _overloaded()

    def _expire(self, turn: asyncio.Future[bool]) -> None:
        if not turn.done():
            self._line.remove(turn)
            turn.set_result(False)

    def _give_on(self) -> None:
        """The place goes to the first who still waits."""
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self._in_flight -= 1


def _overloaded() -> Overloaded:
    return Overloaded(
        "This server runs as many turns as it can at the moment. Try again shortly.", retry_after_seconds=RETRY_SECONDS
    )
