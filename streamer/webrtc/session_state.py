"""Defines the state of a session as clients read it, while it lasts and for a minute after its end."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from streamer.webrtc.end_reason import EndReason


class CandidatePair(TypedDict):
    """The kinds of the two ICE candidates between which packets flow, such as `host` or `relay`."""

    local: Annotated[str, Field(description="Kind of the server's candidate.")]
    remote: Annotated[str, Field(description="Kind of the client's candidate.")]


class VideoQuality(TypedDict):
    """How well the video arrives."""

    packets_lost: Annotated[int, Field(description="Number of packets that did not arrive.")]
    jitter_ms: Annotated[float, Field(description="How unevenly packets arrive, in milliseconds.")]
    bytes: Annotated[int, Field(description="Number of bytes that arrived.")]
    gaps: Annotated[int, Field(description="How often a key frame was needed because packets were missing.")]
    frames: Annotated[int, Field(description="Number of frames that arrived.")]
    inferred: Annotated[int, Field(description="Number of frames that the model ran on.")]


class SessionEnd(TypedDict):
    """Why a session has ended."""

    code: Annotated[
        str,
        Field(
            json_schema_extra={"enum": [reason.value for reason in EndReason]},
            description="The reason for programs.",
        ),
    ]
    text: Annotated[str, Field(description="The reason in words.")]


class SessionState(TypedDict):
    """The state of a session over WebRTC or WHIP."""

    session: Annotated[str, Field(description="The id of the session.")]
    state: Annotated[
        Literal["connecting", "connected", "ended"], Field(description="How far the session has come.")
    ]
    ice: Annotated[
        str, Field(description="State of the network path, as `RTCIceTransport.state` of browsers.")
    ]
    dtls: Annotated[
        str, Field(description="State of the encryption, as `RTCDtlsTransport.state` of browsers.")
    ]
    candidates: NotRequired[Annotated[CandidatePair, Field(description="Present once packets flow.")]]
    video: NotRequired[Annotated[VideoQuality, Field(description="Present once the offer was answered.")]]
    reason: NotRequired[Annotated[SessionEnd, Field(description="Present once the session has ended.")]]
