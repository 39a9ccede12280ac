"""The binary messages between a worker and its video decoder processes. Pure.

The worker checks every answer, because a malicious video may have compromised the decoder.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from streamer.decoding.messages import MalformedMessage
from streamer.protocol.wire import Codec, DropReason
from streamer.webrtc.depacketizer import MAX_PIXELS, MAX_SIDE_PX

MAX_MESSAGE_BYTES = 2048
_MAX_TEXT_BYTES = 600

_REQUEST = struct.Struct("<BBBxIQQQ")
_ANSWER = struct.Struct("<BBxxIQQQIII")
_REASONS = tuple(DropReason)
_CODECS = {Codec.VP8, Codec.H264}


class Request(IntEnum):
    """The kinds of requests that a worker sends."""

    #: Decode a frame of a stream, in order; `fresh` if it follows a gap.
    FRAME = 1
    #: Free the memory of a decoded frame.
    RELEASE = 2
    #: A stream has ended.
    CLOSE = 3


class Answer(IntEnum):
    """The kinds of answers that a decoder sends."""

    #: A frame was decoded; its pixels are at an offset.
    DECODED = 1
    #: A frame was not decoded; the text says what is wrong with the video.
    NOT_DECODED = 2
    #: A frame was read, so its input memory is free. Its outcome may come later.
    READ = 3


class Layout(IntEnum):
    """The memory layout of a decoded frame."""

    #: Planes Y, U and V without padding; width and height are even.
    I420 = 0
    #: Rows of blue, green and red.
    BGR = 1


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """One request. Fields that its kind does not use are 0."""

    kind: Request
    stream: int
    codec: Codec = Codec.VP8
    fresh: bool = False
    #: Number of the frame; numbers rise within a process.
    number: int = 0
    #: Offset of the encoded frame, or of the decoded frame to free, and its length in bytes.
    offset: int = 0
    length: int = 0


@dataclass(frozen=True, slots=True)
class VideoAnswer:
    """One answer. Fields that its kind does not use are 0. Sizes are in pixels."""

    kind: Answer
    stream: int
    number: int
    offset: int = 0
    width: int = 0
    height: int = 0
    layout: Layout = Layout.I420
    reason: DropReason = DropReason.DECODE_ERROR
    text: str = ""
    #: Processor time that decoding took, in microseconds; only in READ.
    cpu_us: int = 0

    @property
    def nbytes(self) -> int:
        """Size of the decoded frame in bytes."""
        return decoded_bytes(self.width, self.height, self.layout)


def decoded_bytes(width: int, height: int, layout: Layout) -> int:
    """Return the size of a decoded frame in bytes."""
    pixels = width * height
    return pixels * 3 if layout is Layout.BGR else pixels * 3 // 2


def pack_request(request: VideoRequest) -> bytes:
    """Encode a request."""
    return _REQUEST.pack(
        request.kind,
        request.codec,
        request.fresh,
        request.stream,
        request.number,
        request.offset,
        request.length,
    )


def unpack_request(data: bytes) -> VideoRequest:
    """Decode a request. Raises MalformedMessage."""
    try:
        kind, codec, fresh, stream, number, offset, length = _REQUEST.unpack(data)
        return VideoRequest(Request(kind), stream, Codec(codec), bool(fresh), number, offset, length)
    except (struct.error, ValueError) as error:
        raise MalformedMessage(f"a request that does not parse: {error}") from error


def pack_answer(answer: VideoAnswer) -> bytes:
    """Encode an answer; a long text is cut."""
    head = _ANSWER.pack(
        answer.kind,
        answer.layout,
        answer.stream,
        answer.number,
        answer.offset,
        _REASONS.index(answer.reason),
        answer.width,
        answer.height,
        answer.cpu_us,
    )
    return head + answer.text.encode(errors="replace")[:_MAX_TEXT_BYTES]


def unpack_answer(data: bytes, memory_bytes: int) -> VideoAnswer:
    """Decode an answer. Raises MalformedMessage, also for a decoded frame beyond ``memory_bytes``."""
    try:
        kind, layout, stream, number, offset, reason, width, height, cpu_us = _ANSWER.unpack_from(data)
        text = data[_ANSWER.size :].decode(errors="replace")
        answer = VideoAnswer(
            Answer(kind),
            stream,
            number,
            offset,
            width,
            height,
            Layout(layout),
            _REASONS[reason],
            text,
            cpu_us,
        )
    except (struct.error, ValueError, IndexError) as error:
        raise MalformedMessage(f"an answer that does not parse: {error}") from error
    if answer.kind is Answer.DECODED:
        _check_decoded(answer, memory_bytes)
    return answer


def _check_decoded(answer: VideoAnswer, memory_bytes: int) -> None:
    width, height = answer.width, answer.height
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX and width * height <= MAX_PIXELS):
        raise MalformedMessage(f"a decoded frame of {width}x{height} pixels")
    if answer.layout is Layout.I420 and (width % 2 or height % 2):
        raise MalformedMessage(f"planes of {width}x{height} pixels")
    if answer.offset + answer.nbytes > memory_bytes:
        raise MalformedMessage("a decoded frame beyond the memory for decoded frames")
