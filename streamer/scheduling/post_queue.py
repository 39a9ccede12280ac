"""POSTs that wait: each client's own, and within a client its connections in fair turn. Pure.

Between clients `FairShare` decides. Within a client this does, by self-clocked fair queueing (Golestani
1994): an image is stamped with the virtual time at which it would be done if its connection had a fair share,
and the smallest goes first. So neither a connection that sends expensive images nor many that send one each
hold up a cheap image of the same address, and an expensive one waits for a bounded amount of work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from inference.core.fair_share import Flow

#: Tags that differ by less than this part of an image's cost are the same, and the earlier one goes first:
#: expected costs of equal images differ a little from one moment to the next.
_SAME = 0.1
#: Connections of one client whose costs are remembered while it has work here.
MAX_CONNECTIONS = 256


class Posted(Protocol):
    """A posted image, as it waits."""

    #: Tells the client's connections apart.
    connection: int
    #: Virtual finish time within the client, minus infinity for one that is queued again; only the queue
    #: writes it.
    tag: float
    #: Seconds of decoding and inference that it is expected to take.
    expected_s: float


Post = TypeVar("Post", bound=Posted)


@dataclass(slots=True)
class _Line(Generic[Post]):
    """The POSTs of one client."""

    waiting: list[Post] = field(default_factory=list)
    #: Largest finish time of those that were taken.
    virtual_s: float = 0.0
    #: Virtual time at which each connection's next image may start.
    finish_s: dict[int, float] = field(default_factory=dict)

    def start_of(self, connection: int) -> float:
        return max(self.virtual_s, self.finish_s.get(connection, 0.0))


class PostQueue(Generic[Post]):
    """Waiting POSTs of one model version."""

    def __init__(self) -> None:
        self._lines: dict[Flow, _Line[Post]] = {}
        #: Images that wait; only the queue writes it.
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
            # Those that owe nothing need not be remembered, and of the others none is worth the memory.
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
        """Return the first image of each client that may start now, as far as ``fits`` says so."""
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
        """Withdraw an image; False when it does not wait (any more)."""
        line = self._lines.get(flow)
        if line is None or post not in line.waiting:
            return False
        line.waiting.remove(post)
        self.count -= 1
        self._tidy(flow, line)
        return True

    def take(self, flow: Flow, post: Post) -> None:
        """An image that :meth:`ready` returned starts; :meth:`settle` follows once."""
        line = self._lines[flow]
        line.waiting.remove(post)
        self.count -= 1
        line.virtual_s = max(line.virtual_s, post.tag)

    def ahead_s(self, flow: Flow, connection: int, expected_s: float = 0.0) -> float:
        """Return the expected seconds of a client's images that would start before one of ``connection``.

        ``expected_s`` is what that one is expected to take. Of a connection that has an image waiting it is
        assumed that it sends the next one as soon as that is answered: where those are cheaper, several
        go before an expensive one.
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
        """An image has ended: its connection is charged what it really took.

        With ``again`` it is queued once more, before all but those that were queued again before it; what it
        is expected to take then stays charged.
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
        """Forget a client without work."""
        if not line.waiting and not flow.running:
            del self._lines[flow]

    def clear(self) -> list[Post]:
        """Forget everything; returns what waited."""
        waiting = list(self)
        self._lines.clear()
        self.count = 0
        return waiting
