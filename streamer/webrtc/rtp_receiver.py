"""Receives the RTP packets of one video: statistics, retransmissions, feedback and receiver reports.

`aiortc_adapter` lists what is changed in aiortc, and why. Packets go to a sink; nothing is decoded here.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol

from aiortc import RTCRtpReceiver
from aiortc.codecs import is_rtx
from aiortc.rate import RemoteBitrateEstimator
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpParameters, RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    HeaderExtensions,
    HeaderExtensionsMap,
    RtcpByePacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    RtpPacket,
    pack_remb_fci,
    unpack_header_extensions,
    unwrap_rtx,
)

from streamer.accounting.ledger import Ledger
from streamer.imaging.turning import Turning
from streamer.webrtc.session_state import VideoQuality

#: Mean interval of receiver reports, with which peers measure loss and round-trip time.
_REPORT_S = 1.0
#: Most sources (SSRCs) of one video; statistics are kept for each. No sender that follows its offer has more.
_MAX_SOURCES = 8


#: Header extension in which a sender says how the camera is held (3GPP TS 26.114, 7.4.5).
ORIENTATION_URI = "urn:3gpp:video-orientation"
#: Turnings by the three lowest bits of its value. The lowest two are the clockwise quarter turns that make
#: the frame upright. The third says that the frame as it is sent is mirrored left to right, so mirroring
#: comes before turning. The fourth bit names the camera and changes nothing.
_TURNINGS = tuple(Turning(mirrored=bool(bits & 4), turns=bits & 3) for bits in range(8))


class OrientedExtensions(HeaderExtensionsMap):
    """Reads header extensions as aiortc does, and ``turning`` if a packet has `ORIENTATION_URI`."""

    def __init__(self) -> None:
        super().__init__()
        #: Number of the extension in the offer; 0 if it was not offered.
        self._orientation_id = 0

    def configure(self, parameters: RTCRtpParameters) -> None:
        """Store the numbers that the offer gives to the extensions."""
        super().configure(parameters)
        for extension in parameters.headerExtensions:
            if extension.uri == ORIENTATION_URI:
                self._orientation_id = extension.id

    def get(self, extension_profile: int, extension_value: bytes) -> HeaderExtensions:
        """Return the extensions of a packet."""
        values = super().get(extension_profile, extension_value)
        if self._orientation_id:
            for number, value in unpack_header_extensions(extension_profile, extension_value):
                if number == self._orientation_id and len(value) == 1:
                    values.turning = _TURNINGS[value[0] & 7]  # type: ignore[attr-defined]
        return values


class MediaSink(Protocol):
    """Receives the packets of one video, on the event loop. It must not wait."""

    def received(self, codec: str, packet: RtpPacket, receiver: Receiver, turning: Turning | None) -> None:
        """Take one RTP packet with media, retransmissions unwrapped. ``codec`` is a name such as `VP8`.

        ``turning`` makes its frame and those after it upright; None if the packet does not say.
        """

    def ended(self) -> None:
        """Note that the sender has ended its video, or that the transport is gone."""


class Receiver(RTCRtpReceiver):
    """Receives packets for ``sink``; without a sink, as for audio, it drops them."""

    def __init__(self, kind: str, transport: RTCDtlsTransport, sink: MediaSink | None) -> None:
        super().__init__(kind, transport)
        self.lost = 0
        self.jitter = 0
        self.bytes_received = 0
        self._sink = sink
        self._codecs: dict[int, RTCRtpCodecParameters] = {}
        self._rtx_ssrcs: dict[int, int] = {}
        self._own_ssrc: int | None = None
        self._statistics: dict[int, StreamStatistics] = {}
        self._sender_reports: dict[int, tuple[int, float]] = {}
        self._estimator = RemoteBitrateEstimator() if sink is not None else None
        self._reports: asyncio.Task[None] | None = None
        self._stopped = False

    async def receive(self, parameters: RTCRtpReceiveParameters) -> None:
        """Start receiving; aiortc calls this when the transport is connected."""
        if self._reports is not None or self._stopped:
            return
        self._codecs = {codec.payloadType or 0: codec for codec in parameters.codecs}
        for encoding in parameters.encodings:
            if encoding.rtx:
                self._rtx_ssrcs[encoding.rtx.ssrc] = encoding.ssrc
        self.transport._register_rtp_receiver(self, parameters)
        self._reports = asyncio.create_task(self._report(), name="rtcp-reports")

    async def stop(self) -> None:
        """Stop receiving, without waiting for anything."""
        self._stopped = True
        if self._reports is not None:
            self._reports.cancel()
            self.transport._unregister_rtp_receiver(self)
        if self._track is not None:
            self._track.stop()

    def describe(self, gaps: int, ledger: Ledger) -> VideoQuality:
        """Return how well the video arrives; ``gaps`` and ``ledger`` are those of its frames."""
        return {
            "packets_lost": self.lost,
            "jitter_ms": round(self.jitter / 90, 1),
            "bytes": self.bytes_received,
            "gaps": gaps,
            "frames": ledger.received,
            "inferred": ledger.inferred,
        }

    def send_pli(self, media_ssrc: int) -> None:
        """Send a picture loss indication (RFC 4585 section 6.3.1)."""
        if self._own_ssrc is not None:
            self._send(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=self._own_ssrc, media_ssrc=media_ssrc))

    def send_nack(self, media_ssrc: int, missing: list[int]) -> None:
        """Request packets by their sequence numbers (RFC 4585 section 6.2.1)."""
        if self._own_ssrc is not None:
            packet = RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=self._own_ssrc, media_ssrc=media_ssrc)
            packet.lost = missing
            self._send(packet)

    def _send(self, packet: AnyRtcpPacket) -> None:
        """Send a packet in a task, because sending is a coroutine; on a UDP socket it never waits."""
        task = asyncio.ensure_future(self.transport._send_rtp(bytes(packet)))
        task.add_done_callback(_ignore_failure)

    # -- called by aiortc -----------------------------------------------------------------------------

    def _set_rtcp_ssrc(self, ssrc: int) -> None:
        self._own_ssrc = ssrc

    def _handle_disconnect(self) -> None:
        if self._sink is not None:
            self._sink.ended()

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpSrPacket):
            middle = packet.sender_info.ntp_timestamp >> 16 & 0xFFFFFFFF
            self._sender_reports[packet.ssrc] = (middle, time.time())
        elif isinstance(packet, RtcpByePacket) and self._sink is not None:
            self._sink.ended()

    async def _handle_rtp_packet(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        if self._stopped or self._sink is None:
            return
        codec = self._codecs.get(packet.payload_type)
        if codec is None:
            return
        self.bytes_received += len(packet.payload)
        if packet.ssrc not in self._statistics:
            if len(self._statistics) >= _MAX_SOURCES:
                return
            self._statistics[packet.ssrc] = StreamStatistics(codec.clockRate)
        self._statistics[packet.ssrc].add(packet)
        self._estimate(packet, arrival_time_ms)
        if is_rtx(codec):
            original = self._rtx_ssrcs.get(packet.ssrc)
            apt = codec.parameters.get("apt")
            if original is None or len(packet.payload) < 2 or apt not in self._codecs:
                return
            packet = unwrap_rtx(packet, payload_type=apt, ssrc=original)
            codec = self._codecs[apt]
        self._sink.received(codec.name, packet, self, getattr(packet.extensions, "turning", None))

    def _estimate(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        """Report the estimated bitrate to the sender (REMB), without which browsers stay at 300 kbit/s."""
        if self._estimator is None or packet.extensions.abs_send_time is None or self._own_ssrc is None:
            return
        estimate = self._estimator.add(
            abs_send_time=packet.extensions.abs_send_time,
            arrival_time_ms=arrival_time_ms,
            payload_size=len(packet.payload) + packet.padding_size,
            ssrc=packet.ssrc,
        )
        if estimate is not None:
            self._send(
                RtcpPsfbPacket(
                    fmt=RTCP_PSFB_APP, ssrc=self._own_ssrc, media_ssrc=0, fci=pack_remb_fci(*estimate)
                )
            )

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_S * random.uniform(0.5, 1.5))  # noqa: S311 - spreads reports (RFC 3550)
            blocks = []
            for ssrc, statistics in self._statistics.items():
                middle, received = self._sender_reports.get(ssrc, (0, 0.0))
                delay_s = time.time() - received
                blocks.append(
                    RtcpReceiverInfo(
                        ssrc=ssrc,
                        fraction_lost=statistics.fraction_lost,
                        packets_lost=statistics.packets_lost,
                        highest_sequence=(statistics.cycles + (statistics.max_seq or 0)) & 0xFFFFFFFF,
                        jitter=statistics.jitter,
                        lsr=middle,
                        dlsr=int(delay_s * 65536) if middle and 0 < delay_s < 65536 else 0,
                    )
                )
            self.lost = sum(block.packets_lost for block in blocks)
            self.jitter = max((block.jitter for block in blocks), default=0)
            if self._own_ssrc is not None and blocks:
                self._send(RtcpRrPacket(ssrc=self._own_ssrc, reports=blocks[:31]))


def _ignore_failure(task: asyncio.Future[None]) -> None:
    """Ignore that feedback could not be sent, because the transport is closing."""
    if not task.cancelled():
        task.exception()
