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
- A shadow item, for which no client waits, runs alone and only while nothing else waits or runs. Its run does
  not count for anything else, and the loop ends it when another item arrives.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Mapping

from inference.core.fair_queueing import Flow, Stride
from inference.engine.items import Batch, BatchReason, Item, VersionItems

#: Number of streams of all workers whose last turn is remembered.
MAX_REMEMBERED_STREAMS = 4096
#: Number of shadow items of all workers that may wait. Each worker has one at a time.
MAX_SHADOWS = 8


class Planner:
    """Holds every waiting item and knows what executes. Not thread-safe: the loop holds its lock."""

    def __init__(
        self, costs_s: Mapping[int, Mapping[int, float]], *, parallel: int, interactive_share: float = 0.25
    ) -> None:
        self._queues = {version: VersionItems(cost, interactive_share) for version, cost in costs_s.items()}
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
        #: Waiting shadow items in order of arrival, and those beyond `MAX_SHADOWS`, which do not run.
        self._shadows: deque[Item] = deque()
        self._refused: list[Item] = []
        #: The batch of a shadow item while it runs. It is not among the running ones, so that all others are
        #: planned as if it did not exist.
        self._shadow_batch: Batch | None = None
        #: No waiting item has a deadline before this time, so :meth:`expire` need not search earlier.
        self._soonest = math.inf

    @property
    def waiting(self) -> int:
        """Number of waiting items of all versions."""
        return len(self._shadows) + self._waiting_for_clients

    @property
    def _waiting_for_clients(self) -> int:
        return len(self._alone) + sum([queue.count for queue in self._queues.values()])

    @property
    def runs_shadow(self) -> bool:
        """Whether a shadow item runs, which the loop ends when another item arrives."""
        return self._shadow_batch is not None

    def add(self, item: Item) -> None:
        """Add an item. Raises KeyError when its version is not served."""
        submit = item.submit
        queue = self._queues[submit.version]
        self._soonest = min(self._soonest, submit.deadline)
        if submit.shadow:
            if len(self._shadows) < MAX_SHADOWS:
                self._shadows.append(item)
            else:
                self._refused.append(item)
                self._soonest = -math.inf  # the next `expire` returns it
        elif submit.alone:
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

    def is_running_shadow(self, worker: int, request_id: int) -> bool:
        """Return whether the shadow item that runs is this one."""
        batch = self._shadow_batch
        if batch is None:
            return False
        item = batch.items[0]
        return item.worker == worker and item.submit.request_id == request_id

    def forget_worker(self, worker: int) -> None:
        """Drop all waiting items of a worker that has gone. Its running items still finish."""
        for item in self._all():
            if item.worker == worker:
                self._remove(item)
        for key in [key for key in self._served if key[0] == worker]:
            del self._served[key]

    def expire(self, now: float) -> list[Item]:
        """Remove and return the items whose deadline has passed, and shadow items that were too many."""
        if now <= self._soonest:
            return []
        items = self._all()
        late = [item for item in items if item.submit.deadline < now]
        for item in late:
            self._remove(item)
        late += self._refused
        self._refused.clear()
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
            return self._next_shadow()
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
        if self._running or self._shadow_batch is not None:
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

    def _next_shadow(self) -> Batch | None:
        """Return the oldest shadow item if nothing runs, and nothing waits for a client, in any worker."""
        if not self._shadows or self._shadow_batch is not None:
            return None
        if self._running or self._waiting_for_clients:
            return None
        item = self._shadows.popleft()
        self._shadow_batch = Batch(item.submit.version, (item,), BatchReason.SHADOW, single=False)
        return self._shadow_batch

    def done(self, batch: Batch, ran_s: float | None = None) -> None:
        """Record that a batch from :meth:`next` has finished after ``ran_s``; its streams may run again.

        Its clients are charged the actual cost, or the expected cost if ``ran_s`` is None. A shadow item is
        charged to nobody.
        """
        if batch is self._shadow_batch:
            self._shadow_batch = None
            return
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
        items: list[Item] = [*self._alone, *self._shadows]
        for queue in self._queues.values():
            for waiting in (*queue.posts.values(), *queue.streams.values()):
                items.extend(waiting)
        return items

    def _remove(self, item: Item) -> None:
        if item.submit.shadow:
            self._shadows.remove(item)
        elif item.submit.alone:
            self._alone.remove(item)
        else:
            self._queues[item.submit.version].remove(item)

    def _eligible(self, version: int) -> int:
        """Return how many items of a version may run now."""
        queue, executing = self._queues[version], self._executing
        return queue.post_count + len([stream for stream in queue.streams if stream not in executing])

    def _size(self, queue: VersionItems, eligible: int) -> tuple[int, BatchReason]:
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

    def _take(self, queue: VersionItems, expected_s: float) -> tuple[Item, Flow]:
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
