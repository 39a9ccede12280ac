"""Measures how long a message takes to reach a process that sleeps, besides the processor time of both.

A frame passes several processes and threads. While little is to do, each of them sleeps until the frame
arrives, and `streamer simulate streams` adds this time.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time

#: Number of measured round trips, and the pause before each, in which both processes fall asleep. It is
#: shorter than the time between two frames, and longer than processors wait before they save power.
TRIPS, PAUSE_S = 40, 0.02
#: Program of the other process: it returns each byte.
_ECHO = """
import socket, sys
with socket.socket(fileno=int(sys.argv[1])) as peer:
    while data := peer.recv(1):
        peer.send(data)
"""
_ANSWER_S = 5.0


def measure_wake_up(trips: int = TRIPS, pause_s: float = PAUSE_S) -> float:
    """Return the mean seconds of a wake-up. Raises OSError if the other process fails."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        command = [sys.executable, "-I", "-S", "-c", _ECHO, str(theirs.fileno())]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as other:  # noqa: S603 - a fixed program
            theirs.close()
            ours.settimeout(_ANSWER_S)
            try:
                waits_s = [_trip_s(ours, pause_s) for _ in range(trips + 1)]
            finally:
                ours.close()  # the other process ends
                other.wait(_ANSWER_S)
    # The first trip contains the start of the other process.
    return statistics.fmean(waits_s[1:])


def _trip_s(peer: socket.socket, pause_s: float) -> float:
    """Return the seconds that one of the two wake-ups of a round trip takes."""
    time.sleep(pause_s)
    begun_s, begun_cpu_s = time.perf_counter(), time.thread_time()
    peer.send(b"x")
    if peer.recv(1) != b"x":
        raise OSError("the process that should return a message has ended")
    took_s, cpu_s = time.perf_counter() - begun_s, time.thread_time() - begun_cpu_s
    # The other process does the same calls, so it takes about the same processor time.
    return max(0.0, took_s - 2 * cpu_s) / 2
