"""Who gets in, and where."""

from tests.requirements import Requirement

REQUIREMENTS: dict[str, Requirement] = {}
