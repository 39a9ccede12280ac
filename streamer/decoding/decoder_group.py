"""A group of decoder processes: their socket, input memory and status page, and which of them are alive.

Image decoders of one frame ring are a group, and each video decoder is one by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inference.ipc.ring import FrameRing
from streamer.decoding.arena import Arena
from streamer.decoding.shared_status import MAX_DECODERS, Line, StatusPage


@dataclass(slots=True)
class Member:
    """One decoder process."""

    #: Unique in the worker; the fork server and the decoder name it by this.
    key: int
    #: Its line of the status page.
    index: int
    #: 0 until the fork server has answered.
    pid: int = 0
    #: Its pidfd, -1 until then.
    watch: int = -1
    #: What holds it, by name; empty until it has locked itself in and takes jobs.
    protections: tuple[str, ...] = ()
    ready: bool = False
    #: When it was asked for, monotonic seconds.
    asked_at: float = field(default_factory=time.monotonic)
    #: Number of the job for which it was killed; 0 while it was not.
    killed_for: int = 0
    #: Whether that job used the processor for most of its time, instead of waiting for it.
    guilty: bool = False
    #: Whether it seemed to wait for a job at the last look.
    idle: bool = False
    #: Why it was killed, as counted; empty while it was not.
    killed_because: str = ""

    def kill(self, because: str) -> None:
        """End the process for a reason, the first one counts; nothing happens when it has ended already."""
        self.killed_because = self.killed_because or because
        if self.watch >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.watch, signal.SIGKILL)

    def cpu_s(self) -> float:
        """Return the processor time that the process has used, seconds; 0 when it is gone."""
        try:
            # The clock id of a process: see clock_getcpuclockid(3) and the kernel's posix-timers.h.
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            return 0.0

    def forget(self) -> None:
        """Close the pidfd."""
        if self.watch >= 0:
            os.close(self.watch)
            self.watch = -1


class DecoderGroup:
    """What the decoders of one group share.

    ``shared`` are further descriptors that they get, of which the group keeps copies, and ``layout`` says
    what they must know of them; for image decoders that is the frame ring.
    """

    def __init__(
        self, input_bytes: int, shared: Sequence[int] = (), layout: Mapping[str, int] | None = None
    ) -> None:
        #: The ring of image decoders; None for all others.
        self.ring: FrameRing | None = None
        self.layout = dict(layout or {})
        self.arena = Arena(input_bytes)
        self.page = StatusPage()
        #: Decoders share their end: whichever is free takes the next job.
        self.channel, self.decoders_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        self._shared = [os.dup(descriptor) for descriptor in shared]
        self.members: dict[int, Member] = {}
        self.closed = False
        #: Set when its decoders were killed because they let work wait: it is replaced when they have ended.
        self.stuck = False

    @classmethod
    def of_ring(cls, ring: FrameRing | None, input_bytes: int) -> DecoderGroup:
        """Return a group of image decoders; without a ring they only make pixels."""
        if ring is None:
            return cls(input_bytes)
        group = cls(input_bytes, [ring.fd], {"slots": ring.slots, "slot_bytes": ring.slot_bytes})
        group.ring = ring
        return group

    @property
    def descriptors(self) -> list[int]:
        """What a decoder of this group is given, in the order that the fork server expects."""
        return [self.decoders_end.fileno(), self.arena.fd, self.page.fd, *self._shared]

    def add(self, key: int) -> Member:
        """Make room for a decoder: the lowest line that nobody has."""
        taken = {member.index for member in self.members.values()}
        index = next(index for index in range(MAX_DECODERS) if index not in taken)
        member = self.members[key] = Member(key, index)
        self.page.write(index, 0, 0.0, 0.0)
        return member

    def remove(self, member: Member) -> None:
        """Forget a decoder that has ended."""
        self.members.pop(member.key, None)
        member.forget()

    def kill_all(self, because: str) -> None:
        """End all decoders of the group."""
        for member in self.members.values():
            member.kill(because)

    def line(self, member: Member) -> Line:
        """Return what a decoder says it is doing."""
        return self.page.read(member.index)

    def close(self) -> None:
        """End the decoders and give everything back."""
        self.closed = True
        for member in self.members.values():
            member.kill("retired")
            member.forget()
        self.members.clear()
        self.channel.close()
        self.decoders_end.close()
        for descriptor in self._shared:
            os.close(descriptor)
        self.arena.close()
        self.page.close()
