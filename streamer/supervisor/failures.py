"""The error that ends the service, and its exit codes; README lists all of them."""

from __future__ import annotations

#: Further codes: 2 for usage or configuration, 4 for a refused model, 5 for an unavailable device.
EXIT_CANNOT_START = 3
EXIT_KEEPS_DYING = 6


class CannotStart(Exception):
    """The service cannot start or continue; the text is shown to the person who started it."""

    def __init__(self, text: str, exit_code: int = EXIT_CANNOT_START) -> None:
        super().__init__(text)
        self.exit_code = exit_code
