"""What a worker and its video decoder processes say to each other: fixed binary messages. Pure.

The worker checks all that comes back: a decoder may have been taken over by the video that it decodes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from streamer.decoding.messages import MalformedMessage
from streamer.protocol.wire import Codec, DropReason
from streamer.webrtc.video_header import MAX_PIXELS, MAX_SIDE_PX

MAX_MESSAGE_BYTES = 2048
_MAX_TEXT_BYTES = 600

_REQUEST = struct.Struct("<BBBxIQQQ")
_ANSWER = struct.Struct("<BBxxIQQQIII")
_REASONS = tuple(DropReason)
_CODECS = {Codec.VP8, Codec.H264}


class Request(IntEnum):
    """What a worker asks."""

    #: Decode a frame of a stream, in order; `fresh` where it follows a gap.
    FRAME = 1
    #: A picture is not needed any more: its memory is free.
    RELEASE = 2
    #: A stream has ended.
    CLOSE = 3


class Answer(IntEnum):
    """What a decoder answers."""

    #: A frame gave a picture, which lies at an offset.
    PICTURE = 1
    #: A frame gave none; the text says what is wrong with the video.
    NO_PICTURE = 2
    #: A frame has been read: its input memory is free. Its picture may come later.
    READ = 3


class Layout(IntEnum):
    """How the pixels of a picture lie in memory."""

    #: Planes Y, U and V, without gaps; both sides are even.
    I420 = 0
    #: Rows of blue, green and red.
    BGR = 1


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """One request; fields that a kind does not use are 0."""

    kind: Request
    stream: int
    codec: Codec = Codec.VP8
    fresh: bool = False
    #: Number of the frame, rising within the process.
    number: int = 0
    #: Where the frame, or the released picture, lies, and its length in bytes.
    offset: int = 0
    length: int = 0


@dataclass(frozen=True, slots=True)
class VideoAnswer:
    """One answer; fields that a kind does not use are 0. Sizes in pixels."""

    kind: Answer
    stream: int
    number: int
    offset: int = 0
    width: int = 0
    height: int = 0
    layout: Layout = Layout.I420
    reason: DropReason = DropReason.DECODE_ERROR
    text: str = ""
    #: Processor time that decoding took, microseconds; of READ alone.
    cpu_us: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the picture in memory."""
        return picture_bytes(self.width, self.height, self.layout)


def picture_bytes(width: int, height: int, layout: Layout) -> int:
    """Return the bytes of a picture."""
    pixels = width * height
    return pixels * 3 if layout is Layout.BGR else pixels * 3 // 2


def pack_request(request: VideoRequest) -> bytes:
    """Return the message of a request."""
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
    """Return the request of a message. Raises MalformedMessage."""
    try:
        kind, codec, fresh, stream, number, offset, length = _REQUEST.unpack(data)
        return VideoRequest(Request(kind), stream, Codec(codec), bool(fresh), number, offset, length)
    except (struct.error, ValueError) as error:
        raise MalformedMessage(f"a request that does not parse: {error}") from error


def pack_answer(answer: VideoAnswer) -> bytes:
    """Return the message of an answer; its text is cut."""
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
    """Return the answer in a message, its picture inside of ``memory_bytes``. Raises MalformedMessage."""
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
    if answer.kind is Answer.PICTURE:
        _check_picture(answer, memory_bytes)
    return answer


def _check_picture(answer: VideoAnswer, memory_bytes: int) -> None:
    width, height = answer.width, answer.height
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX and width * height <= MAX_PIXELS):
        raise MalformedMessage(f"a picture of {width}x{height} pixels")
    if answer.layout is Layout.I420 and (width % 2 or height % 2):
        raise MalformedMessage(f"planes of {width}x{height} pixels")
    if answer.offset + answer.nbytes > memory_bytes:
        raise MalformedMessage("a picture beyond the memory of pictures")
