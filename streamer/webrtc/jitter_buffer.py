"""The jitter buffer: assembles frames from RTP packets, requests lost packets, gives up on old gaps. Pure.

It takes payloads as they arrive and `now` (monotonic seconds), and returns complete frames in order, with
gaps where frames are missing. The depacketizer is before it, the decoder behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamer.imaging.turning import Turning

#: How long the buffer waits for a missing packet before it releases the frames behind it. A retransmission
#: takes one round trip; after this time a key frame is the quicker repair.
GAP_S = 0.150
#: When a missing packet is requested, in seconds after the gap was noticed. The first three requests are
#: close together, because waiting for the outcome of one would add a round trip of delay, and requests and
#: packets cost next to nothing. With 2 % loss each way the first answers repair all but 0.1 % of the lost
#: packets, instead of all but 2 % (tests/unit/test_webrtc_repair.py). Browsers repeat a packet at most once
#: per round trip; the last request is for the case that this repetition was lost, too.
NACK_AT_S = (0.0, 0.020, 0.040, 0.100)
#: Most packets kept while an earlier one is missing: some 3 MB, which is a second of video at 20 Mbit/s.
CAPACITY = 2048
#: If more packets in a row than this are late or duplicates, the buffer assumes that the sender has restarted
#: its numbering, and starts over.
MAX_LATE = 100


@dataclass(frozen=True, slots=True)
class RtpPayload:
    """The part of an encoded frame that one RTP packet carries."""

    #: RTP sequence number, 16 bits.
    seq: int
    #: RTP timestamp, 32 bits of a 90 kHz clock; the same for all payloads of a frame.
    rtp: int
    #: Marker bit: whether this is the last payload of its frame.
    last: bool
    data: bytes
    #: Whether it is known to begin a frame.
    first: bool = False
    #: Whether it is known to begin a key frame.
    key: bool = False
    #: What makes its frame upright; None if the packet does not say.
    turning: Turning | None = None


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One complete frame."""

    rtp: int
    data: bytes
    #: When its last payload had arrived and all earlier frames were released, in monotonic seconds.
    arrived: float
    #: What makes it upright; None if that is as in the frame before it, because its packets do not say.
    turning: Turning | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Marks a place where frames are missing. Later frames may refer to these, and the decoder lacks them."""


@dataclass(slots=True)
class _Missing:
    noticed: float
    #: How many of the times in NACK_AT_S have passed.
    asked: int = 0


class JitterBuffer:
    """Keeps the packets of one sender and returns frames in order, each as soon as it is complete."""

    def __init__(self) -> None:
        #: Payloads that wait, by their sequence number without wrap-around.
        self._payloads: dict[int, RtpPayload] = {}
        #: Sequence numbers of waiting payloads that begin a key frame, in order of arrival.
        self._keys: list[int] = []
        #: Missing packets below the highest one received, in order.
        self._missing: dict[int, _Missing] = {}
        self._highest: int | None = None
        #: When the next request is due, in monotonic seconds; None if no further request is planned.
        self._nack_at: float | None = None
        #: Numbers of the first payload of the frame in progress, and of the payload to look at next.
        self._start = 0
        self._run = 0
        #: Whether `_start` begins a frame. If not, payloads are discarded up to the next frame.
        self._synced = False
        #: Whether a frame was released or skipped. Before that an earlier packet may still turn out to be the
        #: first one of the stream.
        self._under_way = False
        self._late = 0

    def __len__(self) -> int:
        return len(self._payloads)

    def add(self, payload: RtpPayload, now: float) -> list[EncodedFrame | Gap]:
        """Add one payload; returns the frames and gaps that are due now."""
        if self._highest is None:
            self._begin_at(payload.seq, payload)
        number = self._extend(payload.seq)
        if number < self._start and not self._under_way and self._start - number < MAX_LATE:
            self._begin_before(number, payload, now)
        if number < self._run or number in self._payloads:
            return self._too_late(payload, now)
        self._late = 0
        out: list[EncodedFrame | Gap] = []
        if number - self._start >= CAPACITY:
            self._begin_at(number, payload)
            out.append(Gap())
        self._note_missing(number, now)
        self._payloads[number] = payload
        if payload.key:
            self._keys.append(number)
        out += self._walk(now)
        if self._missing:
            out += self._give_up(now)
        return out

    def poll(self, now: float) -> list[EncodedFrame | Gap]:
        """Return the frames and gaps that are due because time has passed; call it at :attr:`due`."""
        return self._give_up(now) if self._missing else []

    @property
    def due(self) -> float | None:
        """When to call :meth:`poll` and :meth:`to_nack` again, in monotonic seconds; None if there is no gap.

        The time is correct only after :meth:`to_nack`, which the caller must call after each payload.
        """
        first = next(iter(self._missing.values()), None)
        if first is None:
            return None
        given_up = first.noticed + GAP_S
        return given_up if self._nack_at is None else min(given_up, self._nack_at)

    def to_nack(self, now: float) -> list[int]:
        """Return the sequence numbers (16 bits) to request from the sender now."""
        wanted = []
        self._nack_at = None
        for number, missing in self._missing.items():
            passed = missing.asked
            while missing.asked < len(NACK_AT_S) and now >= missing.noticed + NACK_AT_S[missing.asked]:
                missing.asked += 1
            if missing.asked > passed:
                wanted.append(number & 0xFFFF)
            if missing.asked < len(NACK_AT_S):
                again = missing.noticed + NACK_AT_S[missing.asked]
                self._nack_at = again if self._nack_at is None else min(self._nack_at, again)
        return wanted

    # -- sequence numbers ----------------------------------------------------------------------------

    def _extend(self, seq: int) -> int:
        """Return the sequence number without wrap-around: the one nearest to the highest so far."""
        highest = self._highest or 0
        return highest + ((seq - highest + 0x8000) & 0xFFFF) - 0x8000

    def _begin_at(self, number: int, payload: RtpPayload) -> None:
        """Drop everything and begin with ``payload``."""
        self._payloads.clear()
        self._keys.clear()
        self._missing.clear()
        self._highest = number
        self._start = self._run = number
        self._synced = payload.first
        self._under_way = False

    def _begin_before(self, number: int, payload: RtpPayload, now: float) -> None:
        """Begin with an earlier packet, because the first one received was not the first one sent."""
        between = range(number + 1, self._start)
        self._missing = {absent: _Missing(now) for absent in between} | self._missing
        self._start = self._run = number
        self._synced = payload.first

    def _too_late(self, payload: RtpPayload, now: float) -> list[EncodedFrame | Gap]:
        """Ignore a duplicate or late packet; after many in a row, restart with this one."""
        self._late += 1
        if self._late <= MAX_LATE:
            return []
        self._late = 0
        self._begin_at(self._extend(payload.seq), payload)
        return [Gap(), *self.add(payload, now)]

    def _note_missing(self, number: int, now: float) -> None:
        highest = self._highest if self._highest is not None else number
        for absent in range(highest + 1, number):
            self._missing[absent] = _Missing(now)
        self._missing.pop(number, None)
        self._highest = max(highest, number)

    # -- frames --------------------------------------------------------------------------------------

    def _walk(self, now: float) -> list[EncodedFrame | Gap]:
        """Continue from the frame in progress to the next missing packet; release complete frames."""
        out: list[EncodedFrame | Gap] = []
        while (payload := self._payloads.get(self._run)) is not None:
            if self._run != self._start and payload.rtp != self._payloads[self._start].rtp:
                out += self._cut(now)  # a new timestamp: the sender sets no marker bits
            self._run += 1
            if payload.last:
                out += self._cut(now)
        return out

    def _cut(self, now: float) -> list[EncodedFrame | Gap]:
        """Remove the payloads from `_start` to `_run`; returns their frame if it is whole and not empty."""
        self._under_way = True
        payloads = [self._payloads.pop(number) for number in range(self._start, self._run)]
        self._start = self._run
        while self._keys and self._keys[0] < self._start:
            del self._keys[0]
        whole, self._synced = self._synced, True
        data = b"".join(payload.data for payload in payloads)
        if not whole or not data:  # packets that hold only padding are not a frame
            return []
        stated = (payload.turning for payload in reversed(payloads) if payload.turning is not None)
        return [EncodedFrame(payloads[0].rtp, data, now, next(stated, None))]

    def _give_up(self, now: float) -> list[EncodedFrame | Gap]:
        """Skip gaps that are too old, and all gaps behind which a complete key frame waits already."""
        out: list[EncodedFrame | Gap] = []
        while self._missing:
            first, missing = next(iter(self._missing.items()))
            key = next(
                (number for number in self._keys if number > first and self._is_complete(number)), None
            )
            if key is not None:
                resume = key
            elif now >= missing.noticed + GAP_S:
                resume = min(number for number in self._payloads if number > first)
            else:
                break
            self._skip_to(resume)
            out += [Gap(), *self._walk(now)]
        return out

    def _is_complete(self, number: int) -> bool:
        """Return whether the frame that begins at ``number`` is complete up to its marker."""
        while (payload := self._payloads.get(number)) is not None:
            if payload.last:
                return True
            number += 1
        return False

    def _skip_to(self, resume: int) -> None:
        for number in [number for number in self._payloads if number < resume]:
            del self._payloads[number]
        for number in [number for number in self._missing if number < resume]:
            del self._missing[number]
        self._keys = [number for number in self._keys if number >= resume]
        self._under_way = True
        self._start = self._run = resume
        self._synced = self._payloads[resume].first
