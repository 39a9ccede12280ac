"""Puts RTP packets back into frames: releases on the marker bit, gives up on a gap in time. Pure.

Takes payloads as they arrive and `now` (monotonic seconds); returns whole frames in order, and where some
are missing. Its neighbours are the depacketiser before it and the decoder behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: How long a missing packet may be repaired before the frames behind it are released without it. A
#: retransmission takes one round trip; beyond this a key frame is the quicker repair.
GAP_S = 0.150
#: When a packet is asked for, after it was noticed to be missing. The first three go close together, since
#: waiting a round trip for what became of one costs the viewer that round trip, and a request and a packet
#: cost next to nothing: with 2 % loss each way, 0.1 % of lost packets instead of 2 % are then not repaired by
#: the first answer (tests/unit/test_webrtc_repair.py). The last is for browsers, which repeat a packet once
#: in a round trip, and where that was lost as well.
NACK_AT_S = (0.0, 0.020, 0.040, 0.100)
#: Packets kept while one before them is missing: some 3 MB, a second of 20 Mbit/s.
CAPACITY = 2048
#: Packets in a row that are older than what was released: the sender has begun to count anew.
MAX_LATE = 100


@dataclass(frozen=True, slots=True)
class RtpPayload:
    """What one RTP packet holds of an encoded frame."""

    #: RTP sequence number, 16 bits.
    seq: int
    #: RTP timestamp, 32 bits of a 90 kHz clock; the same for all payloads of a frame.
    rtp: int
    #: Marker bit: the last payload of its frame.
    last: bool
    data: bytes
    #: Whether it is known to begin a frame.
    first: bool = False
    #: Whether it is known to begin a key frame.
    key: bool = False


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One frame, whole."""

    rtp: int
    data: bytes
    #: When its last payload was there and everything before it released, monotonic seconds.
    arrived: float


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames are missing here: what follows refers to pictures that the decoder never gets."""


@dataclass(slots=True)
class _Missing:
    noticed: float
    #: How many times of NACK_AT_S have passed.
    asked: int = 0


class JitterBuffer:
    """The packets of one sender; frames come out in order, each as soon as it is whole."""

    def __init__(self) -> None:
        #: Pieces that wait, by their sequence number without wrap-around.
        self._payloads: dict[int, RtpPayload] = {}
        #: Sequence numbers of waiting payloads that begin a key frame, in order of arrival.
        self._keys: list[int] = []
        #: Packets not seen below the highest that was, in order.
        self._missing: dict[int, _Missing] = {}
        self._highest: int | None = None
        #: When the next packet is to be asked for; None: no more of them.
        self._ask_at: float | None = None
        #: First payload of the frame in progress, and the one to look at next.
        self._start = 0
        self._run = 0
        #: Whether `_start` begins a frame; else payloads are discarded up to the next frame.
        self._synced = False
        #: Whether anything was cut yet; until then the stream may begin before the first packet that came.
        self._under_way = False
        self._late = 0

    def __len__(self) -> int:
        return len(self._payloads)

    def add(self, payload: RtpPayload, now: float) -> list[EncodedFrame | Gap]:
        """Take in one payload; returns what it completes."""
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
        """Return what is released by time alone; due at :attr:`due`."""
        return self._give_up(now) if self._missing else []

    @property
    def due(self) -> float | None:
        """When to :meth:`poll` and to ask :meth:`to_nack` again, monotonic seconds; None: nothing is missing.

        True after :meth:`to_nack`, which is to be called after each payload.
        """
        first = next(iter(self._missing.values()), None)
        if first is None:
            return None
        given_up = first.noticed + GAP_S
        return given_up if self._ask_at is None else min(given_up, self._ask_at)

    def to_nack(self, now: float) -> list[int]:
        """Return the sequence numbers (16 bits) to ask the sender for, now."""
        wanted = []
        self._ask_at = None
        for number, missing in self._missing.items():
            passed = missing.asked
            while missing.asked < len(NACK_AT_S) and now >= missing.noticed + NACK_AT_S[missing.asked]:
                missing.asked += 1
            if missing.asked > passed:
                wanted.append(number & 0xFFFF)
            if missing.asked < len(NACK_AT_S):
                again = missing.noticed + NACK_AT_S[missing.asked]
                self._ask_at = again if self._ask_at is None else min(self._ask_at, again)
        return wanted

    # -- sequence numbers ----------------------------------------------------------------------------

    def _extend(self, seq: int) -> int:
        """Return the number without wrap-around: the nearest one to the highest so far."""
        highest = self._highest or 0
        return highest + ((seq - highest + 0x8000) & 0xFFFF) - 0x8000

    def _begin_at(self, number: int, payload: RtpPayload) -> None:
        """Forget everything; ``payload`` is the first that counts."""
        self._payloads.clear()
        self._keys.clear()
        self._missing.clear()
        self._highest = number
        self._start = self._run = number
        self._synced = payload.first
        self._under_way = False

    def _begin_before(self, number: int, payload: RtpPayload, now: float) -> None:
        """The first packet that came was not the first that was sent."""
        between = range(number + 1, self._start)
        self._missing = {absent: _Missing(now) for absent in between} | self._missing
        self._start = self._run = number
        self._synced = payload.first

    def _too_late(self, payload: RtpPayload, now: float) -> list[EncodedFrame | Gap]:
        """A duplicate, or a packet of the past; many in a row mean that the sender counts anew."""
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
        """Go on from the frame in progress as far as there is no hole; cut frames where they end."""
        out: list[EncodedFrame | Gap] = []
        while (payload := self._payloads.get(self._run)) is not None:
            if self._run != self._start and payload.rtp != self._payloads[self._start].rtp:
                out += self._cut(now)  # a sender that sets no marker bits
            self._run += 1
            if payload.last:
                out += self._cut(now)
        return out

    def _cut(self, now: float) -> list[EncodedFrame | Gap]:
        """Take the payloads from `_start` to `_run` out; they are one frame, or the rest of a damaged one."""
        self._under_way = True
        payloads = [self._payloads.pop(number) for number in range(self._start, self._run)]
        self._start = self._run
        while self._keys and self._keys[0] < self._start:
            del self._keys[0]
        whole, self._synced = self._synced, True
        data = b"".join(payload.data for payload in payloads)
        if not whole or not data:  # packets of padding alone are no frame
            return []
        return [EncodedFrame(payloads[0].rtp, data, now)]

    def _give_up(self, now: float) -> list[EncodedFrame | Gap]:
        """Go on behind holes that are too old, or at once where a whole key frame waits behind one."""
        out: list[EncodedFrame | Gap] = []
        while self._missing:
            first, missing = next(iter(self._missing.items()))
            key = next((number for number in self._keys if number > first and self._is_whole(number)), None)
            if key is not None:
                resume = key
            elif now >= missing.noticed + GAP_S:
                resume = min(number for number in self._payloads if number > first)
            else:
                break
            self._skip_to(resume)
            out += [Gap(), *self._walk(now)]
        return out

    def _is_whole(self, number: int) -> bool:
        """Whether the frame that begins at ``number`` is there up to its marker."""
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
