"""Holds the inference process's side of a worker's socket: its messages, its frame ring, waiting results."""

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


@dataclass(slots=True)
class WorkerConnection:
    """Holds a worker's socket. The loop's reading thread owns it; inference threads only send."""

    #: Number of the connection. Numbers are never reused, because frames of a worker that has gone may still
    #: run when the next worker connects.
    number: int
    socket: socket.socket
    #: None until the worker has sent its ATTACH message.
    ring: FrameRing | None = None
    #: Results for which the socket had no room; bounded by the worker's slots.
    outbox: deque[bytes] = field(default_factory=deque)
    lock: threading.Lock = field(default_factory=threading.Lock)
    assembler: wire.TextAssembler = field(default_factory=wire.TextAssembler)
    closed: bool = False

    def receive(self) -> tuple[bytes, list[tuple[int, int, bytes]]]:
        """Return the next message and its ancillary data. Raises BlockingIOError when there is none."""
        if self.ring is not None:
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
            if message is None or len(fds) != 1 or self.ring is not None:
                raise WireError("an attach message carries exactly one descriptor, once")  # noqa: TRY301 - one place closes
            slots, slot_bytes = message.get("slots"), message.get("slot_bytes")
            if not isinstance(slots, int) or not isinstance(slot_bytes, int):
                raise WireError("an attach message names `slots` and `slot_bytes`")  # noqa: TRY301 - as above
        except WireError:
            for fd in fds:
                os.close(fd)
            raise
        self.ring = FrameRing.attach(fds[0], slots, slot_bytes)

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
