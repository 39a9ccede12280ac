"""A client as the scheduler sees it: whom work is charged to, by which weight, and what it may ask for."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamer.core.token_bucket import TokenBucket

#: How fast a surprising decode is forgotten: by this factor with each image that is as expected.
_FORGIVEN = 0.9
#: Bounds of what a client's images may seem to cost compared with others of their size.
_MAX_SURPRISE = 1000.0


@dataclass(slots=True, eq=False)
class Client:
    """One key, or one address where there are no keys, however many connections and streams it has."""

    name: str
    #: The same in every worker; 32 bits.
    number: int = 0
    weight: float = 1.0
    #: What its images cost to decode, compared with others of their size and kind; 1 or more.
    surprise: float = 1.0
    #: What its latest posted image was expected to cost to decode, in milliseconds.
    post_ms: float = 0.0
    #: What a frame of its streams costs to decode, in milliseconds; 0 until one was decoded.
    frame_ms: float = 0.0
    #: WebSocket connections that are open in this worker, and how many may be.
    streams: int = 0
    most_streams: int | None = None
    #: The quotas that the buckets were made of.
    quotas: object = None
    #: POSTs and bytes of images; None: no limit.
    requests: TokenBucket | None = None
    image_bytes: TokenBucket | None = None
    #: How fast `streams` and `sessions` may be opened; without an entry there is no limit.
    openings: dict[str, TokenBucket] = field(default_factory=dict)

    def learn_surprise(self, expected_ms: float, actual_ms: float) -> None:
        """Remember an image that cost more than its size made expect, until others did not."""
        ratio = actual_ms / max(expected_ms / self.surprise, 0.1)
        self.surprise = min(_MAX_SURPRISE, max(1.0, ratio, self.surprise * _FORGIVEN))


#: Whom work is charged to that no client asked for.
NOBODY = Client("")


# Not frozen, though nobody changes one: that would make each construction three times as slow.
@dataclass(slots=True)
class Caller:
    """Who sends a POST: whom it is charged to, and what tells its connections apart."""

    client: Client = NOBODY
    connection: int = 0
    #: Whether its images may wait until their deadline, as those of a request with several may.
    patient: bool = False
