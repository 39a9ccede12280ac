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
#: Room for 4,096 fields.
_BYTES = 8 * mmap.PAGESIZE
#: Number of engine slots: how many inference processes there may be, of all generations together.
ENGINE_SLOTS = 32
#: Number of workers for which there is room.
WORKER_SLOTS = 64
#: `SharedStatus.read` returns 0 for a larger value or NaN: every process of the replica can write to it, and
#: no value may make a reader fail.
_LIMIT = 2.0**53


class State(IntEnum):
    """Says what an engine is doing, which is an inference process with its device."""

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
        "engines": 0,  # supervisor: a bit for each engine slot of the current generation; 0 means slot 0
        "restarts": 4,  # supervisor: restarts of all engines of all generations
        "draining": 5,  # supervisor
        "sampling": 7,  # sampling process; the supervisor while there is none
        "samples": 8,  # sampling process: accepted since the replica was started
        "drift": 9,  # sampling process: a `streamer.drift.status_document.DriftStatus`
        "supervisor_beat": 10,  # supervisor: time of the last round of its watchdog
        "sampling_beat": 11,  # sampling process: heartbeat of its event loop, 0 before the first
        "sampling_presence": 12,  # supervisor
        "dying": 13,  # supervisor: 1 while processes die so often that readiness would alternate
        "workers": 14,  # supervisor: configured number of workers
        "ending": 17,  # supervisor: 1 once the workers have drained, so that SIGTERM ends the other processes
        "capacity_factor": 18,  # worker 0: measured capacity over that of the warm-up, 0 before it is known
        "decode_ms": 19,  # worker 0: mean processor time of decoding a frame
        "moving_until": 20,  # workers: until when streams that were asked to move may come back first
        "can_move_until": 21,  # workers: until when this replica has streams that can be asked to move
        "started": 22,  # supervisor: when the replica was started
        "shadow_v2": 42,  # workers: share of v1's frames that v2 runs, too, 0..1
        "split_v2": 23,  # workers: share of the clients on routes without a version that get v2, 0..1
    }

    #: Maps each field of an engine to its index for slot 0.
    _ENGINE_FIELDS = {  # noqa: RUF012 - a constant table
        "state": 1024,  # engine; the supervisor writes STARTING and DOWN
        "heartbeat": 1056,  # engine: time of the last heartbeat of its loop
        "busy_since": 1088,  # engine: start of the oldest run in progress, 0 when idle
        "run_limit_s": 1120,  # engine: a run that lasts longer is hung
        "pid": 1152,  # engine
        "served": 1184,  # engine: 1 once a process of this slot has loaded and warmed up all models
        "models_changed": 1216,  # engine: a bit for each version whose file has changed
        "refused": 1248,  # workers: time at which a message of the engine did not parse
        "restarts": 1280,  # supervisor: restarts of this engine
        "retiring": 1312,  # supervisor: 1 once the engine ends as soon as no worker is connected any more
        "index": 1344,  # supervisor: number of the engine in its generation
    }
    #: Index of the work in flight of worker 0 at slot 0, in seconds of the device; those of the other workers
    #: follow, then those of the next slot.
    _WORK = 2048

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
        "generation": 896,  # worker: number of the generation whose models it serves, 0 before the first
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

    def post_engine(self, slot: int, field: str, value: float) -> None:
        """Write one field of an engine. Raises KeyError for an unknown name."""
        _FIELD.pack_into(self._memory, (self._ENGINE_FIELDS[field] + slot) * 8, value)

    def read_engine(self, slot: int, field: str) -> float:
        """Read one field of an engine; 0 as in :meth:`read`. Raises KeyError for an unknown name."""
        value: float = _FIELD.unpack_from(self._memory, (self._ENGINE_FIELDS[field] + slot) * 8)[0]
        return value if -_LIMIT < value < _LIMIT else 0.0

    def engine(self, slot: int) -> EngineStatus:
        """Return the fields of one engine."""
        return EngineStatus(self, slot)

    def work(self) -> memoryview[float]:
        """Return the work in flight of all workers at all slots, `WORKER_SLOTS` numbers for each slot."""
        start = self._WORK * 8
        return memoryview(self._memory)[start : start + ENGINE_SLOTS * WORKER_SLOTS * 8].cast("d")

    @property
    def engines(self) -> list[EngineStatus]:
        """The engines of the current generation, in the order of their slots."""
        mask = int(self.read("engines")) or 1
        return [self.engine(slot) for slot in range(ENGINE_SLOTS) if mask >> slot & 1]

    @property
    def state(self) -> State:
        """What the replica can do: READY if any engine of the current generation is, else the next best."""
        return max((engine.state for engine in self.engines), key=_PROGRESS.index, default=State.STARTING)

    def close(self) -> None:
        """Unmap and close the memory. Other processes keep theirs."""
        self._memory.close()
        os.close(self.fd)


#: States by what they promise, the best one last.
_PROGRESS = (State.DOWN, State.STARTING, State.LOADING, State.WARMING, State.READY)


class EngineStatus:
    """Gives access to the fields of one engine."""

    #: Names of all fields.
    FIELDS = tuple(SharedStatus._ENGINE_FIELDS)  # noqa: SLF001 - the same file

    def __init__(self, shared_status: SharedStatus, slot: int) -> None:
        self.shared_status = shared_status
        self.slot = slot

    def post(self, field: str, value: float) -> None:
        """Write one field. Raises KeyError for an unknown name."""
        self.shared_status.post_engine(self.slot, field, value)

    def read(self, field: str) -> float:
        """Read one field; 0 as in :meth:`SharedStatus.read`. Raises KeyError for an unknown name."""
        return self.shared_status.read_engine(self.slot, field)

    @property
    def state(self) -> State:
        """The last state of the engine; STARTING if the value is not valid."""
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
        """Return whether a run has lasted longer than the limit of the engine."""
        since = self.read("busy_since")
        return since > 0 and now - since > self.read("run_limit_s")
