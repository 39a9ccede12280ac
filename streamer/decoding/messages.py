"""Messages between a worker and its decoder processes: fixed binary structures over one socket. Pure.

The worker validates every field of an answer, because a decoder may have been taken over by the bytes that it
decodes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from inference.models.model import Placement
from streamer.imaging.pixel_limits import SCALES

#: Size of the longest message; both sides read with this size.
MAX_MESSAGE_BYTES = 2048
_MAX_TEXT_BYTES = 600
#: Largest side of an image, whatever the settings allow.
_MAX_SIDE_PX = 65_535

#: Task, rotation, placement, pad value, job, offset, length, slot, input width and height, limits of pixels,
#: side, pixels before a reduction, and memory.
_JOB = struct.Struct("<BBBBQQIIHHQIQQ")
#: Verdict, damaged, code, reduction, job, width, height, milliseconds of decoding, milliseconds of processor
#: time.
_ANSWER = struct.Struct("<BBBBQIIff")

_PLACEMENTS = tuple(Placement)


class MalformedMessage(Exception):
    """A message that the other side cannot have sent; the text says what is wrong with it."""


class Task(IntEnum):
    """What a decoder does with the bytes of an image."""

    #: Decode into a slot of the frame ring, placed as the model requires.
    LETTERBOX = 1
    #: Decode, draw boxes and encode as JPEG, into memory that comes with the message.
    ANNOTATE = 2
    #: Decode to pixels, into memory that comes with the message.
    PIXELS = 3


class Verdict(IntEnum):
    """How a job ended."""

    DONE = 1
    #: The bytes are no image that may be decoded; `code` and the text say why.
    REFUSED = 2
    #: Decoding needed more memory than a decoder may use.
    NO_MEMORY = 3
    #: A fault of this project, described by the text.
    FAULT = 4
    #: Not an answer to a job: the decoder with that key has entered its sandbox and takes jobs; the text is
    #: JSON.
    READY = 5


#: Dictionaries by number, because looking up an enumeration takes three calls.
_TASKS, _VERDICTS = {each.value: each for each in Task}, {each.value: each for each in Verdict}


# Nobody changes a job, but a frozen class would make each construction three times as slow.
@dataclass(slots=True)
class Job:
    """One image to decode. Sizes are in pixels and bytes; the limits are those of `image_header`."""

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
    """The outcome of a job. Sizes are those of the upright image; of what was decoded in task PIXELS."""

    verdict: Verdict
    number: int
    width: int = 0
    height: int = 0
    damaged: bool = False
    decode_ms: float = 0.0
    #: Index of the error code in `image_header.ImageErrorCode`.
    code: int = 0
    text: str = ""
    #: Processor time of the decoder in milliseconds. The job is charged this, independent of how busy the
    #: machine was.
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
    """Return the message of an answer; its text is truncated."""
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
