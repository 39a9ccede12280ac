"""Which batch sizes are worth forming, by what a run of each costs."""

from __future__ import annotations

from collections.abc import Mapping

#: A larger bucket must serve at least this many times the items per second of the next smaller one.
#: On a CPU batching gains 0 to 5 %, which is not worth the latency of a batch (docs/performance.md).
WORTHWHILE_GAIN = 1.08


def worthwhile_buckets(cost_s: Mapping[int, float]) -> tuple[int, ...]:
    """Return the batch sizes worth forming, given seconds per run of each; always holds the smallest."""
    kept: list[int] = []
    best = 0.0
    for bucket in sorted(cost_s):
        rate = bucket / cost_s[bucket]
        if not kept or rate >= best * WORTHWHILE_GAIN:
            kept.append(bucket)
            best = rate
    return tuple(kept)
