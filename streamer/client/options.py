"""Options of a stream and of its connections: what a caller may set, and which values are allowed."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from streamer.client.errors import BadInput
from streamer.client.pixels import DEFAULT_QUALITY


@dataclass(frozen=True, slots=True)
class Tls:
    """How to check the certificate of the server."""

    #: PEM file of the certificate authority to trust, instead of those of the system.
    ca_file: str | None = None
    #: Whether to accept any certificate.
    insecure: bool = False

    def context(self) -> ssl.SSLContext | bool:
        """Return the value of aiohttp's parameter ``ssl``. Raises BadInput when the file cannot be used."""
        if self.insecure:
            return False
        if self.ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise BadInput(f"certificate file {self.ca_file}: {error}") from error


MODES = ("live", "all")
MAX_NAME_CHARS = 100


@dataclass(frozen=True, slots=True)
class Options:
    """How frames are sent, and how long to wait for the server."""

    #: JPEG quality for frames that are arrays, 1..100.
    quality: int = DEFAULT_QUALITY
    #: Larger frames are reduced to this longer side in pixels. Boxes are in pixels of the original all the
    #: same.
    max_side: int | None = None
    #: Frame rate that the client announces to the server; None when it is unknown.
    fps: float | None = None
    connect_timeout_s: float = 10.0
    #: Longest time without a connection, from the start or since a loss. None: no limit; 0: one attempt.
    give_up_after_s: float | None = 30.0
    #: Name under which the service stores samples of this stream; may be empty. A camera should keep its
    #: name.
    stream: str = ""
    tls: Tls = field(default_factory=Tls)

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise BadInput(f"quality is {self.quality}; allowed are 1 to 100")
        if self.max_side is not None and self.max_side < 16:
            raise BadInput(f"max_side is {self.max_side}; allowed are 16 pixels and more")
        if len(self.stream) > MAX_NAME_CHARS:
            raise BadInput(f"stream is {len(self.stream)} characters; allowed are {MAX_NAME_CHARS}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise BadInput(f"fps is {self.fps}; allowed is more than 0, up to 1000")
