"""Health, metrics, load, faults, the command line."""

from tests.requirements import Requirement

REQUIREMENTS: dict[str, Requirement] = {}
