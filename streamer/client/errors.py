"""Every error the client raises, in one tree: what the caller can mend first, what the network did second."""

from __future__ import annotations


class ClientError(Exception):
    """Root of all errors of the client. Messages never hold credentials."""


class BadInput(ClientError):
    """A source, picture, address or option cannot be used; the message says what is allowed."""


class SourceFailed(ClientError):
    """A camera, file or address cannot be opened, decoded or read on; the message says which and why."""


class SaveFailed(ClientError):
    """A video, journal or picture cannot be written."""


class UnreadOutcomes(ClientError):
    """Nobody reads the outcomes while frames go on being offered; iterate the stream in a task of its own."""


class MissingPackage(ClientError):
    """An optional package is needed for this; the message says how to install it."""


class Rejected(ClientError):
    """The server refused for good: asking again would get the same answer.

    ``code`` is the WebSocket close code or HTTP status.
    """

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class ConnectionFailed(ClientError):
    """The server cannot be reached, or the connection was lost and is not to be made again."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        #: The server's own statement of when to come back, seconds.
        self.retry_after_s = retry_after_s


class StreamClosed(ClientError):
    """The stream was finished or closed; it takes no more frames."""


class PredictFailed(ClientError):
    """The server answered a predict request with a problem document; ``status`` is its HTTP status."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        #: The server's own statement of when to come back, seconds.
        self.retry_after_s = retry_after_s
        self.status = status
        self.code = code
        self.request_id = request_id
