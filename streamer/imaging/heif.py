"""Checks a HEIC or AVIF file, and finds what is decoded: its primary image, which may consist of tiles.

Thumbnails, transparency, depth and gain maps, EXIF and all other items are ignored. Rotation and mirroring
are those of the file's properties; its EXIF orientation does not count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

from streamer.imaging.av1 import read_av1
from streamer.imaging.coded_picture import CodedPicture
from streamer.imaging.heif_boxes import Fields, HeifItems, Property
from streamer.imaging.hevc import read_hevc
from streamer.imaging.pixel_limits import (
    ORIENTATIONS,
    ImageHeader,
    PixelLimits,
    check_size,
    damaged,
    too_large,
    unsupported,
)
from streamer.protocol.wire import Codec

#: Most tiles of an image. Phones write tiles of 512 x 512 pixels: 48 for 12 megapixels.
MAX_TILES = 512
#: Most units in the data of all tiles. Encoders write one to four for each tile. Reading so many takes 8 ms.
_MAX_UNITS = 8192
#: Most bytes of the configuration of a decoder; encoders write some hundreds.
_MAX_CONFIG_BYTES = 16_384
#: A picture may be coded larger than it is, up to the next multiple of the largest block of HEVC.
_MAX_PADDING_PX = 64
#: Most pixels that all slices together may go through, in multiples of the limit on pixels.
_MAX_PASSES = 8
#: Processor time of decoding in nanoseconds, for each pixel and for each byte of data, as measured for both
#: codecs on one core of 2023; and the most of it. This is half of the time limit of a decoder.
_NS_PER_PX, _NS_PER_BYTE, _MAX_NS = 10, 110, 900_000_000
#: Memory that decoding takes besides pixels: the decoder itself, and some rows that are converted to BGR.
_FIXED_BYTES = 4 << 20
#: Properties that say how the samples become the image; all other essential ones are refused.
_KNOWN = {b"ispe", b"hvcC", b"av1C", b"irot", b"imir", b"clap", b"colr", b"pixi", b"pasp"}
_TURNING = (b"irot", b"imir")
_BY_TURNING = {turning: orientation for orientation, turning in ORIENTATIONS.items()}
_CODECS = {b"hvc1": Codec.HEIC, b"av01": Codec.AVIF}
_NAMES = {Codec.HEIC: "HEIC", Codec.AVIF: "AVIF"}


class Colour(NamedTuple):
    """Says what the samples mean, in numbers of ISO/IEC 23091-2, and whether values use all bits."""

    primaries: int
    transfer: int
    #: Says how YCbCr becomes RGB.
    matrix: int
    full_range: bool


@dataclass(frozen=True, slots=True)
class HeifImage:
    """Describes the image that is decoded. All sizes are in pixels before it is turned."""

    codec: Codec
    #: Size of the part of the tiles that is the image, and where it begins in them.
    width: int
    height: int
    left: int
    top: int
    #: The rotation and mirroring of the file as an EXIF orientation.
    orientation: int
    #: None if the bitstream says it.
    colour: Colour | None
    columns: int
    tile_width: int
    tile_height: int
    #: Items that hold the tiles, row by row; a single one if the image has no tiles.
    tiles: tuple[int, ...]
    _items: HeifItems
    _config: bytes

    @classmethod
    def read(cls, blob: bytes) -> HeifImage:
        """Find the primary image of a file. Raises ImageError."""
        items = HeifItems.read(blob)
        kind = items.kinds[items.primary]
        if kind == b"grid":
            return _read_grid(items)
        image = _read_single(items, items.primary)
        return _cropped(image, _Properties(items, items.primary))

    def picture(self, item: int) -> CodedPicture:
        """Return the checked data of a tile. Raises ImageError if they differ from what the file says."""
        data = self._items.data_of(item)
        found = read_av1(data) if self.codec is Codec.AVIF else read_hevc(self._config, data)
        stated = self.tile_width, self.tile_height
        most_px = (stated[0] + _MAX_PADDING_PX) * (stated[1] + _MAX_PADDING_PX)
        if (found.width, found.height) != stated or found.coded_px > most_px:
            raise damaged(
                f"its header says {stated[0]}x{stated[1]} pixels, its data {found.width}x{found.height}"
            )
        return found


def read_heif(blob: bytes, limits: PixelLimits) -> ImageHeader:
    """Return the header of a HEIC or AVIF file. Raises ImageError."""
    image = HeifImage.read(blob)
    name = _NAMES[image.codec]
    kind = f"{'an' if name == 'AVIF' else 'a'} {name}"
    check_size(image.width, image.height, limits, kind)
    check_size(image.tile_width, image.tile_height, limits, kind)
    decoding = frame = passes = data_bytes = coded_px = units = 0
    for item in image.tiles:
        picture = image.picture(item)
        decoding, frame = max(decoding, picture.decode_bytes), max(frame, picture.frame_bytes)
        units += picture.units
        if units > _MAX_UNITS:
            raise damaged(f"the data of its tiles have more than {_MAX_UNITS} units")
        data_bytes += len(picture.data)
        coded_px += picture.coded_px
        passes += picture.parts * picture.coded_px
    most = _MAX_PASSES * limits.image_px
    if passes > most:
        raise too_large(
            f"the slices of the image go through {passes / 1e6:.0f} million pixels; "
            f"{most / 1e6:.0f} million are allowed"
        )
    if _NS_PER_PX * coded_px + _NS_PER_BYTE * data_bytes > _MAX_NS:
        raise too_large(
            f"decoding the image takes too long: it has {coded_px / 1e6:.1f} megapixels in "
            f"{data_bytes / 1e6:.1f} MB; send fewer pixels, or a lower quality"
        )
    # The decoder of a picture is closed before its pixels are written, but not before those of other tiles.
    beside = _FIXED_BYTES + (frame if len(image.tiles) == 1 else decoding)
    first = _FIXED_BYTES + decoding
    return ImageHeader(
        image.codec,
        image.width,
        image.height,
        image.orientation,
        decode_bytes=max(first, beside + 3 * image.width * image.height),
        kind=name,
        beside_bytes=beside,
        pixel_bytes=3,
        turned_in_parts=True,
        first_bytes=first,
    )


class _Properties:
    """Holds the properties of one item."""

    def __init__(self, items: HeifItems, item: int) -> None:
        self._blob = items.blob
        self.all: list[Property] = items.properties_of(item)
        for each in self.all:
            if each.essential and each.box.kind not in _KNOWN:
                raise unsupported(f"an image with the property {each.box.kind.decode('latin-1')!r}")

    def find(self, kind: bytes) -> Fields | None:
        """Return the first property of this kind; None if there is none."""
        return next((Fields(self._blob, each.box) for each in self.all if each.box.kind == kind), None)

    def size(self) -> tuple[int, int]:
        """Return width and height. Raises ImageError."""
        fields = self.find(b"ispe")
        if fields is None:
            raise damaged("an image has no size (its property `ispe` is missing)")
        fields.version()
        width, height = fields.uint(4), fields.uint(4)
        if not width or not height:
            raise damaged(f"its header says {width}x{height} pixels")
        return width, height

    def config(self, codec: Codec) -> bytes:
        """Return the parameter sets of the codec. Raises ImageError."""
        kind = "av1C" if codec is Codec.AVIF else "hvcC"
        fields = self.find(kind.encode())
        if fields is None:
            raise damaged(f"an image has no decoder configuration (its property `{kind}` is missing)")
        part = fields.rest()
        if part.end - part.start > _MAX_CONFIG_BYTES:  # it is read and compared for each tile
            raise damaged(
                f"its box `{kind}` has {part.end - part.start} bytes; {_MAX_CONFIG_BYTES} are allowed"
            )
        return self._blob[part.start : part.end]

    def colour(self) -> Colour | None:
        """Return the colour coefficients; None if the file has none. Raises ImageError."""
        for each in self.all:
            if each.box.kind == b"colr":
                fields = Fields(self._blob, each.box)
                if fields.raw(4) == b"nclx":
                    primaries, transfer, matrix = (fields.uint(2) for _ in range(3))
                    return Colour(primaries, transfer, matrix, bool(fields.uint(1) & 0x80))
        return None

    def orientation(self) -> int:
        """Return the rotation and mirroring as an EXIF orientation; they apply in their order."""
        mirrored, turns = False, 0
        for each in self.all:
            if each.box.kind not in _TURNING:
                continue
            value = Fields(self._blob, each.box).uint(1)
            if each.box.kind == b"irot":  # quarter turns, counterclockwise
                turns -= value & 3
            else:  # 0 exchanges top and bottom, 1 left and right; mirroring reverses the turns before it
                mirrored, turns = not mirrored, -turns + (0 if value & 1 else 2)
        return _BY_TURNING[mirrored, turns % 4]

    def crop(self) -> Fields | None:
        """Return the crop; None if there is none. Raises ImageError if the image is turned before."""
        kinds = [each.box.kind for each in self.all]
        if b"clap" in kinds and any(kind in _TURNING for kind in kinds[: kinds.index(b"clap")]):
            raise unsupported("an image that is turned before it is cropped")
        return self.find(b"clap")


def _read_single(items: HeifItems, item: int) -> HeifImage:
    """Return the description of a coded image, not cropped. Raises ImageError."""
    kind = items.kinds.get(item, b"")
    codec = _CODECS.get(kind)
    if codec is None:
        raise unsupported(f"a HEIF image of the kind {kind.decode('latin-1')!r}")
    properties = _Properties(items, item)
    width, height = properties.size()
    return HeifImage(
        codec=codec,
        width=width,
        height=height,
        left=0,
        top=0,
        orientation=properties.orientation(),
        colour=properties.colour(),
        columns=1,
        tile_width=width,
        tile_height=height,
        tiles=(item,),
        _items=items,
        _config=properties.config(codec),
    )


def _read_grid(items: HeifItems) -> HeifImage:
    """Return the description of a primary image that consists of tiles. Raises ImageError."""
    rows, columns, width, height = _grid_of(items.data_of(items.primary))
    tiles = items.sources.get(items.primary, [])
    if len(tiles) != rows * columns or len(tiles) > MAX_TILES:
        raise damaged(f"its grid is {columns}x{rows} tiles, {MAX_TILES} at most, and it has {len(tiles)}")
    if items.primary in tiles or len(set(tiles)) != len(tiles):
        raise damaged("its grid is a tile of itself, or has a tile twice")
    properties = _Properties(items, items.primary)
    first = _read_single(items, tiles[0])
    for item in tiles:
        tile = first if item == tiles[0] else _read_single(items, item)
        if tile.orientation != 1 or _Properties(items, item).crop() is not None:
            raise unsupported("an image with tiles that are turned or cropped")
        if replace(tile, tiles=first.tiles) != first:
            raise damaged("its tiles differ in codec, size, colours or parameters")
    whole = columns * first.width, rows * first.height
    spare = whole[0] - width, whole[1] - height
    if not (0 <= spare[0] < first.width and 0 <= spare[1] < first.height):
        raise damaged(f"its grid is {width}x{height} pixels, its tiles cover {whole[0]}x{whole[1]}")
    if (width, height) != properties.size():
        raise damaged("its header and its grid differ in size")
    image = replace(
        first,
        width=width,
        height=height,
        orientation=properties.orientation(),
        colour=properties.colour() or first.colour,
        columns=columns,
        tiles=tuple(tiles),
    )
    return _cropped(image, properties)


def _grid_of(data: bytes) -> tuple[int, int, int, int]:
    """Return rows and columns, width and height of a grid (ISO/IEC 23008-12, 6.6.2.3)."""
    size = 4 if len(data) > 1 and data[1] & 1 else 2
    if len(data) < 4 + 2 * size or data[0]:
        raise damaged("its grid is malformed")
    width, height = (int.from_bytes(data[at : at + size], "big") for at in (4, 4 + size))
    return data[2] + 1, data[3] + 1, width, height


def _cropped(image: HeifImage, properties: _Properties) -> HeifImage:
    """Return the description with the crop of the primary image (ISO/IEC 14496-12, 12.1.4)."""
    fields = properties.crop()
    if fields is None:
        return image
    parts = [fields.uint(4) for _ in range(8)]
    if 0 in parts[1::2]:
        raise damaged("its crop (the property `clap`) divides by zero")
    width, height = Fraction(*parts[:2]), Fraction(*parts[2:4])
    # Offsets of the centre are signed.
    across, down = (Fraction(_signed(parts[at]), parts[at + 1]) for at in (4, 6))
    left, top = (image.width - width) / 2 + across, (image.height - height) / 2 + down
    if width < 1 or height < 1 or left < 0 or top < 0:
        raise damaged("its crop (the property `clap`) is outside of the image")
    cropped = replace(image, width=int(width), height=int(height), left=int(left), top=int(top))
    if cropped.left + cropped.width > image.width or cropped.top + cropped.height > image.height:
        raise damaged("its crop (the property `clap`) is outside of the image")
    return cropped


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value
