"""Writes HEIC and AVIF files of any structure, around pictures of independent encoders."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pillow_heif
from PIL import Image, ImageOps

from streamer.imaging.heif_boxes import HeifItems
from tests.unit.hostile_builders import photograph

Pixels = npt.NDArray[np.uint8]

#: Properties that are not essential.
_DESCRIPTIVE = (b"ispe", b"pixi", b"colr")
#: The property that states three channels of 8 bits, which libavif requires.
PIXI = struct.pack(">I4sI4B", 16, b"pixi", 0, 3, 8, 8, 8)


def box(kind: bytes, *contents: bytes) -> bytes:
    """Return a box."""
    body = b"".join(contents)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full_box(kind: bytes, *contents: bytes, version: int = 0, flags: int = 0) -> bytes:
    """Return a box with a version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *contents)


def ispe(width: int, height: int) -> bytes:
    """Return the property with the size of an image."""
    return full_box(b"ispe", struct.pack(">II", width, height))


def irot(quarter_turns: int) -> bytes:
    """Return the property that turns an image counterclockwise."""
    return box(b"irot", bytes((quarter_turns,)))


def imir(axis: int) -> bytes:
    """Return the property that mirrors an image: 0 exchanges top and bottom, 1 left and right."""
    return box(b"imir", bytes((axis,)))


def nclx(matrix: int, *, full_range: bool, primaries: int = 1, transfer: int = 13) -> bytes:
    """Return the property with the colour coefficients."""
    numbers = primaries, transfer, matrix, 0x80 if full_range else 0
    return box(b"colr", b"nclx", struct.pack(">HHHB", *numbers))


def clap(*numbers: int) -> bytes:
    """Return the property that crops an image, from width, height and the two offsets as fractions."""
    return box(b"clap", struct.pack(">IIIIiIiI", *numbers))


_EMPTY = (full_box(b"iref"), box(b"idat"))


@dataclass(frozen=True, slots=True)
class Picture:
    """Holds an encoded picture: its type as an item, its decoder configuration as a property, its data."""

    kind: bytes
    config: bytes
    data: bytes
    width: int
    height: int

    @property
    def properties(self) -> tuple[bytes, ...]:
        """The properties that every picture needs."""
        return ispe(self.width, self.height), self.config, PIXI


@dataclass(frozen=True, slots=True)
class Item:
    """Holds one item of a file; its properties are boxes."""

    kind: bytes
    data: bytes
    properties: Sequence[bytes] = ()
    #: Construction method of its location: 0 in the file, 1 in the box `idat`, 2 in another item.
    method: int = 0
    #: Items from which it is derived.
    sources: Sequence[int] = ()
    #: Offset and length to write instead of the true ones.
    extent: tuple[int, int] | None = None

    @classmethod
    def of(cls, picture: Picture, *more: bytes) -> Item:
        """Return the item of a picture, with more properties."""
        return cls(picture.kind, picture.data, (*picture.properties, *more))


@dataclass(frozen=True, slots=True)
class HeifFile:
    """Holds the items of a file, whose numbers begin with 1, and how they are written."""

    items: Sequence[Item]
    primary: int = 1
    brand: bytes = b"heic"
    #: Boxes between those of the type and of the items.
    before: bytes = b""
    #: Boxes to write in place of those of the same type in `meta`.
    replaced: dict[bytes, bytes] = field(default_factory=dict)

    def build(self) -> bytes:
        """Return the bytes of the file."""
        head = box(b"ftyp", self.brand, bytes(4), b"mif1", self.brand) + self.before
        # The offsets are relative to the start of the file, so the size of `meta` must be known before them.
        start = len(head) + len(self._meta(0)) + 8
        data = b"".join(item.data for item in self.items if item.method != 1)
        return head + self._meta(start) + box(b"mdat", data)

    def properties(self) -> bytes:
        """Return the boxes with the properties of the items, and with the links to them."""
        distinct = list(dict.fromkeys(one for item in self.items for one in item.properties))
        return box(b"ipco", *distinct) + self._links(distinct)

    def _meta(self, start: int) -> bytes:
        parts = {
            b"hdlr": full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
            b"pitm": full_box(b"pitm", struct.pack(">H", self.primary)),
            b"iloc": self._locations(start),
            b"iinf": full_box(
                b"iinf",
                struct.pack(">H", len(self.items)),
                *(
                    full_box(b"infe", struct.pack(">HH4sB", number, 0, item.kind, 0), version=2)
                    for number, item in enumerate(self.items, 1)
                ),
            ),
            b"iref": full_box(
                b"iref",
                *(
                    box(
                        b"dimg",
                        struct.pack(f">HH{len(item.sources)}H", number, len(item.sources), *item.sources),
                    )
                    for number, item in enumerate(self.items, 1)
                    if item.sources
                ),
            ),
            b"iprp": box(b"iprp", self.properties()),
            b"idat": box(b"idat", *(item.data for item in self.items if item.method == 1)),
        }
        return full_box(
            b"meta", *(part for kind, part in (parts | self.replaced).items() if part not in _EMPTY)
        )

    def _locations(self, start: int) -> bytes:
        entries, at, inside = [], start, 0
        for number, item in enumerate(self.items, 1):
            offset, length = item.extent or (inside if item.method == 1 else at, len(item.data))
            entries.append(struct.pack(">HHHHII", number, item.method, 0, 1, offset, length))
            if item.method == 1:
                inside += len(item.data)
            else:
                at += len(item.data)
        return full_box(b"iloc", struct.pack(">HH", 0x4400, len(entries)), *entries, version=1)

    def _links(self, properties: list[bytes]) -> bytes:
        entries = []
        for number, item in enumerate(self.items, 1):
            links = [
                1 + properties.index(one) | (0 if one[4:8] in _DESCRIPTIVE else 0x8000)
                for one in item.properties
            ]
            entries.append(struct.pack(f">HB{len(links)}H", number, len(links), *links))
        return full_box(b"ipma", struct.pack(">I", len(entries)), *entries, flags=1)


def grid(columns: int, rows: int, width: int, height: int, *, wide: bool = False) -> bytes:
    """Return the data of a grid; with ``wide``, its sizes have 32 bits."""
    return struct.pack(">BBBB", 0, wide, rows - 1, columns - 1) + struct.pack(
        ">II" if wide else ">HH", width, height
    )


def tiled(tiles: Sequence[Picture], columns: int, width: int, height: int, *more: bytes) -> HeifFile:
    """Return a file whose first item is a grid of ``tiles``, with more properties of the grid."""
    rows = len(tiles) // columns
    whole = Item(
        b"grid",
        grid(columns, rows, width, height),
        (ispe(width, height), *more),
        method=1,
        sources=range(2, 2 + len(tiles)),
    )
    return HeifFile([whole, *(Item.of(tile) for tile in tiles)])


def libheif_file(image: Pixels, **options: object) -> bytes:
    """Return a HEIC of BGR pixels as libheif and x265 write it."""
    pillow_heif.register_heif_opener()
    return _saved(image, "HEIF", {"quality": 90, "chroma": 444} | options)


def libavif_file(image: Pixels, **options: object) -> bytes:
    """Return an AVIF of BGR pixels as libavif and its encoder write it."""
    return _saved(
        image, "AVIF", {"quality": 90, "speed": 9, "max_threads": 1, "subsampling": "4:4:4"} | options
    )


def _saved(image: Pixels, kind: str, options: dict[str, object]) -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[:, :, ::-1])).save(written, kind, **options)
    return written.getvalue()


def read_independently(data: bytes) -> Pixels:
    """Return the upright BGR pixels as libheif or libavif decode them."""
    if data[8:12] == b"avif":
        with Image.open(io.BytesIO(data)) as image:
            # Pillow states rotation and mirroring as an EXIF orientation.
            upright = ImageOps.exif_transpose(image)
            return np.ascontiguousarray(np.asarray(upright.convert("RGB"))[:, :, ::-1])
    decoded = pillow_heif.open_heif(data, convert_hdr_to_8bit=True)
    return np.ascontiguousarray(np.asarray(decoded.to_pillow().convert("RGB"))[:, :, ::-1])


def picture_of(data: bytes) -> Picture:
    """Return the picture in a file of one coded image."""
    items = HeifItems.read(data)
    found = {
        each.box.kind: data[each.box.start : each.box.end] for each in items.properties_of(items.primary)
    }
    kind = next(name for name in (b"hvcC", b"av1C") if name in found)
    width, height = struct.unpack(">II", found[b"ispe"][4:])
    return Picture(
        items.kinds[items.primary], box(kind, found[kind]), items.data_of(items.primary), width, height
    )


@functools.cache
def hevc(width: int = 64, height: int = 64) -> Picture:
    """Return a small picture in HEVC."""
    return picture_of(libheif_file(photograph(width, height)))


@functools.cache
def av1(width: int = 64, height: int = 64) -> Picture:
    """Return a small picture in AV1."""
    return picture_of(libavif_file(photograph(width, height)))


def single(picture: Picture, *more: bytes) -> HeifFile:
    """Return a file of one picture, with more properties."""
    brand = b"avif" if picture.kind == b"av01" else b"heic"
    return HeifFile([Item.of(picture, *more)], brand=brand)


def stating(picture: Picture, width: int, height: int) -> HeifFile:
    """Return a file that states another size than the picture has."""
    return single(replace(picture, width=width, height=height))
