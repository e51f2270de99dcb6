"""Tools for testing agents behind Frontdesk, for our own tests and for yours."""

from frontdesk.testing.model import TABLE, Request, ScriptedModel

__all__ = ["TABLE", "Request", "ScriptedModel"]
