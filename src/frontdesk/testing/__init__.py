"""Tools for testing agents behind Frontdesk, for our own tests and for yours.

The names are loaded when first used, so that `python -m frontdesk.testing.model` finds its module fresh.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frontdesk.testing.model import ScriptedModel

__all__ = ["ScriptedModel"]

_HOMES = {"ScriptedModel": "frontdesk.testing.model"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
