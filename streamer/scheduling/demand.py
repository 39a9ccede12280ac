"""The recent demand of one live stream, as the version's queue keeps it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from inference.core.fair_share import Flow


@dataclass(slots=True)
class Demand:
    """Recent demand of a stream."""

    flow: Flow
    arrived: int = 0
    fps: float = 0.0
    #: Whether its frames wait for the device, so that the stream could use more than it sends now.
    hungry: bool = False
    #: Expected decode time of one of its frames, in milliseconds.
    decode_ms: float = 0.0
    #: Peak memory of decoding its last frame, in bytes.
    nbytes: int = 0
    #: Number of the turn in which it was last served.
    served: int = 0
