"""The way of a video from RTP packets to pictures: jitter buffer, decoder, requests to the sender.

Runs on the event loop; decoding is done by processes of the video pool. Whoever made it takes the pictures
and gives them to a stream's mailbox. Every frame that was put together gives a picture, or a reason why not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from streamer.protocol.wire import NO_FLAGS, Codec, DropReason, FrameFlag, FrameTime
from streamer.webrtc.depacketizer import BadPayload, depacketise
from streamer.webrtc.jitter_buffer import EncodedFrame, Gap, JitterBuffer, RtpPayload
from streamer.webrtc.video_host import Picture
from streamer.webrtc.video_pool import Decoded, VideoDecoder, VideoPool

_CODECS = {"VP8": Codec.VP8, "H264": Codec.H264}
_RTP_CLOCK_HZ = 90_000
#: Timers wait this much longer: what they come for is then due, whatever the clock rounds.
_TICK_S = 0.001
#: A key frame takes a round trip and the sender's next picture; asking sooner gives two of them.
AGAIN_S = 0.250


class Packet(Protocol):
    """The fields of an RTP packet that matter here."""

    sequence_number: int
    timestamp: int
    marker: int
    ssrc: int
    payload: bytes


class Feedback(Protocol):
    """Sends feedback to whoever sends the video."""

    def send_pli(self, media_ssrc: int) -> None:
        """Request a key frame (picture loss indication)."""

    def send_nack(self, media_ssrc: int, missing: list[int]) -> None:
        """Request packets by their sequence numbers, 16 bits each."""


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """A picture of a video on its way through a stream; implements `frame.StreamFrame`."""

    codec: Codec
    seq: int
    #: Microseconds of the sender's media clock, without wrap-around.
    ts: int
    payload: Picture
    #: As the packets had it: 32 bits, 90 kHz.
    rtp: int
    epoch: int
    rotation: int = 0
    flags: FrameFlag = NO_FLAGS

    def stamp(self) -> FrameTime:
        """Return the RTP timestamp, by which a browser finds the frame again."""
        return {"rtp": self.rtp}


class Viewer(Protocol):
    """Takes what comes out; called on the event loop."""

    def picture(self, frame: VideoFrame, arrived: float) -> None:
        """A picture; ``arrived`` is when its last packet was there, monotonic seconds."""

    def no_picture(self, seq: int, reason: DropReason, text: str) -> None:
        """A frame that gave none."""

    def ended(self) -> None:
        """The sender has said that it ends."""


class VideoFeed:
    """Give packets to :meth:`received`; pictures come to the viewer, until :meth:`close`.

    ``charge`` is called with the seconds of processor time that each frame took to decode.
    """

    def __init__(self, viewer: Viewer, decoders: VideoPool, charge: Callable[[float], None]) -> None:
        self._viewer = viewer
        self._charge = charge
        self._decoders = decoders
        self._loop = asyncio.get_running_loop()
        self._buffer = JitterBuffer()
        self._requests = KeyFrameRequests()
        #: None until the first frame says which codec it has.
        self._decoder: VideoDecoder | None = None
        self._codec: Codec | None = None
        self._ssrc: int | None = None
        self._feedback: Feedback | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._after_gap = False
        self._closed = False
        self._seq = 0
        self._epoch = 0
        self._size = (0, 0)
        self._rtp_high = 0
        #: When the last packet with media came, monotonic seconds; 0 before the first.
        self.last_packet = 0.0
        self.gaps = 0

    # -- packets in ----------------------------------------------------------------------------------

    def received(self, codec: str, packet: Packet, receiver: Feedback) -> None:
        """Take in one packet of the negotiated codec."""
        kind = _CODECS.get(codec)
        if kind is None or self._closed:
            return
        now = time.monotonic()
        try:
            payload = depacketise(kind, packet.payload)
        except BadPayload:
            return  # as good as lost; the gap that it leaves is seen
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
        )
        self._take(self._buffer.add(rtp_payload, now), now)
        self._send_nacks(now)
        if self._requests.again(now):
            self._send_pli()
        self._set_timer()

    def ended(self) -> None:
        """The sender has said that it ends."""
        if not self._closed:
            self._viewer.ended()

    def close(self) -> None:
        """Forget what waits, and let the decoder go."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None

    def _begin(self, ssrc: int, codec: Codec) -> None:
        """Another source, or another codec: nothing of before counts."""
        self._ssrc = ssrc
        self._buffer = JitterBuffer()
        self._after_gap = True
        if codec is not self._codec or self._decoder is None:
            self._codec = codec
            if self._decoder is not None:
                self._decoder.close()
            self._decoder = VideoDecoder(codec, self._decoded, self._decoders, self._charge)

    def _set_timer(self) -> None:
        """Come back for a gap that no packet may ever close. An early timer stays: it sets the next."""
        due = self._buffer.due
        if due is None:
            return
        if self._timer is not None:
            if self._timer.when() <= due + _TICK_S:
                return
            self._timer.cancel()
        # asyncio's clock is the monotonic one.
        self._timer = self._loop.call_at(due + _TICK_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = time.monotonic()
        self._take(self._buffer.poll(now), now)
        self._send_nacks(now)
        self._set_timer()

    # -- frames through ------------------------------------------------------------------------------

    def _take(self, outputs: list[EncodedFrame | Gap], now: float) -> None:
        for output in outputs:
            if isinstance(output, Gap):
                self.gaps += 1
                self._break(now)
            elif self._decoder is not None:
                if self._decoder.put(output, after_gap=self._after_gap):
                    self._after_gap = False
                else:
                    self._no_picture(DropReason.OVERLOAD)
                    self._break(now)

    def _break(self, now: float) -> None:
        self._after_gap = True
        if self._requests.want(now):
            self._send_pli()

    def _send_nacks(self, now: float) -> None:
        missing = self._buffer.to_nack(now)
        if missing and self._feedback is not None and self._ssrc is not None:
            self._feedback.send_nack(self._ssrc, missing)

    def _send_pli(self) -> None:
        if self._feedback is not None and self._ssrc is not None:
            self._feedback.send_pli(self._ssrc)

    def _decoded(self, decoded: Decoded) -> None:
        if self._closed or self._codec is None:
            return
        if decoded.picture is None:
            self._no_picture(decoded.reason or DropReason.DECODE_ERROR, decoded.text)
            if self._requests.want(time.monotonic()):
                self._send_pli()
            return
        self._requests.satisfied()
        picture, rtp = decoded.picture, decoded.frame.rtp
        if (picture.width, picture.height) != self._size:
            self._size = (picture.width, picture.height)
            self._epoch = (self._epoch + 1) & 0xFFFF
        self._seq += 1
        frame = VideoFrame(self._codec, self._seq, self._to_us(rtp), picture, rtp, self._epoch)
        self._viewer.picture(frame, decoded.frame.arrived)

    def _no_picture(self, reason: DropReason, text: str = "") -> None:
        self._seq += 1
        self._viewer.no_picture(self._seq, reason, text)

    def _to_us(self, rtp: int) -> int:
        """Return the media clock in microseconds; 32 bits of 90 kHz wrap every 13 hours."""
        high = self._rtp_high
        self._rtp_high = high + ((rtp - high + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000
        return max(0, self._rtp_high) * 1_000_000 // _RTP_CLOCK_HZ


class KeyFrameRequests:
    """Remembers whether one is wanted; ``now`` in monotonic seconds."""

    def __init__(self) -> None:
        self._asked = -1e9
        self.wanted = False

    def want(self, now: float) -> bool:
        """Something is lost. Returns whether to ask now."""
        self.wanted = True
        return self.again(now)

    def again(self, now: float) -> bool:
        """Whether to ask (again) now; counts as asked."""
        if not self.wanted or now - self._asked < AGAIN_S:
            return False
        self._asked = now
        return True

    def satisfied(self) -> None:
        """A picture was decoded."""
        self.wanted = False
