"""Control messages of ``detect.v1`` as a client may send them, checked field by field. Pure.

Unknown fields never break a message (a newer client may send more than we know), but they are reported,
so that a misspelt ``conf_treshold`` does not go unnoticed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from inference.core.detection_params import DetectionParams
from streamer.protocol.message_values import MAX_PATH_CHARS, path_of, shorten, show
from streamer.protocol.wire import (
    CODEC_NAMES,
    IMAGE_CODECS,
    MAX_SEQ,
    MAX_STREAMS,
    Codec,
    Frame,
    FrameFlag,
    ProtocolError,
)

#: Number of labels that an error quotes.
_QUOTED_LABELS = 12
#: Largest number of unknown fields that are reported for one message.
MAX_UNKNOWN_NAMED = 20
#: Largest number of characters of a clock value in text form, which the server only echoes.
_MAX_CLOCK_CHARS = 100

Threshold = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
MAX_DETECTIONS = 1000
MAX_CLASSES = 1000
#: Largest number of characters of a stream's name.
MAX_NAME_CHARS = 100


def _numbers(acks: object) -> object:
    """Turn keys that are stream numbers into integers, because keys in JSON are always text."""
    if not isinstance(acks, dict):
        return acks
    if len(acks) > MAX_STREAMS:
        raise ValueError(f"at most {MAX_STREAMS} streams")
    return {
        int(key) if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 3 else key: value
        for key, value in acks.items()
    }


StreamNumber = Annotated[int, Field(ge=0, lt=MAX_STREAMS)]
Ack = Annotated[int, Field(ge=0, le=MAX_SEQ)]
Clock = int | float | Annotated[str, Field(max_length=_MAX_CLOCK_CHARS)]


class Message(BaseModel):
    """Base of all messages: strict types, and unknown fields that are kept to be reported."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    type: str

    def unknown_fields(self) -> list[str]:
        """Return the dotted names of the first fields that ``detect.v1`` does not know, long ones cut."""
        return [shorten(name, MAX_PATH_CHARS) for name in islice(_unknown(self, ""), MAX_UNKNOWN_NAMED)]


class Part(BaseModel):
    """A map inside a message."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class Params(Part):
    """Thresholds and filters. Absent fields keep their value."""

    # The OpenAPI document takes bounds and descriptions from here, also for the parameters of POSTs.
    conf_threshold: Threshold | None = Field(
        None,
        description="Detections with a lower score are left out. "
        "The default is what the model recommends, else 0.25.",
    )
    iou_threshold: Threshold | None = Field(
        None, description="Of two boxes of a class that overlap more (IoU), the weaker one is left out."
    )
    max_detections: int | None = Field(
        None, ge=1, le=MAX_DETECTIONS, description="Greatest number of detections of one image."
    )
    classes: list[str | int] | None = Field(
        None, max_length=MAX_CLASSES, description="Labels or class ids to keep; all when absent."
    )
    agnostic_nms: bool | None = Field(
        None,
        description="Whether boxes of different classes that overlap more suppress each other, too. "
        "The default is what the model recommends, else false.",
    )
    track: bool | None = Field(None, description="Whether detections get track ids.")


class ClientInfo(Part):
    """Name and version of the client, for logs only."""

    name: str = Field("", max_length=100, description="Name of the client.")
    version: str = Field("", max_length=100, description="Version of the client.")


class StreamOffer(Part):
    """One stream that the client will send on this connection."""

    id: int = Field(ge=0, lt=MAX_STREAMS, description="Number of the stream, by which messages name it.")
    codec: str = Field("jpeg", description="Codec of the frames.")
    mode: Literal["live", "all"] = Field(
        "live", description="Whether newer frames replace those that wait (`live`), or every frame counts."
    )
    fps: float | None = Field(
        None, gt=0, le=1000, allow_inf_nan=False, description="Frames per second that the client would send."
    )
    name: str = Field(
        "",
        max_length=MAX_NAME_CHARS,
        description="Name under which samples of the stream are stored; a camera keeps it over connections.",
    )
    collect: bool = Field(True, description="Whether these images may be kept as samples for labelling.")


class ResumeOffer(Part):
    """The session to resume, and the acknowledged sequence number of each stream by its id."""

    session: str = Field(min_length=1, max_length=64)
    acks: Annotated[dict[StreamNumber, Ack], BeforeValidator(_numbers)] | None = None


class Hello(Message):
    """First message of a connection."""

    token: str | None = Field(None, max_length=4096)
    client: ClientInfo | None = None
    streams: list[StreamOffer] = Field(
        default_factory=lambda: [StreamOffer(id=0)], min_length=1, max_length=MAX_STREAMS
    )
    params: Params = Field(default_factory=Params)
    resume: ResumeOffer | None = None
    collect: bool = Field(
        True, description="Whether frames of this connection may be kept as samples for labelling."
    )


class Configure(Message):
    """Change parameters during a stream. Every result computed with them has the same ``cfg``."""

    cfg: int = Field(ge=0, le=MAX_SEQ)
    params: Params


class Ping(Message):
    """Probe of the clock. ``t0`` is the sender's time, which is only echoed."""

    t0: Clock | None = None


class Pong(Message):
    """Answer to a ping of the server."""

    t0: Clock | None = None
    t1: int | float | None = None
    t2: int | float | None = None


class Pause(Message):
    """The stream will send nothing for a while."""

    stream: int = Field(0, ge=0, lt=MAX_STREAMS)


class Resume(Message):
    """The stream continues."""

    stream: int = Field(0, ge=0, lt=MAX_STREAMS)


class Report(Message):
    """A person reports that the stream's last result is wrong, or worth labelling."""

    stream: int = Field(0, ge=0, lt=MAX_STREAMS)
    note: str = Field("", max_length=500)


class Bye(Message):
    """The client leaves."""

    code: int = 1000
    reason: str = Field("", max_length=500)


class TextFrame(Message):
    """A frame in text form with base64, for debugging by hand."""

    seq: int = Field(ge=1, le=MAX_SEQ)
    ts: int = Field(0, ge=0, lt=2**64)
    codec: str = "jpeg"
    data: str | bytes
    stream: int = Field(0, ge=0, lt=MAX_STREAMS)
    width: int = Field(0, ge=0, le=65535)
    height: int = Field(0, ge=0, le=65535)
    rotation: int = Field(0, ge=0, le=3)
    epoch: int = Field(0, ge=0, le=65535)

    def to_frame(self) -> Frame:
        """Return the frame. Raises ProtocolError when ``data`` is not base64."""
        payload = self.data
        if isinstance(payload, str):
            try:
                payload = base64.b64decode(payload, validate=True)
            except (binascii.Error, ValueError) as error:
                raise ProtocolError(
                    f"field `data` is not base64: {error}", code="invalid", field="data"
                ) from error
        return Frame(
            codec=codec_of(self.codec, "codec"),
            seq=self.seq,
            ts=self.ts,
            payload=payload,
            width=self.width,
            height=self.height,
            stream=self.stream,
            rotation=self.rotation,
            epoch=self.epoch,
            flags=FrameFlag(0),
        )


_TYPES: dict[str, type[Message]] = {
    "hello": Hello,
    "configure": Configure,
    "ping": Ping,
    "pong": Pong,
    "pause": Pause,
    "resume": Resume,
    "report": Report,
    "bye": Bye,
    "frame": TextFrame,
}


def parse_message(message: dict[str, Any]) -> Message:
    """Validate a decoded map. Raises ProtocolError naming the field, what was found and what is allowed."""
    kind = _TYPES.get(message["type"])
    if kind is None:
        raise ProtocolError(
            f"field `type` is {message['type'][:40]!r}; allowed are {', '.join(_TYPES)}",
            code="unknown_type",
            field="type",
        )
    try:
        return kind.model_validate(message)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = path_of(first["loc"])
        found = f"is {show(first.get('input'))}: {_allowed(str(first['msg']))}"
        if first["type"] == "missing":
            found = "is missing"
        raise ProtocolError(f"field `{field}` {found}", code="invalid", field=field) from error


def _allowed(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _unknown(part: BaseModel, path: str) -> Iterator[str]:
    for name in part.model_extra or {}:
        yield f"{path}{name}"
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            yield from _unknown(value, f"{path}{name}.")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _unknown(item, f"{path}{name}[{index}].")


def codec_of(name: str, field: str) -> Codec:
    """Return the codec of that name. Raises ProtocolError listing the known ones."""
    codec = CODEC_NAMES.get(name)
    if codec is None:
        taken = ", ".join(codec.name.lower() for codec in IMAGE_CODECS)
        raise ProtocolError(
            f"field `{field}` is {name[:40]!r}; allowed are {taken}",
            code="unsupported_codec",
            field=field,
        )
    return codec


def resolve_params(params: Params, before: DetectionParams, labels: tuple[str, ...]) -> DetectionParams:
    """Return ``before`` with what ``params`` changes.

    Raises ProtocolError when a class is neither a label nor a class id of the model.
    """
    class_ids = before.class_ids
    if params.classes is not None:
        numbers = {label: number for number, label in reversed(tuple(enumerate(labels)))}
        class_ids = tuple(
            dict.fromkeys(
                _class_id(item, index, labels, numbers) for index, item in enumerate(params.classes)
            )
        )
    return DetectionParams(
        conf_threshold=_either(params.conf_threshold, before.conf_threshold),
        iou_threshold=_either(params.iou_threshold, before.iou_threshold),
        max_detections=params.max_detections or before.max_detections,
        class_ids=class_ids,
        agnostic_nms=before.agnostic_nms if params.agnostic_nms is None else params.agnostic_nms,
    )


def _either(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _class_id(item: str | int, index: int, labels: tuple[str, ...], numbers: dict[str, int]) -> int:
    if isinstance(item, str) and item in numbers:
        return numbers[item]
    if isinstance(item, int) and 0 <= item < len(labels):
        return item
    shown = ", ".join(labels[:_QUOTED_LABELS]) + (" …" if len(labels) > _QUOTED_LABELS else "")
    raise ProtocolError(
        f"field `params.classes[{index}]` is {show(item)}; "
        f"allowed are class ids 0 to {len(labels) - 1} and labels: {shown}",
        code="invalid",
        field=f"params.classes[{index}]",
    )
