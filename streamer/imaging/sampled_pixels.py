"""Allocates image memory that keeps only the rows that resizing reads; `decode` uses it for large images.

Linear resizing reads two source rows for each row of its result. A JPEG decoder writes all rows, so it gets
address space for all of them. The pages of the rows that resizing does not read are all mapped to the same
few pages of memory. Decoding and resizing run unchanged and give the same result, and the pixels take a tenth
to a third of their size.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.intp]

#: Smaller images are decoded into ordinary memory, which a decoder process reuses; mapping pages takes time.
LEAST_BYTES = 16 << 20
#: `decode` also uses ordinary memory if more than this share of the pages has to be kept.
_MOST_KEPT = 0.5
#: OpenCV computes positions in single precision, so rounding may move a position to the other side of a row
#: that is this close.
_ROUNDING = 1e-2

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = _LIBC.mremap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_LIBC.mremap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_void_p,
)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value
_MAP_NORESERVE = 0x4000
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2


def sampled_rows(source: int, resized: int) -> Rows:
    """Return which of ``source`` rows `cv2.resize` with INTER_LINEAR reads for ``resized`` rows, ascending.

    The same holds for columns.
    """
    position = (np.arange(resized) + 0.5) * (source / resized) - 0.5
    first = np.floor(position - _ROUNDING).astype(np.intp)
    last = np.floor(position + _ROUNDING).astype(np.intp) + 1
    read = np.zeros(source, bool)
    for rows in (first, first + 1, last - 1, last):
        read[np.clip(rows, 0, source - 1)] = True
    return np.flatnonzero(read)


def sampled_memory(height: int, width: int, rows: Rows) -> Pixels | None:
    """Return memory for uint8 pixels (height, width, 3) that keeps only ``rows``, which are ascending.

    The other rows share memory, so their contents are undefined. Returns None if this would save little or
    if the kernel refuses; the caller then uses ordinary memory. The memory is unmapped when the last
    reference to the array is gone.
    """
    size = height * width * 3
    pages = -(-size // mmap.PAGESIZE)
    gaps = _worthwhile_gaps(height, width, rows)
    if not gaps:
        return None
    address = _map(pages, mmap.MAP_PRIVATE)
    if address is None:
        return None
    memory = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(memory, _LIBC.munmap, address, pages * mmap.PAGESIZE)
    if not _share(address, gaps):
        return None
    return np.ndarray((height, width, 3), np.uint8, memoryview(memory))


def kept_bytes(height: int, width: int, rows: Rows) -> int:
    """Return the bytes that `sampled_memory` takes, or those of ordinary memory if it would return None."""
    pages = -(-height * width * 3 // mmap.PAGESIZE)
    gaps = _worthwhile_gaps(height, width, rows)
    if not gaps:
        return pages * mmap.PAGESIZE
    kept = pages - sum(count for _, count in gaps) + _shared_pages(gaps)
    return kept * mmap.PAGESIZE


def _worthwhile_gaps(height: int, width: int, rows: Rows) -> list[tuple[int, int]]:
    """Return first page and number of pages of each gap between ``rows``; none if they would save little."""
    size = height * width * 3
    pages = -(-size // mmap.PAGESIZE)
    if size < LEAST_BYTES or not len(rows):
        return []
    gaps = list(_gaps(rows, width * 3, pages))
    return gaps if pages - sum(count for _, count in gaps) <= _MOST_KEPT * pages else []


def _shared_pages(gaps: list[tuple[int, int]]) -> int:
    """Return the number of pages that all gaps share: the median of their lengths."""
    return sorted(count for _, count in gaps)[len(gaps) // 2]


def _gaps(rows: Rows, row_bytes: int, pages: int) -> Iterator[tuple[int, int]]:
    """Yield first page and number of pages of each run of pages that contains no byte of ``rows``."""
    end = 0
    for first, last in zip(
        (rows * row_bytes // mmap.PAGESIZE).tolist(),
        (((rows + 1) * row_bytes - 1) // mmap.PAGESIZE).tolist(),
        strict=True,
    ):
        if first > end:
            yield end, first - end
        end = max(end, last + 1)
    if pages > end:
        yield end, pages - end


def _share(address: int, gaps: list[tuple[int, int]]) -> bool:
    """Map the same pages of memory into all ``gaps``; return False if the kernel refuses."""
    common = _shared_pages(gaps)
    shared = _map(common, mmap.MAP_SHARED)
    if shared is None:
        return False
    try:
        for first, count in gaps:
            for page in range(first, first + count, common):
                length = min(common, first + count - page) * mmap.PAGESIZE
                place = address + page * mmap.PAGESIZE
                # With an old size of 0, mremap maps the same memory a second time.
                if _LIBC.mremap(shared, 0, length, _MREMAP_MAYMOVE | _MREMAP_FIXED, place) == _FAILED:
                    return False
    finally:
        _LIBC.munmap(shared, common * mmap.PAGESIZE)
    return True


def _map(pages: int, sharing: int) -> int | None:
    """Map fresh memory; return its address, or None if the kernel refuses."""
    flags = sharing | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    address: int | None = _LIBC.mmap(
        None, pages * mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0
    )
    return None if address == _FAILED else address
