"""`DetectStream`: sends frames over a WebSocket, keeps the connection and yields outcomes.

`flow` decides when a frame may be sent and which outcome it gets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from streamer.client.address import stream_address
from streamer.client.connection import Connection, ConnectionLost
from streamer.client.encoder import ImageInput, ImageLimits, check_input
from streamer.client.errors import BadInput, ConnectionFailed
from streamer.client.flow import Flow
from streamer.client.frame_stream import FrameStream, Phase, State, Watcher
from streamer.client.http import client_version, cookies
from streamer.client.options import MODES, Control, Options, Params
from streamer.client.reconnect import Connector
from streamer.client.results import Ledger
from streamer.client.sender import PendingFrame, PendingFrames, Sender
from streamer.protocol.close_codes import CloseCode

log = logging.getLogger("streamer.client")

TICK_S = 0.5


class DetectStream(FrameStream):
    """A stream of frames to a ``/v1/stream`` address.

    ``mode`` is ``live`` (only the newest frame is sent, and never twice) or ``all`` (every frame is sent, in
    order). Use it as an async context manager; entering it waits for the first connection. It is not
    thread-safe. Do not change an offered frame before its outcome has come.
    """

    def __init__(
        self,
        url: str,
        *,
        mode: str = "live",
        params: Params | Mapping[str, Any] | None = None,
        token: str | None = None,
        options: Options | None = None,
        on_state: Watcher | None = None,
    ) -> None:
        if mode not in MODES:
            raise BadInput(f"mode is {mode!r}; allowed are {' and '.join(MODES)}")
        super().__init__(on_state)
        self.mode = mode
        self._address = stream_address(url, token)
        self._control = Control(params if isinstance(params, Params) else Params(**(params or {})))
        self._options = options or Options()
        self._connector = Connector(self._address, self._options, self._set_state)
        self._flow = Flow(mode)
        self._pending_frames = PendingFrames(mode, self._flow.ledger)
        self._sender = Sender(self._flow, self._pending_frames, self._notifier, self._options, self._emit)
        self._connection: Connection | None = None

    # -- life cycle ----------------------------------------------------------------------------------

    @property
    def _connected(self) -> bool:
        return self._connection is not None

    @property
    def _pending(self) -> bool:
        return bool(len(self._pending_frames) or self._flow.in_flight)

    async def close(self) -> None:
        """End at once. Frames without an outcome end as a drop ``closed``."""
        self._closing = True
        connection = self._connection
        if connection is not None and not connection.leaving:
            with contextlib.suppress(ConnectionLost, TimeoutError):
                async with asyncio.timeout(1.0):
                    await connection.send({"type": "bye", "code": CloseCode.DONE.value, "reason": "done"})
        await super().close()

    def _drop_all(self, reason: str) -> None:
        self._emit(self._flow.abandon(reason))
        self._emit(self._pending_frames.drop_current(reason))
        self._emit(self._pending_frames.drop_waiting(reason))

    # -- frames in ---------------------------------------------------------------------------------

    def offer(self, picture: ImageInput, *, tag: Any = None, captured_s: float | None = None) -> bool:
        """Offer a frame without waiting; return whether it was accepted.

        A frame is refused, and counted in `Ledger.skipped`, when there is no connection, the window is
        full, the rate is above ``max_fps`` or the stream is paused. ``seq`` of the outcome is 0 when a newer
        frame replaced this one before it was sent. Raises the same errors as `FrameStream.offer`, and
        BadInput for a capture time that the protocol cannot represent.
        """
        self._check_open()
        check_input(picture)
        captured = _capture_time(captured_s)
        reason = self._refusal(time.monotonic())
        if reason is not None:
            self._pending_frames.refuse(reason)
            return False
        self._accept(PendingFrame(picture, captured, tag))
        return True

    def skip(self, reason: str) -> None:
        """Count a frame that the caller does not offer."""
        self._pending_frames.refuse(reason)

    async def send(self, picture: ImageInput, *, tag: Any = None, captured_s: float | None = None) -> None:
        """Offer a frame and wait until it is accepted. Raises the same errors as :meth:`offer`."""
        check_input(picture)
        captured = _capture_time(captured_s)
        while True:
            self._check_open()
            now = time.monotonic()
            if self._refusal(now) is None and not (self.mode == "live" and len(self._pending_frames)):
                self._accept(PendingFrame(picture, captured, tag))
                return
            await self._notifier.wait(self._flow.rate_wait_s(now))

    def _accept(self, frame: PendingFrame) -> None:
        self._emit(self._pending_frames.put(frame))
        self._notifier.notify()

    def _refusal(self, now: float) -> str | None:
        if self._control.paused:
            return "paused"
        if self.mode == "all":
            # Mode all queues frames even without a connection, so only a full queue refuses them.
            return "window" if self._pending_frames.full else None
        if self._connection is None or self._connection.leaving:
            return "disconnected"
        return self._flow.refusal(now, taken=int(self._pending_frames.current is not None))

    # -- control -------------------------------------------------------------------------------------

    async def configure(self, params: Params | None = None, **changes: Any) -> int:
        """Change parameters of the running stream; return the ``cfg`` of results computed with them.

        Raises BadInput with the message of the server when it refuses a value.
        """
        control = self._control
        before = control.params
        number = control.change(params or Params(**changes))
        await self._send_messages([control.configure_message()])
        await self._notifier.until(lambda: control.decided(number) or self._closing or self._over)
        if control.refusal is not None:
            control.params = before
            raise BadInput(control.refusal)
        if not control.in_effect(number):
            self._check_open()
        return number

    async def pause(self) -> None:
        """Tell the server that no frames will come for a while, so that it does not apply its idle limit."""
        await self._send_messages([self._control.pause_message(paused=True)])

    async def resume(self) -> None:
        """Continue after :meth:`pause`."""
        await self._send_messages([self._control.pause_message(paused=False)])
        self._notifier.notify()

    async def _send_messages(self, messages: list[dict[str, Any]]) -> None:
        """Send control messages. If the connection is lost, `Control.replay` sends them on the next one."""
        if self._connection is not None:
            with contextlib.suppress(ConnectionLost):
                for message in messages:
                    await self._connection.send(message)

    # -- outcomes out --------------------------------------------------------------------------------

    @property
    def effective(self) -> Mapping[str, Any]:
        """Parameters in effect, as the server states them."""
        return self._control.effective

    @property
    def ledger(self) -> Ledger:
        """A copy of the present counts."""
        return self._flow.ledger.copy()

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the served model, by class id."""
        return tuple(self._flow.labels)

    # -- connections ---------------------------------------------------------------------------------

    async def _work(self) -> None:
        async with aiohttp.ClientSession(cookie_jar=cookies()) as session:
            while True:
                connection = await self._connector.connect(session, self._hello())
                await self._connector.pause(await self._serve(connection))

    def _hello(self) -> dict[str, Any]:
        described: dict[str, Any] = {"id": 0, "codec": "jpeg", "mode": self.mode}
        if self._options.fps is not None:
            described["fps"] = float(self._options.fps)
        if self._options.stream:
            described["name"] = self._options.stream
        hello: dict[str, Any] = {
            "type": "hello",
            "client": {"name": "streamer.client", "version": client_version()},
            "streams": [described],
            "params": self._control.params.to_wire(),
        }
        resume = self._flow.resume_request()
        return hello if resume is None else {**hello, "resume": resume}

    async def _serve(self, connection: Connection) -> ConnectionFailed:
        """Carry frames and outcomes until the connection is lost; return the loss as an error."""
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._open(connection)
            limits = ImageLimits.from_welcome(connection.welcome.get("limits", {}))
            work = (self._read(connection), self._sender.run(connection, limits), self._tick(connection))
            tasks = [asyncio.create_task(each) for each in work]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self._connection = None
            for task in tasks:
                task.cancel()
            endings = await asyncio.gather(*tasks, return_exceptions=True)
            if self.mode == "live":
                self._emit(self._pending_frames.drop_current("disconnected"))
                self._emit(self._pending_frames.drop_waiting("disconnected"))
            self._emit(self._flow.disconnected())
            await connection.close()
        return _loss_of(endings)

    async def _read(self, connection: Connection) -> None:
        while True:
            self._receive(await connection.receive())

    async def _open(self, connection: Connection) -> None:
        welcome = connection.welcome
        self.model = welcome.get("model", {})
        self._control.welcomed(welcome)
        self._flow.welcomed(welcome, time.monotonic())
        self._connection = connection
        await self._send_messages(self._control.replay())
        self._set_state(
            State(Phase.CONNECTED, self._address.shown, resumed=bool(welcome.get("resumed", False)))
        )
        self._notifier.notify()

    def _receive(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        try:
            self._control.received(message)
            if kind == "configured":  # the server may have changed the model
                self.model = message.get("model", self.model)
            outcomes = self._flow.received(message, time.monotonic())
        except (KeyError, TypeError, ValueError) as error:
            log.warning("cannot read a %s message of the server: %r", kind, error)
            return
        if outcomes:
            # Outcomes reset the back-off, and a welcome does not: a server may crash right after each one.
            self._connector.backoff.reset()
            self._emit(outcomes)
        self._notifier.notify()

    async def _tick(self, connection: Connection) -> None:
        with contextlib.suppress(ConnectionLost):
            while True:
                await asyncio.sleep(TICK_S)
                if self._flow.ping_due(time.monotonic()):
                    await connection.send({"type": "ping", "t0": int(time.monotonic() * 1e6)})


def _capture_time(captured_s: float | None) -> float:
    """Return the capture time, or the present time for None.

    Raises BadInput when the protocol cannot represent it.
    """
    if captured_s is None:
        return time.monotonic()
    if not 0 <= captured_s < 1e12:
        raise BadInput(f"captured_s is {captured_s}; allowed are seconds from 0 on")
    return captured_s


def _loss_of(endings: Sequence[BaseException | None]) -> ConnectionLost:
    """Return the connection loss among the results of the tasks.

    Raises any other error that a task ended with: a refusal or a bug.
    """
    for ending in endings:
        if isinstance(ending, Exception) and not isinstance(ending, ConnectionLost):
            raise ending
    lost = next((ending for ending in endings if isinstance(ending, ConnectionLost)), None)
    return lost or ConnectionLost("the connection was lost")
