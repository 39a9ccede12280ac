"""Turns the RTP packets of a video into decoded frames: jitter buffer, decoder, feedback to the sender.

It runs on the event loop; processes of the video pool decode. The session takes the decoded frames and gives
them to its stream. Every assembled frame yields a decoded frame, or the reason why there is none.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from streamer.imaging.turning import NO_TURNING, Turning
from streamer.protocol.wire import NO_FLAGS, Codec, DropReason, FrameFlag, FrameTime
from streamer.webrtc.depacketizer import BadPayload, depacketise
from streamer.webrtc.jitter_buffer import EncodedFrame, Gap, JitterBuffer, RtpPayload
from streamer.webrtc.video_host import SharedFrame
from streamer.webrtc.video_pool import DecodeOutcome, VideoDecoder, VideoPool

_CODECS = {"VP8": Codec.VP8, "H264": Codec.H264}
_RTP_CLOCK_HZ = 90_000
#: Timers are set this much later than a gap is due, so that rounding of the clock cannot run them too early.
_TICK_S = 0.001
#: Least time between two requests for a key frame. It arrives one round trip later, with the sender's next
#: frame; an earlier second request would make the sender produce two.
AGAIN_S = 0.250


class Packet(Protocol):
    """The fields of an RTP packet that are used here."""

    sequence_number: int
    timestamp: int
    marker: int
    ssrc: int
    payload: bytes


class Feedback(Protocol):
    """Sends feedback to the sender of the video."""

    def send_pli(self, media_ssrc: int) -> None:
        """Request a key frame (picture loss indication)."""

    def send_nack(self, media_ssrc: int, missing: list[int]) -> None:
        """Request packets by their sequence numbers, 16 bits each."""


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """A decoded frame of a video, as its stream takes it; implements `imaging.frame.StreamFrame`."""

    codec: Codec
    seq: int
    #: Microseconds of the sender's media clock, without wrap-around.
    ts: int
    payload: SharedFrame
    #: RTP timestamp of its packets: 32 bits, 90 kHz.
    rtp: int
    epoch: int
    rotation: int = 0
    flags: FrameFlag = NO_FLAGS

    def stamp(self) -> FrameTime:
        """Return the RTP timestamp, with which a browser identifies the frame."""
        return {"rtp": self.rtp}


class FrameSink(Protocol):
    """Receives the outcome of each frame, on the event loop."""

    def frame_decoded(self, frame: VideoFrame, arrived: float) -> None:
        """Take a decoded frame; ``arrived`` is when its last packet arrived, in monotonic seconds."""

    def frame_failed(self, seq: int, reason: DropReason, text: str) -> None:
        """Take the reason why a frame was not decoded."""

    def ended(self) -> None:
        """Note that the sender has ended the video."""


class VideoFeed:
    """Processes the packets of one video and passes the outcome of each frame to ``sink``.

    Packets go to :meth:`received`; outcomes end with :meth:`close`. ``charge`` is called with the processor
    time, in seconds, that decoding each frame took.
    """

    def __init__(self, sink: FrameSink, decoders: VideoPool, charge: Callable[[float], None]) -> None:
        self._sink = sink
        self._charge = charge
        self._decoders = decoders
        self._loop = asyncio.get_running_loop()
        self._buffer = JitterBuffer()
        self._requests = KeyFrameRequests()
        #: None until the codec is known from the first packet.
        self._decoder: VideoDecoder | None = None
        self._codec: Codec | None = None
        self._ssrc: int | None = None
        self._feedback: Feedback | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._after_gap = False
        self._closed = False
        self._seq = 0
        self._epoch = 0
        #: What makes the newest released frame upright, from how the camera is held.
        self._turning = NO_TURNING
        #: Stored width, stored height and turning of the newest decoded frame.
        self._geometry = (0, 0, NO_TURNING)
        self._rtp_high = 0
        #: When the last packet with media arrived, in monotonic seconds; 0 before the first.
        self.last_packet = 0.0
        self.gaps = 0

    # -- packets in ----------------------------------------------------------------------------------

    def received(
        self, codec: str, packet: Packet, receiver: Feedback, turning: Turning | None = None
    ) -> None:
        """Process one packet of the negotiated codec; ``turning`` as in `rtp_receiver.MediaSink.received`."""
        kind = _CODECS.get(codec)
        if kind is None or self._closed:
            return
        now = time.monotonic()
        try:
            payload = depacketise(kind, packet.payload)
        except BadPayload:
            return  # it counts as lost, and the jitter buffer notices the gap
        self.last_packet = now
        self._feedback = receiver
        if packet.ssrc != self._ssrc or kind is not self._codec:
            self._begin(packet.ssrc, kind)
        rtp_payload = RtpPayload(
            packet.sequence_number,
            packet.timestamp,
            bool(packet.marker),
            payload.data,
            first=payload.first,
            key=payload.key,
            turning=turning,
        )
        self._take(self._buffer.add(rtp_payload, now), now)
        self._send_nacks(now)
        if self._requests.retry_due(now):
            self._send_pli()
        self._set_timer()

    def ended(self) -> None:
        """Pass on that the sender has ended the video."""
        if not self._closed:
            self._sink.ended()

    def close(self) -> None:
        """Drop the frames that wait and release the decoder."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None

    def _begin(self, ssrc: int, codec: Codec) -> None:
        """Begin with a new source or codec, and drop the packets of the former one."""
        self._ssrc = ssrc
        self._turning = NO_TURNING
        self._buffer = JitterBuffer()
        self._after_gap = True
        if codec is not self._codec or self._decoder is None:
            self._codec = codec
            if self._decoder is not None:
                self._decoder.close()
            self._decoder = VideoDecoder(codec, self._frame_finished, self._decoders, self._charge)

    def _set_timer(self) -> None:
        """Set a timer for a gap, as no packet may follow.

        A timer that is due earlier stays, because it sets the next one.
        """
        due = self._buffer.due
        if due is None:
            return
        if self._timer is not None:
            if self._timer.when() <= due + _TICK_S:
                return
            self._timer.cancel()
        # The clock of asyncio is the monotonic clock.
        self._timer = self._loop.call_at(due + _TICK_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = time.monotonic()
        self._take(self._buffer.poll(now), now)
        self._send_nacks(now)
        self._set_timer()

    # -- frames --------------------------------------------------------------------------------------

    def _take(self, outputs: list[EncodedFrame | Gap], now: float) -> None:
        for output in outputs:
            if isinstance(output, Gap):
                self.gaps += 1
                self._break(now)
            elif self._decoder is not None:
                # Senders may leave the orientation out while it stays the same.
                self._turning = output.turning or self._turning
                output = dataclasses.replace(output, turning=self._turning)
                if self._decoder.put(output, after_gap=self._after_gap):
                    self._after_gap = False
                else:
                    self._frame_failed(DropReason.OVERLOAD)
                    self._break(now)

    def _break(self, now: float) -> None:
        self._after_gap = True
        if self._requests.on_loss(now):
            self._send_pli()

    def _send_nacks(self, now: float) -> None:
        missing = self._buffer.to_nack(now)
        if missing and self._feedback is not None and self._ssrc is not None:
            self._feedback.send_nack(self._ssrc, missing)

    def _send_pli(self) -> None:
        if self._feedback is not None and self._ssrc is not None:
            self._feedback.send_pli(self._ssrc)

    def _frame_finished(self, outcome: DecodeOutcome) -> None:
        if self._closed or self._codec is None:
            return
        if outcome.decoded is None:
            self._frame_failed(outcome.reason or DropReason.DECODE_ERROR, outcome.text)
            if self._requests.on_loss(time.monotonic()):
                self._send_pli()
            return
        self._requests.on_decoded()
        decoded, rtp, turning = outcome.decoded, outcome.frame.rtp, outcome.frame.turning or NO_TURNING
        if (decoded.width, decoded.height, turning) != self._geometry:
            self._geometry = (decoded.width, decoded.height, turning)
            self._epoch = (self._epoch + 1) & 0xFFFF
        decoded.turn(turning)
        self._seq += 1
        frame = VideoFrame(self._codec, self._seq, self._to_us(rtp), decoded, rtp, self._epoch)
        self._sink.frame_decoded(frame, outcome.frame.arrived)

    def _frame_failed(self, reason: DropReason, text: str = "") -> None:
        self._seq += 1
        self._sink.frame_failed(self._seq, reason, text)

    def _to_us(self, rtp: int) -> int:
        """Return the media clock in microseconds; 32 bits of 90 kHz wrap every 13 hours."""
        high = self._rtp_high
        self._rtp_high = high + ((rtp - high + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000
        return max(0, self._rtp_high) * 1_000_000 // _RTP_CLOCK_HZ


class KeyFrameRequests:
    """Decides when to request a key frame: at once, then every `AGAIN_S` until a frame is decoded. Pure.

    ``now`` is monotonic seconds.
    """

    def __init__(self) -> None:
        self._requested_at = -1e9
        self.wanted = False

    def on_loss(self, now: float) -> bool:
        """Note that frames were lost; returns whether to send a request now."""
        self.wanted = True
        return self.retry_due(now)

    def retry_due(self, now: float) -> bool:
        """Return whether to send a request (again) now; if so, it counts as sent."""
        if not self.wanted or now - self._requested_at < AGAIN_S:
            return False
        self._requested_at = now
        return True

    def on_decoded(self) -> None:
        """Note that a frame was decoded."""
        self.wanted = False
