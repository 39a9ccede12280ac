"""Options of a stream and of its connections: what a caller may set, and which values are allowed."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from streamer.client.errors import BadInput
from streamer.client.pixels import DEFAULT_QUALITY


@dataclass(frozen=True, slots=True)
class Tls:
    """How to check the server's certificate."""

    #: PEM file of the authority to trust in place of the system's.
    ca_file: str | None = None
    #: Whether any certificate will do.
    insecure: bool = False

    def context(self) -> ssl.SSLContext | bool:
        """Return what aiohttp takes as ``ssl``. Raises BadInput when the file cannot be used."""
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
    """How pictures are sent and how long a server is waited for."""

    #: JPEG quality of arrays, 1..100.
    quality: int = DEFAULT_QUALITY
    #: Longer side in pixels to which larger pictures are reduced; boxes come back in the original's pixels.
    max_side: int | None = None
    #: The rate that pictures will be offered at, told to the server.
    fps: float | None = None
    connect_timeout_s: float = 10.0
    #: Longest time without a connection, from the start or since it was lost. None: for ever; 0: one try.
    give_up_after_s: float | None = 30.0
    #: What the service files samples of this stream under; empty: unnamed. A camera should keep its name.
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
