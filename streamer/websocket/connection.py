"""Serves one WebSocket of detect.v1 from its hello to its close. The hub owns the connection.

One task reads messages and never waits for inference; one task writes. Frames go to `frame_receiver`, control
messages to `streams.session_control`; results come from the dispatcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Protocol

from aiohttp import WSMsgType

from streamer.access.identity import Identity
from streamer.accounting.ledger import FrameCounters
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.settings import Settings
from streamer.core.byte_budget import ByteBudget
from streamer.core.event_loop_selector import running_iteration
from streamer.http.connection_limits import ReadLimiter
from streamer.imaging.image_header import Limits
from streamer.protocol import server_messages
from streamer.protocol.client_messages import Hello
from streamer.protocol.close_codes import CloseCode, CloseConnection
from streamer.protocol.server_messages import ConnectionLimits, ServerMessage
from streamer.protocol.wire import FRAME_MARK, ProtocolError
from streamer.replicas.session_router import SessionRouter
from streamer.sampling.sampler import SamplerFactory
from streamer.sampling.shadow import ShadowRuns, shadow_stream
from streamer.scheduling.clients import Client
from streamer.scheduling.dispatcher import Dispatcher
from streamer.streams.session import Session, describe_session
from streamer.streams.session_control import SessionControl, TooManyMessages
from streamer.streams.session_model import SessionModel
from streamer.streams.stream_handle import StreamHandle
from streamer.websocket.entrance import Entrance
from streamer.websocket.frame_receiver import FrameReceiver, MessageReceiver, unknown_stream
from streamer.websocket.handshake import HelloReader, await_hello
from streamer.websocket.outbox import MAX_MESSAGES
from streamer.websocket.relay import Relay, Relayed
from streamer.websocket.writer import SocketWriter

#: How long a connection waits for outcomes of frames in flight after a client's `bye`.
BYE_GRACE_S = 2.0
#: Messages up to this size are parsed within some 0.1 ms. Most messages of clients are shorter.
_SHORT_MESSAGE_BYTES = 256
#: Paused streams may be silent this many times longer than `stream_idle_timeout_s`.
PAUSED_IDLE_FACTOR = 10
_FRAME_MARK = bytes((FRAME_MARK,))
#: A stream whose next frame has arrived already lets others go first if the iteration of the event loop has
#: lasted this long. Without this, 180 clients that sent 2,000 small frames each delayed others by 0.4 s.
MAX_ITERATION_S = 0.005
#: The hello opens the session; later ones are refused.
_REFUSED_TYPES = {"hello": "which was sent already"}


class Hub(Protocol):
    """What a connection needs of the hub."""

    dispatcher: Dispatcher
    metrics: WorkerMetrics
    settings: Settings
    limits: Limits
    entrance: Entrance
    samplers: SamplerFactory
    shadow_runs: ShadowRuns | None
    router: SessionRouter
    budget: ByteBudget
    #: Held while a long control message is parsed.
    long_messages: asyncio.Lock
    #: Closes in progress, which must be kept from garbage collection.
    background: set[asyncio.Task[None]]

    def opened(self, connection: Connection) -> None:
        """Note that a session has started."""

    def leave(self, connection: Connection, *, resumable: bool) -> None:
        """Note that the connection has ended."""

    async def resume(self, hello: Hello, newcomer: Connection) -> Session | None:
        """Check the hello, and return the session that it continues, or None if there is none."""

    def describe_limits(self) -> ConnectionLimits:
        """Return ``welcome.limits``."""


class Connection:
    """Serves one WebSocket. Create it after the upgrade, then await :meth:`run`."""

    def __init__(
        self,
        hub: Hub,
        relay: Relay,
        version: str,
        identity: Identity,
        *,
        token: str | None,
        transport: asyncio.Transport | None,
        read_limiter: ReadLimiter,
        version_fixed: bool = True,
    ) -> None:
        self.hub, self.relay = hub, relay
        self.metrics, self.limits = hub.metrics, hub.limits
        self.max_age_s = hub.settings.stream_max_age_ms / 1e3
        #: If the path names no version, a session that is resumed keeps its own.
        self.version, self.version_fixed = version, version_fixed
        self.model = SessionModel(hub.dispatcher, hub.samplers, "websocket", version)
        self.session = Session.of(version, self.model.info, id=hub.router.new_id(), owner=identity.owner)
        #: Who the client is. If no key came with the upgrade, `hello` may set it.
        self.identity = identity
        #: The client that frames are charged to; None until the hub, or `hello`, has identified it.
        self.client: Client | None = None
        self.streams: dict[int, StreamHandle] = {}
        self.counters = FrameCounters(hub.metrics, "websocket", version)
        self.opened_at = self.last_received = time.monotonic()
        self._socket = relay.socket
        #: The key that came with the upgrade.
        self.token = token
        self._writer = SocketWriter(
            relay.socket,
            transport,
            relay.subprotocol,
            send_timeout_s=hub.settings.stream_send_timeout_s,
            hold=lambda: hub.budget.hold(self.identity.name, "messages"),
        )
        self._iteration = running_iteration()
        self._read_limiter = read_limiter
        read_limiter.hold = lambda: hub.budget.hold(self.identity.name, "messages")
        self._control = SessionControl(self, _REFUSED_TYPES, self.streams)
        self._messages = MessageReceiver(self, self._control, self.last_received)
        self._frames = FrameReceiver(self, self._control, hub.dispatcher)
        self._closing: CloseConnection | None = None
        self._bye_received = self._left = False

    # -- life cycle ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until either side closes, or another replica takes the stream (`Relay.taken`)."""
        reader = HelloReader(self._read_limiter, self._socket, self.close_soon)
        writing = asyncio.create_task(self._write(), name="stream-writer")
        try:
            await await_hello(reader, self._welcome, self.send, self.hub.settings.stream_hello_timeout_s)
            self._read_limiter.hello_accepted()
            await self._read()
        except Relayed:
            self.relay.hello = reader.last
        except CloseConnection as close:
            self._closing = close
        except TooManyMessages as error:
            self._closing = CloseConnection(CloseCode.LIMITS, str(error))
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
                # Leave first, so that whatever fails below, no stream without a socket stays registered.
                self._leave(resumable=closing is None or closing.code == CloseCode.RESTART)
                writing.cancel()
                self._writer.drop(keep_heartbeat=self.relay.taken)
                self._release_streams()
                # They refer to this connection: it leaves no cycle.
                del self._control, self._frames, self._messages
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

    @property
    def in_flight(self) -> bool:
        """Whether any frame of this connection has no outcome yet."""
        return any(handle.flow.ledger.in_flight for handle in self.streams.values())

    def _release_streams(self) -> None:
        """Break the reference cycle between streams and connection, once all frames are accounted."""
        self._left, self.model.changing = True, False
        if not self.in_flight:
            self.streams.clear()

    def _leave(self, *, resumable: bool) -> None:
        """Close the streams and tell the hub."""
        for handle in self.streams.values():
            self.hub.dispatcher.close_source(self.version, handle.key)
            handle.close()
            self.counters.account(handle.flow.ledger)
        self._frames.account()
        self.hub.leave(self, resumable=resumable and bool(self.streams))

    async def _finish_in_flight(self) -> None:
        """Wait for the outcomes of the frames that the client sent before its `bye`."""
        deadline = time.monotonic() + BYE_GRACE_S
        while time.monotonic() < deadline and self.in_flight:
            await asyncio.sleep(0.01)

    async def _welcome(self, hello: Hello) -> None:
        """Open the session that ``hello`` asks for. Raises ProtocolError for an unacceptable field."""
        hub = self.hub
        client = await hub.entrance.at_hello(self, hello)
        self.session = (resumed := await hub.resume(hello, self)) or self.session
        self.model.resume(self.session)
        self.session.configure(hello.params)
        self.session.open_streams(hello)
        offers = {offer.id: offer for offer in hello.streams}
        for number, flow in self.session.streams.items():
            offer = offers[number]
            name = offer.name if hello.collect and offer.collect else None
            sampler, codes = self.model.observers(number, name, client)
            shown = offer.name or f"{self.session.id}/{number}"
            shadow = shadow_stream(hub.shadow_runs, shown, self.version, sampler)
            self.streams[number] = handle = StreamHandle(self, flow, sampler, client, codes, shadow)
            hub.dispatcher.open(self.version, handle)
        hub.opened(self)
        if not hub.dispatcher.ready:
            for handle in self.streams.values():
                handle.flow.close_window(time.monotonic(), "restarting")
        first = next(iter(self.streams.values())).flow
        self.send(
            server_messages.welcome(
                describe_session(self.session, self.model.info, resumed=resumed is not None),
                hub.describe_limits(),
                {"win": first.granted, "max_fps": first.max_fps},
            )
        )
        self._control.report_unknown_fields(hello)

    def change_version(self, version: str) -> None:
        """Serve another version, that of the resumed session, before a stream is open."""
        self.version = version
        self.model = SessionModel(self.hub.dispatcher, self.hub.samplers, "websocket", version)
        self.counters = FrameCounters(self.metrics, "websocket", version)
        self._frames = FrameReceiver(self, self._control, self.hub.dispatcher)

    # -- reading -------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read messages until either side closes. Nothing here waits for inference."""
        while not self._bye_received:
            if len(self._writer) > MAX_MESSAGES // 2:
                # While messages wait in the socket, receive() does not pause, so give the writer a turn.
                await asyncio.sleep(0)
            message = await self._socket.receive()
            self._read_limiter.message_read()
            self.last_received = time.monotonic()
            if message.type is WSMsgType.BINARY:
                data = message.data
                if data[:1] == _FRAME_MARK:
                    self._frames.receive(data, self.last_received)
                    if self.last_received - self._iteration.started > MAX_ITERATION_S:
                        # While frames wait in the socket, receive() does not pause.
                        await asyncio.sleep(0)
                    continue
            elif message.type is WSMsgType.TEXT:
                data = message.data
            else:  # either side has closed, or aiohttp has answered an error already
                return
            if len(data) <= _SHORT_MESSAGE_BYTES:
                self._messages.receive(data, self._frames, self.last_received)
                await asyncio.sleep(0)
                continue
            # In each turn of the event loop, parse only one long message of all clients: many would block it.
            async with self.hub.long_messages:
                self._messages.receive(data, self._frames, self.last_received)
                await asyncio.sleep(0)

    def find_stream(self, number: int) -> StreamHandle:
        """Return the stream of that number. Raises ProtocolError when `hello` did not announce it."""
        handle = self.streams.get(number)
        if handle is None:
            raise ProtocolError(unknown_stream(number, self.streams), code="invalid", field="stream")
        return handle

    def bye_received(self) -> None:
        """Stop reading, because the client leaves; :meth:`run` awaits its last outcomes and closes."""
        self._bye_received = True

    # -- writing -------------------------------------------------------------------------------------

    def send_all(self, messages: list[ServerMessage]) -> None:
        """Queue messages that belong to an outcome, and account it."""
        for message in messages:
            self.send(message)
        for handle in self.streams.values():
            self.counters.account(handle.flow.ledger)
        if self.model.changing:
            self.change_model()
        if self._left:
            self._release_streams()

    def send(self, message: ServerMessage) -> None:
        """Queue one message without waiting."""
        if self._closing is not None or self._left:
            return
        handle = self.streams.get(message["stream"]) if message["type"] == "result" else None
        newest_only = handle is not None and handle.flow.mode == "live"
        try:
            replaced = self._writer.put(message, newest_only=newest_only)
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

    # -- called by the hub ---------------------------------------------------------------------------

    def ready_changed(self, now: float, *, ready: bool) -> None:
        """Hold the streams while the inference process is away, and open them when it is back."""
        for handle in self.streams.values():
            flow = handle.flow
            self.send_all(flow.reopen_window("ready") if ready else flow.close_window(now, "restarting"))

    def change_model(self) -> None:
        """Change to another model if the hub holds the streams for it."""
        self.model.change(self.session, self.streams.values(), self.send_all)

    def tick(self, now: float) -> None:
        """Close the connection if it has been silent for too long. The hub calls this once a second."""
        limit_s = self.hub.settings.stream_idle_timeout_s
        if self.streams and all(handle.flow.paused for handle in self.streams.values()):
            limit_s *= PAUSED_IDLE_FACTOR
        if now - self.last_received > limit_s:
            self.close_soon(CloseCode.IDLE, f"no message for {limit_s:g} s")

    def send_bye(self, reason: str, reconnect_ms: int, ending: str = "") -> None:
        """Ask the client to reconnect, and tell it why and when."""
        code = CloseCode.RESTART.value
        self.send(server_messages.bye(code, reason, ending=ending, reconnect_ms=reconnect_ms))
