"""What a demo cannot go on after."""


class DemoError(Exception):
    """The demo cannot go on. `mend` says what to do about it; `words` in backquotes are for typing."""

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend
