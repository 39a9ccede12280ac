"""Why the service cannot start or go on, with the exit code that says so; README lists the codes."""

from __future__ import annotations

#: 2: usage or configuration, 4: model refused, 5: device unavailable.
EXIT_CANNOT_START = 3
EXIT_KEEPS_DYING = 6


class CannotStart(Exception):
    """The service cannot be started; the text is for the person who tries."""

    def __init__(self, text: str, exit_code: int = EXIT_CANNOT_START) -> None:
        super().__init__(text)
        self.exit_code = exit_code
