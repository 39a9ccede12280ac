"""The one file that knows the inside of aiortc and aioice: own receiver, own sockets, own guards.

What it changes, and why, for the versions in constraints.txt:

- Receivers keep frames without bound, decode in as many threads as there are cores and join them on the
  event loop: `Receiver` passes packets on and does nothing else.
- Any datagram reaches DTLS, from whatever address: `_Socket` takes those of peers that know the password.
- Errors are sent to whoever sends an unauthenticated STUN request: `_Agent` stays silent.
- Sockets take any port and announce private addresses: `_Agent` binds within a range, announces one.
- Parts of unfinished messages pile up without bound: `InboundBudget` ends the association.
- Waiting for STUN servers delays an answer by 5 s: `_Agent` waits for `GATHER_S`.

tests/unit/test_webrtc_stack.py holds every private name used here, and says what to do when one is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import socket
import time
from dataclasses import dataclass
from typing import Any, Protocol

from aioice import ice, stun, turn
from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.codecs import CODECS, is_rtx
from aiortc.rate import RemoteBitrateEstimator
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    RtcpByePacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    RtpPacket,
    pack_remb_fci,
    unwrap_rtx,
)
from aiortc.sdp import candidate_from_sdp

from streamer.webrtc.inbound_budget import InboundBudget
from streamer.webrtc.sdp_offer import Offer

#: For answers of STUN servers; an answer to the client must not take longer than 2 s.
GATHER_S = 1.0
#: Addresses of one client; it has some eight pairs, and a new one after each change of its network.
_MAX_SHOWN = 64
#: Where a transceiver keeps its receiver.
_RECEIVER = "_RTCRtpTransceiver__receiver"
#: Receiver reports go out this often; peers measure loss and round trip by them.
_REPORT_S = 1.0
#: Profiles of H.264 beside the two that aiortc knows: main, constrained high and high.
_MORE_PROFILES = ("4d001f", "640c1f", "64001f")


@dataclass(frozen=True, slots=True)
class UdpPlan:
    """Where media sockets are opened and how they are announced."""

    #: First and last UDP port; None: whatever the system gives.
    ports: tuple[int, int] | None = None
    #: Announced in place of our own addresses; empty: ours as they are.
    public_ip: str = ""
    #: `stun:` addresses that tell us our own public address.
    stun_servers: tuple[str, ...] = ()


class NoPortLeft(OSError):
    """All UDP ports of the range are in use."""


class MediaSink(Protocol):
    """Takes the packets of one receiver, on the event loop; must not wait."""

    def received(self, codec: str, packet: RtpPacket, receiver: Receiver) -> None:
        """One RTP packet with media, retransmissions unwrapped. ``codec`` is a name as `VP8`."""

    def ended(self) -> None:
        """The sender has said that it ends, or the transport is gone."""


class Receiver(RTCRtpReceiver):
    """Statistics, retransmissions and reports; packets go to a sink, or nowhere (audio)."""

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
        """Begin; called when the transport is connected."""
        if self._reports is not None or self._stopped:
            return
        self._codecs = {codec.payloadType or 0: codec for codec in parameters.codecs}
        for encoding in parameters.encodings:
            if encoding.rtx:
                self._rtx_ssrcs[encoding.rtx.ssrc] = encoding.ssrc
        self.transport._register_rtp_receiver(self, parameters)
        self._reports = asyncio.create_task(self._report(), name="rtcp-reports")

    async def stop(self) -> None:
        """End; nothing here waits."""
        self._stopped = True
        if self._reports is not None:
            self._reports.cancel()
            self.transport._unregister_rtp_receiver(self)
        if self._track is not None:
            self._track.stop()

    def ask_key_frame(self, media_ssrc: int) -> None:
        """Send a picture loss indication (RFC 4585 section 6.3.1)."""
        if self._own_ssrc is not None:
            self._send(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=self._own_ssrc, media_ssrc=media_ssrc))

    def ask_again(self, media_ssrc: int, missing: list[int]) -> None:
        """Ask for packets by their sequence numbers (RFC 4585 section 6.2.1)."""
        if self._own_ssrc is not None:
            packet = RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=self._own_ssrc, media_ssrc=media_ssrc)
            packet.lost = missing
            self._send(packet)

    def _send(self, packet: AnyRtcpPacket) -> None:
        """Send at once: on a UDP socket that never waits, whatever the signature says."""
        task = asyncio.ensure_future(self.transport._send_rtp(bytes(packet)))
        task.add_done_callback(_forget)

    # -- what aiortc calls ---------------------------------------------------------------------------

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
            if len(self._statistics) >= 8:  # no honest sender has more; each would be kept
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
        self._sink.received(codec.name, packet, self)

    def _estimate(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        """Tell the sender what bitrate arrives (REMB); without it browsers stay at 300 kbit/s."""
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
                middle, heard = self._sender_reports.get(ssrc, (0, 0.0))
                delay_s = time.time() - heard
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


class _Socket(ice.StunProtocol):
    """A media socket: what is no STUN passes only from an address that has shown the password."""

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        agent = self.receiver
        if isinstance(data, bytes) and data and data[0] > 3 and isinstance(agent, _Agent):
            if agent.knows(self, (addr[0], addr[1])):
                agent.data_received(data, self.local_candidate.component)
            return
        super().datagram_received(data, addr)


class _Agent(ice.Connection):
    """An ICE agent that sends to nobody who has not shown the session's password."""

    plan: UdpPlan
    #: Who has sent a request with the password, to which of our sockets.
    shown: set[tuple[ice.StunProtocol, tuple[str, int]]]

    def check_incoming(
        self, message: stun.Message, addr: tuple[str, int], protocol: ice.StunProtocol
    ) -> None:
        """Take in a request that was authenticated, and remember its sender."""
        if len(self.shown) < _MAX_SHOWN:
            self.shown.add((protocol, (addr[0], addr[1])))
        super().check_incoming(message, addr, protocol)

    def knows(self, protocol: ice.StunProtocol, address: tuple[str, int]) -> bool:
        """Whether ``address`` has shown the password, or is the far end of a pair that passed its check.

        Both: once a pair is nominated, aioice forgets those that it had not checked itself yet, and one of
        them may be the pair that the client has chosen.
        """
        if (protocol, address) in self.shown:
            return True
        good = ice.CandidatePair.State.SUCCEEDED
        return any(
            pair.protocol is protocol
            and pair.remote_addr == address
            and (pair.nominated or pair.state is good)
            for pair in (*self._nominated.values(), *self._check_list)
        )

    def respond_error(
        self,
        request: stun.Message,
        addr: tuple[str, int],
        protocol: ice.StunProtocol,
        error_code: tuple[int, str],
    ) -> None:
        """Answer authenticated requests only (487); others may carry a forged address."""
        if error_code[0] not in (400, 401):
            super().respond_error(request, addr, protocol, error_code)

    async def get_component_candidates(
        self, component: int, addresses: list[str], timeout: int = 5
    ) -> list[Candidate]:
        """Open the sockets. Raises NoPortLeft when the range is used up."""
        plan = self.plan
        candidates: list[Candidate] = []
        hosts: list[ice.StunProtocol] = []
        for address in _addresses(plan, addresses):
            protocol = await _bind(self, address, plan.ports)
            if protocol is None:
                continue
            hosts.append(protocol)
            # At once: whatever happens next, closing the agent closes it.
            self._protocols.append(protocol)
            _, port = protocol.transport.get_extra_info("sockname")[:2]
            host = plan.public_ip or address
            protocol.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", host),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host"),
                host=host,
                port=port,
                type="host",
            )
            candidates.append(protocol.local_candidate)
        if self.stun_server and not plan.public_ip:
            candidates += await _reflexive(hosts, self.stun_server)
        return candidates


def _addresses(plan: UdpPlan, found: list[str]) -> list[str]:
    """Return the local addresses to open a socket on."""
    if plan.public_ip:
        return ["::" if ":" in plan.public_ip else "0.0.0.0"]  # noqa: S104 - behind a port mapping of ours
    return found or ["127.0.0.1"]


async def _bind(agent: _Agent, address: str, ports: tuple[int, int] | None) -> ice.StunProtocol | None:
    """Open a socket on a free port of the range; None when this address cannot be used at all."""
    loop = asyncio.get_running_loop()
    first, last = ports or (0, 0)
    count = last - first + 1
    offset = random.randrange(count)  # noqa: S311 - spreads over the range
    for step in range(count):
        port = first + (offset + step) % count
        try:
            transport, protocol = await loop.create_datagram_endpoint(
                lambda: _Socket(agent), local_addr=(address, port)
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE and ports:
                continue
            return None
        opened = transport.get_extra_info("socket")
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, turn.UDP_SOCKET_BUFFER_SIZE)
        return protocol
    raise NoPortLeft(f"all UDP ports from {first} to {last} are in use")


async def _reflexive(hosts: list[ice.StunProtocol], server: tuple[str, int]) -> list[Candidate]:
    """Ask the STUN server for our public address; what has not come after GATHER_S is left out."""
    tasks = [
        asyncio.create_task(ice.server_reflexive_candidate(protocol, server))
        for protocol in hosts
        if ":" not in protocol.local_candidate.host
    ]
    if not tasks:
        return []
    done, late = await asyncio.wait(tasks, timeout=GATHER_S)
    for task in late:
        task.cancel()
    return [task.result()[0] for task in done if task.exception() is None]


class Peer(RTCPeerConnection):
    """A peer connection that only answers: one video in, audio nowhere, data channels both ways."""

    def __init__(self, plan: UdpPlan, sink: MediaSink) -> None:
        self._plan = plan
        self._sink = sink
        servers = [RTCIceServer(urls=list(plan.stun_servers))] if plan.stun_servers else []
        # Never without: the library's own default is a public STUN server of others.
        super().__init__(RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))

    def _RTCPeerConnection__createDtlsTransport(self) -> RTCDtlsTransport:  # noqa: N802 - overrides a private name
        created: RTCDtlsTransport = super()._RTCPeerConnection__createDtlsTransport()  # type: ignore[misc]
        agent: Any = created.transport._connection
        agent.__class__ = _Agent
        agent.plan = self._plan
        agent.shown = set()
        return created

    def _RTCPeerConnection__createSctpTransport(self) -> None:  # noqa: N802 - overrides a private name
        super()._RTCPeerConnection__createSctpTransport()  # type: ignore[misc]
        InboundBudget(self.sctp)

    def _RTCPeerConnection__createTransceiver(  # noqa: N802 - overrides a private name
        self, direction: str, kind: str, sender_track: Any = None
    ) -> RTCRtpTransceiver:
        made: RTCRtpTransceiver = super()._RTCPeerConnection__createTransceiver(  # type: ignore[misc]
            direction=direction, kind=kind, sender_track=sender_track
        )
        receiver = Receiver(kind, made.receiver.transport, self._sink if kind == "video" else None)
        receiver._set_rtcp_ssrc(made.sender._ssrc)
        setattr(made, _RECEIVER, receiver)
        return made

    async def answer(self, offer: Offer, back: MediaStreamTrack | None = None) -> str:
        """Return the answer to ``offer``, with all candidates of ours in it; ``back`` is sent to the client.

        Raises whatever aiortc finds wrong with the offer, NoPortLeft, or ConnectionError when no socket
        could be opened.
        """
        if back is not None:
            self.addTransceiver(back, "sendrecv")
        await self.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        for transceiver in self.getTransceivers():
            for codec in transceiver._codecs:
                if codec.name == "H264" and codec.payloadType in offer.formats:
                    # As they came: some peers compare them.
                    codec.parameters = dict(offer.formats[codec.payloadType])
            transport = transceiver.receiver.transport
            if transport._role == "auto" and not offer.peer_is_dtls_server:
                # As DTLS server we take any certificate; as client only ECDSA ones, which GStreamer lacks.
                transport._set_role("server")
        await self.setLocalDescription()
        if not any(
            transceiver.receiver.transport.transport.iceGatherer.getLocalCandidates()
            for transceiver in self.getTransceivers()
        ):
            raise ConnectionError("no UDP socket could be opened")
        for candidate in offer.candidates:
            await self.add_candidate(candidate)
        return str(self.localDescription.sdp)

    async def add_candidate(self, candidate: str) -> None:
        """Add a candidate of the client that was checked before, written as in SDP after `candidate:`."""
        # All sections share one transport.
        transport = self.getTransceivers()[0].receiver.transport.transport
        await transport.addRemoteCandidate(candidate_from_sdp(candidate))

    def video_receiver(self) -> Receiver | None:
        """Return the receiver of the video; None before the offer was read."""
        return next((r for r in self.getReceivers() if isinstance(r, Receiver) and r._sink is not None), None)

    def states(self) -> tuple[str, str]:
        """Return the states of ICE and DTLS."""
        transport = self.getTransceivers()[0].receiver.transport
        return transport.transport.state, transport.state

    def selected_pair(self) -> tuple[str, str] | None:
        """Return the candidate types of both ends, such as host and relay; None before a pair is in use."""
        transport = self.getTransceivers()[0].receiver.transport.transport
        pair = next(iter(transport._connection._nominated.values()), None)
        return None if pair is None else (pair.local_candidate.type, pair.remote_candidate.type)

    async def shut(self, limit_s: float) -> None:
        """Close; what is not closed by then is left to the garbage collector."""
        with contextlib.suppress(TimeoutError, ConnectionError, OSError):
            async with asyncio.timeout(limit_s):
                await self.close()


def register_profiles() -> None:
    """Add H.264 main and high, and packetization mode 0, to what aiortc accepts. Once per process."""
    known = {
        (str(codec.parameters.get("profile-level-id")), str(codec.parameters.get("packetization-mode")))
        for codec in CODECS["video"]
    }
    feedback = next(codec.rtcpFeedback for codec in CODECS["video"] if codec.name == "H264")
    for profile in ("42001f", "42e01f", *_MORE_PROFILES):
        for mode in ("1", "0"):
            if (profile, mode) in known:
                continue
            CODECS["video"].append(
                RTCRtpCodecParameters(
                    mimeType="video/H264",
                    clockRate=90000,
                    # Only offers of ours would use it, and we make none.
                    payloadType=127,
                    rtcpFeedback=list(feedback),
                    parameters={
                        "level-asymmetry-allowed": "1",
                        "packetization-mode": mode,
                        "profile-level-id": profile,
                    },
                )
            )


def _forget(task: asyncio.Future[None]) -> None:
    """Feedback that could not be sent is no fault: the transport is going away."""
    if not task.cancelled():
        task.exception()
