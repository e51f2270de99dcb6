"""How a process of ours begins, before anything heavy is imported."""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def loading() -> Generator[None]:
    """Rest the garbage collector while much is imported and made that stays.

    It would look at all of it again and again, in vain: a sixth of the time until a server answers (measured). And
    what is there at the end is never looked at again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def work(*arguments: Any) -> None:
    """The life of a worker, `frontdesk.serving.work`, in a process that has imported nothing yet."""
    with loading():
        from frontdesk import serving
    serving.work(*arguments)
