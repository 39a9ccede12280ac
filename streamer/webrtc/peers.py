"""All WebRTC sessions of a worker: makes them, watches their time, ends them.

The WebRTC stack is loaded with the first offer, in a thread: a worker that serves none pays nothing. Where
there are STUN servers it is loaded at the start, so that no answer waits for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamer.access.identity import Identity
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.ice_servers import IceServers
from streamer.config.settings import Settings
from streamer.http.problem_details import Problem
from streamer.imaging.limits import Limits
from streamer.protocol.close_codes import reconnect_delay_ms
from streamer.sampling.sampler_factory import SamplerFactory
from streamer.scheduling.client import Client
from streamer.scheduling.dispatcher import Dispatcher
from streamer.webrtc.client_share import ClientShare, ShareUsedUp
from streamer.webrtc.end_reason import Ending
from streamer.webrtc.sdp_offer import Offer
from streamer.webrtc.session_options import Wishes
from streamer.webrtc.video_pool import VideoPool

if TYPE_CHECKING:
    from streamer.webrtc.peer_session import PeerSession

log = logging.getLogger("streamer.webrtc.peers")

#: An answer takes milliseconds, and GATHER_S where a STUN server does not answer.
_ANSWER_S = 5.0
#: How long the state of an ended session can be asked for, and how many are kept.
_REMEMBER_S = 60.0
_MAX_REMEMBERED = 500


@dataclass(frozen=True, slots=True)
class Remembered:
    """A session that has ended: why, for whoever asks; its connection is not kept alive by it."""

    version: str
    transport: str
    owner: str
    description: dict[str, Any]
    #: Monotonic seconds.
    until: float


class Peers:
    """Sessions by their id, which ``new_id`` makes: it names the worker that owns them."""

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
        self.video_decoders = video_decoders
        #: Whether the key of a client is still good; asked once a second for each session.
        self.still_holds: Callable[[Identity], bool] = lambda _: True
        self.ice_servers = IceServers(settings.ice_urls, settings.turn_secret, int(settings.turn_ttl_s))
        self.background: set[asyncio.Task[None]] = set()
        self._sessions: dict[str, PeerSession] = {}
        #: Ended sessions by id, oldest first.
        self._remembered: OrderedDict[str, Remembered] = OrderedDict()
        self._ticker: asyncio.Task[None] | None = None
        #: Set while the stack is being loaded or is loaded.
        self._stack: asyncio.Future[Any] | None = None
        #: Offers that are being answered, by the client's name.
        self._making: Counter[str] = Counter()
        self._share = ClientShare(settings.webrtc_sessions_max)
        self._draining = False

    def __len__(self) -> int:
        return len(self._sessions)

    async def start(self) -> None:
        """Begin the once-a-second round."""
        self._ticker = asyncio.create_task(self._tick(), name="webrtc-ticker")
        if self.ice_servers.stun_urls:
            # Answers wait for them; with the loading of the stack on top, the first would take too long.
            self._begin_loading()

    async def create(
        self, version: str, offer: Offer, transport: str, wishes: Wishes, client: Identity
    ) -> tuple[PeerSession, str]:
        """Return a new session and its answer.

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
        if len(self._sessions) + self._making.total() >= limit:
            raise Problem.unavailable(f"{limit} WebRTC sessions are open here already.", retry_after_s=5)
        self._check_share(client)
        self.dispatcher.admission.take_opening(charged, "sessions")
        self._making[client.name] += 1
        try:
            return await self._create(version, offer, transport, wishes, client, charged)
        finally:
            self._making[client.name] -= 1
            if not self._making[client.name]:
                del self._making[client.name]

    def _check_share(self, client: Identity) -> None:
        """Raise Problem 429 where a client has its share of sessions already."""
        making = self._making[client.name]
        mine = [session for session in self._sessions.values() if session.client.name == client.name]
        pending = making + sum(not session.has_video for session in mine)
        try:
            self._share.check(making + len(mine), pending, client.quotas.sessions)
        except ShareUsedUp as used_up:
            raise Problem.too_many_requests(str(used_up), used_up.retry_after_s) from used_up

    async def _create(
        self,
        version: str,
        offer: Offer,
        transport: str,
        wishes: Wishes,
        client: Identity,
        charged: Client,
    ) -> tuple[PeerSession, str]:
        stack, module = await self._load()
        settings = self.settings
        plan = stack.UdpPlan(settings.udp_ports, settings.public_ip, self.ice_servers.stun_urls)
        session_id = self._new_id()
        session: PeerSession = module.PeerSession(self, session_id, version, transport, wishes, plan, charged)
        session.client = client
        session.candidates_used = len(offer.candidates)
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await session.answer(offer)
        except stack.NoPortLeft as error:
            session.end(Ending.SERVER_FAULT, str(error))
            raise Problem.unavailable(f"No UDP port is left: {error}.", retry_after_s=5) from error
        except TimeoutError as error:
            session.end(Ending.SERVER_FAULT, "no answer in time")
            raise Problem.unavailable("The answer took too long.", retry_after_s=2) from error
        except asyncio.CancelledError:
            session.end(Ending.CLOSED, "the request was cancelled")
            raise
        except Exception as error:
            # The parser of the stack raises whatever it trips over; the offer passed our own checks.
            log.info("an offer could not be answered: %s: %s", type(error).__name__, str(error)[:200])
            session.end(Ending.SERVER_FAULT, "the offer could not be answered")
            raise Problem(
                422,
                "unusable_offer",
                f"The offer cannot be answered: {str(error)[:200] or type(error).__name__}.",
            ) from error
        self._sessions[session_id] = session
        self.metrics.webrtc_sessions.labels("connecting").inc()
        return session, answer

    async def _load(self) -> tuple[Any, Any]:
        """Import the stack once, off the event loop."""
        loaded: tuple[Any, Any] = await asyncio.shield(self._begin_loading())
        return loaded

    def _begin_loading(self) -> asyncio.Future[Any]:
        if self._stack is None:
            self._stack = asyncio.get_running_loop().run_in_executor(None, _import_stack)
        return self._stack

    def get(self, session_id: str) -> PeerSession | None:
        """Return a session; None when it is unknown or has ended."""
        return self._sessions.get(session_id)

    def recall(self, session_id: str) -> Remembered | None:
        """Return what is remembered of a session that has ended; None when nothing is."""
        return self._remembered.get(session_id)

    def connected(self, session: PeerSession) -> None:
        """The connection of a session stands."""
        if session.id in self._sessions:
            self.metrics.webrtc_sessions.labels("connecting").dec()
            self.metrics.webrtc_sessions.labels("connected").inc()

    def ended(self, session: PeerSession) -> None:
        """A session has ended: its state can be asked for a while longer."""
        if session.ending is not None:
            self.metrics.webrtc_ended.labels(session.ending.value).inc()
        if self._sessions.pop(session.id, None) is None:
            return  # it was never answered, so nobody knows its id
        self.metrics.webrtc_sessions.labels("connected" if session.connected else "connecting").dec()
        self._remembered[session.id] = Remembered(
            session.version,
            session.transport,
            session.owner,
            session.describe(),
            time.monotonic() + _REMEMBER_S,
        )
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def ready_changed(self, ready: bool) -> None:
        """The inference process went away or came back."""
        now = time.monotonic()
        for session in list(self._sessions.values()):
            session.ready_changed(now, ready=ready)

    async def drain(self, window_s: float) -> None:
        """Tell every client that the server goes away, to come back spread over ``window_s``; end all."""
        self._draining = True
        sessions = list(self._sessions.values())
        for index, session in enumerate(sessions):
            session.end(Ending.SHUTDOWN, reconnect_ms=reconnect_delay_ms(window_s, index, len(sessions)))
        if self.background:
            await asyncio.wait(set(self.background), timeout=2.0)

    async def close(self) -> None:
        """End the round and what is still there."""
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
                if not self.still_holds(session.client):
                    session.end(Ending.CLOSED, "the key has expired or was withdrawn")
            while self._remembered and next(iter(self._remembered.values())).until < now:
                self._remembered.popitem(last=False)


def _import_stack() -> tuple[Any, Any]:
    """Load what takes a second: aiortc, libav. Runs in a thread."""
    for name in ("aioice", "aiortc"):
        # At info they tell every address and candidate pair.
        logging.getLogger(name).setLevel(logging.WARNING)
    stack = import_module("streamer.webrtc.aiortc_adapter")
    stack.register_profiles()
    return stack, import_module("streamer.webrtc.peer_session")
