"""How long a POST would wait for its turn, from what waits, what is owed and how fast work is done. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from inference.fair_share import FairShare, Flow
from streamer.scheduling.decode_room import LONG_MS, Decode, DecodeRoom
from streamer.scheduling.post_queue import Posted, PostQueue
from streamer.scheduling.service_rate import ServiceRate


class Waiting(Posted, Protocol):
    """A posted image that waits."""

    #: Whose it is; set while it waits.
    flow: Flow | None
    decode: Decode | None


Post = TypeVar("Post", bound=Waiting)


@dataclass(frozen=True, slots=True)
class PostWait(Generic[Post]):
    """Looks at the queues of a version; changes nothing."""

    share: FairShare
    posts: PostQueue[Post]
    service: ServiceRate
    room: DecodeRoom

    def expected_s(
        self,
        flow: Flow,
        connection: int,
        image_s: float,
        wanting: Sequence[Flow],
        now: float,
        most_per_s: float,
    ) -> float:
        """Return the wait of one more image of a connection, which takes ``image_s``, until it is the next.

        ``wanting`` are the clients with work that waits, ``most_per_s`` the seconds of work that can be done
        in a second.
        """
        ahead_s, debt_s = self.posts.ahead_s(flow, connection, image_s), self.share.debt_s(flow)
        if not (ahead_s or debt_s):
            return 0.0
        fraction = self.share.fraction(flow, wanting)
        wait_s = ahead_s / self.service.available_per_s(flow, fraction, now, most_per_s)
        if not debt_s or (len(wanting) == 1 and wanting[0] is flow):
            return wait_s
        # What it owes to others is paid only as far as others want something.
        streams = {other for other in wanting if other.kind == "live"}
        others_s = sum(post.expected_s for post in self.posts if post.flow is not flow)
        others_s += debt_s * sum(self.share.fraction(other, wanting) for other in streams)
        return wait_s + min(debt_s, others_s) / self.service.per_s(most_per_s)

    def for_decoder_s(self, flow: Flow, decode_ms: float, now: float) -> float:
        """Return the wait for one of the decoders that long images may use; 0 for a short image."""
        if decode_ms <= LONG_MS:
            return 0.0
        before_ms = sum(
            post.decode.expected_ms
            for post in self.posts
            if post.decode is not None
            and post.decode.expected_ms > LONG_MS
            and (post.flow is flow or (post.flow is not None and post.flow.tag <= flow.tag))
        )
        return (before_ms / 1e3 + self.room.long_left_s(now)) / self.room.decoders_for_long(now)
