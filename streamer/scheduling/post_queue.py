"""Queue of waiting POSTs per client, with fair queueing between a client's connections. Pure.

`FairShare` decides between clients. This queue decides within a client by self-clocked fair queueing
(Golestani 1994): each image is tagged with the virtual time at which it would be done if its connection had a
fair share, and the smallest tag goes first. So a cheap image is not delayed by a connection of the same
address that sends expensive images, nor by many that send one each, and an expensive image waits for a
bounded amount of work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from inference.core.fair_queueing import Flow

#: Tags that differ by less than this fraction of an image's cost count as equal, and the earlier image goes
#: first: the expected cost of equal images varies a little over time.
_SAME = 0.1
#: Number of connections per client whose costs are remembered while the client has work here.
MAX_CONNECTIONS = 256


class Posted(Protocol):
    """A posted image that waits."""

    #: Tells the client's connections apart.
    connection: int
    #: Virtual finish time within the client, minus infinity for an image that is queued again; only the queue
    #: writes it.
    tag: float
    #: Expected seconds of decoding and inference.
    expected_s: float


Post = TypeVar("Post", bound=Posted)


@dataclass(slots=True)
class _Line(Generic[Post]):
    """The POSTs of one client."""

    waiting: list[Post] = field(default_factory=list)
    #: Largest finish time of the images that were taken.
    virtual_s: float = 0.0
    #: Virtual time at which each connection's next image may start.
    finish_s: dict[int, float] = field(default_factory=dict)

    def start_of(self, connection: int) -> float:
        return max(self.virtual_s, self.finish_s.get(connection, 0.0))


class PostQueue(Generic[Post]):
    """Waiting POSTs of one model version."""

    def __init__(self) -> None:
        self._lines: dict[Flow, _Line[Post]] = {}
        #: Number of waiting images; only the queue writes it.
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Post]:
        for line in self._lines.values():
            yield from line.waiting

    def add(self, flow: Flow, post: Post) -> None:
        """Queue an image of a client."""
        line = self._lines.get(flow)
        if line is None:
            line = self._lines[flow] = _Line()
        post.tag = line.start_of(post.connection) + post.expected_s
        if len(line.finish_s) >= MAX_CONNECTIONS:
            # Connections without debt need not be remembered. If all have debt, forgetting it is cheaper than
            # keeping more than the bound.
            line.finish_s = {key: at for key, at in line.finish_s.items() if at > line.virtual_s}
            if len(line.finish_s) >= MAX_CONNECTIONS:
                line.finish_s.clear()
        line.finish_s[post.connection] = post.tag
        place, passed_from = len(line.waiting), post.tag + _SAME * post.expected_s
        while place and line.waiting[place - 1].tag > passed_from:
            place -= 1
        line.waiting.insert(place, post)
        self.count += 1

    def ready(self, fits: Callable[[Post], bool]) -> dict[Flow, Post]:
        """Return the first image of each client that may start now, as decided by ``fits``."""
        found = {}
        for flow, line in self._lines.items():
            for post in line.waiting:
                if fits(post):
                    found[flow] = post
                    break
        return found

    def waiting_flows(self) -> list[Flow]:
        """Return the clients with images that wait."""
        return [flow for flow, line in self._lines.items() if line.waiting]

    def waiting_s(self, flow: Flow) -> float:
        """Return the expected seconds of a client's images that wait."""
        line = self._lines.get(flow)
        return 0.0 if line is None else sum(post.expected_s for post in line.waiting)

    def remove(self, flow: Flow, post: Post) -> bool:
        """Withdraw an image; return False if it does not wait or no longer waits."""
        line = self._lines.get(flow)
        if line is None or post not in line.waiting:
            return False
        line.waiting.remove(post)
        self.count -= 1
        self._tidy(flow, line)
        return True

    def take(self, flow: Flow, post: Post) -> None:
        """Take an image that :meth:`ready` returned and that starts now; :meth:`settle` follows once."""
        line = self._lines[flow]
        line.waiting.remove(post)
        self.count -= 1
        line.virtual_s = max(line.virtual_s, post.tag)

    def ahead_s(self, flow: Flow, connection: int, expected_s: float = 0.0) -> float:
        """Return the expected seconds of a client's images that would start before one of ``connection``.

        ``expected_s`` is the expected cost of that image. A connection with a waiting image is assumed to
        send its next one as soon as it has the answer, so several cheap images may go before an expensive
        one.
        """
        line = self._lines.get(flow)
        if line is None or not line.waiting:
            return 0.0
        finish_s = line.start_of(connection) + expected_s
        passed_from, ahead_s, others = finish_s + _SAME * expected_s, 0.0, set()
        for post in line.waiting:
            if post.tag <= passed_from:
                ahead_s += post.expected_s
                if line.finish_s.get(post.connection, finish_s) < finish_s:
                    others.add(post.connection)
        others.discard(connection)
        return ahead_s + sum(finish_s - line.finish_s[other] for other in others)

    def settle(self, flow: Flow, post: Post, actual_s: float, *, again: bool = False) -> None:
        """Charge the connection of an image that has ended with its real cost.

        With ``again`` the image is queued once more, before all others except those that were queued again
        earlier; its expected cost then stays charged.
        """
        line = self._lines.get(flow)
        if line is None:
            if not again:
                return
            line = self._lines[flow] = _Line()
        if post.connection in line.finish_s:
            line.finish_s[post.connection] += actual_s - (0.0 if again else post.expected_s)
        if again:
            post.tag = -math.inf
            line.waiting.insert(sum(each.tag == post.tag for each in line.waiting), post)
            self.count += 1
        self._tidy(flow, line)

    def _tidy(self, flow: Flow, line: _Line[Post]) -> None:
        """Forget the client if it has no work."""
        if not line.waiting and not flow.running:
            del self._lines[flow]

    def clear(self) -> list[Post]:
        """Remove everything and return what waited."""
        waiting = list(self)
        self._lines.clear()
        self.count = 0
        return waiting
