"""Authors' code runs in our process: it cannot be let end that."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager


class Quit(Exception):
    """An author's code has tried to end the program, or the task it was called in."""


@contextmanager
def contained() -> Generator[None]:
    """Around authors' code: `sys.exit()`, and whatever else is no Exception, becomes one.

    asyncio takes SystemExit and KeyboardInterrupt out of any task for the end of the program. A cancellation that
    nobody has asked for comes from a library within.
    """
    try:
        yield
    except Exception:
        raise
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise Quit("it was cancelled from within") from error
    except GeneratorExit:
        raise
    except BaseException as error:
        raise Quit(f"it raised {type(error).__name__}") from error


def is_cancelled() -> bool:
    """Whether somebody has cancelled the task that runs here."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # in a thread
        return False
    return task is not None and task.cancelling() > 0
