"""Agents written in Python, run in this process through Pydantic AI."""

from frontdesk.backends.python.backend import PythonBackend
from frontdesk.backends.python.models import Models

__all__ = ["Models", "PythonBackend"]
