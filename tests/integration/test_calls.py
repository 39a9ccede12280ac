"""Limits the number of calls that a worker makes for a POST and for a frame.

Unlike times, call counts hardly depend on how busy the machine is.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.helpers.service import ROOT

pytestmark = [pytest.mark.alone, pytest.mark.timeout(400)]

#: When these limits were set, `bench/calls.py` counted 782 calls for a POST and 435 for a frame (825 and
#: 479 on a very busy machine). Before the optimisation it counted 1,232 and 720.
MOST_CALLS = {"POST": 860, "frame": 500}


def test_a_post_and_a_frame_take_a_bounded_number_of_calls_in_the_worker() -> None:
    counts: list[dict[str, float]] = []
    # Timers of the worker call functions, too, and the more of them the slower the machine is.
    while len(counts) < 3 and not within_limits(counts):
        done = subprocess.run(
            [sys.executable, "-m", "bench.calls"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        counts.append(json.loads(done.stdout))
        assert counts[-1].keys() == MOST_CALLS.keys()
    assert within_limits(counts), counts


def within_limits(counts: list[dict[str, float]]) -> bool:
    """Return whether each limit was kept in at least one of the measurements."""
    return all(any(counted[name] <= most for counted in counts) for name, most in MOST_CALLS.items())
