"""What decoding an image is expected to cost, by its kind and size; learnt from those before it. Pure."""

from __future__ import annotations

from typing import NamedTuple

#: Milliseconds for each megapixel before anything was measured: OpenCV on one core of 2020.
_START_MS = {"jpeg": 8.0, "jpeg progressive": 40.0, "png": 25.0, "webp": 20.0}
_OTHER_MS = 30.0
#: Of every image, whatever its size.
_BASE_MS = 0.2
#: Images below this say nothing about the cost of a megapixel.
_LEARN_FROM_MP = 0.05
#: A figure moves by this factor with every image, towards it: a running median, which no single slow image,
#: and no client that sends only such, can push far.
_STEP = 1.02
#: And stays within this factor of where it began.
_RANGE = 16.0


#: Most memory for each pixel of an image that is decoded; `ImageHeader.decode_bytes` reckons it of headers.
#: A progressive JPEG keeps its coefficients, and OpenCV holds two copies of others.
_BYTES_PER_PX = {"jpeg": 3, "jpeg progressive": 9}
_OTHER_BYTES_PER_PX = 7
#: While a picture is turned upright, it is there twice.
_TURNED_BYTES_PER_PX = 6
#: What takes less is not counted: a decoder keeps as much by itself.
_SMALL_BYTES = 8_000_000


class Kind(NamedTuple):
    """What is known of an image before it is decoded."""

    name: str
    megapixels: float
    #: Whether it may have to be turned upright.
    turned: bool = False

    @property
    def peak_bytes(self) -> int:
        """Memory that decoding it takes at one time; 0 where that is little."""
        each = _BYTES_PER_PX.get(self.name, _OTHER_BYTES_PER_PX)
        peak = int(self.megapixels * 1e6 * max(each, _TURNED_BYTES_PER_PX if self.turned else 0))
        return peak if peak >= _SMALL_BYTES else 0


class DecodeCost:
    """Milliseconds by kind and megapixels."""

    def __init__(self) -> None:
        self._per_mp_ms = dict(_START_MS)

    def expected_ms(self, kind: Kind) -> float:
        """Return what an image of this kind is expected to cost."""
        return _BASE_MS + self._per_mp_ms.get(kind.name, _OTHER_MS) * kind.megapixels

    def learn(self, kind: Kind, actual_ms: float) -> None:
        """Learn from an image that was decoded."""
        start = _START_MS.get(kind.name)
        if start is None or kind.megapixels < _LEARN_FROM_MP:
            return
        moved = self._per_mp_ms[kind.name]
        moved = moved * _STEP if actual_ms > self.expected_ms(kind) else moved / _STEP
        self._per_mp_ms[kind.name] = min(start * _RANGE, max(start / _RANGE, moved))
