"""Connects a worker to the inference process: keeps its ring, its requests and the served models.

It runs on the event loop of the worker; only `pixels` may be called from other threads. When the process
dies, every frame in flight ends with InferenceLost at once, and the client reconnects by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.core.detection_params import DetectionParams
from inference.core.errors import InferenceLost, InferenceUnavailable, WireError
from inference.ipc import unix_socket as addresses
from inference.ipc import wire
from inference.ipc.handshake import read_handshake, ring_size
from inference.ipc.ring import FrameRing
from inference.ipc.served_model import ServedModel, served_models
from inference.ipc.wire import Kind, Result
from inference.models.model import ModelInfo

log = logging.getLogger("inference.client")

#: Pause between attempts to connect while no socket listens, which only happens while the supervisor ends.
_RETRY_S = 0.1
#: Pause after a message that does not parse, because its sender may send more of them.
_REFUSED_S = 0.5


class Ticket:
    """Holds a ring slot for one frame. The client calls ``answered`` with the frame's Result or an error."""

    __slots__ = ("alone", "answered", "epoch", "request_id", "ring", "shadow", "slot")

    def __init__(
        self, ring: FrameRing, epoch: int, answered: Callable[[Result | InferenceLost], None]
    ) -> None:
        #: The ring of the slot; a restarted process may need another one.
        self.ring = ring
        self.slot = ring.acquire()
        self.epoch = epoch
        self.request_id = 0
        self.answered = answered
        #: Whether the frame executes alone, so that no frame of any worker executes beside it.
        self.alone = False
        #: Whether no client waits for the frame, so that it executes only on an idle device.
        self.shadow = False


class InferenceClient:
    """Sends frames to the inference process and receives their results.

    Call ``start()``, then `acquire`, `pixels` and `submit` for each frame, and ``close()`` at the end.
    ``spare_slots`` are slots for frames that are being decoded, besides those that keep the device busy.
    """

    def __init__(self, address: str, *, spare_slots: int = 4) -> None:
        self._address = address
        self._spare_slots = spare_slots
        self._socket: socket.socket | None = None
        self._ring: FrameRing | None = None
        #: Versions that the inference process announced last. Empty until the first process is ready, and
        #: kept while a process restarts.
        self.models: dict[str, ServedModel] = {}
        #: Number of connections so far. Tickets of an older connection are not valid.
        self._epoch = 0
        self._pending: dict[int, Ticket] = {}
        self._request_ids = itertools.count(1)
        #: Messages for which the socket had no room, at most a SUBMIT and a CANCEL for each slot of the ring.
        self._outbox: deque[bytes] = deque()
        self._task: asyncio.Task[None] | None = None
        self._lost: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Whether frames can be submitted now.
        self.ready = False
        self._refused = False
        #: Called on the event loop when a message does not parse, so that the process must be replaced.
        self.on_refused: Callable[[], None] = lambda: None
        #: Called on the event loop when ``ready`` changes.
        self.on_change: Callable[[bool], None] = lambda _ready: None
        #: Called on the event loop with each new ring, before its first ticket.
        self.on_ring: Callable[[FrameRing], None] = lambda _ring: None

    @property
    def free_slots(self) -> int:
        """Ring slots that can be acquired now."""
        return self._ring.free if self._ring is not None else 0

    async def start(self) -> None:
        """Start connecting, and return at once."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._keep_connected(), name="inference-connection")

    async def close(self) -> None:
        """Close the connection. Frames in flight end with InferenceLost."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._ring is not None:
            self._ring.close()

    def acquire(self, answered: Callable[[Result | InferenceLost], None]) -> Ticket:
        """Take a slot. Raises InferenceUnavailable when no process is ready, RingFull when all are taken."""
        if not self.ready or self._ring is None:
            raise InferenceUnavailable("no inference process is ready")
        return Ticket(self._ring, self._epoch, answered)

    def release(self, ticket: Ticket) -> None:
        """Give back a slot that was never submitted."""
        ticket.ring.release(ticket.slot)

    def pixels(self, ticket: Ticket, model: ModelInfo) -> npt.NDArray[np.uint8]:
        """Return the ticket's slot as a uint8 array (input height, input width, 3). Any thread may call."""
        return ticket.ring.pixels(ticket.slot, model.input_width, model.input_height)

    def submit(
        self,
        ticket: Ticket,
        model: ServedModel,
        params: DetectionParams,
        *,
        stream: int,
        interactive: bool,
        deadline: float,
        client: int = 0,
        weight: float = 1.0,
    ) -> None:
        """Submit the filled slot, which this object owns from now on. Only the event loop may call.

        The planner charges the run to the flow of ``client``, which has this ``weight`` against others. The
        ticket's ``answered`` is called exactly once, on the event loop, with a Result or InferenceLost.
        """
        if ticket.epoch != self._epoch or not self.ready:
            self.release(ticket)
            ticket.answered(InferenceLost("the inference process went away before the frame was submitted"))
            return
        ticket.request_id = next(self._request_ids)
        self._pending[ticket.request_id] = ticket
        self._send(
            wire.pack_submit(
                wire.Submit(
                    ticket.request_id,
                    ticket.slot,
                    model.index,
                    interactive,
                    stream,
                    deadline,
                    params,
                    client,
                    weight,
                    ticket.alone,
                    ticket.shadow,
                )
            )
        )

    def cancel(self, ticket: Ticket) -> None:
        """Request that the planner drops an item that has not started.

        The item is answered in any case, perhaps as CANCELLED.
        """
        if ticket.request_id in self._pending:
            self._send(wire.pack_cancel(ticket.request_id))

    def _send(self, message: bytes) -> None:
        connection = self._socket
        if connection is None:
            return
        if not self._outbox:
            try:
                connection.send(message)
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
                connection.send(self._outbox[0])
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
                connection = addresses.connect(self._address)
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
        """End every frame in flight. No other process maps the ring now, so all slots can be released."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(connection.fileno())
        loop.remove_writer(connection.fileno())
        connection.close()
        self._socket = None
        self._outbox.clear()
        self._epoch += 1
        was_ready, self.ready = self.ready, False
        pending, self._pending = self._pending, {}
        lost: list[tuple[Ticket, bool]] = []
        for ticket in pending.values():
            # After a message that does not parse, do not trust the marks of the process either.
            lost.append((ticket, not self._refused and ticket.ring.executing(ticket.slot)))
            ticket.ring.mark(ticket.slot, executing=False)
            self.release(ticket)
        if was_ready:
            self.on_change(False)
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
                    self._welcome(connection, handshake)
            else:
                raise WireError(f"unknown message kind {data[0]}")  # noqa: TRY301 - one place closes
        except BlockingIOError:
            return
        except WireError as error:
            log.error("closing the connection to the inference process: %s", error)  # noqa: TRY400 - complete
            self._refused = True
            self._mark_lost()
            self.on_refused()
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
        self.release(ticket)
        ticket.answered(result)

    def _welcome(self, connection: socket.socket, handshake: dict[str, Any]) -> None:
        if self.ready:
            raise WireError("a second handshake")
        models = served_models(read_handshake(handshake))
        slots, slot_bytes = ring_size(
            [(model.in_flight, model.info) for model in models.values()], self._spare_slots
        )
        if self._ring is None or (self._ring.slots, self._ring.slot_bytes) != (slots, slot_bytes):
            # Make a new ring instead of resizing: decoders may still write into the old slots.
            before, self._ring = self._ring, FrameRing(slots, slot_bytes)
            if before is not None:
                before.close()
            self.on_ring(self._ring)
        self.models = models
        (attach,) = wire.pack_text(Kind.ATTACH, {"slots": slots, "slot_bytes": slot_bytes})
        socket.send_fds(connection, [attach], [self._ring.fd])
        self.ready = True
        self.on_change(True)
