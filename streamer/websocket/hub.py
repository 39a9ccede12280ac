"""Serves ``GET /v1/stream``: owns the WebSockets of a worker, and keeps sessions that may be resumed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection

from aiohttp import HttpVersion11, web

from streamer.accounting.metrics import WorkerMetrics
from streamer.config.replica_addresses import HOP_HEADER
from streamer.config.settings import Settings
from streamer.core.byte_budget import ByteBudget
from streamer.http.authentication import Authenticator, bearer_token
from streamer.http.caller import identity_of
from streamer.http.connection_limits import ReadLimiter
from streamer.http.http_connection import limit_reader
from streamer.http.problem_details import Problem
from streamer.http.tickets import offered_ticket
from streamer.http.version_split import has_version, version_of
from streamer.imaging.image_header import Limits
from streamer.protocol.client_messages import Hello
from streamer.protocol.close_codes import CloseCode, reconnect_delay_ms
from streamer.protocol.server_messages import ConnectionLimits
from streamer.protocol.wire import MAX_STREAMS, SUBPROTOCOLS
from streamer.replicas.rebalancer import Rebalancer
from streamer.replicas.session_router import SessionRouter
from streamer.sampling.sampler import SamplerFactory
from streamer.sampling.shadow import ShadowRuns
from streamer.scheduling.clients import Client
from streamer.scheduling.dispatcher import Dispatcher
from streamer.streams.session import Session, SessionStore
from streamer.streams.session_control import CONTROL_MAX_BYTES, CONTROL_PER_S
from streamer.websocket.connection import BYE_GRACE_S, Connection
from streamer.websocket.entrance import Entrance
from streamer.websocket.handshake import HELLO_MAX_BYTES, HandshakeSlots, choose_subprotocol
from streamer.websocket.relay import Relay
from streamer.websocket.resumption import Resumption
from streamer.websocket.writer import StreamSocket

log = logging.getLogger("streamer.websocket")

#: Bytes that the transport may hold before a send waits. It is small, so that results do not age there.
WRITER_LIMIT_BYTES = 64 << 10
#: Upgrades carried out in one iteration of the event loop; each takes some 0.5 ms. More would delay probes
#: and other requests when many clients connect at the same moment.
_UPGRADES_PER_ITERATION = 8
#: How many connections are handled in one turn of the event loop, which takes some milliseconds.
_CONNECTIONS_PER_ITERATION = 64
_SHUTDOWN = "the server is shutting down"


class StreamHub:
    """Keeps all WebSocket streams of one worker, and the sessions whose sockets were lost."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        metrics: WorkerMetrics,
        settings: Settings,
        limits: Limits,
        authenticator: Authenticator,
        samplers: SamplerFactory,
        router: SessionRouter,
        budget: ByteBudget,
    ) -> None:
        self.dispatcher = dispatcher
        self.metrics = metrics
        self.settings = settings
        self.limits = limits
        self.authenticator = authenticator
        self.entrance = Entrance(dispatcher, authenticator)
        self.samplers = samplers
        self.router = router
        self.budget = budget
        self.background: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()
        #: Connections whose stream another replica has taken.
        self._relays: set[Relay] = set()
        #: Runs frames on another version, too; None until set.
        self.shadow_runs: ShadowRuns | None = None
        #: None where streams are not moved between replicas.
        self.rebalancer: Rebalancer | None = None
        #: Called with the number of connections that are passed on, whenever it changes.
        self.count_relays: Callable[[int], None] = lambda _: None
        #: Held while a long control message is parsed, and until the loop has served others.
        self.long_messages = asyncio.Lock()
        self._handshakes = HandshakeSlots()
        self._upgrades = asyncio.Semaphore(_UPGRADES_PER_ITERATION)
        self._store = SessionStore(settings.stream_resume_s)
        self._resumption = Resumption(dispatcher, router)
        self._rounds: list[asyncio.Task[None]] = []
        self._ready_changed = asyncio.Event()
        self._draining = False

    async def start(self) -> None:
        """Start the task that runs once a second, and the one that follows the inference process."""
        self._rounds = [
            asyncio.create_task(self._tick(), name="stream-ticker"),
            asyncio.create_task(self._follow_readiness(), name="stream-readiness"),
        ]

    async def drain(self, window_s: float) -> None:
        """Ask all clients to reconnect at times spread over ``window_s``, and close with 1012."""
        self._draining = True
        index, count = 0, len(self._connections) + len(self._relays)
        async for connection in self._in_turns():
            connection.send_bye(_SHUTDOWN, reconnect_delay_ms(window_s, index, count))
            index += 1
        for relay in list(self._relays):
            relay.send_bye(_SHUTDOWN, reconnect_delay_ms(window_s, index, count))
            index += 1
        deadline = time.monotonic() + min(window_s, BYE_GRACE_S)
        while time.monotonic() < deadline and any(each.in_flight for each in self._connections):
            await asyncio.sleep(0.02)
        async for connection in self._in_turns():
            connection.close_soon(CloseCode.RESTART, _SHUTDOWN)
        deadline = time.monotonic() + window_s
        while (self._connections or self._relays) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Stop the tasks and all closes in progress."""
        for task in [*self._rounds, *self.background]:
            task.cancel()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one WebSocket. Refuse it before the upgrade whenever that is possible."""
        version = version_of(request)
        self._check(request, version)
        async with self._upgrades:
            await asyncio.sleep(0)
        subprotocol = choose_subprotocol(request)
        socket = StreamSocket(
            protocols=SUBPROTOCOLS,
            # JPEGs do not compress further, and inflating messages would block the loop.
            compress=False,
            heartbeat=self.settings.stream_heartbeat_s,
            # aiohttp accepts only messages that are shorter than its limit.
            max_msg_size=self.settings.stream_max_message_bytes + 1,
            writer_limit=WRITER_LIMIT_BYTES,
            timeout=2.0,
        )
        identity = identity_of(request)
        relay = Relay(
            *(request, socket, subprotocol, self.router, self.rebalancer),
            send_s=self.settings.stream_send_timeout_s,
        )
        # The hello of a client with a valid key may be long, for example with many classes.
        read_limiter = ReadLimiter(
            HELLO_MAX_BYTES if identity.anonymous else CONTROL_MAX_BYTES, request.protocol
        )
        address = self.authenticator.addresses.name(request)
        self._handshakes.take(address)
        read_limiter.on_handshake_end = lambda: self._handshakes.release(address)
        connection: Connection | None = None
        client: Client | None = None
        try:
            client = self.entrance.before_upgrade(version, identity, relay)
            limit_reader(request, read_limiter)
            await socket.prepare(request)
            # They have been sent, and would take 2 KB of every connection for as long as it is open.
            socket.headers.clear()
            connection = Connection(
                self,
                relay,
                version,
                identity,
                token=bearer_token(request) or offered_ticket(request),
                transport=request.transport,
                read_limiter=read_limiter,
                version_fixed=has_version(request),
            )
            connection.client = client
            self._connections.add(connection)
            await connection.run()
            if relay.taken:
                await self._carry(connection, read_limiter)
        finally:
            read_limiter.close()
            if connection is not None:
                self._connections.discard(connection)
                client = connection.client
            self.entrance.left(client)
        return socket

    async def _carry(self, connection: Connection, read_limiter: ReadLimiter) -> None:
        """Pass the messages of a connection on to the replica that has its stream, until either closes."""
        relay = connection.relay
        self._connections.discard(connection)
        # The other replica counts the stream.
        self.entrance.left(connection.client)
        connection.client = None
        read_limiter.hello_accepted()
        self._relays.add(relay)
        self.count_relays(len(self._relays))
        try:
            await relay.run(read_limiter)
        finally:
            self._relays.discard(relay)
            self.count_relays(len(self._relays))

    def _check(self, request: web.Request, version: str) -> None:
        """Raise Problem or SchedulingError if this request must be refused."""
        if request.headers.get("Upgrade", "").lower() != "websocket" or request.version < HttpVersion11:
            raise Problem.upgrade_required(
                "This address speaks WebSocket (subprotocol detect.v1.json or detect.v1.msgpack)."
            )
        if request.can_read_body:
            raise Problem.bad_request("An upgrade request carries no body.")
        self.dispatcher.served(version)

    def describe_limits(self) -> ConnectionLimits:
        """Return ``welcome.limits``."""
        settings = self.settings
        return {
            "message_bytes": settings.stream_max_message_bytes,
            "control_bytes": CONTROL_MAX_BYTES,
            "control_per_s": int(CONTROL_PER_S),
            "side_px": settings.image_max_side,
            "pixels": settings.stream_max_pixels,
            "streams": MAX_STREAMS,
            "idle_s": settings.stream_idle_timeout_s,
            "heartbeat_s": settings.stream_heartbeat_s,
            "max_age_ms": settings.stream_max_age_ms,
        }

    def opened(self, connection: Connection) -> None:
        """Count the streams of a session that has started."""
        self.metrics.streams.labels("websocket", connection.version).inc(len(connection.streams))
        if connection.relay.arrived_relayed and not connection.session.moved_at:
            connection.session.moved_at = time.time()

    def leave(self, connection: Connection, *, resumable: bool) -> None:
        """Remove a connection that has ended. Its session may be resumed for a while."""
        self._connections.discard(connection)
        self.metrics.streams.labels("websocket", connection.version).dec(len(connection.streams))
        if resumable:
            self._store.keep(connection.session, time.monotonic())

    async def resume(self, hello: Hello, newcomer: Connection) -> Session | None:
        """Check the hello of a connection, and return the session that it continues; None if there is none.

        It is None when no process has the session, when it belongs to another client than the newcomer's, or
        when it cannot be continued here. Raises ProtocolError, or Relayed if another replica has taken the
        stream.
        """
        self._resumption.check(hello, newcomer)
        if hello.resume is None:
            return None
        session_id, owner = hello.resume.session, newcomer.identity.owner
        for version in self._resumption.versions(hello, newcomer):
            session = self._release(session_id, version, owner, newcomer)
            if session is not None:
                break
        else:
            session = await self._resumption.fetch(session_id, hello, newcomer)
        if session is not None and session.version != newcomer.version:
            newcomer.change_version(session.version)
        return session

    def _release(
        self, session_id: str, version: str, owner: str, newcomer: Connection | None
    ) -> Session | None:
        """Return a session of this process; close an older connection that still uses it with 4409."""
        for connection in self._connections:
            if connection is not newcomer and connection.session.id == session_id and connection.streams:
                if (connection.version, connection.session.owner) != (version, owner):
                    return None
                connection.close_soon(CloseCode.TAKEN_OVER, "a newer connection took this session over")
                return connection.session
        return self._store.take(session_id, version, owner, time.monotonic())

    async def hand_over(self, request: web.Request) -> web.StreamResponse:
        """Serve ``POST /v1/stream/{session}``: give a session to the process that its client reconnected to.

        The request needs the session's id and key, with which its sender could also resume the session.
        """
        forwarded = await self.router.forward(request)
        if forwarded is not None:
            return forwarded
        session_id = request.match_info["session"]
        session = self._release(session_id, request.match_info["version"], identity_of(request).owner, None)
        if session is None:
            raise Problem.not_found("There is no such session here; it may have ended a while ago.")
        state = session.to_state()
        moved_to = None if self.rebalancer is None else self.rebalancer.moved_to(session_id)
        if moved_to is not None and HOP_HEADER not in request.headers:
            # Another worker of this replica asks. It passes the stream on to the replica to which the session
            # was sent, and that replica asks next.
            self._store.keep(session, time.monotonic())
            state["moved_to"] = moved_to
        return web.json_response(state, headers={"Cache-Control": "no-store"})

    def models_changed(self, versions: set[str]) -> None:
        """Change the models of all sessions of ``versions``, of each between two of its frames."""
        changing = [each for each in self._connections if each.version in versions]
        # Hold all of them first: no frame may start on the new model before its client knows it.
        for connection in changing:
            connection.model.hold(connection.streams.values())
        task = asyncio.ensure_future(self._change_models())
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    async def _change_models(self) -> None:
        async for connection in self._in_turns():
            connection.change_model()
        self.dispatcher.pump_all()

    def ready_changed(self) -> None:
        """Note that the inference process went away or came back."""
        self._ready_changed.set()

    @property
    def connections(self) -> Collection[Connection]:
        """The connections whose streams this worker serves."""
        return self._connections

    async def _follow_readiness(self) -> None:
        """Hold or open all streams whenever the inference process went away or came back."""
        while True:
            await self._ready_changed.wait()
            self._ready_changed.clear()
            async for connection in self._in_turns():
                connection.ready_changed(time.monotonic(), ready=self.dispatcher.ready)

    async def _in_turns(self) -> AsyncIterator[Connection]:
        """Yield all connections. As there may be thousands, the loop serves others in between."""
        for number, connection in enumerate(list(self._connections)):
            if number % _CONNECTIONS_PER_ITERATION == _CONNECTIONS_PER_ITERATION - 1:
                await asyncio.sleep(0)
            if connection in self._connections:
                yield connection

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            async for connection in self._in_turns():
                connection.tick(now)
                if connection.streams and not self.authenticator.is_still_valid(connection.identity):
                    connection.close_soon(CloseCode.UNAUTHORIZED, "the key has expired or was withdrawn")
            self._store.expire(now)
