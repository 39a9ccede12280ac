"""Creates all WebRTC sessions of a worker, checks their timeouts and ends them.

The first offer makes a thread import aiortc, so that a worker without WebRTC uses no memory for it. If STUN
servers are set, the import begins when the worker starts: an answer waits for these servers already, and must
not wait for the import, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamer.access.identity import Identity
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.network_settings import IceServers
from streamer.config.settings import Settings
from streamer.http.problem_details import Problem
from streamer.imaging.image_header import Limits
from streamer.protocol.close_codes import reconnect_delay_ms
from streamer.replicas.rebalancer import Rebalancer
from streamer.sampling.sampler import SamplerFactory
from streamer.sampling.shadow import ShadowRuns
from streamer.scheduling.clients import Client
from streamer.scheduling.dispatcher import Dispatcher
from streamer.webrtc.end_reason import EndReason
from streamer.webrtc.sdp_offer import Offer, SessionOptions
from streamer.webrtc.session_state import SessionState
from streamer.webrtc.video_pool import VideoPool

if TYPE_CHECKING:
    from streamer.webrtc.peer_session import PeerSession


log = logging.getLogger("streamer.webrtc.peers")

#: Time limit of an answer, which takes milliseconds, or GATHER_S if a STUN server does not reply.
_ANSWER_S = 5.0
#: How long the state of an ended session can be read, and how many such sessions are kept.
_KEEP_ENDED_S = 60.0
_MAX_ENDED = 500
#: One client may have at least this many sessions that have sent no video yet, within its share of all
#: sessions. A page that reconnects in two tabs has two.
_LEAST_PENDING = 4


class ClientLimitReached(Exception):
    """The client has as many sessions as it may have. The text is for the client."""

    def __init__(self, text: str, retry_after_s: int) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class ClientShare:
    """Decides how many of ``sessions``, the limit for all clients, one client may have."""

    sessions: int

    @property
    def most(self) -> int:
        """Most sessions of one client: three quarters, so that other clients have room."""
        return max(1, self.sessions - self.sessions // 4)

    @property
    def most_pending(self) -> int:
        """Most sessions of one client that have sent no video yet: an eighth, or `_LEAST_PENDING`."""
        return min(self.most, max(_LEAST_PENDING, self.sessions // 8))

    def check(self, held: int, pending: int, quota: int | None) -> None:
        """Raise ClientLimitReached unless a client may have one more session.

        It has ``held`` sessions, of which ``pending`` have sent no video yet. ``quota`` is the limit of its
        key; None if its key has none.
        """
        if pending >= self.most_pending:
            raise ClientLimitReached(
                f"{pending} sessions of this client have sent no video yet, which is the most at a time.", 2
            )
        most = self.most if quota is None else min(quota, self.sessions)
        if held >= most:
            raise ClientLimitReached(f"This client has {held} WebRTC sessions open, which is its share.", 5)


@dataclass(frozen=True, slots=True)
class EndedSession:
    """The last state of an ended session, for clients that ask why it ended. It holds no connection."""

    version: str
    transport: str
    owner: str
    description: SessionState
    #: When this state is removed, in monotonic seconds.
    until: float


class Peers:
    """Keeps the sessions of a worker. ``new_id`` creates their ids, which name the worker that owns them."""

    def __init__(
        self,
        new_id: Callable[[], str],
        dispatcher: Dispatcher,
        metrics: WorkerMetrics,
        settings: Settings,
        limits: Limits,
        samplers: SamplerFactory,
        video_decoders: VideoPool,
    ) -> None:
        self._new_id = new_id
        self.dispatcher = dispatcher
        self.metrics = metrics
        self.settings = settings
        self.limits = limits
        self.samplers = samplers
        #: Runs frames on another version, too; None until set.
        self.shadow_runs: ShadowRuns | None = None
        self.video_decoders = video_decoders
        #: Whether the key of a client is still valid; called once a second for each session.
        self.is_still_valid: Callable[[Identity], bool] = lambda _: True
        self.ice_servers = IceServers(settings.ice_urls, settings.turn_secret, int(settings.turn_ttl_s))
        #: Says where offers are passed on; None where streams are not moved.
        self.rebalancer: Rebalancer | None = None
        self.background: set[asyncio.Task[None]] = set()
        self._sessions: dict[str, PeerSession] = {}
        #: Ended sessions by id, oldest first.
        self._ended: OrderedDict[str, EndedSession] = OrderedDict()
        self._ticker: asyncio.Task[None] | None = None
        #: The import of aiortc and of the modules that use it; None before it has begun.
        self._adapter_loading: asyncio.Future[Any] | None = None
        #: Number of offers that are being answered, by the client's name.
        self._being_created: Counter[str] = Counter()
        self._share = ClientShare(settings.webrtc_sessions_max)
        self._draining = False

    def __len__(self) -> int:
        return len(self._sessions)

    async def start(self) -> None:
        """Start the task that checks all sessions once a second."""
        self._ticker = asyncio.create_task(self._tick(), name="webrtc-ticker")
        if self.ice_servers.stun_urls:
            # The first answer would take too long if it waited for STUN servers and for the import.
            self._begin_loading()

    async def create(
        self, version: str, offer: Offer, transport: str, options: SessionOptions, client: Identity
    ) -> tuple[PeerSession, str]:
        """Create a session for an offer; return it and its SDP answer.

        Raises Problem (422, 429, 503), SchedulingError or ProtocolError (params).
        """
        self.dispatcher.served(version)
        charged = self.dispatcher.clients.of(client, time.monotonic())
        self.dispatcher.admit(version, charged)
        if self._draining:
            raise Problem.unavailable("This server is shutting down.", retry_after_s=2)
        limit = self.settings.webrtc_sessions_max
        if not limit:
            raise Problem.unavailable(
                "WebRTC is switched off here (WEBRTC_SESSIONS_MAX=0).", retry_after_s=60
            )
        if len(self._sessions) + self._being_created.total() >= limit:
            raise Problem.unavailable(f"{limit} WebRTC sessions are open here already.", retry_after_s=5)
        self._check_share(client)
        self.dispatcher.admission.charge_opening(charged, "sessions")
        self._being_created[client.name] += 1
        try:
            return await self._create(version, offer, transport, options, client, charged)
        finally:
            self._being_created[client.name] -= 1
            if not self._being_created[client.name]:
                del self._being_created[client.name]

    def _check_share(self, client: Identity) -> None:
        """Raise Problem 429 if a client has used up its share of sessions."""
        making = self._being_created[client.name]
        mine = [session for session in self._sessions.values() if session.client.name == client.name]
        pending = making + sum(not session.has_video for session in mine)
        try:
            self._share.check(making + len(mine), pending, client.quotas.sessions)
        except ClientLimitReached as used_up:
            raise Problem.too_many_requests(str(used_up), used_up.retry_after_s) from used_up

    async def _create(
        self,
        version: str,
        offer: Offer,
        transport: str,
        options: SessionOptions,
        client: Identity,
        charged: Client,
    ) -> tuple[PeerSession, str]:
        adapter, module = await self._load()
        settings = self.settings
        plan = adapter.UdpSettings(settings.udp_ports, settings.public_ip, self.ice_servers.stun_urls)
        session_id = self._new_id()
        session: PeerSession = module.PeerSession(
            self, session_id, version, transport, options, plan, charged
        )
        session.client = client
        session.candidates_used = len(offer.candidates)
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await session.answer(offer)
        except adapter.NoFreePort as error:
            session.end(EndReason.SERVER_FAULT, str(error))
            raise Problem.unavailable(f"No UDP port is left: {error}.", retry_after_s=5) from error
        except TimeoutError as error:
            session.end(EndReason.SERVER_FAULT, "no answer in time")
            raise Problem.unavailable("The answer took too long.", retry_after_s=2) from error
        except asyncio.CancelledError:
            session.end(EndReason.CLOSED, "the request was cancelled")
            raise
        except Exception as error:
            # The offer passed our own checks, but the SDP parser of aiortc may raise anything.
            log.info("an offer could not be answered: %s: %s", type(error).__name__, str(error)[:200])
            session.end(EndReason.SERVER_FAULT, "the offer could not be answered")
            raise Problem(
                422,
                "unusable_offer",
                f"The offer cannot be answered: {str(error)[:200] or type(error).__name__}.",
            ) from error
        self._sessions[session_id] = session
        if not session.model.is_current:  # it has changed while the offer was answered
            session.model.hold((session.handle,))
            session.change_model()
        self.metrics.webrtc_sessions.labels("connecting").inc()
        return session, answer

    async def _load(self) -> tuple[Any, Any]:
        """Import aiortc and the modules that use it, once and in a thread."""
        loaded: tuple[Any, Any] = await asyncio.shield(self._begin_loading())
        return loaded

    def _begin_loading(self) -> asyncio.Future[Any]:
        if self._adapter_loading is None:
            self._adapter_loading = asyncio.get_running_loop().run_in_executor(None, _import_adapter)
        return self._adapter_loading

    def __iter__(self) -> Iterator[PeerSession]:
        return iter(tuple(self._sessions.values()))

    def get(self, session_id: str) -> PeerSession | None:
        """Return a session; None when it is unknown or has ended."""
        return self._sessions.get(session_id)

    def get_ended(self, session_id: str) -> EndedSession | None:
        """Return a session that ended recently; None when it is unknown."""
        return self._ended.get(session_id)

    def connected(self, session: PeerSession) -> None:
        """Count a session whose connection is established."""
        if session.id in self._sessions:
            self.metrics.webrtc_sessions.labels("connecting").dec()
            self.metrics.webrtc_sessions.labels("connected").inc()

    def ended(self, session: PeerSession) -> None:
        """Remove a session that has ended, and keep its last state for a while."""
        if session.end_reason is not None:
            self.metrics.webrtc_ended.labels(session.end_reason.value).inc()
        if self._sessions.pop(session.id, None) is None:
            return  # its offer was not answered, so no client knows its id
        self.metrics.webrtc_sessions.labels("connected" if session.connected else "connecting").dec()
        self._ended[session.id] = EndedSession(
            session.version,
            session.transport,
            session.owner,
            session.describe(),
            time.monotonic() + _KEEP_ENDED_S,
        )
        if len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)

    def ready_changed(self, ready: bool) -> None:
        """Tell all sessions that the inference process went away or came back."""
        now = time.monotonic()
        for session in list(self._sessions.values()):
            session.ready_changed(now, ready=ready)

    def models_changed(self, versions: set[str]) -> None:
        """Change the models of all sessions of ``versions``, of each between two of its frames."""
        changing = [each for each in self._sessions.values() if each.version in versions]
        # Hold all of them first: no frame may start on the new model before its client knows it.
        for session in changing:
            session.model.hold((session.handle,))
        for session in changing:
            session.change_model()

    async def drain(self, window_s: float) -> None:
        """End all sessions. Clients are asked to reconnect at times spread over ``window_s``."""
        self._draining = True
        sessions = list(self._sessions.values())
        for index, session in enumerate(sessions):
            session.end(EndReason.SHUTDOWN, reconnect_ms=reconnect_delay_ms(window_s, index, len(sessions)))
        if self.background:
            await asyncio.wait(set(self.background), timeout=2.0)

    async def close(self) -> None:
        """Stop the task and end all sessions."""
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        await self.drain(0.0)
        self.video_decoders.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for session in list(self._sessions.values()):
                session.tick(now)
                if not self.is_still_valid(session.client):
                    session.end(EndReason.CLOSED, "the key has expired or was withdrawn")
            while self._ended and next(iter(self._ended.values())).until < now:
                self._ended.popitem(last=False)


def _import_adapter() -> tuple[Any, Any]:
    """Import aiortc and libav, which takes a second. Runs in a thread."""
    for name in ("aioice", "aiortc"):
        # At level info they log every address and candidate pair.
        logging.getLogger(name).setLevel(logging.WARNING)
    adapter = import_module("streamer.webrtc.aiortc_adapter")
    adapter.register_profiles()
    return adapter, import_module("streamer.webrtc.peer_session")
