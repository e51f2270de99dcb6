"""A name for each test, and agents whose conversations can be counted."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.protocols.chat_completions.test_node import node_folder

__all__ = ["node_folder"]


@pytest.fixture
def marker() -> str:
    """Something to find this test's own requests by, at the model."""
    return f"#{uuid.uuid4().hex[:12]}"


@pytest.fixture
def agent(make_agent: Callable[..., Any]) -> Any:
    """An agent of this test's own, as Letta knows it."""
    return make_agent()
