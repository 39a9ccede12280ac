"""Checks the HEVC data of a still image, and builds what the decoder gets: parameter sets and slices."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from streamer.imaging.bits import BadBits, BitReader
from streamer.imaging.coded_picture import CodedPicture
from streamer.imaging.pixel_limits import damaged

_VPS, _SPS, _PPS = 32, 33, 34
#: Types of the slices of pictures that can be decoded without others, and the first type that is no slice.
_INTRA = range(16, 22)
_FIRST_OTHER = 32
#: Bytes of an `hvcC` box before its lists of parameter sets; the last two hold the size of a length and the
#: number of lists.
_HEAD_BYTES = 23
#: Most parameter sets, and most units in the data of one picture. Level 6.2 of HEVC allows 600 slices.
_MAX_SETS, _MAX_UNITS = 64, 1024
#: How many bytes of the sequence parameter set are read; what is needed lies in its first 100 bytes.
_SPS_BYTES = 256
#: Memory that FFmpeg's decoder takes for each pixel besides the samples: motion vectors, filters, flags.
#: 1.65 was measured with the encoder x265.
_TABLE_BYTES_PER_PX = 1.75


def read_hevc(config: bytes, data: bytes) -> CodedPicture:
    """Return the only picture in ``data``; ``config`` are the contents of its `hvcC`. Raises ImageError."""
    try:
        return _read(config, data)
    except BadBits as error:
        raise damaged(f"its HEVC parameter set {error}") from None


def _read(config: bytes, data: bytes) -> CodedPicture:
    sps, kept_config = _read_config(config)
    slices, count = _slices(data, (config[21] & 3) + 1)
    chroma, bits, coded, size = _read_sps(sps)
    return CodedPicture(
        decoder="hevc",
        width=size[0],
        height=size[1],
        coded=coded,
        parts=len(slices),
        bits=bits,
        chroma=chroma,
        pictures=1,
        table_bytes_per_px=_TABLE_BYTES_PER_PX,
        units=count,
        config=kept_config,
        data=_joined(slices, 4),
    )


@functools.lru_cache(maxsize=4)  # all tiles of an image have the same
def _read_config(config: bytes) -> tuple[bytes, bytes]:
    """Return the sequence parameter set, and the configuration with only the sets that the decoder needs."""
    sets: dict[int, list[bytes]] = {_VPS: [], _SPS: [], _PPS: []}
    for unit in _parameter_sets(config):
        kind, layer = _kind_of(unit)
        if kind in sets and not layer:
            sets[kind].append(unit)
    if len(sets[_SPS]) != 1 or not sets[_PPS]:
        raise damaged(f"it has {len(sets[_SPS])} HEVC parameter sets for its size; 1 is allowed")
    lists = b"".join(
        bytes((kind,)) + len(units).to_bytes(2, "big") + _joined(units, 2) for kind, units in sets.items()
    )
    # The low bits of byte 21 say that lengths have four bytes, and byte 22 that there are three lists.
    return sets[_SPS][0][:_SPS_BYTES], config[:21] + bytes((config[21] | 3, len(sets))) + lists


def _joined(units: list[bytes], length_bytes: int) -> bytes:
    return b"".join(len(unit).to_bytes(length_bytes, "big") + unit for unit in units)


def _kind_of(unit: bytes) -> tuple[int, int]:
    """Return the type of a unit, and the number of its layer."""
    return unit[0] >> 1 & 63, (unit[0] & 1) << 5 | unit[1] >> 3


def _parameter_sets(config: bytes) -> Iterator[bytes]:
    """Yield the units in an `hvcC` box. Raises ImageError."""
    if len(config) < _HEAD_BYTES or config[0] != 1 or config[21] & 3 == 2:
        raise damaged("its box `hvcC` is malformed")
    at, left = _HEAD_BYTES, _MAX_SETS
    for _ in range(config[22]):
        count, at = int.from_bytes(config[at + 1 : at + 3], "big"), at + 3
        left -= count
        if left < 0:
            raise damaged(f"it has more than {_MAX_SETS} HEVC parameter sets")
        for _ in range(count):
            length, at = int.from_bytes(config[at : at + 2], "big"), at + 2
            if length < 3 or at + length > len(config):
                raise damaged("its box `hvcC` is cut off")
            yield config[at : at + length]
            at += length


def _slices(data: bytes, length_bytes: int) -> tuple[list[bytes], int]:
    """Return the slices of the only picture in ``data``, and the number of all its units. Raises ImageError.

    Messages, parameter sets in the data, and the layers of stereo images are left out: the decoder does not
    need them.
    """
    slices: list[bytes] = []
    at = count = 0
    while at < len(data) and count < _MAX_UNITS:
        count += 1
        length, at = int.from_bytes(data[at : at + length_bytes], "big"), at + length_bytes
        if length < 3 or at + length > len(data):
            raise damaged("its HEVC data are cut off")
        unit, at = data[at : at + length], at + length
        kind, layer = _kind_of(unit)
        if layer or kind >= _FIRST_OTHER:
            continue
        first = bool(unit[2] & 0x80)
        if kind not in _INTRA or first == bool(slices):
            raise damaged("its HEVC data are not those of one still picture")
        slices.append(unit)
    if at != len(data) or not slices:
        raise damaged("its HEVC data hold no picture, or too many units")
    return slices, count


@functools.lru_cache(maxsize=4)  # all tiles of an image have the same
def _read_sps(unit: bytes) -> tuple[int, int, tuple[int, int], tuple[int, int]]:
    """Return chroma format, bit depth, and the size before and after cropping (HEVC section 7.3.2.2)."""
    bits = BitReader.of_unit(unit[2:])
    bits.skip(4)
    layers = bits.take(3)
    bits.skip(1 + 88 + 8)  # the general profile and level
    flags = [bits.take(2) for _ in range(layers)]
    if layers:
        bits.skip(2 * (8 - layers))
    for each in flags:
        bits.skip((88 if each & 2 else 0) + (8 if each & 1 else 0))
    bits.unsigned()  # id
    chroma = bits.unsigned()
    if chroma > 3 or (chroma == 3 and bits.take(1)):
        raise damaged("its HEVC parameter set has separate colour planes, or an unknown chroma format")
    width, height = bits.unsigned(), bits.unsigned()
    left, right, top, bottom = (bits.unsigned() for _ in range(4)) if bits.take(1) else (0, 0, 0, 0)
    depths = 8 + bits.unsigned(), 8 + bits.unsigned()
    across, down = (2 if chroma in (1, 2) else 1), (2 if chroma == 1 else 1)
    size = width - across * (left + right), height - down * (top + bottom)
    if min(size) < 1 or max(depths) > 16:
        raise damaged(f"its HEVC parameter set says {size[0]}x{size[1]} pixels of {max(depths)} bits")
    return chroma, max(depths), (width, height), size
