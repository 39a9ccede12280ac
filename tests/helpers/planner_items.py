"""Makes planners, and the frames and posts that tests give them."""

from __future__ import annotations

import itertools

from inference.core.detection_params import DetectionParams
from inference.engine.items import Batch, Item
from inference.engine.planner import Planner
from inference.ipc.wire import Submit

FLAT = {1: 0.010, 2: 0.020, 4: 0.040, 8: 0.080}  # as on a CPU: batching gains nothing
STEEP = {1: 0.010, 2: 0.011, 4: 0.012, 8: 0.014}  # as on a GPU: a batch costs hardly more than one frame

_ids = itertools.count(1)


def frame(
    stream: int,
    *,
    worker: int = 1,
    version: int = 0,
    deadline: float = 1e9,
    client: int = 0,
    weight: float = 1.0,
) -> Item:
    """Return a live frame, or a POST when ``stream`` is 0."""
    submit = Submit(next(_ids), 0, version, stream == 0, stream, deadline, DetectionParams(), client, weight)
    return Item(worker, submit, 0.0)


def planner(cost: dict[int, float], *, parallel: int = 1, versions: int = 1) -> Planner:
    return Planner(dict.fromkeys(range(versions), cost), parallel=parallel)


def next_batch(plan: Planner) -> Batch:
    batch = plan.next()
    assert batch is not None
    return batch
