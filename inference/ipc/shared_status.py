"""Holds the shared memory in which the processes of a replica post their status.

The supervisor watches the heartbeats in it, and workers answer probes from it without a request to another
process. The tables of fields name the writers of each. Reads and writes of an aligned 8-byte field are
atomic.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from enum import IntEnum

_FIELD = struct.Struct("<d")
#: Room for 1,024 fields.
_BYTES = 2 * mmap.PAGESIZE
#: `SharedStatus.read` returns 0 for a larger value or NaN: every process of the replica can write to it, and
#: no value may make a reader fail.
_LIMIT = 2.0**53


class State(IntEnum):
    """Says what the inference process is doing."""

    STARTING = 0
    LOADING = 1
    WARMING = 2
    READY = 3
    DOWN = 4


class Presence(IntEnum):
    """Says what a worker or the sampling process is doing; the supervisor writes it."""

    #: The process is switched off.
    OFF = 0
    STARTING = 1
    SERVING = 2
    #: It has ended and will be started again.
    DOWN = 3
    #: It does not answer; the supervisor has killed it or is about to.
    HUNG = 4


class SharedStatus:
    """Holds named float64 fields in a sealed ``memfd`` that children inherit."""

    #: Maps each field to its index. Times are CLOCK_MONOTONIC seconds; 0 means never.
    _FIELDS = {  # noqa: RUF012 - a constant table
        "state": 0,  # inference process; the supervisor writes STARTING and DOWN
        "heartbeat": 1,  # inference process: time of the last heartbeat of its loop
        "busy_since": 2,  # inference process: start of the oldest run in progress, 0 when idle
        "run_limit_s": 3,  # inference process: a run that lasts longer is hung
        "restarts": 4,  # supervisor
        "draining": 5,  # supervisor
        "pid": 6,  # inference process
        "sampling": 7,  # sampling process; the supervisor while there is none
        "samples": 8,  # sampling process: accepted since the replica was started
        "drift": 9,  # sampling process: a `streamer.drift.status_document.DriftStatus`
        "supervisor_beat": 10,  # supervisor: time of the last round of its watchdog
        "sampling_beat": 11,  # sampling process: heartbeat of its event loop, 0 before the first
        "sampling_presence": 12,  # supervisor
        "dying": 13,  # supervisor: 1 while processes die so often that readiness would alternate
        "workers": 14,  # supervisor: configured number of workers
        "served": 15,  # inference process: 1 once one has loaded and warmed up all models
        "models_changed": 16,  # inference process: a bit for each version whose file has changed
        "ending": 17,  # supervisor: 1 once the workers have drained, so that SIGTERM ends the other processes
        "capacity_factor": 18,  # worker 0: measured capacity over that of the warm-up, 0 before it is known
        "decode_ms": 19,  # worker 0: mean processor time of decoding a frame
        "moving_until": 20,  # workers: until when streams that were asked to move may come back first
        "can_move_until": 21,  # workers: until when this replica has streams that can be asked to move
        "started": 22,  # supervisor: when the replica was started
        "refused": 40,  # workers: time at which a message of the inference process did not parse
    }

    #: Maps each field of the workers to its index for worker 0; there are at most 64 workers.
    _WORKER_FIELDS = {  # noqa: RUF012 - a constant table
        "beat": 64,  # worker: time of the last heartbeat of its loop, 0 before it serves
        "accepted": 128,  # worker: connections accepted so far
        "presence": 192,  # supervisor
        "saturated": 256,  # worker: 1 when its queue of POSTs has been full for a long time
        "ready": 320,  # worker: 1 once it could serve a request; it stays 1 until the worker ends
        # Fields of `streamer.scheduling.replica_load`; all but the last only rise.
        "frames": 384,  # worker: frames that got a result
        "decode_s": 448,  # worker: processor seconds of decoding them
        "device_s": 512,  # worker: seconds of the device for them, by the warm-up
        "saturated_s": 576,  # worker: the part of these that was done while frames waited for the device
        "full_s": 640,  # worker: seconds during which frames waited for the device
        "load": 704,  # worker: demand of its clients over the capacity of the replica
        # Fields of `streamer.scheduling.device_shares`.
        "stream_share": 768,  # worker: part of the device that its live streams want, at most 1
        "streams": 832,  # worker: number of its live streams that send
    }

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = os.memfd_create("shared_status", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, _BYTES)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self.fd = fd
        self._memory = mmap.mmap(fd, _BYTES)

    def post(self, field: str, value: float) -> None:
        """Write one field. Raises KeyError for an unknown name."""
        _FIELD.pack_into(self._memory, self._FIELDS[field] * 8, value)

    def read(self, field: str) -> float:
        """Read one field; 0 if its value is NaN or too large. Raises KeyError for an unknown name."""
        value: float = _FIELD.unpack_from(self._memory, self._FIELDS[field] * 8)[0]
        return value if -_LIMIT < value < _LIMIT else 0.0

    def post_worker(self, number: int, field: str, value: float) -> None:
        """Write one field of a worker. Raises KeyError for an unknown name."""
        _FIELD.pack_into(self._memory, (self._WORKER_FIELDS[field] + number) * 8, value)

    def read_worker(self, number: int, field: str) -> float:
        """Read one field of a worker; 0 as in :meth:`read`. Raises KeyError for an unknown name."""
        value: float = _FIELD.unpack_from(self._memory, (self._WORKER_FIELDS[field] + number) * 8)[0]
        return value if -_LIMIT < value < _LIMIT else 0.0

    def count_accepted(self, number: int) -> None:
        """Count one more accepted connection of a worker. Only that worker calls this."""
        self.post_worker(number, "accepted", self.read_worker(number, "accepted") + 1)

    @property
    def state(self) -> State:
        """The last state of the inference process; STARTING if the value is not valid."""
        value = int(self.read("state"))
        return State(value) if 0 <= value < len(State) else State.STARTING

    def alive(self, now: float, *, beat_limit_s: float = 5.0) -> bool:
        """Return whether the last heartbeat is recent and no run exceeds its limit.

        There are no heartbeats while a model is loaded or warmed up; the supervisor limits that time.
        """
        if self.state is not State.READY:
            return self.state is not State.DOWN
        return now - self.read("heartbeat") < beat_limit_s and not self.hung(now)

    def hung(self, now: float) -> bool:
        """Return whether a run has lasted longer than the limit of the inference process."""
        since = self.read("busy_since")
        return since > 0 and now - since > self.read("run_limit_s")

    def close(self) -> None:
        """Unmap and close the memory. Other processes keep theirs."""
        self._memory.close()
        os.close(self.fd)
