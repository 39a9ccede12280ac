"""What the pool is asked to do with one image, and how that may end."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from inference.ipc.ring import FrameRing
from inference.preprocess.letterbox import ModelInput
from streamer.decoding.messages import Answer, Task, Verdict
from streamer.decoding.watchdog import DECODE_LIMIT_S
from streamer.imaging.image_header import ImageError, ImageErrorCode, PixelLimits

log = logging.getLogger("streamer.decoding")

#: Bytes that took longer are not called harmless: on a busy machine they may come to the limit of time.
HARMLESS_MS = DECODE_LIMIT_S * 1e3 / 10
MAX_HARMLESS = 256
_CODES = tuple(ImageErrorCode)


class DecoderLost(Exception):
    """The decoder ended while it held the image, for a reason that is not the image's."""


Outcome = Answer | ImageError | DecoderLost


@dataclass(slots=True, eq=False)
class Work:
    """One image for a decoder."""

    data: bytes | memoryview
    task: Task
    rotation: int
    #: Slot of the ring; meaningless for other tasks than LETTERBOX.
    slot: int
    target: ModelInput
    limits: PixelLimits
    #: Called once, on the event loop, never from within `submit`.
    done: Callable[[Outcome], None]
    #: Memory for tasks that have their own, as a descriptor; -1 without. The caller owns it.
    descriptor: int = -1
    number: int = 0
    #: Where it lies in the input memory; None while it waits for room.
    offset: int | None = None
    #: When it was handed over, monotonic seconds; 0 while it waits for room.
    sent_at: float = 0.0
    #: Whether decoders were replaced already while it waited for one.
    sent_again: bool = False
    #: Work with the same bytes, and its ring, that waits for the outcome of this one.
    followers: list[tuple[FrameRing | None, Work]] = field(default_factory=list)


class Twins:
    """Finds work with the same bytes among what decoders hold; compares only where lengths are equal.

    Many clients may send the same bytes, such as the test picture of a load generator. They wait for each
    other only once: the last `MAX_HARMLESS` of those that a decoder finished quickly are remembered.
    """

    def __init__(self) -> None:
        self._by_length: dict[int, list[Work]] = {}
        #: Digests of bytes that had twins and did no harm, the oldest first.
        self._harmless: OrderedDict[bytes, None] = OrderedDict()

    def find(self, data: bytes | memoryview) -> Work | None:
        """Return the work with these bytes that is to be waited for; None when there is none."""
        same_length = self._by_length.get(len(data))
        if same_length is None:
            return None
        # Views compare byte by byte; as bytes they are compared at once.
        wanted = bytes(data)
        found = next((work for work in same_length if bytes(work.data) == wanted), None)
        if found is None or hashlib.sha256(wanted).digest() in self._harmless:
            return None
        return found

    def add(self, work: Work) -> None:
        """A decoder gets this."""
        self._by_length.setdefault(len(work.data), []).append(work)

    def remove(self, work: Work, outcome: Outcome) -> None:
        """It was answered."""
        if work.followers and isinstance(outcome, Answer) and outcome.decode_ms < HARMLESS_MS:
            self._harmless[hashlib.sha256(work.data).digest()] = None
            if len(self._harmless) > MAX_HARMLESS:
                self._harmless.popitem(last=False)
        same_length = self._by_length[len(work.data)]
        same_length.remove(work)
        if not same_length:
            del self._by_length[len(work.data)]


def harmful() -> ImageError:
    """Return the refusal of bytes that have ended a decoder."""
    return ImageError(ImageErrorCode.DAMAGED, "the image is damaged: decoding it ended the decoder")


def too_slow() -> ImageError:
    """Return the refusal of bytes that take a decoder too long."""
    return ImageError(
        ImageErrorCode.DAMAGED,
        f"the image takes longer than {DECODE_LIMIT_S:g} s to decode, which is the limit",
    )


def outcome_of(answer: Answer) -> Outcome:
    """Return what an answer means to whoever asked."""
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
