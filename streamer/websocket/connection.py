"""One WebSocket of detect.v1: reads frames and control messages, writes outcomes. The hub owns it.

One task reads and never waits for inference; one task writes; results come from the dispatcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Protocol

from aiohttp import WSMessage, WSMsgType, web

from streamer.access.identity import Identity, Scope
from streamer.accounting.frame_counters import FrameCounters
from streamer.accounting.ledger import Ledger
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.settings import Settings
from streamer.core.byte_budget import ByteBudget
from streamer.http.gate import Gate
from streamer.http.hello_limit import HelloGate
from streamer.imaging.limits import Limits
from streamer.protocol.client_messages import (
    Bye,
    Configure,
    Hello,
    Message,
    Pause,
    Ping,
    Report,
    Resume,
    StreamOffer,
    TextFrame,
    parse_message,
)
from streamer.protocol.close_codes import CloseCode, CloseConnection
from streamer.protocol.wire import MAX_SEQ, MAX_STREAMS, DropReason, Frame, ProtocolError, unpack_frame
from streamer.replicas.session_router import Owners
from streamer.sampling.sampler import Sampler
from streamer.sampling.sampler_factory import SamplerFactory
from streamer.scheduling.client import Client
from streamer.scheduling.dispatcher import Dispatcher
from streamer.scheduling.errors import SchedulingError
from streamer.streams.flow_control import WindowViolated
from streamer.streams.session import Session
from streamer.streams.stream_handle import LiveStream
from streamer.websocket.frame_intake import Intake, TooFast
from streamer.websocket.handshake import error_message, greet, identify
from streamer.websocket.outbox import MAX_MESSAGES, OutboxFull
from streamer.websocket.writer import SocketWriter

#: Unknown fields reported on one connection.
MAX_TOLD_UNKNOWN = 50
#: Time for outcomes of frames in flight after a client's `bye`.
BYE_GRACE_S = 2.0
#: Messages that are parsed within some 0.1 ms; what pages and clients usually send is shorter.
_SHORT_MESSAGE_BYTES = 256
#: Paused streams may be silent this many times longer than `stream_idle_timeout_s`.
PAUSED_IDLE_FACTOR = 10


class Owner(Protocol):
    """The part of the hub that a connection uses."""

    dispatcher: Dispatcher
    metrics: WorkerMetrics
    settings: Settings
    limits: Limits
    gate: Gate
    samplers: SamplerFactory
    owners: Owners
    budget: ByteBudget
    #: Held while a long control message is parsed.
    long_messages: asyncio.Lock
    #: Closes in progress; kept so that none is garbage-collected half-way.
    background: set[asyncio.Task[None]]

    def opened(self, connection: Connection) -> None:
        """A session has started."""

    def leave(self, connection: Connection, *, resumable: bool) -> None:
        """The connection has ended."""

    def admit(self, version: str, identity: Identity) -> Client:
        """Count one more connection of a client and return it. Raises SchedulingError."""

    async def resume(self, session_id: str, newcomer: Connection, token: str | None) -> Session | None:
        """Return a session to continue."""

    def describe_limits(self) -> dict[str, Any]:
        """Return ``welcome.limits``."""


class Connection:
    """One WebSocket: reads frames and control messages, writes outcomes. The hub owns it."""

    def __init__(
        self,
        hub: Owner,
        socket: web.WebSocketResponse,
        version: str,
        subprotocol: str,
        identity: Identity,
        *,
        token: str | None,
        transport: asyncio.Transport | None,
        gate: HelloGate,
    ) -> None:
        self.hub = hub
        self.metrics = hub.metrics
        self.limits = hub.limits
        self.max_age_s = hub.settings.stream_max_age_ms / 1e3
        self.version = version
        info = hub.dispatcher.model(version)
        self.session = Session.of(version, info, id=hub.owners.new_id(), owner=identity.owner)
        #: Who the client is; from `hello` on, where no key came with the upgrade.
        self.identity = identity
        #: Whom frames are charged to; None until the hub, or `hello`, has said who the client is.
        self.client: Client | None = None
        self.streams: dict[int, LiveStream] = {}
        self.counters = FrameCounters(hub.metrics, "websocket", version)
        self.last_heard = time.monotonic()
        self._model = info
        self._socket = socket
        #: The key that came with the upgrade.
        self._token = token
        self._writer = SocketWriter(
            socket,
            transport,
            subprotocol,
            send_timeout_s=hub.settings.stream_send_timeout_s,
            hold=lambda: hub.budget.hold(self.identity.name, "messages"),
        )
        self._gate = gate
        gate.on_excess = self._hello_too_long
        gate.on_full = self._no_room
        gate.hold = lambda: hub.budget.hold(self.identity.name, "messages")
        self._intake = Intake(time.monotonic())
        #: Frames that belong to no stream, or could not be read: refused, and accounted all the same.
        self._strays = Ledger()
        #: Message type and field of unknown fields that were reported.
        self._told_unknown: set[tuple[str, str]] = set()
        self._closing: CloseConnection | None = None
        self._bye_received = False
        self._left = False

    # -- life cycle ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until either side closes."""
        writing = asyncio.create_task(self._write(), name="stream-writer")
        try:
            limit_s = self.hub.settings.stream_hello_timeout_s
            await greet(self._receive_hello, self._welcome, self.send, limit_s, self._gate.hello_bytes)
            self._gate.open()
            await self._read()
        except CloseConnection as close:
            self._closing = close
        finally:
            closing = self._closing
            try:
                if closing is None and self._bye_received:
                    await self._finish_in_flight()
                    closing = CloseConnection(CloseCode.DONE, "bye")
                if closing is not None:
                    await self._writer.flush(writing)
                    writing.cancel()
                    await self._writer.close(closing)
            finally:
                # First, as nothing may keep a stream registered whose socket is gone.
                self._leave(resumable=closing is None or closing.code == CloseCode.RESTART)
                writing.cancel()
                self._writer.drop()
                self._let_go()
                with contextlib.suppress(asyncio.CancelledError):
                    await writing

    def close_soon(self, code: int, reason: str) -> None:
        """Ask for an orderly close; the reading task carries it out."""
        if self._closing is None:
            self._closing = CloseConnection(code, reason)
            # Closing makes the reading task's receive() return, which then ends run().
            task = asyncio.ensure_future(self._writer.close(self._closing))
            self.hub.background.add(task)
            task.add_done_callback(self.hub.background.discard)

    def _let_go(self) -> None:
        """Streams hold their connection, and it them: let go once all their frames are accounted."""
        self._left = True
        if not any(live.stream.ledger.in_flight for live in self.streams.values()):
            self.streams.clear()

    def _leave(self, *, resumable: bool) -> None:
        for live in self.streams.values():
            self.hub.dispatcher.close_source(self.version, live.key)
            live.close()
            self.counters.account(live.stream.ledger)
        self.counters.account(self._strays)
        self.hub.leave(self, resumable=resumable and bool(self.streams))

    async def _finish_in_flight(self) -> None:
        """After a client's bye: the outcomes of its last frames are still on their way."""
        deadline = time.monotonic() + BYE_GRACE_S
        while time.monotonic() < deadline and any(
            live.stream.ledger.in_flight for live in self.streams.values()
        ):
            await asyncio.sleep(0.01)

    # -- hello ---------------------------------------------------------------------------------------

    async def _receive_hello(self) -> WSMessage:
        self._gate.wait()
        message = await self._socket.receive()
        self._gate.taken()
        return message

    def _hello_too_long(self) -> None:
        self.close_soon(
            CloseCode.LIMITS, f"{self._gate.most_bytes} bytes came without a hello in them; it is shorter"
        )

    def _no_room(self) -> None:
        self.close_soon(CloseCode.OVERLOADED, "the server has no room for a message of this size now")

    async def _welcome(self, hello: Hello) -> None:
        """Open the session that ``hello`` asks for. Raises ProtocolError for a field that cannot be met."""
        hub = self.hub
        if not self.identity.may(Scope.STREAM):
            self.identity = await identify(hub.gate, hello.token, self.identity.name)
            self.session.owner = self.identity.owner
        if self.client is None:
            try:
                self.client = hub.admit(self.version, self.identity)
            except SchedulingError as refusal:
                raise CloseConnection(CloseCode.LIMITS, str(refusal)) from refusal
        self.session.check(hello)
        resumed = None
        if hello.resume is not None:
            resumed = await hub.resume(hello.resume.session, self, hello.token or self._token)
        if resumed is not None:
            self.session = resumed
        self.session.configure(hello.params)
        self.session.open_streams(hello)
        offers = {offer.id: offer for offer in hello.streams}
        for number, stream in self.session.streams.items():
            live = LiveStream(self, stream, self._sampler(hello, offers[number]), self.client)
            self.streams[number] = live
            hub.dispatcher.open(self.version, live)
        hub.opened(self)
        now = time.monotonic()
        held = not hub.dispatcher.ready
        if held:
            for live in self.streams.values():
                live.stream.hold(now, "restarting")
        first = next(iter(self.streams.values())).stream
        info = self._model
        self.send(
            {
                "type": "welcome",
                "session": self.session.id,
                "resumed": resumed is not None,
                "model": {
                    "version": self.version,
                    "name": info.name,
                    "labels": list(info.labels),
                    "input": [info.input_width, info.input_height],
                },
                "limits": hub.describe_limits(),
                "flow": {"win": first.granted, "max_fps": first.max_fps},
                "params": self.session.describe_params(),
            }
        )
        self._report_unknown(hello)

    def _sampler(self, hello: Hello, offer: StreamOffer) -> Sampler | None:
        """Return the sampler of a stream; None when nobody may keep its frames."""
        if not (hello.collect and offer.collect):
            return None
        return self.hub.samplers.create(offer.name, "websocket", self.version, self._model)

    def _report_unknown(self, message: Message) -> None:
        """Unknown fields are ignored, but not in silence: most of them are misspelt. Each is told once."""
        for name in message.unknown_fields()[:5]:
            if (message.type, name) in self._told_unknown or len(self._told_unknown) >= MAX_TOLD_UNKNOWN:
                continue
            self._told_unknown.add((message.type, name))
            self.send(
                {
                    "type": "error",
                    "code": "unknown_field",
                    "message": f"field `{name}` of {message.type} is not known and was ignored",
                    "field": name,
                    "fatal": False,
                }
            )

    # -- reading -------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Take messages off the socket as they come; nothing here waits for inference."""
        while not self._bye_received:
            if len(self._writer) > MAX_MESSAGES // 2:
                # Messages that wait in the socket come without a pause: let the writer have its turn.
                await asyncio.sleep(0)
            message = await self._socket.receive()
            self._gate.message_read()
            self.last_heard = time.monotonic()
            if message.type is WSMsgType.BINARY:
                data = message.data
                if data[:1] == b"\x01":
                    self._frame_received(data)
                    continue
            elif message.type is WSMsgType.TEXT:
                data = message.data
            else:  # closed by either side, or an error that aiohttp has answered already
                return
            if len(data) <= _SHORT_MESSAGE_BYTES:
                self._control_received(data)
                await asyncio.sleep(0)
                continue
            # One of all clients in each turn of the loop, or many together would stop it.
            async with self.hub.long_messages:
                self._control_received(data)
                await asyncio.sleep(0)

    def _frame_received(self, data: bytes) -> None:
        try:
            frame = unpack_frame(data)
        except ProtocolError as error:
            self._refuse_stray(error_message(error))
            return
        self._accept(frame)

    def _refuse_stray(self, message: dict[str, Any]) -> None:
        """Answer a frame that no stream can take; it counts as received and failed."""
        self._strays.received += 1
        self._strays.failed += 1
        self.counters.account(self._strays)
        try:
            self._intake.take(self.last_heard)
        except TooFast as error:
            message = error.to_message()
        self.send(message)

    def _accept(self, frame: Frame) -> None:
        live = self.streams.get(frame.stream)
        if live is None:
            known = ", ".join(map(str, self.streams))
            self._refuse_stray(
                {
                    "type": "error",
                    "code": "unknown_stream",
                    "message": f"field `stream` is {frame.stream}; hello announced {known}",
                    "field": "stream",
                    "fatal": False,
                    "stream": frame.stream,
                    "seq": frame.seq,
                }
            )
            return
        rate = live.client.image_bytes
        if (
            rate is not None
            and frame.seq > live.stream.last_seq
            and not rate.take(self.last_heard, len(frame.payload))
        ):
            self.send_all(
                live.stream.discard(frame.seq, DropReason.RATE, "over this client's quota of bytes")
            )
            return
        try:
            messages = live.stream.receive(frame, self.last_heard)
        except WindowViolated as error:
            self.counters.account(live.stream.ledger)
            raise CloseConnection(CloseCode.LIMITS, str(error)) from error
        self.counters.account(live.stream.ledger)
        if messages:
            self.send_all(messages)
        if live.stream.pending:
            self.hub.dispatcher.offer(self.version, live)
        live.tell_drops_soon()

    def _control_received(self, data: str | bytes) -> None:
        try:
            message = self._intake.decode(data, self.last_heard)
            if message["type"] == "frame":
                self._text_frame_received(message)
                return
            if message["type"] == "hello":
                raise _said_hello()
            self._obey(parse_message(message))
        except TooFast as error:
            self.send(error.to_message())
        except ProtocolError as error:
            self.send(error_message(error))

    def _text_frame_received(self, message: dict[str, Any]) -> None:
        try:
            parsed = parse_message(message)
            frame = parsed.to_frame() if isinstance(parsed, TextFrame) else None
        except ProtocolError as error:
            answer = error_message(error)
            # What can be said of a broken frame helps to find it.
            for name, limit in (("seq", MAX_SEQ), ("stream", MAX_STREAMS - 1)):
                value = message.get(name)
                if isinstance(value, int) and 0 <= value <= limit:
                    answer[name] = int(value)
            self._refuse_stray(answer)
            return
        if frame is not None:
            self._accept(frame)
            self._report_unknown(parsed)

    def _obey(self, message: Message) -> None:
        if isinstance(message, Configure):
            self.session.configure(message.params)
            self.session.cfg = message.cfg
            self.send({"type": "configured", "cfg": message.cfg, "params": self.session.describe_params()})
        elif isinstance(message, Ping):
            received_us = int(self.last_heard * 1e6)
            self.send(
                {"type": "pong", "t0": message.t0, "t1": received_us, "t2": int(time.monotonic() * 1e6)}
            )
            for live in self.streams.values():
                self.send_all(live.stream.flow("ping"))
        elif isinstance(message, Pause | Resume):
            live = self._live(message.stream)
            self.send_all(live.stream.pause() if isinstance(message, Pause) else live.stream.resume())
            self.counters.account(live.stream.ledger)
        elif isinstance(message, Report):
            self.send(self._live(message.stream).report(message.note))
        elif isinstance(message, Bye):
            self._bye_received = True
        self._report_unknown(message)

    def _live(self, number: int) -> LiveStream:
        live = self.streams.get(number)
        if live is None:
            known = ", ".join(map(str, self.streams))
            raise ProtocolError(
                f"field `stream` is {number}; hello announced {known}", code="invalid", field="stream"
            )
        return live

    # -- writing -------------------------------------------------------------------------------------

    def send_all(self, messages: list[dict[str, Any]]) -> None:
        """Queue messages that belong to an outcome, and account it."""
        for message in messages:
            self.send(message)
        for live in self.streams.values():
            self.counters.account(live.stream.ledger)
        if self._left:
            self._let_go()

    def send(self, message: dict[str, Any]) -> None:
        """Queue one message; never waits."""
        if self._closing is not None or self._left:
            return
        live = self.streams.get(message.get("stream", -1))
        try:
            replaced = self._writer.put(message, newest_only=live is not None and live.stream.mode == "live")
        except OutboxFull as error:
            self.close_soon(CloseCode.SLOW_CONSUMER, str(error))
            return
        except CloseConnection as close:
            self.close_soon(close.code, close.reason)
            return
        if replaced:
            self.hub.metrics.undelivered.labels("websocket").inc(replaced)

    async def _write(self) -> None:
        try:
            await self._writer.run()
        except CloseConnection as close:
            self.close_soon(close.code, close.reason)

    # -- what the hub asks ---------------------------------------------------------------------------

    def ready_changed(self, now: float, *, ready: bool) -> None:
        """The inference process went away or came back: hold the streams, or open them again."""
        for live in self.streams.values():
            self.send_all(live.stream.unhold("ready") if ready else live.stream.hold(now, "restarting"))

    def tick(self, now: float) -> None:
        """Once a second: close what is silent."""
        limit_s = self.hub.settings.stream_idle_timeout_s
        if self.streams and all(live.stream.paused for live in self.streams.values()):
            limit_s *= PAUSED_IDLE_FACTOR
        if now - self.last_heard > limit_s:
            self.close_soon(CloseCode.IDLE, f"nothing heard for {limit_s:g} s")

    def say_bye(self, reconnect_ms: int) -> None:
        """The server is going away: tell the client when to come back, then close."""
        self.send(
            {
                "type": "bye",
                "code": CloseCode.RESTART.value,
                "reason": "the server is shutting down",
                "reconnect_ms": reconnect_ms,
            }
        )


def _said_hello() -> ProtocolError:
    return ProtocolError("field `type` is hello, which was sent already", code="unexpected", field="type")
