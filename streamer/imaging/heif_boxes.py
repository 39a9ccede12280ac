"""Reads the boxes of a HEIF file (HEIC, AVIF): its items, where their data are, and their properties.

The boxes are those of ISO/IEC 14496-12 and 23008-12. Every loop over them has a limit that real files do not
reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from streamer.imaging.pixel_limits import damaged, unsupported

#: Most boxes in one place. A photograph of 48 megapixels has some 200 items, most of them tiles.
_MAX_BOXES = 2048
#: Most references between items, and most links from items to properties, in a file.
_MAX_LINKS = 8192
#: Most pieces in which the data of one item may lie, and those of all items of a file together.
_MAX_EXTENTS, _MAX_ALL_EXTENTS = 64, 4096
#: Most bytes of the box with the brands; real files name ten brands at most.
_MAX_BRAND_BYTES = 256
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
_HEIF_BRANDS = {b"mif1", b"mif2", b"msf1"}


def name_heif(head: bytes) -> str:
    """Return HEIC, AVIF or HEIF if the file has a brand of such images; otherwise an empty string.

    ``head`` are its first bytes. HEIF is returned if the brands do not say which codec the image has.
    """
    if head[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(head[:4], "big"), len(head), _MAX_BRAND_BYTES)
    # Four bytes between the major brand and the compatible ones hold a version.
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
    for name, known in (("AVIF", _AVIF_BRANDS), ("HEIC", _HEIC_BRANDS), ("HEIF", _HEIF_BRANDS)):
        if brands & known:
            return name
    return ""


class Box(NamedTuple):
    """Holds the type of a box, and where its contents begin and end in the file."""

    kind: bytes
    start: int
    end: int


class Fields:
    """Reads the fields of a box one after the other."""

    def __init__(self, blob: bytes, box: Box) -> None:
        self._blob = blob
        self._at = box.start
        self._box = box

    def uint(self, size: int) -> int:
        """Return the next field, an unsigned number of ``size`` bytes. Raises ImageError."""
        return int.from_bytes(self.raw(size), "big")

    def raw(self, size: int) -> bytes:
        """Return the next ``size`` bytes. Raises ImageError."""
        at = self._at
        if at + size > self._box.end:
            raise damaged(f"its box {self._box.kind!r} is too short")
        self._at = at + size
        return self._blob[at : at + size]

    def version(self) -> tuple[int, int]:
        """Return the version and the flags with which a full box begins. Raises ImageError."""
        return self.uint(1), self.uint(3)

    def rest(self) -> Box:
        """Return the part of the box that was not read yet."""
        return Box(self._box.kind, self._at, self._box.end)


def boxes(blob: bytes, part: Box) -> Iterator[Box]:
    """Yield the boxes in a part of a file. Raises ImageError."""
    at = part.start
    for _ in range(_MAX_BOXES):
        if at + 8 > part.end:
            return
        size, kind, start = int.from_bytes(blob[at : at + 4], "big"), blob[at + 4 : at + 8], at + 8
        if size == 1:  # the size has 64 bits, and follows
            size, start = int.from_bytes(blob[start : start + 8], "big"), start + 8
        end = at + size if size else part.end
        if end < start or end > part.end:
            whole = part.end == len(blob) and end > part.end
            raise damaged("the file is cut off" if whole else f"its box {kind!r} is of {size} bytes")
        yield Box(kind, start, end)
        at = end
    raise damaged(f"it has more than {_MAX_BOXES} boxes in one place")


class Property(NamedTuple):
    """A property that an item has; without ``essential`` readers may ignore it."""

    box: Box
    essential: bool


@dataclass(slots=True)
class _Location:
    """Says where the data of an item lie; ``base`` is the start of the file or of the box of small data."""

    in_idat: bool
    #: Offset and length of each piece; length 0 means all up to the end.
    extents: list[tuple[int, int]]
    #: Why the data cannot be read; empty if they can.
    fault: str = ""


@dataclass(slots=True)
class HeifItems:
    """Holds the items of a file. The first of several statements about an item is used."""

    blob: bytes
    primary: int = 0
    #: Type of each item, such as ``hvc1``.
    kinds: dict[int, bytes] = field(default_factory=dict)
    #: Items from which an item is derived, in order: the tiles of a grid.
    sources: dict[int, list[int]] = field(default_factory=dict)
    _locations: dict[int, _Location] = field(default_factory=dict)
    _properties: list[Box] = field(default_factory=list)
    _links: dict[int, list[tuple[int, bool]]] = field(default_factory=dict)
    #: Numbers of entries and of links in all boxes that link items to properties.
    _entry_count: int = 0
    _link_count: int = 0
    _idat: Box | None = None
    #: Bytes of data that were returned.
    _data_bytes: int = 0

    @classmethod
    def read(cls, blob: bytes) -> HeifItems:
        """Read the boxes of a file. Raises ImageError."""
        found = cls(blob)
        meta = _meta_of(blob)
        readers = {
            b"hdlr": found._read_handler,
            b"pitm": found._read_primary,
            b"iinf": found._read_kinds,
            b"iloc": found._read_locations,
            b"iref": found._read_references,
            b"iprp": found._read_properties,
        }
        for box in boxes(blob, meta):
            if box.kind == b"idat" and found._idat is None:
                found._idat = box
            elif (read := readers.pop(box.kind, None)) is not None:
                read(Fields(blob, box))
        if found.primary not in found.kinds:
            raise damaged("its primary item is missing")
        return found

    def data_of(self, item: int) -> bytes:
        """Return the data of an item. Raises ImageError, also when all calls return more than the file has.

        Pieces and items may lie in the same bytes. Without this bound, a file of 8 MB whose item has 64 such
        pieces takes 500 MB.
        """
        location = self._locations.get(item)
        if location is None or not location.extents:
            raise damaged(f"item {item} has no data")
        if location.fault:
            raise unsupported(location.fault)
        part = self._idat if location.in_idat else Box(b"", 0, len(self.blob))
        if part is None:
            raise damaged(f"the data of item {item} are in a box that is missing")
        pieces = []
        for offset, length in location.extents:
            start = part.start + offset
            end = start + length if length else part.end
            if start >= part.end or end > part.end:
                raise damaged(
                    f"the file is cut off: item {item} ends at byte {end} of {part.end}, or has no data"
                )
            self._data_bytes += end - start
            if self._data_bytes > len(self.blob):
                raise damaged("its items share their data")
            pieces.append(self.blob[start:end])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def properties_of(self, item: int) -> list[Property]:
        """Return the properties of an item in the order in which they apply. Raises ImageError."""
        found = []
        for index, essential in self._links.get(item, ()):
            if index > len(self._properties):
                raise damaged(f"item {item} has property {index} of {len(self._properties)}")
            if index:
                found.append(Property(self._properties[index - 1], essential))
        return found

    def _read_handler(self, fields: Fields) -> None:
        fields.raw(8)
        if (kind := fields.raw(4)) != b"pict":
            raise damaged(f"its items are {kind!r}, not an image")

    def _read_primary(self, fields: Fields) -> None:
        version, _ = fields.version()
        self.primary = fields.uint(4 if version else 2)

    def _read_kinds(self, fields: Fields) -> None:
        version, _ = fields.version()
        fields.uint(4 if version else 2)
        for box in boxes(self.blob, fields.rest()):
            entry = Fields(self.blob, box)
            version, _ = entry.version()
            if box.kind != b"infe" or version not in (2, 3):
                continue
            item, protected = entry.uint(4 if version == 3 else 2), entry.uint(2)
            self.kinds.setdefault(item, b"encr" if protected else entry.raw(4))

    def _read_locations(self, fields: Fields) -> None:
        version, _ = fields.version()
        sizes = fields.uint(2)
        offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        if version > 2 or not {offset_size, length_size, base_size, index_size} <= {0, 4, 8}:
            raise damaged(f"its box of locations has version {version} and sizes {sizes:#06x}")
        wide = 4 if version == 2 else 2
        count, left = fields.uint(wide), _MAX_ALL_EXTENTS
        if count > _MAX_BOXES:
            raise damaged(f"it has more than {_MAX_BOXES} items")
        for _ in range(count):
            item = fields.uint(wide)
            method = fields.uint(2) & 15 if version else 0
            elsewhere = fields.uint(2)
            base, pieces = fields.uint(base_size), fields.uint(2)
            if pieces > _MAX_EXTENTS:
                raise damaged(f"the data of item {item} are in {pieces} pieces; {_MAX_EXTENTS} are allowed")
            left -= pieces
            if left < 0:
                raise damaged(f"the data of its items are in more than {_MAX_ALL_EXTENTS} pieces")
            location = _Location(method == 1, [])
            if elsewhere:
                location.fault = "an image whose data are in another file"
            elif method > 1:
                location.fault = "an image whose data are part of another item"
            for _ in range(pieces):
                if version:
                    fields.raw(index_size)
                location.extents.append((base + fields.uint(offset_size), fields.uint(length_size)))
            self._locations.setdefault(item, location)

    def _read_references(self, fields: Fields) -> None:
        version, _ = fields.version()
        size, total = 4 if version else 2, 0
        for box in boxes(self.blob, fields.rest()):
            if box.kind != b"dimg":
                continue
            entry = Fields(self.blob, box)
            item, count = entry.uint(size), entry.uint(2)
            total += count
            if total > _MAX_LINKS:
                raise damaged(f"it has more than {_MAX_LINKS} references between items")
            self.sources.setdefault(item, [entry.uint(size) for _ in range(count)])

    def _read_properties(self, fields: Fields) -> None:
        for box in boxes(self.blob, fields.rest()):
            if box.kind == b"ipco" and not self._properties:
                self._properties = list(boxes(self.blob, box))
            elif box.kind == b"ipma":
                self._read_links(Fields(self.blob, box))

    def _read_links(self, fields: Fields) -> None:
        version, flags = fields.version()
        size, entries = 2 if flags & 1 else 1, fields.uint(4)
        self._entry_count += entries
        if self._entry_count > _MAX_BOXES:
            raise damaged(f"it has properties for more than {_MAX_BOXES} items")
        essential = 1 << (8 * size - 1)
        for _ in range(entries):
            item, count = fields.uint(4 if version else 2), fields.uint(1)
            self._link_count += count
            if self._link_count > _MAX_LINKS:
                raise damaged(f"its items have more than {_MAX_LINKS} properties")
            links = [fields.uint(size) for _ in range(count)]
            self._links.setdefault(item, [(link & (essential - 1), bool(link & essential)) for link in links])


def _meta_of(blob: bytes) -> Box:
    """Return the contents of the box with the items. Raises ImageError."""
    moving = False
    for box in boxes(blob, Box(b"", 0, len(blob))):
        if box.kind == b"meta":
            fields = Fields(blob, box)
            fields.version()
            return fields.rest()
        moving = moving or box.kind == b"moov"
    if moving:
        raise unsupported("a HEIF sequence without a still image")
    raise damaged("it has no box of items")
