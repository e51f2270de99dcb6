"""What an author imports, and what that costs those who do not."""

import subprocess
import sys

import pytest

import frontdesk
from frontdesk.agents import skills
from tests.requirements import requirement

HEAVY = {"pydantic_ai", "mcp", "a2a"}


def loaded(statement: str) -> set[str]:
    """The modules that are there after a statement, in a process of its own."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import frontdesk", "import frontdesk.cli", "import frontdesk.serving"])
@requirement("python.alone")
def test_a_server_without_python_agents_imports_nothing_of_theirs(statement: str) -> None:
    assert not loaded(statement) & HEAVY


def test_every_word_can_be_imported_and_no_other() -> None:
    assert all(hasattr(frontdesk, name) for name in frontdesk.__all__)
    assert not hasattr(frontdesk, "nothing")


def test_every_skill_that_ships_can_be_imported_and_has_a_name_in_files() -> None:
    assert all(hasattr(skills, name) for name in skills.__all__)
    assert set(skills.SHIPPED.values()) <= set(skills.__all__)
    assert not hasattr(skills, "Nothing")
