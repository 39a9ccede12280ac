"""Packs the messages between a worker and its decoders: fixed binary structures over one socket. Pure.

The worker validates every field of an answer, because a decoder may have been taken over by the bytes that it
decodes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from inference.models.model import Placement
from streamer.imaging.pixel_limits import SCALES

#: Size of the longest message; both sides read up to this many bytes at once.
MAX_MESSAGE_BYTES = 2048
_MAX_TEXT_BYTES = 600
#: Largest side of an image, whatever the settings allow.
_MAX_SIDE_PX = 65_535

#: Task, rotation, placement, pad value, number of the job, offset, length, slot, width and height of the
#: model's input, and the limits: pixels, longer side, pixels of images that are reduced, bytes of memory.
_JOB = struct.Struct("<BBBBQQIIHHQIQQ")
#: Verdict, damaged, code, reduction, number of the job, width, height, milliseconds of decoding, milliseconds
#: of processor time.
_ANSWER = struct.Struct("<BBBBQIIff")

_PLACEMENTS = tuple(Placement)


class MalformedMessage(Exception):
    """A message that our own code cannot have sent; the text says what is wrong with it."""


class Task(IntEnum):
    """Names what a decoder does with the bytes of an image."""

    #: Decode into a slot of the frame ring, placed as the model requires.
    LETTERBOX = 1
    #: Decode, draw boxes and encode as JPEG, into memory that comes with the message.
    ANNOTATE = 2
    #: Decode to pixels, into memory that comes with the message.
    PIXELS = 3
    #: Decode, and read the codes in boxes, into memory that comes with the message.
    READ_CODES = 4
    #: The same for pixels instead of an encoded image: the grey rows of a video frame, as wide and high as
    #: the model's input that the job names.
    READ_GREY = 5


class Verdict(IntEnum):
    """Names how a job ended."""

    DONE = 1
    #: The bytes are not an image that may be decoded; `code` and the text say why.
    REFUSED = 2
    #: Decoding needed more memory than a decoder may use.
    NO_MEMORY = 3
    #: The code of the decoder failed; the text names the exception.
    FAULT = 4
    #: Not an answer to a job: the decoder whose key is in `number` has entered its sandbox and takes jobs.
    #: The text names its protections as JSON.
    READY = 5


#: The members by number, because calling an enumeration to look up a member takes three calls.
_TASKS, _VERDICTS = {each.value: each for each in Task}, {each.value: each for each in Verdict}


# Nobody changes a job, but a frozen class would make each construction three times as slow.
@dataclass(slots=True)
class Job:
    """Describes one image to decode. The limits, in pixels and bytes, are those of `image_header`."""

    task: Task
    number: int
    #: Offset of the encoded bytes in the input memory.
    offset: int
    length: int
    #: Clockwise quarter turns after the EXIF orientation.
    rotation: int
    #: Slot of the frame ring, and how the image is placed in the model's input.
    slot: int
    placement: Placement
    pad_value: int
    input_width: int
    input_height: int
    image_px: int
    image_side_px: int
    reducible_px: int
    decode_bytes: int


@dataclass(slots=True)
class Answer:
    """Holds the outcome of a job.

    ``width`` and ``height`` are those of the upright image at full size; for task PIXELS, those of the pixels
    that were written.
    """

    verdict: Verdict
    number: int
    width: int = 0
    height: int = 0
    damaged: bool = False
    decode_ms: float = 0.0
    #: Index of the error code in `image_header.ImageErrorCode`.
    code: int = 0
    text: str = ""
    #: Processor time of the decoder in milliseconds. The client is charged for it, and not for the elapsed
    #: time, which depends on how busy the machine was.
    cpu_ms: float = 0.0
    #: The image was decoded at 1/``reduced`` of its size.
    reduced: int = 1


def pack_job(job: Job) -> bytes:
    """Return the message of a job."""
    return _JOB.pack(
        job.task,
        job.rotation,
        _PLACEMENTS.index(job.placement),
        job.pad_value,
        job.number,
        job.offset,
        job.length,
        job.slot,
        job.input_width,
        job.input_height,
        job.image_px,
        job.image_side_px,
        job.reducible_px,
        job.decode_bytes,
    )


def unpack_job(data: bytes) -> Job:
    """Return the job of a message. Raises MalformedMessage."""
    try:
        task, rotation, placement, pad_value, number, offset, length, slot, *sizes = _JOB.unpack(data)
        return Job(
            _TASKS[task], number, offset, length, rotation, slot, _PLACEMENTS[placement], pad_value, *sizes
        )
    except (struct.error, KeyError, IndexError) as error:
        raise MalformedMessage(f"a job that does not parse: {error}") from error


def pack_answer(answer: Answer) -> bytes:
    """Return the message of an answer, with its text truncated to `_MAX_TEXT_BYTES`."""
    head = _ANSWER.pack(
        answer.verdict,
        answer.damaged,
        answer.code,
        answer.reduced,
        answer.number,
        answer.width,
        answer.height,
        answer.decode_ms,
        answer.cpu_ms,
    )
    return head + answer.text.encode(errors="replace")[:_MAX_TEXT_BYTES]


def unpack_answer(data: bytes) -> Answer:
    """Return the answer in a message, with every field checked against its range. Raises MalformedMessage."""
    try:
        verdict, damaged, code, reduced, number, width, height, decode_ms, cpu_ms = _ANSWER.unpack_from(data)
        kind = _VERDICTS[verdict]
    except (struct.error, KeyError) as error:
        raise MalformedMessage(f"an answer that does not parse: {error}") from error
    if kind is Verdict.DONE and not (1 <= width <= _MAX_SIDE_PX and 1 <= height <= _MAX_SIDE_PX):
        raise MalformedMessage(f"an image of {width}x{height} pixels")
    if kind is Verdict.DONE and reduced not in SCALES:
        raise MalformedMessage(f"an image reduced by {reduced}")
    if not (0 <= decode_ms < 1e6 and 0 <= cpu_ms < 1e6):  # rejects NaN, too
        raise MalformedMessage(f"a decode time of {decode_ms} ms, {cpu_ms} of the processor")
    text = data[_ANSWER.size :].decode(errors="replace")
    return Answer(kind, number, width, height, bool(damaged), decode_ms, code, text, cpu_ms, reduced)
