"""Queues the waiting POSTs of each client, with fair queueing between a client's connections. Pure.

`FairShare` decides between clients. This queue decides within a client by self-clocked fair queueing
(Golestani 1994): each image is tagged with the virtual time at which it would be done if its connection had a
fair share, and the image with the smallest tag goes first. Therefore a cheap image is not delayed by a
connection of the same client that sends expensive images, nor by many connections that send one each, and an
expensive image waits for a bounded amount of work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from inference.core.fair_queueing import Flow

#: If two tags differ by less than this fraction of the image's cost, they count as equal and the earlier
#: image goes first, because the expected cost of equal images varies a little over time.
_SAME = 0.1
#: Number of connections per client whose costs are remembered while the client has work here.
MAX_CONNECTIONS = 256


class QueuedPost(Protocol):
    """Describes a posted image that waits."""

    #: Identifies the connection among those of its client.
    connection: int
    #: Virtual finish time within the client; minus infinity for an image that is queued again. Only the queue
    #: writes it.
    tag: float
    #: Expected seconds of decoding and inference.
    expected_s: float


Post = TypeVar("Post", bound=QueuedPost)


@dataclass(slots=True)
class _ClientPosts(Generic[Post]):
    """Holds the waiting POSTs of one client and its virtual times."""

    waiting: list[Post] = field(default_factory=list)
    #: Largest virtual finish time of the images that were taken.
    virtual_s: float = 0.0
    #: Virtual time at which each connection's next image may start.
    finish_s: dict[int, float] = field(default_factory=dict)

    def start_of(self, connection: int) -> float:
        return max(self.virtual_s, self.finish_s.get(connection, 0.0))


class PostQueue(Generic[Post]):
    """Holds the waiting POSTs of one model version."""

    def __init__(self) -> None:
        self._by_flow: dict[Flow, _ClientPosts[Post]] = {}
        #: Number of waiting images; only the queue writes it.
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Post]:
        for client_posts in self._by_flow.values():
            yield from client_posts.waiting

    def add(self, flow: Flow, post: Post) -> None:
        """Queue an image of a client."""
        client_posts = self._by_flow.get(flow)
        if client_posts is None:
            client_posts = self._by_flow[flow] = _ClientPosts()
        post.tag = client_posts.start_of(post.connection) + post.expected_s
        if len(client_posts.finish_s) >= MAX_CONNECTIONS:
            # A connection without debt need not be remembered. If all connections have debt, the debts are
            # forgotten, because memory must stay bounded.
            client_posts.finish_s = {
                key: at for key, at in client_posts.finish_s.items() if at > client_posts.virtual_s
            }
            if len(client_posts.finish_s) >= MAX_CONNECTIONS:
                client_posts.finish_s.clear()
        client_posts.finish_s[post.connection] = post.tag
        place, passed_from = len(client_posts.waiting), post.tag + _SAME * post.expected_s
        while place and client_posts.waiting[place - 1].tag > passed_from:
            place -= 1
        client_posts.waiting.insert(place, post)
        self.count += 1

    def ready(self, fits: Callable[[Post], bool], among: Collection[Flow] | None = None) -> dict[Flow, Post]:
        """Return the first image of each client that may start now, as decided by ``fits``.

        ``among`` are the clients that may start anything; None means all.
        """
        found = {}
        for flow, client_posts in self._by_flow.items():
            if among is not None and flow not in among:
                continue
            for post in client_posts.waiting:
                if fits(post):
                    found[flow] = post
                    break
        return found

    def waiting_flows(self) -> list[Flow]:
        """Return the clients with images that wait."""
        return [flow for flow, client_posts in self._by_flow.items() if client_posts.waiting]

    def waiting_s(self, flow: Flow) -> float:
        """Return the expected seconds of a client's images that wait."""
        client_posts = self._by_flow.get(flow)
        return 0.0 if client_posts is None else sum(post.expected_s for post in client_posts.waiting)

    def remove(self, flow: Flow, post: Post) -> bool:
        """Withdraw an image; return False if it does not wait or no longer waits."""
        client_posts = self._by_flow.get(flow)
        if client_posts is None or post not in client_posts.waiting:
            return False
        client_posts.waiting.remove(post)
        self.count -= 1
        self._remove_if_empty(flow, client_posts)
        return True

    def take(self, flow: Flow, post: Post) -> None:
        """Take an image that :meth:`ready` returned and that starts now; :meth:`settle` follows once."""
        client_posts = self._by_flow[flow]
        client_posts.waiting.remove(post)
        self.count -= 1
        client_posts.virtual_s = max(client_posts.virtual_s, post.tag)

    def ahead_s(self, flow: Flow, connection: int, expected_s: float = 0.0) -> float:
        """Return the expected seconds of a client's images that would start before one of ``connection``.

        ``expected_s`` is the expected cost of that image. A connection with a waiting image is assumed to
        send its next one as soon as it has the answer, so several cheap images may go before an expensive
        one.
        """
        client_posts = self._by_flow.get(flow)
        if client_posts is None or not client_posts.waiting:
            return 0.0
        finish_s, finishes_s = client_posts.start_of(connection) + expected_s, client_posts.finish_s
        passed_from, ahead_s = finish_s + _SAME * expected_s, 0.0
        # Seconds of the images that each other connection is assumed to send after its waiting ones.
        following_s: dict[int, float] = {}
        # This loop calls no function, because each POST of a busy worker runs it twice over all waiting
        # images.
        for post in client_posts.waiting:
            if post.tag <= passed_from:
                ahead_s += post.expected_s
                other = post.connection
                if other != connection and other in finishes_s and finishes_s[other] < finish_s:
                    following_s[other] = finish_s - finishes_s[other]
        return ahead_s + sum(following_s.values())

    def settle(self, flow: Flow, post: Post, actual_s: float, *, again: bool = False) -> None:
        """Charge the connection of an image that has ended with its real cost.

        With ``again`` the image is queued once more, before all others except those that were queued again
        earlier; its expected cost then stays charged.
        """
        client_posts = self._by_flow.get(flow)
        if client_posts is None:
            if not again:
                return
            client_posts = self._by_flow[flow] = _ClientPosts()
        if post.connection in client_posts.finish_s:
            client_posts.finish_s[post.connection] += actual_s - (0.0 if again else post.expected_s)
        if again:
            post.tag = -math.inf
            client_posts.waiting.insert(sum(each.tag == post.tag for each in client_posts.waiting), post)
            self.count += 1
        self._remove_if_empty(flow, client_posts)

    def _remove_if_empty(self, flow: Flow, client_posts: _ClientPosts[Post]) -> None:
        """Forget the client if it has no work."""
        if not client_posts.waiting and not flow.running:
            del self._by_flow[flow]

    def clear(self) -> list[Post]:
        """Remove everything and return what waited."""
        waiting = list(self)
        self._by_flow.clear()
        self.count = 0
        return waiting
