"""Adapts internals of aiortc and aioice to make our peer connection. No other folder uses these internals.

Each item names a problem of the versions in constraints.txt, and what we do instead:

- Receivers keep frames without bound, decode in as many threads as there are cores and join them on the
  event loop: `rtp_receiver.Receiver` passes packets on and does not decode.
- Any datagram reaches DTLS, whatever its address: `ice_agent` accepts only those of authenticated peers.
- Unauthenticated STUN requests are answered with errors: `ice_agent` does not answer them.
- Sockets take any port and announce private addresses: `ice_agent` binds ports of a range and announces one
  public address if the settings have these.
- Parts of unfinished messages pile up without bound: `InboundBudget` ends the association.
- Header extensions that aiortc does not know are lost: `rtp_receiver.OrientedExtensions` reads how the camera
  is held.
- Waiting for STUN servers delays an answer by up to 5 s: `ice_agent` waits for at most `GATHER_S`.

tests/unit/test_webrtc_stack.py lists every private name used here, and says what to do when one is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.codecs import CODECS, HEADER_EXTENSIONS
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpHeaderExtensionParameters
from aiortc.sdp import candidate_from_sdp

from streamer.webrtc.ice_agent import IceAgent, NoFreePort, UdpSettings
from streamer.webrtc.rtp_receiver import ORIENTATION_URI, MediaSink, OrientedExtensions, Receiver
from streamer.webrtc.sdp_offer import Offer

__all__ = ["NoFreePort", "Peer", "UdpSettings", "register_profiles"]

log = logging.getLogger("streamer.webrtc.inbound_budget")

#: Attribute in which a transceiver of aiortc keeps its receiver.
_RECEIVER = "_RTCRtpTransceiver__receiver"
#: Profiles of H.264 beside the two that aiortc knows: main, constrained high and high.
_MORE_PROFILES = ("4d001f", "640c1f", "64001f")
_ORIENTATION_ID = 13
#: Most bytes of unfinished messages. This is the size of the largest message that our answer allows, and four
#: times that of a control message.
MAX_UNFINISHED_BYTES = 256 << 10
#: Most parts of unfinished messages. With the part size that all known senders use, 256 KiB are 230 parts.
MAX_UNFINISHED_PARTS = 512
#: Most SCTP streams of a client that have carried data; a client needs two.
MAX_SCTP_STREAMS = 64
#: Most parts received out of order. aiortc sorts all of them whenever another one arrives.
MAX_MISORDERED_PARTS = 1024


class Peer(RTCPeerConnection):
    """A peer connection that only answers offers: it receives one video, ignores audio, has data channels."""

    def __init__(self, plan: UdpSettings, sink: MediaSink) -> None:
        self._plan = plan
        self._sink = sink
        servers = [RTCIceServer(urls=list(plan.stun_servers))] if plan.stun_servers else []
        # Always give a configuration, because by default aiortc uses a public STUN server of a third party.
        super().__init__(RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))

    def _RTCPeerConnection__createDtlsTransport(self) -> RTCDtlsTransport:  # noqa: N802 - overrides a private name
        created: RTCDtlsTransport = super()._RTCPeerConnection__createDtlsTransport()  # type: ignore[misc]
        agent: Any = created.transport._connection
        agent.__class__ = IceAgent
        agent.plan = self._plan
        agent.authenticated = set()
        created._rtp_header_extensions_map = OrientedExtensions()
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
        """Return the answer to ``offer`` with all our candidates; the track ``back`` is sent to the client.

        Raises what aiortc raises for an offer that it cannot answer, NoFreePort, or ConnectionError when no
        socket could be opened.
        """
        if back is not None:
            self.addTransceiver(back, "sendrecv")
        await self.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        for transceiver in self.getTransceivers():
            for codec in transceiver._codecs:
                if codec.name == "H264" and codec.payloadType in offer.formats:
                    # Repeat the parameters exactly as the offer has them, because some peers compare them.
                    codec.parameters = dict(offer.formats[codec.payloadType])
            transport = transceiver.receiver.transport
            if transport._role == "auto" and not offer.peer_is_dtls_server:
                # As the DTLS server we accept any certificate. As the client we would accept only ECDSA
                # certificates, and GStreamer does not have one.
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
        """Add a checked candidate of the client, written as in SDP after `candidate:`."""
        # All sections of the offer share one transport.
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

    async def close_within(self, limit_s: float) -> None:
        """Close the connection. What is not closed after ``limit_s`` is left to the garbage collector."""
        with contextlib.suppress(TimeoutError, ConnectionError, OSError):
            async with asyncio.timeout(limit_s):
                await self.close()


def register_profiles() -> None:
    """Make aiortc accept H.264 main and high, packetization mode 0, and the orientation of the camera.

    Call it once per process.
    """
    extensions = HEADER_EXTENSIONS["video"]
    if not any(extension.uri == ORIENTATION_URI for extension in extensions):
        # Answers repeat the number in the offer. This number only has to differ from those that aiortc uses.
        extensions.append(RTCRtpHeaderExtensionParameters(id=_ORIENTATION_ID, uri=ORIENTATION_URI))
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
                    # Only offers of our own would use this number, and we make none.
                    payloadType=127,
                    rtcpFeedback=list(feedback),
                    parameters={
                        "level-asymmetry-allowed": "1",
                        "packetization-mode": mode,
                        "profile-level-id": profile,
                    },
                )
            )


class InboundBudget:
    """Limits how much of unfinished messages the data channels of a client keep.

    aiortc keeps every part of an unfinished message, walks all of them for each new part, and does not hold
    the sender to the advertised window: endless parts would take all memory and all time of the event loop.
    A client that exceeds the budget loses its SCTP association.
    """

    def __init__(self, association: Any) -> None:
        """Limit ``association``, an aiortc RTCSctpTransport that has received nothing yet."""
        self._association = association
        self._receive = association._receive_data_chunk
        self._window_bytes: int = association._advertised_rwnd
        self._ended = False
        association._receive_data_chunk = self.receive

    async def receive(self, chunk: Any) -> None:
        """Process one part, or end the association."""
        if self._ended:
            return
        if self._is_exceeded(len(chunk.user_data)):
            self._ended = True
            log.info("closing the data channels of a client: its unfinished messages exceed the budget")
            await self._association._abort()
            # Free the parts that were kept, because nobody needs them after the end.
            self._association._inbound_streams.clear()
            self._association._sack_misordered.clear()
            return
        await self._receive(chunk)

    def _is_exceeded(self, size_bytes: int) -> bool:
        association = self._association
        streams = association._inbound_streams
        return bool(
            self._window_bytes - association._advertised_rwnd + size_bytes > MAX_UNFINISHED_BYTES
            or len(streams) > MAX_SCTP_STREAMS
            or len(association._sack_misordered) > MAX_MISORDERED_PARTS
            or sum(len(stream.reassembly) for stream in streams.values()) > MAX_UNFINISHED_PARTS
        )
