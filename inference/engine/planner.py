"""Decides which waiting items form the next batch. It does no I/O; `loop` has its batches executed.

Its rules, in order:
- No inference thread idles while an item may run.
- An item past its deadline is dropped.
- Versions share device time evenly.
- POSTs get their reserved share beside live frames. Within both classes, clients share device time by weight,
  no matter how long one of their runs takes.
- At most one frame of a stream executes at a time, so that results keep their order. Among the streams of a
  client the least recently served goes first.
- A batch grows only to sizes that the measured costs show to be worthwhile.
- A frame that may have caused an earlier process to die executes alone. Such frames and all others take turns
  by their order of arrival.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from inference.core.fair_queueing import FairShare, Flow, Stride
from inference.core.warmup import worthwhile_buckets
from inference.ipc.wire import Submit

#: Number of streams of all workers whose last turn is remembered.
MAX_REMEMBERED_STREAMS = 4096


class BatchReason(StrEnum):
    """Says why a batch has its size."""

    FULL = "full"  # the largest worthwhile bucket
    DRAINED = "drained"  # it contains every item that may run
    SPLIT = "split"  # other idle inference threads get the rest
    COST = "cost"  # a larger bucket would have been mostly padding


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


class _Queue:
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


class Planner:
    """Holds every waiting item and knows what executes. Not thread-safe: the loop holds its lock."""

    def __init__(
        self, costs_s: Mapping[int, Mapping[int, float]], *, parallel: int, interactive_share: float = 0.25
    ) -> None:
        self._queues = {version: _Queue(cost, interactive_share) for version, cost in costs_s.items()}
        self._versions = Stride(dict.fromkeys(costs_s, 1.0))
        #: Number of runs that the device executes in parallel: the cores of a CPU, 1 for a GPU.
        self._parallel = parallel
        self._running: list[Batch] = []
        self._executing: set[tuple[int, int]] = set()
        #: Maps each stream to the number of its last turn, oldest first. A stream that is not in it counts as
        #: never served.
        self._served: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._turn = 0
        #: Items that execute alone, in order of arrival.
        self._alone: deque[Item] = deque()
        #: The batch of such an item while it runs; None otherwise.
        self._alone_batch: Batch | None = None
        #: No waiting item has a deadline before this time, so :meth:`expire` need not search earlier.
        self._soonest = math.inf

    @property
    def waiting(self) -> int:
        """Number of waiting items of all versions."""
        return len(self._alone) + sum([queue.count for queue in self._queues.values()])

    def add(self, item: Item) -> None:
        """Add an item. Raises KeyError when its version is not served."""
        submit = item.submit
        queue = self._queues[submit.version]
        self._soonest = min(self._soonest, submit.deadline)
        if submit.alone:
            self._alone.append(item)
        else:
            queue.add(item)

    def limit(self, version: int, size: int | None) -> None:
        """Limit batches of a version to ``size`` items. None removes the limit."""
        queue = self._queues[version]
        allowed = tuple(bucket for bucket in queue.all_buckets if size is None or bucket <= size)
        queue.buckets = allowed or queue.all_buckets[:1]

    def cancel(self, worker: int, request_id: int) -> Item | None:
        """Remove and return an item that has not started. Returns None if it has started or is unknown."""
        for item in self._all():
            if item.worker == worker and item.submit.request_id == request_id:
                self._remove(item)
                return item
        return None

    def forget_worker(self, worker: int) -> None:
        """Drop all waiting items of a worker that has gone. Its running items still finish."""
        for item in self._all():
            if item.worker == worker:
                self._remove(item)
        for key in [key for key in self._served if key[0] == worker]:
            del self._served[key]

    def expire(self, now: float) -> list[Item]:
        """Remove and return the items whose deadline has passed."""
        if now <= self._soonest:
            return []
        items = self._all()
        late = [item for item in items if item.submit.deadline < now]
        for item in late:
            self._remove(item)
        deadlines = (item.submit.deadline for item in items)
        self._soonest = min((deadline for deadline in deadlines if deadline >= now), default=math.inf)
        return late

    def next(self) -> Batch | None:
        """Return the batch that an idle inference thread should run now, or None if nothing may run.

        Call :meth:`expire` first. The caller runs the batch and then calls :meth:`done`.
        """
        if self._alone_batch is not None or (self._alone and not self._others_before(self._alone[0])):
            return self._next_alone()
        eligible = {version: count for version in self._queues if (count := self._eligible(version))}
        if not eligible:
            return None
        version = self._versions.pick(eligible)
        queue = self._queues[version]
        count = eligible[version]
        size, reason = self._size(queue, count)
        # Charge the expected cost now, so that it counts when other inference threads call `next` meanwhile.
        expected_s = _expected_cost_s(queue.cost_s, size)
        taken = [self._take(queue, expected_s / size) for _ in range(size)]
        single = not self._running and size == 1 and sum(eligible.values()) == 1
        items, flows = zip(*taken, strict=True)
        batch = Batch(version, items, reason, single, flows, expected_s)
        self._running.append(batch)
        self._versions.charge(version, expected_s)
        return batch

    def _others_before(self, item: Item) -> bool:
        """Return whether an ordinary item that may run now arrived before ``item``, which executes alone.

        The order of arrival keeps both kinds from starving each other.
        """
        return any(
            waiting[0].arrived < item.arrived
            for queue in self._queues.values()
            for waiting in (
                *queue.posts.values(),
                *(frames for stream, frames in queue.streams.items() if stream not in self._executing),
            )
        )

    def _next_alone(self) -> Batch | None:
        """Return the next item that executes alone, once nothing else executes."""
        if self._running:
            return None
        item = self._alone.popleft()
        version = item.submit.version
        queue = self._queues[version]
        flow, expected_s = queue.flow_of(item), _expected_cost_s(queue.cost_s, 1)
        queue.share.start(flow, expected_s)
        self._alone_batch = Batch(
            version, (item,), BatchReason.DRAINED, single=False, flows=(flow,), expected_s=expected_s
        )
        self._running.append(self._alone_batch)
        self._versions.charge(version, expected_s)
        return self._alone_batch

    def done(self, batch: Batch, ran_s: float | None = None) -> None:
        """Record that a batch from :meth:`next` has finished after ``ran_s``; its streams may run again.

        Its clients are charged the actual cost, or the expected cost if ``ran_s`` is None.
        """
        self._running.remove(batch)
        if batch is self._alone_batch:
            self._alone_batch = None
        queue = self._queues[batch.version]
        actual_s = batch.expected_s if ran_s is None else ran_s
        size = len(batch.items)
        for item, flow in zip(batch.items, batch.flows, strict=True):
            if item.stream is not None:
                self._executing.discard(item.stream)
            queue.share.settle(flow, batch.expected_s / size, actual_s / size)
        self._versions.charge(batch.version, actual_s - batch.expected_s)
        if not queue.count and all(other.version != batch.version for other in self._running):
            queue.share.rest()

    def _all(self) -> list[Item]:
        items: list[Item] = [*self._alone]
        for queue in self._queues.values():
            for waiting in (*queue.posts.values(), *queue.streams.values()):
                items.extend(waiting)
        return items

    def _remove(self, item: Item) -> None:
        if item.submit.alone:
            self._alone.remove(item)
        else:
            self._queues[item.submit.version].remove(item)

    def _eligible(self, version: int) -> int:
        """Return how many items of a version may run now."""
        queue, executing = self._queues[version], self._executing
        return queue.post_count + len([stream for stream in queue.streams if stream not in executing])

    def _size(self, queue: _Queue, eligible: int) -> tuple[int, BatchReason]:
        """Return the number of items to take, and why; at most ``eligible``."""
        if queue.buckets[-1] == 1:
            return 1, BatchReason.FULL
        idle = max(1, self._parallel - len(self._running))
        fair = max(-(-eligible // idle), min(eligible, queue.buckets[0]))
        largest = queue.buckets[-1]
        if fair >= largest:
            return largest, BatchReason.FULL
        below = max((bucket for bucket in queue.buckets if bucket <= fair), default=fair)
        if fair < eligible:
            return below, BatchReason.SPLIT
        if below == fair:
            return fair, BatchReason.DRAINED
        # Between two batch sizes: pad up to the larger one if that costs less per item.
        above = min(bucket for bucket in queue.buckets if bucket >= fair)
        if queue.cost_s[above] / fair <= queue.cost_s[below] / below:
            return fair, BatchReason.DRAINED
        return below, BatchReason.COST

    def _take(self, queue: _Queue, expected_s: float) -> tuple[Item, Flow]:
        """Remove and return the next item, with the flow that is charged ``expected_s`` for it."""
        ready: dict[Flow, list[tuple[int, int]]] = {}
        for stream, flow in queue.flows.items():
            if stream not in self._executing:
                ready.setdefault(flow, []).append(stream)
        chosen = queue.share.pick([*queue.posts, *ready])
        queue.share.start(chosen, expected_s)
        streams = ready.get(chosen)
        if streams is None:
            return queue.take_post(chosen), chosen
        key = streams[0] if len(streams) == 1 else min(streams, key=lambda each: self._served.get(each, 0))
        self._turn += 1
        self._served[key] = self._turn
        self._served.move_to_end(key)
        if len(self._served) > MAX_REMEMBERED_STREAMS:
            self._served.popitem(last=False)
        self._executing.add(key)
        return queue.take_frame(key), chosen


def _expected_cost_s(cost_s: Mapping[int, float], size: int) -> float:
    """Return the measured cost of the smallest bucket that holds ``size`` items."""
    exact_s = cost_s.get(size)
    return cost_s[min(bucket for bucket in cost_s if bucket >= size)] if exact_s is None else exact_s
