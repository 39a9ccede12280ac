"""What the inference process and the sampling process owe the watch, by what they post on the board."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from inference.ipc.process_handle import InferenceHandle
from inference.ipc.shared_status import Presence, State
from streamer.sampling.process_handle import SamplingProcessHandle
from streamer.supervisor.watchdog import Watched

#: No beat of the inference loop for this long, twice and a half its idle beat: it hangs outside of a run.
INFERENCE_BEAT_LIMIT_S = 2.5
SAMPLING_BEAT_LIMIT_S = 5.0
SAMPLING_START_LIMIT_S = 60.0


def watched_inference(handle: InferenceHandle, start_timeout_s: float, ending: Callable[[], bool]) -> Watched:
    """Return how the inference process is watched, until ``ending``."""
    board = handle.board
    state, since = board.state, time.monotonic()

    def owes() -> tuple[float, float, str] | None:
        nonlocal state, since
        if board.state is not state:
            state, since = board.state, time.monotonic()
        if ending() or state is State.DOWN:
            return None
        if handle.distrusted:
            return 0.0, 0.0, "a worker got a message that does not parse"
        if state is not State.READY:
            return since, start_timeout_s, "it is not ready"
        # A beat of the one before says nothing of this one.
        beat = max(board.read("heartbeat"), since)
        busy_since, run_limit_s = board.read("busy_since"), board.read("run_limit_s")
        if busy_since > 0 and busy_since + run_limit_s < beat + INFERENCE_BEAT_LIMIT_S:
            return busy_since, run_limit_s, "a model run hangs"
        return beat, INFERENCE_BEAT_LIMIT_S, "its loop does not turn"

    def kill() -> None:
        board.post("state", State.DOWN)
        handle.signal(signal.SIGKILL)

    return Watched("the inference process", owes, lambda: handle.pid, kill)


def watched_sampling_process(handle: SamplingProcessHandle, ending: Callable[[], bool]) -> Watched:
    """Return how the sampling process is watched until ``ending``, when its deliveries have another limit."""
    board = handle.board

    def owes() -> tuple[float, float, str] | None:
        if ending():
            return None
        beat = board.read("sampling_beat")
        if not beat:
            return handle.started_at, SAMPLING_START_LIMIT_S, "it does not start"
        if board.read("sampling_presence") == Presence.STARTING:
            board.post("sampling_presence", Presence.SERVING)
        return beat, SAMPLING_BEAT_LIMIT_S, "its loop does not turn"

    def kill() -> None:
        board.post("sampling_presence", Presence.HUNG)
        handle.kill()

    return Watched("the observer", owes, lambda: handle.pid, kill)
