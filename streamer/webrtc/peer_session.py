"""Runs one WebRTC session: the peer connection, the stream of its video, and the subscribers of its results.

`peers.py` creates and ends sessions. Frames enter the dispatcher as those of a WebSocket do.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from streamer.access.identity import Identity
from streamer.accounting.ledger import FrameCounters
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.settings import Settings
from streamer.core.byte_budget import Holding
from streamer.imaging.image_header import Limits
from streamer.protocol import server_messages
from streamer.protocol.close_codes import CloseCode
from streamer.protocol.server_messages import ServerMessage, SessionDescription
from streamer.protocol.wire import Codec, DropReason, ProtocolError
from streamer.sampling.sampler import SamplerFactory
from streamer.sampling.shadow import ShadowRuns, shadow_stream
from streamer.scheduling.clients import NOBODY, Client
from streamer.scheduling.dispatcher import Dispatcher
from streamer.streams.flow_control import FlowControl, WindowExceeded
from streamer.streams.session import Session, describe_session
from streamer.streams.session_control import SessionControl, TooManyMessages
from streamer.streams.session_model import SessionModel
from streamer.streams.stream_handle import StreamHandle
from streamer.webrtc.aiortc_adapter import Peer, UdpSettings
from streamer.webrtc.annotated_track import AnnotatedTrack
from streamer.webrtc.end_reason import EndReason, explain
from streamer.webrtc.results import ChannelFull, Channels, ResultSubscriber, ResultSubscribers
from streamer.webrtc.sdp_offer import Offer, SessionOptions
from streamer.webrtc.session_state import SessionState
from streamer.webrtc.video_feed import VideoFeed, VideoFrame
from streamer.webrtc.video_pool import VideoPool
from streamer.websocket.outbox import Encoded

log = logging.getLogger("streamer.webrtc.session")

VIDEO_CODECS = (Codec.H264, Codec.VP8)
#: Why message types that belong to a WebSocket of detect.v1 are refused.
_NOT_HERE = "which is not sent here: the offer was the hello, and frames come as video"
#: A paused stream may send no video for this many times `webrtc_media_timeout_s`.
_PAUSED_FACTOR = 10
#: Time to close DTLS, SCTP and sockets. It happens in the background.
_CLOSE_S = 5.0


class SessionRegistry(Protocol):
    """What a session needs of `peers.Peers`."""

    dispatcher: Dispatcher
    metrics: WorkerMetrics
    settings: Settings
    limits: Limits
    samplers: SamplerFactory
    shadow_runs: ShadowRuns | None
    video_decoders: VideoPool
    #: Closes in progress, which must be kept from garbage collection.
    background: set[asyncio.Task[None]]

    def connected(self, session: PeerSession) -> None:
        """Note that the connection of a session is established."""

    def ended(self, session: PeerSession) -> None:
        """Note that a session has ended."""


class PeerSession:
    """Runs one peer connection with one video. Create it, await :meth:`answer`, and :meth:`end` it."""

    def __init__(
        self,
        registry: SessionRegistry,
        session_id: str,
        version: str,
        transport: str,
        options: SessionOptions,
        plan: UdpSettings,
        client: Client = NOBODY,
    ) -> None:
        self.id = session_id
        self.version = version
        #: `webrtc` or `whip`, as in metrics and addresses.
        self.transport = transport
        self.metrics = registry.metrics
        self.limits = registry.limits
        self.max_age_s = registry.settings.stream_max_age_ms / 1e3
        self.etag = f'"{secrets.token_hex(8)}"'
        #: The client that created it; no other may use it over HTTP.
        self.client = Identity("", frozenset(), anonymous=True)
        #: The client's ICE user name fragment; another one means an ICE restart.
        self.ufrag = ""
        #: Why the session has ended; None until then.
        self.end_reason: EndReason | None = None
        self.reason = ""
        self.candidates_used = 0
        self._registry = registry
        self.model = SessionModel(registry.dispatcher, registry.samplers, transport, version)
        self.session = Session.of(version, self.model.info, id=session_id)
        self.session.configure(options.params)
        sampler, codes = self.model.observers(0, options.name if options.collect else None, client)
        shadow = shadow_stream(registry.shadow_runs, options.name or session_id, version, sampler)
        self.handle = StreamHandle(self, FlowControl(0, codecs=VIDEO_CODECS), sampler, client, codes, shadow)
        self._counters = FrameCounters(registry.metrics, transport, version)
        registry.video_decoders.prepare()
        charge = partial(registry.dispatcher.charge, version, client)
        self._feed = VideoFeed(self, registry.video_decoders, charge)
        self._peer = Peer(plan, self._feed)
        #: The video with boxes that is sent to the client; None unless the client asked for it.
        self._annotated = AnnotatedTrack(self.session.labels) if options.annotate else None
        self._channels = Channels(self._welcome, self.receive_control)
        self._control = SessionControl(self, dict.fromkeys(("hello", "frame", "pong"), _NOT_HERE), {})
        self._subscribers = ResultSubscribers()
        self.opened_at = time.monotonic()
        #: When another replica passed its offer on to this one, in monotonic seconds; None if none did.
        self.moved_at: float | None = None
        #: When the connection was established, in monotonic seconds; None before.
        self._connected: float | None = None
        self._opened = False

    # -- signalling ----------------------------------------------------------------------------------

    async def answer(self, offer: Offer) -> str:
        """Return the SDP answer. Raises what `aiortc_adapter.Peer.answer` raises."""
        self._peer.on("connectionstatechange", self._state_changed)
        self._peer.on("datachannel", self._channels.opened)
        sdp = await self._peer.answer(offer, self._annotated)
        self._opened = True
        self._registry.dispatcher.open(self.version, self.handle)
        self.metrics.streams.labels(self.transport, self.version).inc()
        return sdp

    async def add_candidate(self, candidate: str) -> None:
        """Add a checked candidate that arrived after the offer."""
        await self._peer.add_candidate(candidate)

    @property
    def connected(self) -> bool:
        """Whether the connection is established, or was."""
        return self._connected is not None

    @property
    def owner(self) -> str:
        """`Identity.owner` of the client that created it."""
        return self.client.owner

    @property
    def has_video(self) -> bool:
        """Whether a packet of its video has arrived."""
        return self._feed.last_packet > 0

    @property
    def has_listener(self) -> bool:
        """Whether somebody receives a `bye`: on a data channel, or as a subscriber."""
        return self._channels.is_open or len(self._subscribers) > 0

    def _state_changed(self) -> None:
        state = self._peer.connectionState
        if state == "connected" and self._connected is None:
            self._connected = time.monotonic()
            self._registry.connected(self)
            self.metrics.webrtc_connect_s.observe(self._connected - self.opened_at)
            if not self._registry.dispatcher.ready:
                self.send_all(self.handle.flow.close_window(self._connected, "restarting"))
        elif state == "failed":
            ice, _ = self._peer.states()
            self.end(EndReason.ICE_FAILED if ice == "failed" else EndReason.DTLS_FAILED)
        elif state == "closed":
            self.end(EndReason.PEER_GONE)

    # -- frames --------------------------------------------------------------------------------------

    def frame_decoded(self, frame: VideoFrame, arrived: float) -> None:
        """Put a frame of the video into the mailbox, where the newest wins."""
        if self.end_reason is not None:
            return
        try:
            messages = self.handle.flow.receive(frame, arrived)
        except WindowExceeded as error:
            self.account()
            self.end(EndReason.LIMITS, f"{error}: too many frames a second")
            return
        if self._annotated is not None:
            self._annotated.frame_received(frame.seq, frame.payload, frame.ts)
        self.send_all(messages)
        if self.handle.pending:
            self._registry.dispatcher.offer(self.version, self.handle)
        self.handle.send_drops_soon()

    def frame_failed(self, seq: int, reason: DropReason, text: str) -> None:
        """Drop a frame that could not be decoded."""
        if self.end_reason is None:
            self.send_all(self.handle.flow.discard(seq, reason, text))
            self.handle.send_drops_soon()

    def ended(self) -> None:
        """End the session: the sender has ended its video (RTCP BYE), or the transport is gone."""
        self.end(EndReason.CLOSED, "the client has ended its video")

    # -- messages ------------------------------------------------------------------------------------

    def send_all(self, messages: list[ServerMessage]) -> None:
        """Send messages to the data channels and to all subscribers, and account outcomes."""
        self.account()
        if self.end_reason is not None:
            return
        for message in messages:
            if self._annotated is not None and message["type"] == "result":
                self._annotated.result_received(message["seq"], message["boxes"], message.get("text", ()))
            self._send(message)
        if self.model.changing:
            self.change_model()

    def _send(self, message: ServerMessage) -> None:
        before = self._channels.undelivered
        try:
            self._channels.send(message)
        except ChannelFull as error:
            self.end(EndReason.LIMITS, str(error))
            return
        except Exception:
            log.debug("a message could not be sent", exc_info=True)
        replaced = self._channels.undelivered - before + self._subscribers.put(message)
        if replaced:
            self.metrics.undelivered.labels(self.transport).inc(replaced)

    def account(self) -> None:
        """Update the metrics from the ledger of the stream."""
        self._counters.account(self.handle.flow.ledger)

    def receive_control(self, data: str | bytes) -> None:
        """Carry out one control message of the client."""
        try:
            self._control.receive(data)
        except TooManyMessages as error:
            self.end(EndReason.LIMITS, str(error))

    def find_stream(self, number: int) -> StreamHandle:
        """Return the stream of that number. Raises ProtocolError unless it is the video."""
        if number != self.handle.flow.number:
            raise ProtocolError(
                f"field `stream` is {number}; a video is stream 0", code="invalid", field="stream"
            )
        return self.handle

    def bye_received(self) -> None:
        """End the session, because the client leaves."""
        self.end(EndReason.CLOSED)

    def describe_session(self) -> SessionDescription:
        """Return what `welcome`, or the answer to the offer, says of the session."""
        return describe_session(self.session, self.model.info, resumed=False)

    def _welcome(self) -> None:
        self.send_all([server_messages.welcome(self.describe_session())])

    def subscribe(
        self, encode: Callable[[ServerMessage], Encoded], hold: Callable[[], Holding]
    ) -> ResultSubscriber | None:
        """Return a new subscriber, whose first message is `welcome`; None when there are too many.

        ``encode`` returns a message as it is sent, ``hold`` the subscriber's holding in the byte budget.
        """
        subscriber = self._subscribers.add(encode, hold)
        if subscriber is not None:
            subscriber.put(server_messages.welcome(self.describe_session()))
            if self.end_reason is not None:
                subscriber.end()
        return subscriber

    def unsubscribe(self, subscriber: ResultSubscriber) -> None:
        """Stop sending messages to a subscriber."""
        self._subscribers.remove(subscriber)

    # -- life cycle ----------------------------------------------------------------------------------

    def ready_changed(self, now: float, *, ready: bool) -> None:
        """Hold the stream while the inference process is away, and open it when it is back."""
        flow = self.handle.flow
        self.send_all(flow.reopen_window("ready") if ready else flow.close_window(now, "restarting"))

    def change_model(self) -> None:
        """Change to another model if `peers` holds the stream for it."""
        self.model.change(self.session, (self.handle,), self.send_all)
        if self._annotated is not None:
            self._annotated.labels = self.session.labels

    def tick(self, now: float) -> None:
        """End the session if it does not connect, or sends no video. `peers` calls this once a second."""
        settings = self._registry.settings
        if self._connected is None:
            limit_s = settings.webrtc_connect_timeout_s
            if now - self.opened_at > limit_s:
                self.end(EndReason.CONNECT_TIMEOUT, explain(EndReason.CONNECT_TIMEOUT, f"{limit_s:g} s"))
            return
        limit_s = settings.webrtc_media_timeout_s * (_PAUSED_FACTOR if self.handle.flow.paused else 1)
        if now - max(self._connected, self._feed.last_packet) > limit_s:
            self.end(EndReason.NO_MEDIA, explain(EndReason.NO_MEDIA, f"{limit_s:g} s"))

    def describe(self) -> SessionState:
        """Return the state of the session: connection, quality of the video, and why it ended."""
        ice, dtls = self._peer.states() if self._opened else ("new", "new")
        body: SessionState = {
            "session": self.id,
            "state": "ended" if self.end_reason else "connected" if self.connected else "connecting",
            "ice": ice,
            "dtls": dtls,
        }
        if self._opened and (pair := self._peer.selected_pair()) is not None:
            body["candidates"] = {"local": pair[0], "remote": pair[1]}
        if (receiver := self._peer.video_receiver()) is not None:
            body["video"] = receiver.describe(self._feed.gaps, self.handle.flow.ledger)
        if self.end_reason is not None:
            body["reason"] = {"code": self.end_reason.value, "text": self.reason}
        return body

    def end(self, end_reason: EndReason, reason: str = "", *, reconnect_ms: int | None = None) -> None:
        """End the session; a second call does nothing. The connection is closed in the background.

        ``reconnect_ms`` asks the client to reconnect after that time.
        """
        if self.end_reason is not None:
            return
        self.reason = reason or explain(end_reason)
        code = CloseCode.RESTART if end_reason.asks_to_return else CloseCode.DONE
        self.send_all(
            [server_messages.bye(code.value, self.reason, ending=end_reason.value, reconnect_ms=reconnect_ms)]
        )
        self.end_reason, self.model.changing = end_reason, False
        if self._opened:
            self._registry.dispatcher.close_source(self.version, self.handle.key)
            self.metrics.streams.labels(self.transport, self.version).dec()
        self.handle.close()
        self.account()
        self._feed.close()
        if self._annotated is not None:
            self._annotated.stop()
        self._subscribers.end()
        self._registry.ended(self)
        task = asyncio.create_task(self._peer.close_within(_CLOSE_S), name="webrtc-close")
        self._registry.background.add(task)
        task.add_done_callback(self._registry.background.discard)
