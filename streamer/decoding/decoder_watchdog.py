"""Finds decoders that hang or leave jobs waiting, by their entries in the status page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from streamer.decoding.decoder_group import DecoderGroup

#: Longest time in seconds that a decoder may take for one image. It is checked every quarter of a second, so
#: no decode takes two seconds. The largest image that passes the check of its header takes well under one.
DECODE_LIMIT_S = 1.7
#: An image that reached the time limit is blamed only if its decoder used more than this processor time, in
#: seconds. With less, the machine was busy.
COMPUTING_CPU_S = 0.4
#: If a job waits this many seconds although a decoder seems free, that decoder is stuck.
PICKUP_LIMIT_S = 1.0
#: Seconds from the request for a decoder until it must be ready; the fork server may have to import its
#: libraries.
READY_LIMIT_S = 20.0


class Held(Protocol):
    """Describes a job that was sent to the decoders."""

    @property
    def sent_at(self) -> float:
        """When it was sent, in monotonic seconds."""


def find_faults(
    group: DecoderGroup, held: Mapping[int, Held], now: float, *, computing_cpu_s: float = COMPUTING_CPU_S
) -> None:
    """Kill the decoders of a group that hang or never become ready; mark a group whose decoders are stuck.

    A decoder that was stopped may have taken a job off the socket before it could record it. The lost job
    cannot be identified, so such a group is replaced as a whole. ``held`` are the group's unanswered jobs by
    number, ``now`` is in monotonic seconds. ``computing_cpu_s`` is smaller for decoders that run at low
    priority.
    """
    lines = {process.key: group.line(process) for process in group.processes.values()}
    taken = {line.job for line in lines.values()}
    untaken = [
        job for number, job in held.items() if number not in taken and now - job.sent_at > PICKUP_LIMIT_S
    ]
    stuck = False
    for process in group.processes.values():
        line = lines[process.key]
        if process.killed_because:
            continue
        if line.job in held and now - line.since > DECODE_LIMIT_S:
            # A decoder that used less processor time has waited for the processor or was stopped, which is
            # not the fault of the image.
            process.was_computing = process.cpu_s() - line.cpu_s > computing_cpu_s
            process.killed_for = line.job
            process.kill("timeout")
        elif not process.ready and now - process.requested_at > READY_LIMIT_S:
            process.kill("stuck")
        idle = process.ready and line.job == 0
        stuck |= idle and process.idle and bool(untaken)
        process.idle = idle
    if stuck:
        group.stuck = True
        group.kill_all("stuck")
