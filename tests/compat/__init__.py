"""Other people's clients against a real gateway, each in its pinned environment: `python -m tests.compat`."""
