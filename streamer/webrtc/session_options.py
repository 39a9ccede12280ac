"""What a client asks of its session, as it was understood from the offer. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.protocol.client_messages import Params


@dataclass(frozen=True, slots=True)
class Wishes:
    """Thresholds, whether the video goes back with boxes, and what may become of its frames."""

    params: Params
    annotate: bool = False
    #: What samples are filed under; empty: unnamed.
    name: str = ""
    #: Whether frames may be kept as samples.
    collect: bool = True
