"""Defines why a WebRTC session may end: codes for metrics and programs, and sentences for people."""

from __future__ import annotations

from enum import StrEnum


class EndReason(StrEnum):
    """Lists all reasons; `accounting.metrics.WEBRTC_END_REASONS` has the same ones."""

    CLOSED = "closed"
    PEER_GONE = "peer_gone"
    CONNECT_TIMEOUT = "connect_timeout"
    ICE_FAILED = "ice_failed"
    DTLS_FAILED = "dtls_failed"
    NO_MEDIA = "no_media"
    LIMITS = "limits"
    SHUTDOWN = "shutdown"
    MOVED = "moved"
    SERVER_FAULT = "server_fault"

    @property
    def asks_to_return(self) -> bool:
        """Whether the client is asked to open a new session at once."""
        return self in (EndReason.SHUTDOWN, EndReason.MOVED)


_SENTENCES = {
    EndReason.CLOSED: "closed by the client",
    EndReason.PEER_GONE: "the client went away without a word",
    EndReason.CONNECT_TIMEOUT: "no connection within {limit}; packets between client and server do not get "
    "through (firewall, UDP blocked, or a TURN server is needed)",
    EndReason.ICE_FAILED: "the network path between client and server was lost",
    EndReason.DTLS_FAILED: "the encrypted connection could not be set up: the certificate does not match the "
    "offer, or no cipher is shared (peers with RSA certificates must be the DTLS client)",
    EndReason.NO_MEDIA: "no video for {limit}",
    EndReason.LIMITS: "a limit was passed",
    EndReason.SHUTDOWN: "the server is shutting down",
    EndReason.MOVED: "another replica has more room",
    EndReason.SERVER_FAULT: "the server failed",
}


def explain(end_reason: EndReason, limit: str = "the time allowed") -> str:
    """Return the sentence for a reason; ``limit`` is the time that it names, such as `10 s`."""
    return _SENTENCES[end_reason].format(limit=limit)
