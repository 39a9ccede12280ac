"""Builds hostile HEIC and AVIF files, each with the outcome that the decoder must reach."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from tests.unit.heif_files import (
    HeifFile,
    Item,
    Picture,
    av1,
    box,
    clap,
    full_box,
    grid,
    hevc,
    imir,
    irot,
    ispe,
    single,
    stating,
    tiled,
)

_START = box(b"ftyp", b"heic", bytes(4), b"mif1", b"heic")


def sps(width: int, height: int, right: int = 0, bottom: int = 0) -> bytes:
    """Return an HEVC sequence parameter set up to its bit depth; the last two are cropped, in units of 2."""
    bits = "0000" + "000" + "1" + "0" * 88 + "0" * 8  # one layer, then profile and level
    bits += _golomb(0) + _golomb(1) + _golomb(width) + _golomb(height)
    bits += "1" + _golomb(0) + _golomb(right) + _golomb(0) + _golomb(bottom) + _golomb(0) + _golomb(0) + "1"
    bits += "0" * (-len(bits) % 8)
    raw = bytearray()
    for byte in int(bits, 2).to_bytes(len(bits) // 8, "big"):
        if byte <= 3 and raw[-2:] == b"\x00\x00":
            raw.append(3)  # emulation prevention
        raw.append(byte)
    return b"\x42\x01" + bytes(raw)


def _golomb(value: int) -> str:
    digits = f"{value + 1:b}"
    return "0" * (len(digits) - 1) + digits


def configured(*sets: bytes) -> bytes:
    """Return the decoder configuration with these HEVC parameter sets, whose lengths take four bytes."""
    lists = b"".join(struct.pack(">BHH", one[0] >> 1, 1, len(one)) + one for one in sets)
    return box(b"hvcC", b"\x01", bytes(20), b"\x03", bytes((len(sets),)), lists)


def claiming(width: int, height: int, *slices: bytes, right: int = 0, bottom: int = 0) -> Picture:
    """Return a picture whose own data claim a size, which the file repeats after cropping."""
    config = configured(sps(width, height, right, bottom), b"\x44\x01\xc0")
    return Picture(b"hvc1", config, units(*slices), width - 2 * right, height - 2 * bottom)


def units(*several: bytes) -> bytes:
    """Return HEVC units with their lengths before them."""
    return b"".join(struct.pack(">I", len(one)) + one for one in several)


FIRST_SLICE, SLICE = b"\x26\x01\x80" + bytes(8), b"\x26\x01\x00" + bytes(8)


def large_slices(size: int) -> HeifFile:
    """Return a file of this size that has as many slices as a small picture may have."""
    each = bytes(size // 1000)
    return single(claiming(64, 64, FIRST_SLICE + each, *[SLICE + each] * 999))


def with_in_band_size() -> HeifFile:
    """Return a file whose data hold one more parameter set, of a much larger picture."""
    picture = hevc()
    return single(replace(picture, data=units(sps(16_384, 16_384)) + picture.data))


def unlike_tiles(tile: Picture) -> HeifFile:
    """Return a grid of two tiles, of which the second one is ``tile``."""
    return tiled([hevc(), tile], 2, 128, 64)


def of_grid(data: bytes, tiles: int = 1) -> HeifFile:
    """Return a file with these data as its grid."""
    whole = Item(b"grid", data, (ispe(64, 64),), method=1, sources=range(2, 2 + tiles))
    return HeifFile([whole, *(Item.of(hevc()) for _ in range(tiles))])


def placed(offset: int, length: int, method: int = 0) -> HeifFile:
    """Return a file whose image is said to be at another place."""
    return HeifFile([replace(Item.of(hevc()), extent=(offset, length), method=method)])


def without(index: int) -> HeifFile:
    """Return a file whose image lacks one of its properties."""
    item = Item.of(hevc())
    left = [one for number, one in enumerate(item.properties) if number != index]
    return HeifFile([replace(item, properties=left)])


def shared_tiles(count: int) -> HeifFile:
    """Return a grid all of whose tiles are the same item."""
    whole = Item(
        b"grid",
        grid(count, 1, 64 * count, 64),
        (ispe(64 * count, 64),),
        method=1,
        sources=[2] * count,
    )
    return HeifFile([whole, Item.of(hevc())])


def _linked(entries: int, links: int, boxes: int) -> HeifFile:
    """Return a file with more boxes, each of which links as many unused items to that many properties."""
    file = single(hevc())
    entry = struct.pack(">HB", 7, links) + bytes(links)
    more = full_box(b"ipma", struct.pack(">I", entries), entry * entries)
    return replace(file, replaced={b"iprp": box(b"iprp", file.properties(), more * boxes)})


def many_links() -> HeifFile:
    """Return a file whose boxes together link items to half a million properties."""
    return _linked(entries=32, links=255, boxes=64)


def many_linked_items() -> HeifFile:
    """Return a file whose boxes together link a hundred thousand items to no property."""
    return _linked(entries=2048, links=0, boxes=50)


def in_pieces(items: int, count: int) -> HeifFile:
    """Return a file with locations of items, each in that many pieces, which all are the whole file."""
    entry = struct.pack(">HHHH", 1, 0, 0, count)
    locations = full_box(b"iloc", struct.pack(">HH", 0, items), entry * items, version=1)
    return replace(single(hevc()), replaced={b"iloc": locations})


def busy_tiles(picture: Picture, unit: bytes, size: int) -> bytes:
    """Return a file of up to ``size`` bytes with 512 tiles, whose data begin with as many units as fit."""
    each = max(0, min(1000, size // 600 // len(unit)))
    tile = replace(picture, data=unit * each + picture.data)
    brand = b"avif" if picture.kind == b"av01" else b"heic"
    return replace(tiled([tile] * 512, 32, 32 * 64, 16 * 64), brand=brand).build()


def tiles_of_large_configurations(size: int) -> bytes:
    """Return a file with 512 tiles, whose decoder configuration has nearly ``size`` bytes."""
    config = hevc().config[8:]
    unit = struct.pack(">H", 60_000) + b"\x4e\x01" + bytes(59_998)
    more = min(60, size // 70_000)
    large = box(
        b"hvcC", config[:22], bytes((config[22] + 1,)), config[23:], struct.pack(">BH", 39, more), unit * more
    )
    return tiled([replace(hevc(), config=large)] * 512, 32, 32 * 64, 16 * 64).build()


def one_tile_repeated(size: int) -> bytes:
    """Return a file with 512 tiles, all but one of which are the same item with 200 properties."""
    del size
    file = tiled([hevc()] * 2, 2, 128, 64)
    whole, first, second = file.items
    many = [box(b"pasp", struct.pack(">II", 1, number + 1)) for number in range(200)]
    return replace(
        file,
        items=[
            replace(whole, data=grid(32, 16, 32 * 64, 16 * 64), sources=[2] + [3] * 511),
            first,
            replace(second, properties=(*second.properties, *many)),
        ],
    ).build()


def itself() -> HeifFile:
    """Return a file whose grid consists of itself."""
    return HeifFile([Item(b"grid", grid(1, 1, 64, 64), (ispe(64, 64),), method=1, sources=[1])])


def _file(make: Callable[[], HeifFile]) -> Callable[[], bytes]:
    return lambda: make().build()


def _av1_with(data: bytes) -> HeifFile:
    return single(replace(av1(), data=data))


#: Files, with the values of their outcomes (see `hostile_images.Outcome`).
_FILES: tuple[tuple[str, Callable[[], HeifFile], str], ...] = (
    ("HEVC", lambda: single(hevc()), "whole"),
    ("AV1", lambda: single(av1()), "whole"),
    ("tiles", lambda: tiled([hevc()] * 4, 2, 120, 100), "whole"),
    ("turned and cropped tiles", lambda: tiled([hevc()] * 4, 2, 120, 100, irot(1), imir(0)), "whole"),
    ("a sequence that has a still image", lambda: replace(single(av1()), before=box(b"moov")), "whole"),
    ("a larger picture within the data", with_in_band_size, "whole"),
    ("a smaller size than the data", lambda: stating(hevc(), 16, 16), "damaged"),
    ("a larger size than the data", lambda: stating(hevc(), 128, 64), "damaged"),
    ("a smaller size than AV1 data", lambda: stating(av1(), 16, 16), "damaged"),
    ("20,000 pixels a side", lambda: stating(hevc(), 20_000, 20_000), "too_large"),
    ("no pixels", lambda: stating(hevc(), 0, 64), "damaged"),
    (
        "16,384 pixels a side that are cropped to 64",
        lambda: single(claiming(16_384, 16_384, FIRST_SLICE, right=8160, bottom=8160)),
        "damaged",
    ),
    (
        "many slices of a large picture",
        lambda: single(claiming(4096, 4096, FIRST_SLICE, *[SLICE] * 20)),
        "too_large",
    ),
    ("data that take long", lambda: single(claiming(4096, 4096, FIRST_SLICE + bytes(7 << 20))), "too_large"),
    ("cropped to less than nothing", lambda: single(claiming(64, 64, FIRST_SLICE, right=32)), "damaged"),
    (
        "two pictures",
        lambda: single(replace(hevc(), data=hevc().data + hevc().data)),
        "damaged",
    ),
    (
        "a grid with a tile twice",
        lambda: replace(
            tiled([hevc()] * 2, 2, 128, 64),
            items=[replace(tiled([hevc()] * 2, 2, 128, 64).items[0], sources=[2, 2]), *[Item.of(hevc())] * 2],
        ),
        "damaged",
    ),
    ("two AV1 frames", lambda: _av1_with(av1().data + av1().data), "damaged"),
    ("an AV1 unit beyond the end", lambda: _av1_with(av1().data + b"\x32\xff\x7f"), "damaged"),
    ("no AV1 frame", lambda: _av1_with(b"\x12\x00"), "damaged"),
    ("thousands of AV1 units", lambda: _av1_with(b"\x12\x00" * 5000 + av1().data), "damaged"),
    (
        "thousands of units",
        lambda: single(replace(hevc(), data=units(b"\x50\x01\x50") * 5000)),
        "damaged",
    ),
    ("a unit beyond the end", lambda: single(replace(hevc(), data=hevc().data[:-9])), "damaged"),
    ("units without bytes", lambda: single(replace(hevc(), data=bytes(400))), "damaged"),
    ("zeros as slices", lambda: single(claiming(64, 64, FIRST_SLICE)), "damaged"),
    ("half a configuration", lambda: single(replace(hevc(), config=hevc().config[:60])), "damaged"),
    ("no parameter sets", lambda: single(replace(hevc(), config=configured())), "damaged"),
    ("no size", lambda: without(0), "damaged"),
    ("no configuration", lambda: without(1), "damaged"),
    ("a grid of 65,536 tiles", lambda: of_grid(grid(256, 256, 64, 64)), "damaged"),
    ("a grid without tiles", lambda: of_grid(grid(1, 1, 64, 64), 0), "damaged"),
    ("a grid cut off", lambda: of_grid(b"\x00\x00\x00"), "damaged"),
    ("a grid of 32 bits", lambda: of_grid(grid(1, 1, 64, 64, wide=True)), "whole"),
    ("a grid of another size", lambda: of_grid(grid(1, 1, 60, 64)), "damaged"),
    ("a grid without pixels", lambda: of_grid(grid(1, 1, 0, 64)), "damaged"),
    ("a grid of itself", itself, "damaged"),
    ("tiles that share their data", lambda: shared_tiles(100), "damaged"),
    ("tiles of two codecs", lambda: unlike_tiles(av1()), "damaged"),
    ("tiles of two sizes", lambda: unlike_tiles(hevc(32, 64)), "damaged"),
    (
        "tiles that are turned",
        lambda: HeifFile([*tiled([hevc()], 1, 64, 64).items[:1], Item.of(hevc(), irot(1))]),
        "unsupported",
    ),
    ("data beyond the end", lambda: placed(100, 1 << 31), "damaged"),
    ("data that begin beyond the end", lambda: placed(1 << 31, 0), "damaged"),
    ("data up to the end of their box", lambda: placed(0, 0, method=1), "whole"),
    (
        "data in a box that is missing",
        lambda: replace(placed(0, 0, method=1), replaced={b"idat": box(b"idat")}),
        "damaged",
    ),
    ("data in another item", lambda: placed(0, 0, method=2), "unsupported"),
    ("an unknown essential property", lambda: single(hevc(), box(b"what", b"x")), "unsupported"),
    ("a JPEG in HEIF", lambda: single(replace(hevc(), kind=b"jpeg")), "unsupported"),
    ("a primary item that is missing", lambda: replace(single(hevc()), primary=7), "damaged"),
    ("a crop by zero", lambda: single(hevc(), clap(64, 0, 64, 1, 0, 1, 0, 1)), "damaged"),
    ("a crop to the outside", lambda: single(hevc(), clap(64, 1, 64, 1, 9, 1, 0, 1)), "damaged"),
    ("a crop of no pixels", lambda: single(hevc(), clap(0, 1, 64, 1, 0, 1, 0, 1)), "damaged"),
    ("turned before it is cropped", lambda: single(hevc(), irot(1), clap(*[1] * 8)), "unsupported"),
    (
        "a box of 64 bits that is too large",
        lambda: replace(single(hevc()), before=struct.pack(">I4sQ", 1, b"free", 1 << 63)),
        "damaged",
    ),
    (
        "a box of 64 bits",
        lambda: replace(single(hevc()), before=struct.pack(">I4sQ", 1, b"free", 16)),
        "whole",
    ),
    (
        "thousands of boxes",
        lambda: replace(single(hevc()), before=box(b"free") * 5000),
        "damaged",
    ),
    (
        "a box that never ends",
        lambda: replace(single(hevc()), before=struct.pack(">I4s", 0, b"free")),
        "damaged",
    ),
    (
        "a location of many pieces",
        lambda: replace(
            single(hevc()),
            replaced={
                b"iloc": full_box(b"iloc", struct.pack(">HHHHHHH", 0, 1, 1, 0, 0, 65_535, 0), version=1)
            },
        ),
        "damaged",
    ),
    ("boxes with half a million properties", many_links, "damaged"),
    ("boxes with properties of a hundred thousand items", many_linked_items, "damaged"),
    ("131,072 pieces", lambda: in_pieces(2048, 64), "damaged"),
    ("64 pieces that are the whole file", lambda: in_pieces(1, 64), "damaged"),
    (
        "65,535 locations",
        lambda: replace(
            single(hevc()), replaced={b"iloc": full_box(b"iloc", b"\x00\x00\xff\xff", bytes(600_000))}
        ),
        "damaged",
    ),
)

_BYTES: tuple[tuple[str, Callable[[], bytes], str], ...] = (
    ("512 tiles of many units", lambda: busy_tiles(hevc(), units(b"\x50\x01\x50"), 8 << 20), "damaged"),
    ("512 tiles of many AV1 units", lambda: busy_tiles(av1(), b"\x7a\x00", 8 << 20), "damaged"),
    ("512 tiles of a large configuration", lambda: tiles_of_large_configurations(8 << 20), "damaged"),
    ("512 times the same tile", lambda: one_tile_repeated(0), "damaged"),
    ("a sequence without a still image", lambda: _START + box(b"moov", bytes(100)), "unsupported"),
    ("nothing but its type", lambda: _START, "damaged"),
    ("zeros behind its type", lambda: _START + bytes(1000), "damaged"),
    ("cut off", lambda: single(hevc()).build()[:-100], "damaged"),
    ("cut off in its items", lambda: single(hevc()).build()[:200], "damaged"),
)

FILES = (*((name, _file(make), outcome) for name, make, outcome in _FILES), *_BYTES)
