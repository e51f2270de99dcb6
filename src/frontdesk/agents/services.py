"""What the app lends to skills while it serves."""

from dataclasses import dataclass

from frontdesk.ports import Desk, Memories


@dataclass(frozen=True, slots=True)
class Services:
    """Given to each skill's `lifespan`. What is None is not to be had here."""

    memories: Memories | None = None
    desk: Desk | None = None
