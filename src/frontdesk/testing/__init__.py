"""Tools for testing agents behind Frontdesk, for our own tests and for yours."""

from frontdesk.testing.model import Request, ScriptedModel
from frontdesk.testing.script import TABLE

__all__ = ["TABLE", "Request", "ScriptedModel"]
