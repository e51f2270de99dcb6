"""Packages of others that must not be let in as they are."""

import importlib
import sys
from typing import Any


def x402_sdk(part: str = "") -> Any:
    """A part of x402's SDK, only for those who need it. Raises ImportError where the extra is not installed.

    One of the packages it brings raises Python's limit of recursion to 100,000 for the whole process: any deep JSON in
    a request would then end that, where it is an error now.
    """
    limit = sys.getrecursionlimit()
    try:
        return importlib.import_module(f"x402.{part}" if part else "x402")
    finally:
        sys.setrecursionlimit(limit)
