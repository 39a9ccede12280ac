"""The worker's side of the way to the observer: a bounded queue and the thread that empties it.

``offer`` belongs to the event loop and takes microseconds whatever the observer does; when the queue is
full, candidates are dropped and counted. The neighbour on the other side is ``process``.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from queue import SimpleQueue

from inference.ipc import unix_socket as address
from streamer.sampling.candidate import Candidate, pack_candidate

#: Candidates that may wait, and their bytes; a worker makes a few in a second.
MAX_WAITING = 32
MAX_WAITING_BYTES = 64 << 20
#: An observer that takes nothing for this long is as good as none.
SEND_TIMEOUT_S = 5.0
#: Time that the thread has at the end for what waits.
CLOSE_S = 2.0


class Handover:
    """Construct, ``start()``, ``offer()``, ``close()``."""

    def __init__(self, observer_address: str, dropped: Callable[[str], None]) -> None:
        self._address = observer_address
        #: Is told of each candidate that was lost, and why: ``busy`` or ``no_observer``. From both threads.
        self._dropped = dropped
        self._queue: SimpleQueue[Candidate | None] = SimpleQueue()
        #: Bytes put in, written by the event loop alone, and taken out, written by the thread alone: their
        #: difference needs no lock and errs to the safe side.
        self._put_bytes = 0
        self._taken_bytes = 0
        self._socket: socket.socket | None = None
        # A daemon: a stalled observer must not keep the worker from ending.
        self._thread = threading.Thread(target=self._run, name="handover", daemon=True)

    def start(self) -> None:
        """Begin to send; connects with the first candidate."""
        self._thread.start()

    def offer(self, candidate: Candidate) -> bool:
        """Queue a candidate. False when there is no room; it is counted, and the caller forgets it."""
        size = candidate.size_bytes
        waiting_bytes = self._put_bytes - self._taken_bytes
        if self._queue.qsize() >= MAX_WAITING or waiting_bytes + size > MAX_WAITING_BYTES:
            self._dropped("busy")
            return False
        self._put_bytes += size
        self._queue.put(candidate)
        return True

    def close(self) -> None:
        """Send what waits, for ``CLOSE_S`` at most. Blocks: not for the event loop."""
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
            self._taken_bytes += candidate.size_bytes
        self._disconnect()

    def _send(self, data: bytes) -> None:
        """Send one message. Raises OSError; half of it may be sent then, so the connection is of no use."""
        if self._socket is None:
            self._socket = address.connect(self._address, socket.SOCK_STREAM)
            self._socket.settimeout(SEND_TIMEOUT_S)
        try:
            self._socket.sendall(len(data).to_bytes(4, "little"))
            self._socket.sendall(data)
        except BrokenPipeError:
            # The observer that this connection led to has ended; its successor listens at the same address.
            self._disconnect()
            self._socket = address.connect(self._address, socket.SOCK_STREAM)
            self._socket.settimeout(SEND_TIMEOUT_S)
            self._socket.sendall(len(data).to_bytes(4, "little"))
            self._socket.sendall(data)

    def _disconnect(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None
