"""One client that sends its video over WebRTC: connection, stream, readers of its results.

Made by `peers.py`, which also closes it; the frames enter the dispatcher as those of a WebSocket do.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from streamer.access.identity import Identity
from streamer.accounting.counters import FrameCounters
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.settings import Settings
from streamer.core.byte_budget import Holding
from streamer.imaging.limits import Limits
from streamer.protocol import server_messages
from streamer.protocol.close_codes import CloseCode
from streamer.protocol.server_messages import ServerMessage, SessionDescription
from streamer.protocol.wire import Codec, DropReason, ProtocolError
from streamer.sampling.sampler_factory import SamplerFactory
from streamer.scheduling.client import NOBODY, Client
from streamer.scheduling.dispatcher import Dispatcher
from streamer.streams.control_rate import TooManyMessages
from streamer.streams.flow_control import Stream, WindowViolated
from streamer.streams.session import Session, describe_session
from streamer.streams.session_control import SessionControl
from streamer.streams.stream_handle import LiveStream
from streamer.webrtc.aiortc_adapter import Peer, UdpPlan
from streamer.webrtc.annotated_track import AnnotatedTrack
from streamer.webrtc.data_channels import ChannelFull, Channels
from streamer.webrtc.end_reason import Ending, explain
from streamer.webrtc.result_subscriber import Listener
from streamer.webrtc.sdp_offer import Offer
from streamer.webrtc.session_options import Wishes
from streamer.webrtc.video_feed import VideoFeed, VideoFrame
from streamer.webrtc.video_pool import VideoPool
from streamer.websocket.outbox import Encoded

log = logging.getLogger("streamer.webrtc.session")

VIDEO_CODECS = (Codec.H264, Codec.VP8)
#: Readers of one session's results over HTTP.
MAX_LISTENERS = 8
#: Why message types that belong to a WebSocket of detect.v1 are refused.
_NOT_HERE = "which is not sent here: the offer was the hello, and frames come as video"
#: A paused stream may be without media this many times longer.
_PAUSED_FACTOR = 10
#: For closing: DTLS and SCTP say goodbye, sockets close. Nobody waits for it.
_SHUT_S = 5.0


class Owner(Protocol):
    """The part of the sessions' owner that a session uses."""

    dispatcher: Dispatcher
    metrics: WorkerMetrics
    settings: Settings
    limits: Limits
    samplers: SamplerFactory
    video_decoders: VideoPool
    #: Closes in progress; kept so that none is garbage-collected half-way.
    background: set[asyncio.Task[None]]

    def connected(self, session: PeerSession) -> None:
        """The connection of a session stands."""

    def ended(self, session: PeerSession) -> None:
        """A session has ended."""


class PeerSession:
    """One peer connection with one video; construct, ``await answer(offer)``, ``end(reason)``."""

    def __init__(
        self,
        owner: Owner,
        session_id: str,
        version: str,
        transport: str,
        wishes: Wishes,
        plan: UdpPlan,
        client: Client = NOBODY,
    ) -> None:
        self.id = session_id
        self.version = version
        #: `webrtc` or `whip`; a label.
        self.transport = transport
        self.metrics = owner.metrics
        self.limits = owner.limits
        self.max_age_s = owner.settings.stream_max_age_ms / 1e3
        self.etag = f'"{secrets.token_hex(8)}"'
        #: Who has made it; nobody else may reach it over HTTP, and it is part of that client's share.
        self.client = Identity("", frozenset(), anonymous=True)
        #: The client's ICE user name fragment, by which a restart is told from a trickled candidate.
        self.ufrag = ""
        #: Why it has ended; None while it lives.
        self.ending: Ending | None = None
        self.reason = ""
        self.candidates_used = 0
        self._owner = owner
        info = self._model = owner.dispatcher.model(version)
        self.session = Session.of(version, info, id=session_id)
        self.session.configure(wishes.params)
        sampler = owner.samplers.create(wishes.name, transport, version, info) if wishes.collect else None
        self.live = LiveStream(self, Stream(0, codecs=VIDEO_CODECS), sampler, client)
        self._counters = FrameCounters(owner.metrics, transport, version)
        owner.video_decoders.prepare()
        self._feed = VideoFeed(self, owner.video_decoders, partial(owner.dispatcher.charge, version, client))
        self._peer = Peer(plan, self._feed)
        #: The video with boxes that goes back; None unless it was asked for.
        self._back = AnnotatedTrack(info.labels) if wishes.annotate else None
        self._channels = Channels(self._welcome, self.control_received)
        self._control = SessionControl(self, dict.fromkeys(("hello", "frame", "pong"), _NOT_HERE), {})
        self._listeners: set[Listener] = set()
        self._begun = time.monotonic()
        #: When the connection stood, monotonic seconds; None before.
        self._connected: float | None = None
        self._opened = False

    # -- signalling ----------------------------------------------------------------------------------

    async def answer(self, offer: Offer) -> str:
        """Return the SDP answer. Raises what `stack.Peer.answer` raises."""
        self._peer.on("connectionstatechange", self._state_changed)
        self._peer.on("datachannel", self._channels.opened)
        sdp = await self._peer.answer(offer, self._back)
        self._opened = True
        self._owner.dispatcher.open(self.version, self.live)
        self.metrics.streams.labels(self.transport, self.version).inc()
        return sdp

    async def add_candidate(self, candidate: str) -> None:
        """Add a checked candidate that came after the offer."""
        await self._peer.add_candidate(candidate)

    @property
    def connected(self) -> bool:
        """Whether the connection stands, or stood."""
        return self._connected is not None

    @property
    def owner(self) -> str:
        """`Identity.owner` of the client that made it."""
        return self.client.owner

    @property
    def has_video(self) -> bool:
        """Whether a packet of its video has come."""
        return self._feed.last_packet > 0

    def _state_changed(self) -> None:
        state = self._peer.connectionState
        if state == "connected" and self._connected is None:
            self._connected = time.monotonic()
            self._owner.connected(self)
            self.metrics.webrtc_connect_s.observe(self._connected - self._begun)
            if not self._owner.dispatcher.ready:
                self.send_all(self.live.stream.hold(self._connected, "restarting"))
        elif state == "failed":
            ice, _ = self._peer.states()
            self.end(Ending.ICE_FAILED if ice == "failed" else Ending.DTLS_FAILED)
        elif state == "closed":
            self.end(Ending.PEER_GONE)

    # -- frames --------------------------------------------------------------------------------------

    def picture(self, frame: VideoFrame, arrived: float) -> None:
        """A picture of the video: into the mailbox, newest wins."""
        if self.ending is not None:
            return
        try:
            messages = self.live.stream.receive(frame, arrived)
        except WindowViolated as error:
            self.account()
            self.end(Ending.LIMITS, f"{error}: too many frames a second")
            return
        if self._back is not None:
            self._back.examined(frame.seq, frame.payload, frame.ts)
        self.send_all(messages)
        if self.live.pending:
            self._owner.dispatcher.offer(self.version, self.live)
        self.live.tell_drops_soon()

    def no_picture(self, seq: int, reason: DropReason, text: str) -> None:
        """A frame that cannot be examined."""
        if self.ending is None:
            self.send_all(self.live.stream.discard(seq, reason, text))
            self.live.tell_drops_soon()

    def ended(self) -> None:
        """The sender has ended its video (RTCP BYE)."""
        self.end(Ending.CLOSED, "the client has ended its video")

    # -- messages ------------------------------------------------------------------------------------

    def send_all(self, messages: list[ServerMessage]) -> None:
        """Send messages to the data channels and to every reader, and account outcomes."""
        self.account()
        if self.ending is not None:
            return
        for message in messages:
            if self._back is not None and message["type"] == "result":
                self._back.answered(message["seq"], message["boxes"])
            self._send(message)

    def _send(self, message: ServerMessage) -> None:
        before = self._channels.undelivered
        try:
            self._channels.send(message)
        except ChannelFull as error:
            self.end(Ending.LIMITS, str(error))
            return
        except Exception:
            log.debug("a message could not be sent", exc_info=True)
        replaced = self._channels.undelivered - before
        for listener in tuple(self._listeners):
            replaced += listener.put(message)
        if replaced:
            self.metrics.undelivered.labels(self.transport).inc(replaced)

    def account(self) -> None:
        """Bring the metrics up to date."""
        self._counters.account(self.live.stream.ledger)

    def control_received(self, data: str | bytes) -> None:
        """Take in one control message of the client."""
        try:
            self._control.receive(data)
        except TooManyMessages as error:
            self.end(Ending.LIMITS, str(error))

    def stream(self, number: int) -> LiveStream:
        """Return the stream of that number. Raises ProtocolError unless it is the video."""
        if number != self.live.stream.number:
            raise ProtocolError(
                f"field `stream` is {number}; a video is stream 0", code="invalid", field="stream"
            )
        return self.live

    def bye_received(self) -> None:
        """The client leaves."""
        self.end(Ending.CLOSED)

    def describe_session(self) -> SessionDescription:
        """Return what `welcome`, or the answer to the offer, says of the session."""
        return describe_session(self.session, self._model, resumed=False)

    def _welcome(self) -> None:
        self.send_all([server_messages.welcome(self.describe_session())])

    def listen(
        self, encode: Callable[[ServerMessage], Encoded], hold: Callable[[], Holding]
    ) -> Listener | None:
        """Return a new reader, which begins with `welcome`; None when there are too many.

        ``encode`` makes what is sent of a message, ``hold`` the reader's holding in the byte budget.
        """
        if len(self._listeners) >= MAX_LISTENERS:
            return None
        listener = Listener(encode, hold)
        self._listeners.add(listener)
        listener.put(server_messages.welcome(self.describe_session()))
        if self.ending is not None:
            listener.end()
        return listener

    def leave(self, listener: Listener) -> None:
        """A reader has gone."""
        self._listeners.discard(listener)

    # -- life cycle ----------------------------------------------------------------------------------

    def ready_changed(self, now: float, *, ready: bool) -> None:
        """The inference process went away or came back."""
        stream = self.live.stream
        self.send_all(stream.unhold("ready") if ready else stream.hold(now, "restarting"))

    def tick(self, now: float) -> None:
        """Once a second: end what does not connect, or sends nothing."""
        settings = self._owner.settings
        if self._connected is None:
            if now - self._begun > settings.webrtc_connect_timeout_s:
                self.end(
                    Ending.CONNECT_TIMEOUT,
                    explain(Ending.CONNECT_TIMEOUT, f"{settings.webrtc_connect_timeout_s:g} s"),
                )
            return
        limit_s = settings.webrtc_media_timeout_s * (_PAUSED_FACTOR if self.live.stream.paused else 1)
        if now - max(self._connected, self._feed.last_packet) > limit_s:
            self.end(Ending.NO_MEDIA, explain(Ending.NO_MEDIA, f"{limit_s:g} s"))

    def describe(self) -> dict[str, Any]:
        """Return the state for whoever asks: connection, its quality, and why it ended."""
        ice, dtls = self._peer.states() if self._opened else ("new", "new")
        body: dict[str, Any] = {
            "session": self.id,
            "state": "ended" if self.ending else "connected" if self.connected else "connecting",
            "ice": ice,
            "dtls": dtls,
        }
        pair = self._peer.selected_pair() if self._opened else None
        if pair is not None:
            body["candidates"] = {"local": pair[0], "remote": pair[1]}
        receiver = self._peer.video_receiver()
        if receiver is not None:
            ledger = self.live.stream.ledger
            body["video"] = {
                "packets_lost": receiver.lost,
                "jitter_ms": round(receiver.jitter / 90, 1),
                "bytes": receiver.bytes_received,
                "gaps": self._feed.gaps,
                "frames": ledger.received,
                "inferred": ledger.inferred,
            }
        if self.ending is not None:
            body["reason"] = {"code": self.ending.value, "text": self.reason}
        return body

    def end(self, ending: Ending, reason: str = "", *, reconnect_ms: int | None = None) -> None:
        """End it; returns at once, sockets and threads follow by themselves. A second call does nothing.

        ``reconnect_ms`` is when the client should come back, where the end is ours.
        """
        if self.ending is not None:
            return
        self.reason = reason or explain(ending)
        code = CloseCode.RESTART if ending is Ending.SHUTDOWN else CloseCode.DONE
        self.send_all(
            [server_messages.bye(code.value, self.reason, ending=ending.value, reconnect_ms=reconnect_ms)]
        )
        self.ending = ending
        if self._opened:
            self._owner.dispatcher.close_source(self.version, self.live.key)
            self.metrics.streams.labels(self.transport, self.version).dec()
        self.live.close()
        self.account()
        self._feed.close()
        if self._back is not None:
            self._back.stop()
        for listener in self._listeners:
            listener.end()
        self._owner.ended(self)
        task = asyncio.create_task(self._peer.shut(_SHUT_S), name="webrtc-shut")
        self._owner.background.add(task)
        task.add_done_callback(self._owner.background.discard)
