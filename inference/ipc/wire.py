"""Packs and parses the messages between a worker and the inference process, one per SEQPACKET datagram.

This file converts bytes to values and back, without I/O. Both sides check the lengths and ranges of received
messages, and nothing is unpickled. Times are CLOCK_MONOTONIC seconds, which all processes of a machine share.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from inference.core.detection_params import DetectionParams
from inference.core.detections import NO_BOXES, Boxes
from inference.core.errors import WireError

#: Largest part of a text in one message, less than the smallest default socket buffer.
PART_BYTES = 60_000
MAX_MESSAGE_BYTES = 65_536
MAX_DETECTIONS = 1000
MAX_CLASS_ID = 65_535
MAX_DETAIL_BYTES = 1000

_SUBMIT = struct.Struct("<BBBBIQIIdfffHH")
#: Bits of the fourth byte of a SUBMIT message.
_ALONE, _AGNOSTIC, _SHADOW, _INTERACTIVE = 1, 2, 4, 8
#: Messages about a ring: its kind, and the number of the ring.
_RING = struct.Struct("<BB")
_CANCEL = struct.Struct("<BxxxxxxxQ")
_RESULT = struct.Struct("<BBHIQfff")
_FLOAT = np.dtype("<f4")


class Kind(IntEnum):
    """Kind of a message, which is its first byte."""

    HELLO = 1
    ATTACH = 2
    SUBMIT = 3
    CANCEL = 4
    RESULT = 5
    #: Announces that the next message is a further ATTACH, so that its descriptor is received.
    RING_FOLLOWS = 6
    #: The worker has no frame in the ring any more.
    DETACH = 7


class Status(IntEnum):
    """Says how an item has ended."""

    OK = 0
    EXPIRED = 1
    FAILED = 2
    CANCELLED = 3


#: All statuses by number. A lookup in the enumeration would take three function calls.
_STATUSES = tuple(Status)


# No code changes objects of the next two classes, but frozen classes would make each construction three times
# as slow.
@dataclass(slots=True)
class Submit:
    """Describes one frame for the planner: its slot, its client, its parameters and its deadline."""

    request_id: int
    slot: int
    #: Index into the versions of the handshake.
    version: int
    #: True for a POST, False for a frame of a live stream.
    interactive: bool
    #: Identifies the stream within its worker, 32 bits; POSTs share 0.
    stream: int
    #: Latest time at which execution may start.
    deadline: float
    params: DetectionParams
    #: Number of the client that the planner charges, the same in all workers; 32 bits.
    client: int = 0
    #: The client's weight against others of its class, above 0.
    weight: float = 1.0
    #: Whether the frame executes alone, because an earlier process died while it executed this frame.
    alone: bool = False
    #: Whether no client waits for the result, so that the frame runs only while nothing else waits or runs.
    shadow: bool = False
    #: Number of the ring that the slot belongs to, 0 to 255.
    ring: int = 0


@dataclass(slots=True)
class Result:
    """Holds the result of one item. Boxes are in pixels of the model input."""

    request_id: int
    status: Status
    boxes: Boxes
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0
    batch_size: int = 0
    #: Reason of a failure, for logs only; clients never see it.
    detail: str = ""


def pack_submit(item: Submit) -> bytes:
    """Return ``item`` as one message."""
    params = item.params
    head = _SUBMIT.pack(
        Kind.SUBMIT,
        item.version,
        item.ring,
        item.alone * _ALONE
        | params.agnostic_nms * _AGNOSTIC
        | item.shadow * _SHADOW
        | item.interactive * _INTERACTIVE,
        item.slot,
        item.request_id,
        item.stream,
        item.client,
        item.deadline,
        item.weight,
        params.conf_threshold,
        params.iou_threshold,
        params.max_detections,
        len(params.class_ids),
    )
    if not params.class_ids:
        return head
    return head + np.asarray(params.class_ids, dtype="<u2").tobytes()


def unpack_submit(data: bytes) -> Submit:
    """Parse a SUBMIT message. Raises WireError when its length or a value is out of range."""
    if len(data) < _SUBMIT.size:
        raise WireError(f"a submit message has {_SUBMIT.size} bytes at least, this one {len(data)}")
    (
        _,
        version,
        ring,
        flags,
        slot,
        request_id,
        stream,
        client,
        deadline,
        weight,
        conf,
        iou,
        most,
        classes,
    ) = _SUBMIT.unpack_from(data)
    if len(data) != _SUBMIT.size + 2 * classes:
        raise WireError(f"a submit message with {classes} classes has another length than {len(data)}")
    if not (0 <= conf <= 1 and 0 <= iou <= 1 and 1 <= most <= MAX_DETECTIONS):
        raise WireError(f"thresholds out of range: {conf}, {iou}, {most}")
    if flags & ~(_ALONE | _AGNOSTIC | _SHADOW | _INTERACTIVE) or (flags & _ALONE and flags & _SHADOW):
        raise WireError(f"flags {flags} are unknown, or contradict each other")
    if math.isnan(deadline):
        raise WireError("a deadline is a number")
    if not 0 < weight < math.inf:
        raise WireError(f"a weight is finite and above 0, this one is {weight}")
    class_ids = tuple(np.frombuffer(data, dtype="<u2", offset=_SUBMIT.size).tolist()) if classes else ()
    params = DetectionParams(conf, iou, most, class_ids, bool(flags & _AGNOSTIC))
    alone, shadow, interactive = bool(flags & _ALONE), bool(flags & _SHADOW), bool(flags & _INTERACTIVE)
    return Submit(
        request_id, slot, version, interactive, stream, deadline, params, client, weight, alone, shadow, ring
    )


def pack_ring(kind: Kind, number: int) -> bytes:
    """Return a RING_FOLLOWS or DETACH message for the ring of this number."""
    return _RING.pack(kind, number)


def unpack_ring(data: bytes) -> int:
    """Return the ring of a RING_FOLLOWS or DETACH message. Raises WireError when its length is wrong."""
    if len(data) != _RING.size:
        raise WireError(f"a message about a ring has {_RING.size} bytes, this one {len(data)}")
    return int(_RING.unpack(data)[1])


def pack_cancel(request_id: int) -> bytes:
    """Return the message that cancels an item."""
    return _CANCEL.pack(Kind.CANCEL, request_id)


def unpack_cancel(data: bytes) -> int:
    """Return the request id of a CANCEL message. Raises WireError when its length is wrong."""
    if len(data) != _CANCEL.size:
        raise WireError(f"a cancel message has {_CANCEL.size} bytes, this one {len(data)}")
    return int(_CANCEL.unpack(data)[1])


def pack_result(result: Result) -> bytes:
    """Return ``result`` as one message: a header, then boxes as float32 rows, or the text of the failure."""
    count = 0
    if result.status is not Status.OK:
        body = result.detail.encode(errors="replace")[:MAX_DETAIL_BYTES]
    elif count := len(result.boxes):
        body = np.ascontiguousarray(result.boxes, dtype="<f4").tobytes()
    else:
        body = b""
    head = _RESULT.pack(
        Kind.RESULT,
        result.status,
        result.batch_size,
        count,
        result.request_id,
        result.queue_ms,
        result.inference_ms,
        result.postprocess_ms,
    )
    return head + body


def unpack_result(data: bytes) -> Result:
    """Parse a RESULT message. Raises WireError on wrong lengths, counts or values that are not finite."""
    if len(data) < _RESULT.size:
        raise WireError(f"a result message has {_RESULT.size} bytes at least, this one {len(data)}")
    _, raw_status, batch_size, count, request_id, queue_ms, inference_ms, postprocess_ms = (
        _RESULT.unpack_from(data)
    )
    if raw_status >= len(_STATUSES):
        raise WireError(f"unknown result status {raw_status}")
    status = _STATUSES[raw_status]
    if not (0 <= queue_ms < math.inf and 0 <= inference_ms < math.inf and 0 <= postprocess_ms < math.inf):
        raise WireError(f"times out of range: {queue_ms}, {inference_ms}, {postprocess_ms}")
    boxes = NO_BOXES
    detail = ""
    if status is not Status.OK:
        detail = data[_RESULT.size :][:MAX_DETAIL_BYTES].decode(errors="replace")
    elif count > MAX_DETECTIONS or len(data) != _RESULT.size + 24 * count:
        raise WireError(f"a result with {count} boxes has another length than {len(data)}")
    elif count:
        boxes = np.frombuffer(data, _FLOAT, -1, _RESULT.size).reshape(count, 6)
        if not np.isfinite(boxes).all():
            raise WireError("a result holds values that are not finite")
        classes = boxes[:, 5]
        if classes.min() < 0 or classes.max() > MAX_CLASS_ID:
            raise WireError(f"a result holds class ids outside 0 to {MAX_CLASS_ID}")
    return Result(request_id, status, boxes, queue_ms, inference_ms, postprocess_ms, batch_size, detail)


def pack_text(kind: Kind, message: dict[str, Any]) -> list[bytes]:
    """Return a handshake as JSON in one or more messages. The second byte is 1 if more parts follow."""
    text = json.dumps(message).encode()
    parts = [text[start : start + PART_BYTES] for start in range(0, len(text), PART_BYTES)]
    last = len(parts) - 1
    return [bytes((kind, index < last)) + part for index, part in enumerate(parts)]


class TextAssembler:
    """Joins the parts of one handshake, up to ``limit_bytes``."""

    def __init__(self, limit_bytes: int = 8 << 20) -> None:
        self._limit_bytes = limit_bytes
        self._text = bytearray()

    def feed(self, data: bytes) -> dict[str, Any] | None:
        """Add one message; return the handshake when it is complete. Raises WireError for invalid data."""
        if len(data) < 3:
            raise WireError(f"a part of a handshake has 3 bytes at least, this one {len(data)}")
        self._text += data[2:]
        if len(self._text) > self._limit_bytes:
            raise WireError(f"a handshake is larger than {self._limit_bytes} bytes")
        if data[1]:
            return None
        text = bytes(self._text)
        self._text.clear()
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise WireError(f"a handshake is not JSON: {error}") from error
        if not isinstance(message, dict):
            raise WireError("a handshake is not a map")
        return message
