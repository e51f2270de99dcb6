"""Every promise has a test, and every test that claims one claims one that exists."""

from tests.requirements.__main__ import problems, shown


def test_every_promise_is_shown_by_a_test() -> None:
    assert problems(shown()) == []
