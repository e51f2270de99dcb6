"""Reading turns in tasks of their own, for protocols whose library cancels whoever waits once the client has gone.

The turn is then left, as by a client that hangs up: it goes on, or is stopped, as the operator has it.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, aclosing

import structlog

from frontdesk.errors import GatewayError, TurnCancelled
from frontdesk.gateway import Run
from frontdesk.turn import Batch

log = structlog.get_logger(__name__)


class Aside:
    def __init__(self) -> None:
        self._runs: dict[asyncio.Task[None], Run] = {}

    async def read(self, run: Run, within: AbstractContextManager[None], hear: Callable[[Batch], object]) -> None:
        """Read a turn to its end, `within` this. Raises GatewayError; TurnCancelled if it was stopped."""
        begun = left = False

        async def pump() -> None:
            nonlocal begun
            begun = True
            with within:
                async with aclosing(run.batches()) as batches:
                    async for batch in batches:
                        if not left:
                            hear(batch)

        task = asyncio.create_task(pump())
        self._runs[task] = run
        task.add_done_callback(self._over)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            left = True
            if begun:
                run.leave()
            else:
                task.cancel()
            raise
        if task.cancelled():
            raise TurnCancelled("This was cancelled.")
        task.result()

    def _over(self, task: asyncio.Task[None]) -> None:
        del self._runs[task]
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, GatewayError):
            log.error("a turn failed", exc_info=error)

    def stop(self) -> None:
        """Stop whatever is still read: this process ends."""
        for run in self._runs.values():
            run.stop()
