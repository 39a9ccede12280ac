"""Messages of ``detect.v1`` that the server sends: one type for each, and one function that builds it. Pure.

The types are dictionaries, so that encoding a message needs no conversion. A field that has nothing to say is
absent, except where the protocol gives ``null`` a meaning (``max_fps``).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NotRequired, TypedDict

import typing_extensions
from pydantic import Field

from streamer.protocol.wire import FrameTime, ProtocolError

Rows = list[list[float]]


# The OpenAPI document is generated from the types that describe a session. They use `typing_extensions`,
# because pydantic cannot read TypedDicts of `typing` before Python 3.12.
class ModelDescription(typing_extensions.TypedDict):
    """The model of a session."""

    version: Annotated[str, Field(description="Version under which it is served.")]
    name: Annotated[str, Field(description="Name of the model.")]
    labels: Annotated[list[str], Field(description="Labels of its classes, by class id.")]
    input: Annotated[
        list[int],
        Field(min_length=2, max_length=2, description="Width and height of its input, in pixels."),
    ]


class ConnectionLimits(TypedDict):
    """Limits of a WebSocket connection, as ``welcome`` states them."""

    message_bytes: int
    control_bytes: int
    control_per_s: int
    side_px: int
    pixels: int
    streams: int
    idle_s: float
    heartbeat_s: float
    max_age_ms: float


class Grant(TypedDict):
    """What a client may send at first: window, and frames per second (None: no limit)."""

    win: int
    max_fps: float | None


class EffectiveParams(typing_extensions.TypedDict):
    """The parameters in effect."""

    conf_threshold: Annotated[float, Field(description="Detections with a lower score are left out.")]
    iou_threshold: Annotated[
        float,
        Field(description="Of two boxes of a class that overlap more (IoU), the weaker one is left out."),
    ]
    max_detections: Annotated[int, Field(description="Greatest number of detections of one image.")]
    classes: Annotated[list[str], Field(description="Labels that are kept; all if it is empty.")]
    agnostic_nms: Annotated[
        bool, Field(description="Whether boxes of different classes suppress each other, too.")
    ]
    track: Annotated[bool, Field(description="Whether detections get track ids.")]


class SessionDescription(typing_extensions.TypedDict):
    """What a client learns of its session, in ``welcome`` or in the answer to its offer."""

    session: Annotated[str, Field(description="The id of the session.")]
    resumed: Annotated[bool, Field(description="Whether an earlier session continues.")]
    model: ModelDescription
    params: EffectiveParams


class Welcome(SessionDescription):
    """Answer to ``hello``. Sessions over WebRTC have no ``limits`` and no ``flow``."""

    type: Literal["welcome"]
    limits: NotRequired[ConnectionLimits]
    flow: NotRequired[Grant]


class Configured(TypedDict):
    """Answer to ``configure``. With ``model``, the server has changed the model of the session by itself.

    Results before the message are those of the model before, results after it those of the new one.
    """

    type: Literal["configured"]
    cfg: int
    params: EffectiveParams
    model: NotRequired[ModelDescription]


class Pong(TypedDict):
    """Answer to ``ping``: the client's ``t0``, and when it was received and answered, in microseconds."""

    type: Literal["pong"]
    t0: int | float | str | None
    t1: int
    t2: int


class Flow(TypedDict):
    """The present window and rate of a stream, and why this message is sent now."""

    type: Literal["flow"]
    stream: int
    win: int
    max_fps: float | None
    ack: int
    reason: str


class Timing(TypedDict):
    """How long a frame waited, was inferred, and was in the server altogether, in milliseconds."""

    queue_ms: float
    infer_ms: float
    server_ms: float


class FlowFields(TypedDict):
    """What a result says of its stream: acknowledged so far, window, and drops since the last result."""

    ack: int
    win: int
    dropped: int


class Result(FrameTime, FlowFields):
    """The boxes of one frame. `streams.stream_handle` builds it, without a call of its own for each frame."""

    type: Literal["result"]
    stream: int
    seq: int
    epoch: int
    cfg: int
    width: int
    height: int
    damaged: NotRequired[bool]
    reduced: NotRequired[int]
    boxes: Rows
    #: What the codes in the boxes contain, and their symbologies, by row of `boxes`; absent if nothing is
    #: known.
    text: NotRequired[list[str | None]]
    format: NotRequired[list[str | None]]
    t: Timing


Drop = TypedDict(
    "Drop",
    {
        "type": Literal["drop"],
        "stream": int,
        "from": int,
        "to": int,
        "reason": str,
        "ack": int,
        "win": int,
        "message": NotRequired[str],
    },
)


class Reported(TypedDict):
    """Answer to ``report``: the frame, and whether it is kept as a sample; if not, why."""

    type: Literal["reported"]
    stream: int
    seq: int
    taken: bool
    sample: NotRequired[str]
    reason: NotRequired[str]
    message: NotRequired[str]
    retry_ms: NotRequired[int]


class Error(TypedDict):
    """Something is wrong with a message or a frame; after a fatal one the connection closes."""

    type: Literal["error"]
    code: str
    message: str
    fatal: bool
    field: NotRequired[str]
    stream: NotRequired[int]
    seq: NotRequired[int]
    ack: NotRequired[int]
    win: NotRequired[int]
    retry_ms: NotRequired[int]


class Bye(TypedDict):
    """The server ends the session.

    Sessions over WebRTC name the reason for programs in ``ending``, and a stream that moves to another
    replica has ``moved`` there over any transport.
    """

    type: Literal["bye"]
    code: int
    reason: str
    ending: NotRequired[str]
    reconnect_ms: NotRequired[int]


ServerMessage = Welcome | Configured | Pong | Flow | Result | Drop | Reported | Error | Bye


def welcome(
    session: SessionDescription, limits: ConnectionLimits | None = None, flow: Grant | None = None
) -> Welcome:
    """Build ``welcome``."""
    message: Welcome = {
        "type": "welcome",
        "session": session["session"],
        "resumed": session["resumed"],
        "model": session["model"],
        "params": session["params"],
    }
    if limits is not None:
        message["limits"] = limits
    if flow is not None:
        message["flow"] = flow
    return message


def configured(cfg: int, params: EffectiveParams, model: ModelDescription | None = None) -> Configured:
    """Build ``configured``; ``model`` is the new model of the session, if it has changed."""
    message: Configured = {"type": "configured", "cfg": cfg, "params": params}
    if model is not None:
        message["model"] = model
    return message


def classes_lost(labels: tuple[str, ...], wanted: int) -> Error:
    """Build ``error`` for a session whose new model lacks ``labels``, some of the ``wanted`` ones.

    Without any of them, the model would find nothing that the client asked for, so all classes are kept.
    """
    rest = "the others are kept" if len(labels) < wanted else "so all of its classes are kept now"
    shown = ", ".join(repr(label) for label in labels[:10])
    text = f"the new model has no class {shown}, which `params.classes` names; {rest}"
    return error("classes_lost", text, field="params.classes")


def pong(t0: int | float | str | None, received_s: float, answered_s: float) -> Pong:
    """Build ``pong`` from monotonic seconds."""
    return {"type": "pong", "t0": t0, "t1": int(received_s * 1e6), "t2": int(answered_s * 1e6)}


def flow(stream: int, win: int, max_fps: float | None, ack: int, reason: str) -> Flow:
    """Build ``flow``."""
    return {"type": "flow", "stream": stream, "win": win, "max_fps": max_fps, "ack": ack, "reason": reason}


def drop(stream: int, first: int, last: int, reason: str, ack: int, win: int, text: str = "") -> Drop:
    """Build ``drop`` for the frames ``first`` to ``last``; ``text`` says more about the reason."""
    message: Drop = {
        "type": "drop",
        "stream": stream,
        "from": first,
        "to": last,
        "reason": reason,
        "ack": ack,
        "win": win,
    }
    if text:
        message["message"] = text
    return message


def reported(
    stream: int,
    seq: int,
    *,
    taken: bool,
    sample: str = "",
    reason: str = "",
    text: str = "",
    retry_s: float = 0.0,
) -> Reported:
    """Build ``reported``; ``reason`` and its ``text`` say why the frame was not taken."""
    message: Reported = {"type": "reported", "stream": stream, "seq": seq, "taken": taken}
    if sample:
        message["sample"] = sample
    if reason:
        message["reason"] = reason
        message["message"] = text
    if retry_s:
        message["retry_ms"] = math.ceil(retry_s * 1000)
    return message


def error(
    code: str,
    text: str,
    *,
    fatal: bool = False,
    field: str = "",
    stream: int | None = None,
    seq: int | None = None,
    retry_ms: int | None = None,
) -> Error:
    """Build ``error``; ``stream`` and ``seq`` name the frame that it is about, if any."""
    message: Error = {"type": "error", "code": code, "message": text, "fatal": fatal}
    if field:
        message["field"] = field
    if stream is not None:
        message["stream"] = stream
    if seq is not None:
        message["seq"] = seq
    if retry_ms is not None:
        message["retry_ms"] = retry_ms
    return message


def protocol_error(fault: ProtocolError, *, fatal: bool = False) -> Error:
    """Build ``error`` for a message that breaks the protocol."""
    return error(fault.code, str(fault), fatal=fatal, field=fault.field)


def unknown_field(name: str, message_type: str) -> Error:
    """Build ``error`` for a field that is ignored because the protocol does not have it."""
    text = f"field `{name}` of {message_type} is not known and was ignored"
    return error("unknown_field", text, field=name)


def rate_limited(text: str) -> Error:
    """Build ``error`` for a message that is ignored because it came too soon after others."""
    return error("rate_limited", text, retry_ms=1000)


def bye(code: int, reason: str, *, ending: str = "", reconnect_ms: int | None = None) -> Bye:
    """Build ``bye``; ``reconnect_ms`` is when the client should come back."""
    message: Bye = {"type": "bye", "code": code, "reason": reason}
    if ending:
        message["ending"] = ending
    if reconnect_ms is not None:
        message["reconnect_ms"] = reconnect_ms
    return message
