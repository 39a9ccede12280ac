"""Predicts how long a POST waits for its turn, with a margin that is learned from its errors.

An estimate that is right on average is too short for half of the images whose wait is near the bound.
`WaitMargin` learns from the images that were admitted: it raises the margin when an admitted image is refused
after all because it waited too long, and lowers it a little with each image that had its turn in time. This
keeps such refusals at about one in five hundred (stochastic approximation of a quantile).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from inference.core.fair_queueing import FairShare, Flow
from streamer.scheduling.decode_limiter import LONG_MS, Decode, DecodeLimiter
from streamer.scheduling.post_queue import PostQueue, QueuedPost
from streamer.scheduling.service_rate import ServiceRate, most_per_s

#: Smallest, initial and largest factor. A machine that needed a larger one would have practically stopped.
_LEAST, _START, _MOST = 1.1, 1.5, 3.0
_UP = 1.15
_DOWN = 0.9997
#: Images that are refused within this time probably have the same cause, so they raise the factor only once.
_SAME_CAUSE_S = 0.25
#: An image that waited for less than this does not lower the factor, because it was never near the bound.
_LEAST_WAIT_S = 0.1


class WaitMargin:
    """Holds :attr:`factor`, by which an expected wait is multiplied before it is compared with the bound."""

    def __init__(self) -> None:
        self.factor = _START
        self._raised_at = float("-inf")

    def missed(self, now: float) -> None:
        """Raise the factor, because an admitted image has waited too long and was refused."""
        if now - self._raised_at >= _SAME_CAUSE_S:
            self._raised_at = now
            self.factor = min(_MOST, self.factor * _UP)

    def kept(self, waited_s: float) -> None:
        """Lower the factor a little, because an admitted image had its turn in time."""
        if waited_s >= _LEAST_WAIT_S:
            self.factor = max(_LEAST, self.factor * _DOWN)


class Waiting(QueuedPost, Protocol):
    """Describes a posted image that waits."""

    #: Flow of its client; set while it waits.
    flow: Flow | None
    decode: Decode | None


Post = TypeVar("Post", bound=Waiting)


@dataclass(slots=True)
class PostWait(Generic[Post]):
    """Predicts waits from the queues of a version, which it does not change, and learns from its errors."""

    share: FairShare
    posts: PostQueue[Post]
    service: ServiceRate
    decode_limiter: DecodeLimiter
    #: Number of concurrent model runs.
    inference_threads: int = 1
    #: Margins of images with a short decode (False) and with a long one (True). They differ, because long
    #: decodes wait for a decoder and other images for their turn.
    _margins: dict[bool, WaitMargin] = field(
        default_factory=lambda: {False: WaitMargin(), True: WaitMargin()}
    )

    def longest_s(
        self, flow: Flow, connection: int, costs: tuple[float, float], wanting: Sequence[Flow], now: float
    ) -> float:
        """Return an upper estimate of how long one more image of a connection waits for its turn.

        ``costs`` are the seconds to decode it and the seconds of its model run. ``wanting`` are the clients
        with waiting work. The estimate exceeds the expected wait, so that very few images wait longer.
        """
        decode_ms = costs[0] * 1e3
        wait_s = max(
            self.for_decoder_s(flow, decode_ms, now), self.expected_s(flow, connection, costs, wanting, now)
        )
        return wait_s * self.margin(decode_ms).factor

    def margin(self, decode_ms: float) -> WaitMargin:
        """Return the margin for images with this decode time."""
        return self._margins[decode_ms > LONG_MS]

    def most_per_s(self, decode_s: float, run_s: float) -> float:
        """Return the seconds of work per second that images of this cost allow.

        It stands in for the measured rate until there is one.
        """
        return most_per_s(decode_s, run_s, self.decode_limiter.decoders, self.inference_threads)

    def expected_s(
        self, flow: Flow, connection: int, costs: tuple[float, float], wanting: Sequence[Flow], now: float
    ) -> float:
        """Return the expected seconds until such an image is next, without the wait for decoders.

        The parameters are those of :meth:`longest_s`.
        """
        ahead_s, others_s = (
            self.posts.ahead_s(flow, connection, sum(costs)),
            self._others_s(flow, wanting, now),
        )
        if not (ahead_s or others_s):
            return 0.0
        at_most = self.most_per_s(*costs)
        fraction = self.share.fraction(flow, wanting)
        wait_s = ahead_s / self.service.available_per_s(flow, fraction, now, at_most)
        return wait_s + others_s / self.service.per_s(at_most)

    def _others_s(self, flow: Flow, wanting: Sequence[Flow], now: float) -> float:
        """Return the seconds of other clients' work that goes before all work of this client.

        Each other client is assumed to take at most its waiting work and what it continues to send, which is
        estimated from its recent use.
        """
        posts_s = live_s = class_s = 0.0
        for other in set(wanting):
            if other.kind != flow.kind:
                class_s = max(class_s, self.share.lead_s(flow, other))
                live_s += self.service.usage_s(other, now)
            elif other is not flow and (lead_s := self.share.lead_s(flow, other)):
                posts_s += min(lead_s, self.posts.waiting_s(other) + self.service.usage_s(other, now))
        if live_s:
            class_s += posts_s * self.share.class_ratio(flow.kind, "live")
        return posts_s + min(class_s, live_s)

    def for_decoder_s(self, flow: Flow, decode_ms: float, now: float) -> float:
        """Return the seconds until one of the decoders for long decodes is free; 0 for a short decode."""
        if decode_ms <= LONG_MS:
            return 0.0
        before_ms = sum(
            post.decode.expected_ms
            for post in self.posts
            if post.decode is not None
            and post.decode.expected_ms > LONG_MS
            and (post.flow is flow or (post.flow is not None and post.flow.tag <= flow.tag))
        )
        return (
            before_ms / 1e3 + self.decode_limiter.long_left_s(now)
        ) / self.decode_limiter.decoders_for_long(now)
