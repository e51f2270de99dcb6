"""Tools for testing agents behind Frontdesk, for our own tests and for yours."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from frontdesk.testing.model import Request, ScriptedModel
from frontdesk.testing.script import TABLE

if TYPE_CHECKING:
    from frontdesk.testing.gateway import Served, serving

__all__ = ["TABLE", "Request", "ScriptedModel", "Served", "serving"]


def __getattr__(name: str) -> Any:
    """What brings the whole server along, imported when asked for."""
    if name not in ("Served", "serving"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("frontdesk.testing.gateway"), name)
