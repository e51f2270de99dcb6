"""Errors, before and after a stream has begun."""

from tests.requirements import Requirement

CODES = "https://platform.openai.com/docs/guides/error-codes"

REQUIREMENTS = {
    "errors.unknown-model": Requirement("An unknown agent is 404 `model_not_found`, never another agent", CODES),
}
