"""Defines the items that wait for the device, the batches that they form, and the waiting items of a version.

`planner` decides which of them run next.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from inference.core.fair_queueing import FairShare, Flow
from inference.core.warmup import worthwhile_buckets
from inference.ipc.wire import Submit


class BatchReason(StrEnum):
    """Says why a batch has its size."""

    FULL = "full"  # the largest worthwhile bucket
    DRAINED = "drained"  # it contains every item that may run
    SPLIT = "split"  # other idle inference threads get the rest
    COST = "cost"  # a larger bucket would have been mostly padding
    SHADOW = "shadow"  # nobody waits for it, and the device was idle


# No code changes items and batches, but frozen classes would make each construction three times as slow.
@dataclass(slots=True, eq=False)
class Item:
    """Holds a submitted frame, its worker, and its time of arrival in monotonic seconds."""

    worker: int
    submit: Submit
    arrived: float

    @property
    def stream(self) -> tuple[int, int] | None:
        """The live stream of this frame; None for a POST."""
        return None if self.submit.interactive else (self.worker, self.submit.stream)


@dataclass(slots=True, eq=False)
class Batch:
    """Holds items of one version that run together, and why the batch has its size."""

    version: int
    items: tuple[Item, ...]
    reason: BatchReason
    #: Whether nothing else waits or runs, so that the device may use all cores for this item.
    single: bool
    #: The flow that is charged for each item.
    flows: tuple[Flow, ...] = ()
    #: Cost that the flows were charged at the start, in seconds of one inference thread.
    expected_s: float = 0.0


class VersionItems:
    """Holds the waiting items of one version: POSTs by client and frames by stream, in order of arrival."""

    def __init__(self, cost_s: Mapping[int, float], interactive_share: float) -> None:
        self.cost_s = dict(cost_s)
        self.all_buckets = self.buckets = worthwhile_buckets(cost_s)
        #: Only clients with waiting POSTs. The slots of the workers' rings bound it, and `streams`, too.
        self.posts: dict[Flow, deque[Item]] = {}
        #: Only streams with waiting frames.
        self.streams: OrderedDict[tuple[int, int], deque[Item]] = OrderedDict()
        #: The client of each stream in `streams`.
        self.flows: dict[tuple[int, int], Flow] = {}
        #: Number of waiting POSTs, and number of all waiting items.
        self.post_count = self.count = 0
        self.share = FairShare({"post": interactive_share, "live": 1.0 - interactive_share})

    def flow_of(self, item: Item) -> Flow:
        """Return the flow that is charged for an item."""
        submit = item.submit
        return self.share.flow("post" if item.stream is None else "live", submit.client, submit.weight)

    def add(self, item: Item) -> None:
        """Add an item to the queue."""
        stream, flow = item.stream, self.flow_of(item)
        self.count += 1
        if stream is None:
            self.post_count += 1
            self.posts.setdefault(flow, deque()).append(item)
        else:
            self.streams.setdefault(stream, deque()).append(item)
            self.flows[stream] = flow

    def remove(self, item: Item) -> None:
        """Remove a waiting item."""
        stream = item.stream
        self.count -= 1
        if stream is not None:
            self.streams[stream].remove(item)
            self._remove_if_empty(stream)
            return
        self.post_count -= 1
        for flow, items in self.posts.items():
            if item in items:
                items.remove(item)
                if not items:
                    del self.posts[flow]
                return

    def take_post(self, flow: Flow) -> Item:
        """Remove and return a client's oldest POST."""
        items = self.posts[flow]
        item = items.popleft()
        self.count -= 1
        self.post_count -= 1
        if not items:
            del self.posts[flow]
        return item

    def take_frame(self, stream: tuple[int, int]) -> Item:
        """Remove and return a stream's oldest frame."""
        item = self.streams[stream].popleft()
        self.count -= 1
        self._remove_if_empty(stream)
        return item

    def _remove_if_empty(self, stream: tuple[int, int]) -> None:
        if not self.streams[stream]:
            del self.streams[stream], self.flows[stream]
