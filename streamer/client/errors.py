"""All errors that the client raises: first those that the caller can fix, then those of the network."""

from __future__ import annotations


class ClientError(Exception):
    """Base class of all errors of the client. Messages never contain credentials."""


class BadInput(ClientError):
    """A source, image, address or option cannot be used; the message says what is allowed."""


class SourceFailed(ClientError):
    """A camera, file or address cannot be opened, read or decoded; the message says which and why.

    ``temporary`` says whether another attempt may succeed.
    """

    def __init__(self, message: str, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary


class SaveFailed(ClientError):
    """A video, JSON file or image cannot be written."""


class UnreadOutcomes(ClientError):
    """Too many outcomes wait to be read. Iterate over the stream in a separate task while offering frames."""


class MissingPackage(ClientError):
    """An optional package is needed for this; the message says how to install it."""


class Rejected(ClientError):
    """The server refused permanently: another attempt would get the same answer.

    ``code`` is the WebSocket close code or HTTP status.
    """

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class ConnectionFailed(ClientError):
    """The server cannot be reached, or the connection was lost and the attempts to reconnect have ended."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        #: Seconds after which the server asked the client to try again; None when it named no time.
        self.retry_after_s = retry_after_s


class StreamClosed(ClientError):
    """The stream was finished or closed and accepts no more frames."""


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
        #: Seconds after which the server asked the client to try again; None when it named no time.
        self.retry_after_s = retry_after_s
        self.status = status
        self.code = code
        self.request_id = request_id
