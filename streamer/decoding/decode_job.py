"""Defines one image that the pool processes, and its possible outcomes."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from inference.ipc.ring import FrameRing
from inference.preprocess.letterbox import ModelInput
from streamer.decoding.decoder_watchdog import DECODE_CPU_LIMIT_S
from streamer.decoding.messages import Answer, Task, Verdict
from streamer.imaging.image_header import ImageError, ImageErrorCode, PixelLimits

log = logging.getLogger("streamer.decoding")

#: An image is remembered as harmless only if decoding it took fewer milliseconds of processor time than
#: this. A slower one could exceed the limit on a machine whose caches and clock are worse at that moment.
HARMLESS_CPU_MS = DECODE_CPU_LIMIT_S * 1e3 / 10
MAX_HARMLESS = 256
_STEP_BYTES = 64 << 10
_CODES = tuple(ImageErrorCode)


class DecoderLost(Exception):
    """The decoder ended while it held the image, for a reason other than the image."""


Outcome = Answer | ImageError | DecoderLost


@dataclass(slots=True, eq=False)
class Work:
    """Holds one image for a decoder, and what to do with it."""

    data: bytes | memoryview
    task: Task
    rotation: int
    #: Slot of the ring; used by task LETTERBOX only.
    slot: int
    target: ModelInput
    limits: PixelLimits
    #: Called once, on the event loop, never from within `submit`.
    done: Callable[[Outcome], None]
    #: Descriptor of the memory of tasks that use their own; -1 if there is none. The caller owns it.
    descriptor: int = -1
    number: int = 0
    #: Offset of the image in the input memory; None while it waits for room.
    offset: int | None = None
    #: When it was sent to the decoders, in monotonic seconds; 0 while it waits for room.
    sent_at: float = 0.0
    #: Whether nobody waits for its result. It is not sent again, and its bytes are not refused if it fails.
    optional: bool = False
    #: Whether it was already sent to fresh decoders once, because the first ones were stuck.
    sent_again: bool = False
    #: Work with the same bytes that waits for the outcome of this one, each with its ring.
    followers: list[tuple[FrameRing | None, Work]] = field(default_factory=list)


class DuplicateFinder:
    """Finds work with the same bytes among the images that decoders hold.

    Only images of equal length are compared. Many clients may send the same bytes, such as the test image of
    a load generator. They wait for each other only once, because this class remembers the last `MAX_HARMLESS`
    images that had duplicates and were decoded quickly.
    """

    def __init__(self) -> None:
        self._by_length: dict[int, list[Work]] = {}
        #: Digests of bytes that had duplicates and did no harm, oldest first.
        self._harmless: OrderedDict[bytes, None] = OrderedDict()

    def find(self, data: bytes | memoryview) -> Work | None:
        """Return the work with these bytes whose outcome must be awaited; None if there is none."""
        same_length = self._by_length.get(len(data))
        if same_length is None:
            return None
        found = next((work for work in same_length if _equal(work.data, data)), None)
        if found is None or hashlib.sha256(data).digest() in self._harmless:
            return None
        return found

    def add(self, work: Work) -> None:
        """Record work that is given to a decoder."""
        self._by_length.setdefault(len(work.data), []).append(work)

    def remove(self, work: Work, outcome: Outcome) -> None:
        """Remove work that a decoder has answered."""
        if work.followers and isinstance(outcome, Answer) and outcome.cpu_ms < HARMLESS_CPU_MS:
            self._harmless[hashlib.sha256(work.data).digest()] = None
            if len(self._harmless) > MAX_HARMLESS:
                self._harmless.popitem(last=False)
        same_length = self._by_length[len(work.data)]
        same_length.remove(work)
        if not same_length:
            del self._by_length[len(work.data)]


def _equal(one: bytes | memoryview, other: bytes | memoryview) -> bool:
    """Return whether two byte sequences of equal length are equal.

    Each step copies a piece to `bytes`, because memory views are compared element by element, which is slow,
    and a copy of the whole image could be large.
    """
    steps = range(0, len(one), _STEP_BYTES)
    return all(bytes(one[at : at + _STEP_BYTES]) == bytes(other[at : at + _STEP_BYTES]) for at in steps)


def decoder_crash_error() -> ImageError:
    """Return the error for bytes that have crashed a decoder."""
    return ImageError(ImageErrorCode.DAMAGED, "the image is damaged: decoding it ended the decoder")


def decode_timeout_error() -> ImageError:
    """Return the error for bytes that take a decoder too much processor time."""
    return ImageError(
        ImageErrorCode.DAMAGED,
        f"the image takes more than {DECODE_CPU_LIMIT_S:g} s of processor time to decode, which is the limit",
    )


def outcome_of(answer: Answer) -> Outcome:
    """Convert a decoder's answer into the outcome for the caller."""
    if answer.verdict is Verdict.REFUSED:
        if answer.code >= len(_CODES):
            return DecoderLost("the decoder gave a refusal without a reason")
        return ImageError(_CODES[answer.code], answer.text)
    if answer.verdict is Verdict.NO_MEMORY:
        return ImageError(ImageErrorCode.TOO_LARGE, "the image takes more memory to decode than is allowed")
    if answer.verdict is Verdict.FAULT:
        log.error("a decoder failed on an image: %s", answer.text)
        return DecoderLost("the decoder failed")
    return answer
