"""What Frontdesk promises: every behaviour has an id, its source, and at least one test that shows it.

A test says which promises it shows: `@requirement("chat.stream.role-first")`. Where we fall short of the source, the
entry has a `divergence`, and the test pins what happens today. docs/compatibility.md is generated from here, so that it
cannot claim what no test shows: `make docs` writes it, `make check` compares.
"""

from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True)
class Requirement:
    """A promise. `source` is where it comes from: a URL, or the name of the client that needs it."""

    text: str
    source: str
    divergence: str = ""


def requirement(*ids: str) -> pytest.MarkDecorator:
    """Mark a test as showing these promises."""
    return pytest.mark.requirement(*ids)
