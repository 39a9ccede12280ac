"""A client as the scheduler sees it: it is charged for work, and has a weight and quotas."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamer.core.token_bucket import TokenBucket

#: Factor by which `surprise` decays with each image that costs what was expected.
_FORGIVEN = 0.9
#: Upper bound of `surprise`.
_MAX_SURPRISE = 1000.0


@dataclass(slots=True, eq=False)
class Client:
    """One API key, or one address if there are no keys, with all its connections and streams."""

    name: str
    #: Identifies the client in all workers; 32 bits.
    number: int = 0
    weight: float = 1.0
    #: Factor by which its images cost more to decode than others of their size and kind; 1 or more.
    surprise: float = 1.0
    #: Expected decode time of its latest posted image, in milliseconds.
    post_ms: float = 0.0
    #: Decode time of a frame of its streams, in milliseconds; 0 until one was decoded.
    frame_ms: float = 0.0
    #: Number of WebSocket connections that are open in this worker, and the largest number allowed.
    streams: int = 0
    most_streams: int | None = None
    #: Quotas from which the token buckets below were made.
    quotas: object = None
    #: Buckets for POSTs and for bytes of images; None means no limit.
    requests: TokenBucket | None = None
    image_bytes: TokenBucket | None = None
    #: Buckets that limit how fast `streams` and `sessions` are opened; no entry means no limit.
    openings: dict[str, TokenBucket] = field(default_factory=dict)

    def learn_surprise(self, expected_ms: float, actual_ms: float) -> None:
        """Raise `surprise` when an image cost more than its size suggested; let it decay with images that did
        not.
        """
        ratio = actual_ms / max(expected_ms / self.surprise, 0.1)
        self.surprise = min(_MAX_SURPRISE, max(1.0, ratio, self.surprise * _FORGIVEN))


#: The client that is charged for work that no client asked for.
NOBODY = Client("")


# Nobody changes an instance, but a frozen class would make each construction three times as slow.
@dataclass(slots=True)
class Caller:
    """The sender of a POST: the client that is charged, and a number that tells its connections apart."""

    client: Client = NOBODY
    connection: int = 0
    #: Whether its images may wait until their deadline, as the images of a request with several do.
    patient: bool = False
