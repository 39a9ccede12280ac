"""Sends candidates from a worker to the sampling process, from a bounded queue that a thread empties.

``submit`` runs on the event loop and takes microseconds, whatever state the sampling process is in. When the
queue is full, it drops the candidate and counts it. `process` is the receiver.

The sampling process confirms each candidate with one byte after it has decided on it. If the process ends
before that, the sender sends the candidate once more, to the process that replaces it. Otherwise, a
candidate that the old process had not read would be lost without a trace, because the kernel accepts bytes
for a process that is about to end.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from queue import SimpleQueue

from inference.ipc import unix_socket
from streamer.sampling.candidate import CONFIRMED, SampleCandidate, pack_candidate

#: Limits of the queue. A worker submits a few candidates per second.
MAX_WAITING = 32
MAX_WAITING_BYTES = 64 << 20
#: A sampling process that reads nothing for this time counts as absent.
SEND_TIMEOUT_S = 5.0
#: A sampling process that confirms nothing for this time counts as absent. A new process may need as long to
#: start.
CONFIRM_TIMEOUT_S = 30.0
#: Seconds at the end in which to send queued candidates, without waiting for their confirmations.
CLOSE_S = 2.0


class SampleSender:
    """Queues candidates and sends them in a thread. Call ``start()``, ``submit()`` and ``close()``."""

    def __init__(self, address: str, dropped: Callable[[str], None]) -> None:
        """Send to the sampling process at ``address``.

        The sender calls ``dropped`` for each lost candidate with the reason ``busy`` or ``no_observer``, in
        either thread.
        """
        self._address = address
        self._dropped = dropped
        self._queue: SimpleQueue[SampleCandidate | None] = SimpleQueue()
        #: Bytes added, written only by the event loop, and bytes removed, written only by the thread. Their
        #: difference needs no lock; at worst it is too large.
        self._added_bytes = 0
        self._removed_bytes = 0
        self._socket: socket.socket | None = None
        self._closing = False
        # The thread is a daemon, so that a stalled sampling process does not keep the worker from ending.
        self._thread = threading.Thread(target=self._run, name="sample-sender", daemon=True)

    def start(self) -> None:
        """Start sending; the first candidate opens the connection."""
        self._thread.start()

    def submit(self, candidate: SampleCandidate) -> bool:
        """Queue a candidate. If the queue has no room, drop and count it, and return False."""
        size = candidate.size_bytes
        waiting_bytes = self._added_bytes - self._removed_bytes
        if self._queue.qsize() >= MAX_WAITING or waiting_bytes + size > MAX_WAITING_BYTES:
            self._dropped("busy")
            return False
        self._added_bytes += size
        self._queue.put(candidate)
        return True

    def close(self) -> None:
        """Send queued candidates for at most ``CLOSE_S``. Blocks: do not call it on the event loop."""
        self._closing = True
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while (candidate := self._queue.get()) is not None:
            try:
                self._send(pack_candidate(candidate))
            except OSError:
                self._dropped("no_observer")
                self._disconnect()
            self._removed_bytes += candidate.size_bytes
        self._disconnect()

    def _send(self, data: bytes) -> None:
        """Send one message and wait until it is confirmed; send it again if the process has ended.

        Raises OSError, after which the connection is unusable.
        """
        try:
            self._send_message(data)
        except (BrokenPipeError, ConnectionResetError):
            # The sampling process has ended. The process that replaces it listens at the same address.
            self._disconnect()
            self._send_message(data)

    def _send_message(self, data: bytes) -> None:
        if self._socket is None:
            self._socket = unix_socket.connect(self._address, socket.SOCK_STREAM)
        self._socket.settimeout(SEND_TIMEOUT_S)
        self._socket.sendall(len(data).to_bytes(4, "little"))
        self._socket.sendall(data)
        if self._closing:
            return
        self._socket.settimeout(CONFIRM_TIMEOUT_S)
        if self._socket.recv(len(CONFIRMED)) != CONFIRMED:
            raise BrokenPipeError("the sampling process has closed the connection")

    def _disconnect(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None
