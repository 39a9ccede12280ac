"""Finds decoders that hang or leave jobs waiting, by their entries in the status page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from streamer.decoding.decoder_group import DecoderGroup, DecoderProcess
from streamer.decoding.decoder_status import DecoderEntry

#: Most processor time in seconds that a decoder may use for one image; an image that needs more is to
#: blame. It is checked every quarter of a second, so on a machine with a free core no decode takes two
#: seconds. The largest image that passes the check of its header takes well under one. Elapsed time would
#: depend on how busy the machine is.
DECODE_CPU_LIMIT_S = 1.7
#: A decoder that holds an image, used no processor time for this many seconds, and is not waiting for a
#: processor or a disk, was stopped or waits for something that will not come.
STOPPED_S = 2.0
#: Longest time in seconds that a decoder may hold one image, however busy the machine is. Such an image is
#: not to blame. With eight busy processes for each core, the limit on processor time is reached before.
ELAPSED_LIMIT_S = 20.0
#: If a job waits this many seconds although a decoder seems free, the decoders are stuck, unless a free one
#: waits for a processor.
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
    group: DecoderGroup, held: Mapping[int, Held], now: float, *, cpu_limit_s: float = DECODE_CPU_LIMIT_S
) -> None:
    """Kill the decoders of a group that hang or never become ready; mark a group whose decoders are stuck.

    A decoder that was stopped may have taken a job off the socket before it could record it. The lost job
    cannot be identified, so such a group is replaced as a whole. ``held`` are the group's unanswered jobs by
    number, ``now`` is in monotonic seconds, and ``cpu_limit_s`` is the processor time that a job may use.
    """
    lines = {process.key: group.line(process) for process in group.processes.values()}
    taken = {line.job for line in lines.values()}
    waiting_s = max((now - job.sent_at for number, job in held.items() if number not in taken), default=0.0)
    free, seemed_free = [], False
    for process in group.processes.values():
        line = lines[process.key]
        if process.killed_because:
            continue
        if line.job in held and _is_overdue(process, line, now, cpu_limit_s):
            process.killed_for = line.job
            process.kill("timeout")
        elif not process.ready and now - process.requested_at > READY_LIMIT_S:
            process.kill("stuck")
        idle = process.ready and line.job == 0
        if idle:
            free.append(process)
        seemed_free |= idle and process.idle
        process.idle = idle
    # A job wakes only one of the free decoders. On a busy machine it may wait for a processor for longer than
    # for a job, while the others sleep.
    explained = waiting_s <= ELAPSED_LIMIT_S and any(process.is_runnable() for process in free)
    if seemed_free and waiting_s > PICKUP_LIMIT_S and not explained:
        group.stuck = True
        group.kill_all("stuck")


def _is_overdue(process: DecoderProcess, entry: DecoderEntry, now: float, cpu_limit_s: float) -> bool:
    """Return whether a decoder has held its job for too long, and note whether the image is to blame."""
    used_s = process.cpu_s()
    if process.progress[:2] != (entry.job, used_s):
        process.progress = (entry.job, used_s, now)
    process.was_computing = used_s - entry.cpu_s > cpu_limit_s
    stopped = now - process.progress[2] > STOPPED_S and not process.is_runnable()
    return process.was_computing or stopped or now - entry.since > ELAPSED_LIMIT_S
