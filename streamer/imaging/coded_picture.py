"""Defines a picture of a video codec, as HEIF files contain them, with what its own data say about it."""

from __future__ import annotations

from dataclasses import dataclass

#: Samples for each pixel by chroma format: grey, 4:2:0, 4:2:2, 4:4:4.
_SAMPLES_PER_PX = (1.0, 1.5, 2.0, 3.0)

#: FFmpeg rounds sides up to multiples of 64, or 128 for AV1.
_MARGIN_PX = 128


@dataclass(frozen=True, slots=True)
class CodedPicture:
    """Holds one picture; the values are those of its bitstream, and not those of the file around it."""

    #: Name of the decoder in FFmpeg.
    decoder: str
    width: int
    height: int
    #: Width and height before cropping; the decoder allocates memory for them.
    coded: tuple[int, int]
    #: Number of slices. Each of them can make the decoder go through the whole picture.
    parts: int
    bits: int
    #: 0 grey, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    chroma: int
    #: Number of pictures that the decoder holds, and its memory for each pixel besides them.
    pictures: int
    table_bytes_per_px: float
    #: Number of units in its data, which were read one by one.
    units: int
    #: What the decoder gets: parameter sets and picture.
    config: bytes
    data: bytes

    @property
    def coded_px(self) -> int:
        """Pixels before cropping."""
        return self.coded[0] * self.coded[1]

    @property
    def most_px(self) -> int:
        """Pixels that the decoder may allocate, with the margins that FFmpeg adds."""
        return (self.coded[0] + _MARGIN_PX) * (self.coded[1] + _MARGIN_PX)

    @property
    def frame_bytes(self) -> int:
        """Bytes of the decoded samples."""
        return int(_SAMPLES_PER_PX[self.chroma] * (2 if self.bits > 8 else 1) * self.coded_px)

    @property
    def decode_bytes(self) -> int:
        """Upper bound of the memory in bytes that decoding takes, without the conversion to BGR."""
        tables = int(self.table_bytes_per_px * self.coded_px)
        return self.frame_bytes * self.pictures + tables + 2 * len(self.data)
