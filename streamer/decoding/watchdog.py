"""Judges decoders by what they say on the status page: which one hangs, and which one lets work wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from streamer.decoding.decoder_group import DecoderGroup

#: Longest time that a decoder may take for one image, seconds; looked at every quarter of a second, so that
#: none takes two. The largest picture that passes the header's judgement takes well under one.
DECODE_LIMIT_S = 1.7
#: Processor time from which on an image that reached the limit is to blame, and not a busy machine.
GUILTY_CPU_S = 0.4
#: A job that waits this long although a decoder seems free: that decoder is stuck.
UNTAKEN_LIMIT_S = 1.0
#: Time from asking for a decoder until it must be ready; the fork server may be importing its libraries.
READY_LIMIT_S = 20.0


class Held(Protocol):
    """A job that was handed to the decoders."""

    @property
    def sent_at(self) -> float:
        """When, monotonic seconds."""


def find_faults(
    group: DecoderGroup, held: Mapping[int, Held], now: float, *, guilty_cpu_s: float = GUILTY_CPU_S
) -> None:
    """Kill the decoders of a group that hang or never become ready; mark a group whose decoders are stuck.

    A decoder that was stopped may have taken a job off the socket before it could say so. Which job is lost
    cannot be known, so such a group is replaced as a whole. ``held`` are the group's unanswered jobs by
    number, ``now`` is in monotonic seconds. ``guilty_cpu_s`` is smaller for decoders that yield to others.
    """
    lines = {member.key: group.line(member) for member in group.members.values()}
    taken = {line.job for line in lines.values()}
    untaken = [
        job for number, job in held.items() if number not in taken and now - job.sent_at > UNTAKEN_LIMIT_S
    ]
    stuck = False
    for member in group.members.values():
        line = lines[member.key]
        if member.killed_because:
            continue
        if line.job in held and now - line.since > DECODE_LIMIT_S:
            # Otherwise it waited for the processor, or was stopped: not the image's fault.
            member.guilty = member.cpu_s() - line.cpu_s > guilty_cpu_s
            member.killed_for = line.job
            member.kill("timeout")
        elif not member.ready and now - member.asked_at > READY_LIMIT_S:
            member.kill("stuck")
        idle = member.ready and line.job == 0
        stuck |= idle and member.idle and bool(untaken)
        member.idle = idle
    if stuck:
        group.stuck = True
        group.kill_all("stuck")
