"""What one live stream has asked for lately, as the version's queue keeps it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from inference.core.fair_share import Flow


@dataclass(slots=True)
class Demand:
    """What a stream has asked for lately."""

    flow: Flow
    arrived: int = 0
    fps: float = 0.0
    #: Its frames wait for the device, so it would take more than it sends.
    hungry: bool = False
    #: What decoding one of its frames is expected to take.
    decode_ms: float = 0.0
    #: Most memory that decoding its last frame took.
    nbytes: int = 0
    #: The turn it was last served in.
    served: int = 0
