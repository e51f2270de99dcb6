"""Letta agents through the REST API of a self-hosted Letta server or Letta Cloud."""

from frontdesk.backends.letta.backend import LettaBackend
from frontdesk.backends.letta.server import LettaSettings

__all__ = ["LettaBackend", "LettaSettings"]
