"""Defines the refusal of a change of versions, which clients read."""

from __future__ import annotations

from http import HTTPStatus

#: Code of a change that failed through a fault of the service itself.
SERVER_FAULT = "server_fault"


class ChangeRefused(Exception):
    """A change of versions is not carried out, and what was served before is still served.

    ``code`` is the reason for programs, the text the reason for people. ``conflict`` says that the present
    state of the service is the reason, and not the request or its file.
    """

    def __init__(self, code: str, text: str, *, conflict: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.conflict = conflict

    @property
    def status(self) -> int:
        """HTTP status of the refusal."""
        if self.code == SERVER_FAULT:
            return HTTPStatus.INTERNAL_SERVER_ERROR
        return HTTPStatus.CONFLICT if self.conflict else HTTPStatus.UNPROCESSABLE_ENTITY
