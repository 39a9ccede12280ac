"""Manages a group of decoder processes that share the memory for encoded images, a socket and a status page.

The image decoders of one frame ring form a group; each video decoder forms a group of its own.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import fcntl
import mmap
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference.ipc.ring import FrameRing
from streamer.decoding.decoder_status import MAX_DECODERS, DecoderEntry, DecoderStatus

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
#: The arena returns freed blocks of at least this size to the system; smaller ones stay in memory for reuse.
_GIVE_BACK_BYTES = 1 << 20
_FALLOC_KEEP_SIZE, _FALLOC_PUNCH_HOLE = 1, 2


class ArenaFull(Exception):
    """The memory has no room now; it will have room when a decoder has answered."""


class PageAllocator:
    """Allocates runs of whole pages; the first run that fits is used. Pure; only one thread uses it."""

    def __init__(self, size_bytes: int) -> None:
        #: Start and end of each free run, in order; adjacent runs are merged.
        self.free_runs: list[tuple[int, int]] = [(0, size_bytes)]

    def take(self, length: int) -> int:
        """Return the offset of a run for ``length`` bytes. Raises ArenaFull."""
        wanted = _whole_pages(length)
        for index, (start, end) in enumerate(self.free_runs):
            if end - start >= wanted:
                if end - start == wanted:
                    del self.free_runs[index]
                else:
                    self.free_runs[index] = (start + wanted, end)
                return start
        raise ArenaFull(f"no {wanted} bytes in one piece")

    def give_back(self, offset: int, length: int) -> int:
        """Free a run that was taken for ``length`` bytes; return its size in bytes."""
        start, end = offset, offset + _whole_pages(length)
        size = end - start
        index = bisect.bisect(self.free_runs, (start, end))
        if index < len(self.free_runs) and self.free_runs[index][0] == end:
            end = self.free_runs[index][1]
            del self.free_runs[index]
        if index and self.free_runs[index - 1][1] == start:
            start = self.free_runs[index - 1][0]
            index -= 1
            del self.free_runs[index]
        self.free_runs.insert(index, (start, end))
        return size


class Arena:
    """Holds encoded images in a sealed `memfd`. Only one thread of the worker uses it.

    Decoders map all of it for reading. Only the worker writes, and decides where each image is placed.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = _whole_pages(size_bytes)
        self.fd = sealed_memory("decoder-input", self.size_bytes)
        self._memory = mmap.mmap(self.fd, self.size_bytes)
        self._pages = PageAllocator(self.size_bytes)

    def put(self, data: bytes | memoryview) -> int:
        """Copy ``data`` in and return its offset. Raises ArenaFull."""
        start = self._pages.take(len(data))
        self._memory[start : start + len(data)] = data
        return start

    def free(self, offset: int, length: int) -> None:
        """Free a block that :meth:`put` returned for ``length`` bytes."""
        size = self._pages.give_back(offset, length)
        if size >= _GIVE_BACK_BYTES:
            _punch_hole(self.fd, offset, size)

    def close(self) -> None:
        """Unmap and close the memory; decoders keep their mapping."""
        self._memory.close()
        os.close(self.fd)


def sealed_memory(name: str, size_bytes: int) -> int:
    """Return a `memfd` that no process can shrink while others map it; the caller owns it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size_bytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def _whole_pages(size_bytes: int) -> int:
    return (-(-size_bytes // mmap.PAGESIZE) or 1) * mmap.PAGESIZE


def _punch_hole(fd: int, offset: int, length: int) -> None:
    """Return pages to the system; the next read sees zeros. A kernel without this operation keeps them."""
    ctypes.CDLL(None).fallocate(
        fd,
        _FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE,
        ctypes.c_long(offset),
        ctypes.c_long(length),
    )


@dataclass(slots=True)
class DecoderProcess:
    """Holds the state of one decoder process."""

    #: Unique in the worker; the fork server and the decoder identify it by this key.
    key: int
    #: Index of its entry in the status page.
    index: int
    #: 0 until the fork server has answered. On a busy machine the decoder may take jobs before that.
    pid: int = 0
    #: Its pidfd; -1 until the fork server has answered.
    watch: int = -1
    #: Names of its active protections; empty until it has entered its sandbox and takes jobs.
    protections: tuple[str, ...] = ()
    ready: bool = False
    #: When it was requested, in monotonic seconds.
    requested_at: float = field(default_factory=time.monotonic)
    #: Number of the job for which it was killed; 0 if it was not.
    killed_for: int = 0
    #: Whether that job used so much processor time that its image is to blame; otherwise the decoder waited
    #: for the processor or was stopped.
    was_computing: bool = False
    #: The job and the processor time, in seconds, at the last check, and when the check first found them, in
    #: monotonic seconds. Only the watchdog writes it.
    progress: tuple[int, float, float] = (0, 0.0, 0.0)
    #: Whether it appeared idle at the last check.
    idle: bool = False
    #: Reason for which it was killed, as counted in the metric; empty if it was not.
    killed_because: str = ""

    def forked(self, pid: int, watch: int) -> None:
        """Record the answer of the fork server; kill the process if it was to be killed before."""
        self.pid, self.watch = pid, watch
        if self.killed_because:
            self.kill(self.killed_because)

    def kill(self, because: str) -> None:
        """Kill the process for a reason, as soon as its pidfd is known; the first reason is kept.

        Does nothing if the process has ended already.
        """
        self.killed_because = self.killed_because or because
        if self.watch >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.watch, signal.SIGKILL)

    def cpu_s(self) -> float:
        """Return the processor time that the process has used, in seconds; 0 if it has gone or is unknown."""
        if self.pid == 0:
            return 0.0
        try:
            # The clock id of a process, as in clock_getcpuclockid(3) and the kernel's posix-timers.h.
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            return 0.0

    def is_runnable(self) -> bool:
        """Whether the process runs or waits for a processor or a disk; otherwise it is stopped or asleep.

        A process whose id is unknown waits for the fork server, which waits for a processor.
        """
        if self.pid == 0:
            return True
        try:
            # The state follows the name, which is in parentheses and may contain any character (proc(5)).
            stat = Path(f"/proc/{self.pid}/stat").read_text(errors="replace")
        except OSError:
            return False
        return stat.rpartition(") ")[2][:1] in ("R", "D")

    def release(self) -> None:
        """Close the pidfd."""
        if self.watch >= 0:
            os.close(self.watch)
            self.watch = -1


class DecoderGroup:
    """Holds the resources that the decoders of one group share.

    ``shared`` are further descriptors for the decoders; the group keeps copies of them. ``layout`` is added
    to the request for each decoder and describes ``shared``. For image decoders both are those of the frame
    ring.
    """

    def __init__(
        self, input_bytes: int, shared: Sequence[int] = (), layout: Mapping[str, int] | None = None
    ) -> None:
        #: The ring of image decoders; None for all others.
        self.ring: FrameRing | None = None
        self.layout = dict(layout or {})
        self.arena = Arena(input_bytes)
        self.page = DecoderStatus()
        #: The decoders share this end of the socket: any free one takes the next job.
        self.channel, self.decoders_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        self._shared = [os.dup(descriptor) for descriptor in shared]
        self.processes: dict[int, DecoderProcess] = {}
        self.closed = False
        #: Set when the watchdog has killed the decoders because none of them took a job. The pool replaces
        #: the group when they have ended.
        self.stuck = False

    @classmethod
    def of_ring(cls, ring: FrameRing | None, input_bytes: int) -> DecoderGroup:
        """Return a group of image decoders; without a ring they only return pixels."""
        if ring is None:
            return cls(input_bytes)
        group = cls(input_bytes, [ring.fd], {"slots": ring.slots, "slot_bytes": ring.slot_bytes})
        group.ring = ring
        return group

    @property
    def descriptors(self) -> list[int]:
        """Descriptors for a decoder of this group, in the order that the fork server expects."""
        return [self.decoders_end.fileno(), self.arena.fd, self.page.fd, *self._shared]

    def add(self, key: int) -> DecoderProcess:
        """Add a new decoder, with the lowest free entry of the status page."""
        taken = {process.index for process in self.processes.values()}
        index = next(index for index in range(MAX_DECODERS) if index not in taken)
        process = self.processes[key] = DecoderProcess(key, index)
        self.page.write(index, 0, 0.0, 0.0)
        return process

    def remove(self, process: DecoderProcess) -> None:
        """Remove a decoder that has ended."""
        self.processes.pop(process.key, None)
        process.release()

    def kill_all(self, because: str) -> None:
        """Kill all decoders of the group."""
        for process in self.processes.values():
            process.kill(because)

    def line(self, process: DecoderProcess) -> DecoderEntry:
        """Return the entry of the status page in which a decoder reports its job."""
        return self.page.read(process.index)

    def close(self) -> None:
        """Kill the decoders and release all resources."""
        self.closed = True
        for process in self.processes.values():
            process.kill("retired")
            process.release()
        self.processes.clear()
        self.channel.close()
        self.decoders_end.close()
        for descriptor in self._shared:
            os.close(descriptor)
        self.arena.close()
        self.page.close()
