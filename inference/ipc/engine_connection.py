"""Connects a worker to one engine: sends frames that are in the worker's ring, and receives their results.

It runs on the event loop of the worker, and `EngineSet` owns it. When the engine's process dies, every frame
that it holds ends with InferenceLost at once, and the connection is opened again by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from inference.core.detection_params import DetectionParams
from inference.core.errors import InferenceLost, WireError
from inference.ipc import unix_socket as addresses
from inference.ipc import wire
from inference.ipc.engine_table import EngineEntry
from inference.ipc.handshake import read_handshake
from inference.ipc.ring import FrameRing
from inference.ipc.served_model import ServedModel, served_models
from inference.ipc.wire import Kind, Result

log = logging.getLogger("inference.client")

#: Pause between attempts to connect while no socket listens, which only happens while the supervisor ends.
_RETRY_S = 0.1
#: Pause after a message that does not parse, because its sender may send more of them.
_REFUSED_S = 0.5


class Ticket:
    """Holds a ring slot for one frame. ``answered`` is called with the frame's Result or an error."""

    __slots__ = (
        "alone",
        "answered",
        "engine",
        "epoch",
        "request_id",
        "ring",
        "shadow",
        "slot",
        "stream",
        "work_s",
    )

    def __init__(
        self, ring: FrameRing, epoch: int, answered: Callable[[Result | InferenceLost], None]
    ) -> None:
        #: The ring of the slot; later tickets may have another one.
        self.ring = ring
        self.slot = ring.acquire()
        #: Tells for which engines the frame is decoded. It is not valid any more when all of these were lost.
        self.epoch = epoch
        #: Slot of the engine that has the frame; -1 until submitted.
        self.engine = -1
        self.request_id = 0
        #: Key of its stream; 0 for POSTs, and until submitted.
        self.stream = 0
        self.answered = answered
        #: Whether the frame executes alone, so that no frame of any worker executes beside it.
        self.alone = False
        #: Whether no client waits for the frame, so that it executes only on an idle device.
        self.shadow = False
        #: Seconds of its engine that the frame is expected to take; 0 if there is only one engine.
        self.work_s = 0.0


class Owner(Protocol):
    """Describes who owns connections: an `EngineSet`."""

    def greeted(self, engine: EngineConnection) -> FrameRing:
        """Take note of the models of an engine, and return the ring to attach. Raises WireError."""

    def changed(self, engine: EngineConnection) -> None:
        """Take note that an engine is ready, or is not any more."""

    def ended(self, ticket: Ticket) -> None:
        """Release the slot of a frame that is not in flight any more."""

    def refused(self, engine: EngineConnection) -> None:
        """Take note that a message of an engine did not parse, so that its process must be replaced."""


class EngineConnection:
    """Sends frames to one engine and receives their results. Call ``start()``, and ``close()`` at the end."""

    def __init__(self, entry: EngineEntry, owner: Owner) -> None:
        self.entry = entry
        self._owner = owner
        self._socket: socket.socket | None = None
        #: Models that the engine announced last. Empty until its first process is ready.
        self.models: dict[str, ServedModel] = {}
        #: By the warm-up, for each version: seconds of the engine for a frame, and seconds of a run of one
        #: frame.
        self.frame_s: dict[str, float] = {}
        self.run_s: dict[str, float] = {}
        self._pending: dict[int, Ticket] = {}
        self._request_ids = itertools.count(1)
        #: Numbers of the rings that the process has mapped.
        self._attached: set[int] = set()
        #: Messages for which the socket had no room, at most a SUBMIT and a CANCEL for each slot of the ring,
        #: some with a descriptor.
        self._outbox: deque[bytes | tuple[bytes, int]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._lost: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Whether frames can be submitted now.
        self.ready = False
        self._refused = False

    def start(self) -> None:
        """Start connecting, and return at once."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._keep_connected(), name="inference-connection")

    async def close(self) -> None:
        """Close the connection. Frames in flight end with InferenceLost."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def streams(self) -> list[int]:
        """Key of the stream of each frame that the engine holds; 0 for POSTs."""
        return [ticket.stream for ticket in self._pending.values()]

    @property
    def in_flight(self) -> int:
        """Number of frames that the engine holds for this worker."""
        return len(self._pending)

    def submit(
        self,
        ticket: Ticket,
        version: str,
        params: DetectionParams,
        stream: int,
        interactive: bool,
        deadline: float,
        client: int,
        weight: float,
    ) -> None:
        """Submit the filled slot; the ticket's ``answered`` is called exactly once. The engine is ready."""
        ticket.engine, ticket.stream = self.entry.slot, stream
        ticket.request_id = next(self._request_ids)
        self._pending[ticket.request_id] = ticket
        ring = ticket.ring
        if ring.number not in self._attached:
            self._attach(ring)
        self._send(
            wire.pack_submit(
                wire.Submit(
                    ticket.request_id,
                    ticket.slot,
                    self.models[version].index,
                    interactive,
                    stream,
                    deadline,
                    params,
                    client,
                    weight,
                    ticket.alone,
                    ticket.shadow,
                    ring.number,
                )
            )
        )

    def cancel(self, ticket: Ticket) -> None:
        """Request that the planner drops an item that has not started.

        The item is answered in any case, perhaps as CANCELLED.
        """
        if ticket.request_id in self._pending:
            self._send(wire.pack_cancel(ticket.request_id))

    def detach(self, ring: FrameRing) -> None:
        """Let the process unmap a ring in which no frame is any more."""
        if ring.number in self._attached:
            self._attached.remove(ring.number)
            self._send(wire.pack_ring(Kind.DETACH, ring.number))

    def _attach(self, ring: FrameRing) -> None:
        if self._attached:
            self._send(wire.pack_ring(Kind.RING_FOLLOWS, ring.number))
        self._attached.add(ring.number)
        fields = {"slots": ring.slots, "slot_bytes": ring.slot_bytes, "number": ring.number}
        (message,) = wire.pack_text(Kind.ATTACH, fields)
        self._send((message, ring.fd))

    def _send(self, message: bytes | tuple[bytes, int]) -> None:
        connection = self._socket
        if connection is None:
            return
        if not self._outbox:
            try:
                _send_one(connection, message)
            except BlockingIOError:
                pass
            except OSError:  # the read callback gets the same error and ends every frame in flight
                return
            else:
                return
        if not self._outbox and self._loop is not None:
            self._loop.add_writer(connection.fileno(), self._flush)
        self._outbox.append(message)

    def _flush(self) -> None:
        connection = self._socket
        if connection is None or self._loop is None:
            return
        try:
            while self._outbox:
                _send_one(connection, self._outbox[0])
                self._outbox.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._outbox.clear()
        self._loop.remove_writer(connection.fileno())

    # -- connection ----------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection = addresses.connect(self.entry.address)
            except OSError:
                await asyncio.sleep(_RETRY_S)
                continue
            self._socket = connection
            self._lost = asyncio.Event()
            assembler = wire.TextAssembler()
            loop.add_reader(connection.fileno(), self._read, connection, assembler)
            self._refused = False
            try:
                await self._lost.wait()
            finally:
                self._disconnect(connection)
            if self._refused:
                await asyncio.sleep(_REFUSED_S)

    def _disconnect(self, connection: socket.socket) -> None:
        """End every frame in flight. Their slots can be released: the process does not write into them."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(connection.fileno())
        loop.remove_writer(connection.fileno())
        connection.close()
        self._socket = None
        self._outbox.clear()
        self._attached.clear()
        was_ready, self.ready = self.ready, False
        pending, self._pending = self._pending, {}
        lost: list[tuple[Ticket, bool]] = []
        for ticket in pending.values():
            # After a message that does not parse, do not trust the marks of the process either.
            lost.append((ticket, not self._refused and ticket.ring.executing(ticket.slot)))
            ticket.ring.mark(ticket.slot, executing=False)
            self._owner.ended(ticket)
        if was_ready:
            self._owner.changed(self)
        for ticket, executing in lost:
            ticket.answered(
                InferenceLost("the inference process ended while it held the frame", executing=executing)
            )

    def _read(self, connection: socket.socket, assembler: wire.TextAssembler) -> None:
        """Handle one message. Most come alone; the event loop calls this again for each further one."""
        try:
            data = connection.recv(wire.MAX_MESSAGE_BYTES)
            if not data:
                self._mark_lost()
            elif data[0] == Kind.RESULT:
                self._resolve(wire.unpack_result(data))
            elif data[0] == Kind.HELLO:
                handshake = assembler.feed(data)
                if handshake is not None:
                    self._welcome(handshake)
            else:
                raise WireError(f"unknown message kind {data[0]}")  # noqa: TRY301 - one place closes
        except BlockingIOError:
            return
        except WireError as error:
            log.error("closing the connection to the inference process: %s", error)  # noqa: TRY400 - complete
            self._refused = True
            self._mark_lost()
            self._owner.refused(self)
        except OSError:
            self._mark_lost()

    def _mark_lost(self) -> None:
        if self._socket is not None and self._loop is not None:
            # At end-of-file the socket stays readable and would call `_read` again until the task runs.
            self._loop.remove_reader(self._socket.fileno())
        if self._lost is not None:
            self._lost.set()

    def _resolve(self, result: Result) -> None:
        ticket = self._pending.pop(result.request_id, None)
        if ticket is None:
            raise WireError(f"an answer to request {result.request_id}, which is not in flight")
        self._owner.ended(ticket)
        ticket.answered(result)

    def _welcome(self, handshake: dict[str, Any]) -> None:
        if self.ready:
            raise WireError("a second handshake")
        self.models = served_models(read_handshake(handshake))
        self.frame_s = {version: 1.0 / model.capacity_fps for version, model in self.models.items()}
        self.run_s = {
            version: model.cost_ms[min(model.cost_ms)] / 1e3 for version, model in self.models.items()
        }
        self._attach(self._owner.greeted(self))
        self.ready = True
        self._owner.changed(self)


def _send_one(connection: socket.socket, message: bytes | tuple[bytes, int]) -> None:
    if isinstance(message, bytes):
        connection.send(message)
    else:
        socket.send_fds(connection, [message[0]], [message[1]])
