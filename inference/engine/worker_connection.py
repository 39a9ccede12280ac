"""Holds the inference process's side of a worker's socket: its messages, its frame rings, waiting results."""

from __future__ import annotations

import array
import os
import socket
import threading
from collections import deque
from dataclasses import dataclass, field

from inference.core.errors import WireError
from inference.ipc import wire
from inference.ipc.ring import FrameRing

#: Most rings of a worker at a time. It makes a new one when models or engines change, and old ones end soon.
MOST_RINGS = 8


@dataclass(slots=True)
class WorkerConnection:
    """Holds a worker's socket. The loop's reading thread owns it; inference threads only send."""

    #: Number of the connection. Numbers are never reused, because frames of a worker that has gone may still
    #: run when the next worker connects.
    number: int
    socket: socket.socket
    #: By number; empty until the worker has sent its first ATTACH message.
    rings: dict[int, FrameRing] = field(default_factory=dict)
    #: Whether the next message may carry the descriptor of a ring.
    awaits_ring: bool = True
    #: Results for which the socket had no room; bounded by the worker's slots.
    outbox: deque[bytes] = field(default_factory=deque)
    lock: threading.Lock = field(default_factory=threading.Lock)
    assembler: wire.TextAssembler = field(default_factory=wire.TextAssembler)
    closed: bool = False

    def receive(self) -> tuple[bytes, list[tuple[int, int, bytes]]]:
        """Return the next message and its ancillary data. Raises BlockingIOError when there is none."""
        if not self.awaits_ring:
            return self.socket.recv(wire.MAX_MESSAGE_BYTES), []
        data, ancillary, _, _ = self.socket.recvmsg(wire.MAX_MESSAGE_BYTES, 256)
        return data, ancillary

    def attach(self, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        """Map the ring whose descriptor an ATTACH message carries. Raises WireError if it is not valid."""
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        try:
            message = self.assembler.feed(data)
            if message is None or len(fds) != 1 or not self.awaits_ring:
                raise WireError("an attach message carries exactly one descriptor, once")  # noqa: TRY301 - one place closes
            slots, slot_bytes = message.get("slots"), message.get("slot_bytes")
            number = message.get("number", 0)
            if not (isinstance(slots, int) and isinstance(slot_bytes, int) and isinstance(number, int)):
                raise WireError("an attach message names `slots`, `slot_bytes` and `number`")  # noqa: TRY301 - as above
            if number in self.rings or len(self.rings) >= MOST_RINGS:
                raise WireError(f"ring {number} is attached twice, or there are too many")  # noqa: TRY301 - as above
        except WireError:
            for fd in fds:
                os.close(fd)
            raise
        self.rings[number] = FrameRing.attach(fds[0], slots, slot_bytes)
        self.awaits_ring = False

    def detach(self, number: int) -> None:
        """Unmap a ring in which the worker has no frame any more. Raises WireError for an unknown one."""
        ring = self.rings.pop(number, None)
        if ring is None:
            raise WireError(f"ring {number} is not attached")
        ring.close()

    def send(self, message: bytes) -> bool:
        """Send without waiting; any thread may call. Returns True when the message waits in the outbox."""
        with self.lock:
            if self.closed:
                return False
            if not self.outbox:
                try:
                    self.socket.send(message)
                except BlockingIOError:
                    pass
                except OSError:  # the reading thread gets the same error and closes the connection
                    return False
                else:
                    return False
            self.outbox.append(message)
            return True

    def flush(self) -> None:
        """Send as many messages of the outbox as the socket takes. The caller holds ``lock``."""
        try:
            while self.outbox:
                self.socket.send(self.outbox[0])
                self.outbox.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.outbox.clear()
