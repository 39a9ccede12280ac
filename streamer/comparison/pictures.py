"""Keeps the frames of one worker on which two versions differ most, as files in the private folder.

Images stay as they came: the worker never decodes what a client has sent. Only video frames, which are
pixels already, become JPEGs.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from inference.core.detections import Boxes
from streamer.comparison.measured_frame import in_order
from streamer.comparison.pair import ComparedPair, VersionResult
from streamer.imaging.frame import DecodedFrame

log = logging.getLogger("streamer.comparison")

#: A frame is worth looking at from this disagreement on.
LEAST_DISAGREEMENT = 0.2
MOST_BYTES = 4 << 20
#: Boxes of each version that are kept with a picture.
MOST_BOXES = 50
_JPEG_QUALITY = 90
#: Types that browsers show, by the first bytes of a file.
_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}
_NAME = re.compile(r"[0-9]{1,4}-[0-9]{1,12}")
_FOLDER = "comparison-pictures"


@dataclass(order=True, slots=True)
class _Kept:
    disagreement: float
    number: int
    stream: str = field(compare=False)
    window: int = field(compare=False)
    description: dict[str, Any] = field(compare=False)
    #: None once it is stored.
    data: bytes | DecodedFrame | None = field(compare=False)


class Pictures:
    """Keeps the ``count`` frames with most disagreement, of each stream one in five minutes."""

    def __init__(self, folder: Path, worker: int, count: int) -> None:
        self._folder = folder / _FOLDER
        self._worker = worker
        self._count = count
        self._kept: list[_Kept] = []
        self._numbers = itertools.count()

    def offer(self, pair: ComparedPair, disagreement: float, window: int) -> None:
        """Keep the frame if it may be kept and is among the worst."""
        if not self._count or not pair.may_keep_image or disagreement < LEAST_DISAGREEMENT:
            return
        full = len(self._kept) >= self._count
        if full and disagreement <= self._kept[0].disagreement:
            return
        same = next((k for k in self._kept if k.stream == pair.stream and k.window == window), None)
        if same is not None and same.disagreement >= disagreement:
            return
        data = bytes(pair.data) if isinstance(pair.data, memoryview) else pair.data
        size = len(data) if isinstance(data, bytes) else data.nbytes
        kind = media_type(data) if isinstance(data, bytes) else "image/jpeg"
        if kind is None or (isinstance(data, bytes) and size > MOST_BYTES):
            return
        if same is not None:
            self._kept.remove(same)
            heapq.heapify(self._kept)
        elif full:
            heapq.heappop(self._kept)
        number = next(self._numbers)
        description = _describe(pair, f"{self._worker}-{number}", kind, disagreement)
        heapq.heappush(self._kept, _Kept(disagreement, number, pair.stream, window, description, data))

    async def store(self) -> list[dict[str, Any]]:
        """Write new pictures, remove those not kept any more; return the descriptions, worst first."""
        new = [kept for kept in self._kept if kept.data is not None]
        names = {kept.description["id"] for kept in self._kept}
        if new or self._folder.is_dir():
            try:
                await asyncio.to_thread(self._write, [(k.description["id"], k.data) for k in new], names)
            except OSError as error:
                log.warning("pictures of the comparison cannot be written: %s", error)
                return []
            for kept in new:
                kept.data = None
        return [kept.description for kept in sorted(self._kept, reverse=True) if kept.data is None]

    def restore(self, descriptions: list[dict[str, Any]]) -> None:
        """Continue with the pictures of the worker that this one replaces."""
        for each in descriptions[: self._count]:
            try:
                number = int(each["id"].partition("-")[2])
                self._kept.append(_Kept(float(each["disagreement"]), number, each["stream"], -1, each, None))
            except (KeyError, TypeError, ValueError, AttributeError):
                log.warning("a picture of the comparison is forgotten: its description is damaged")
        heapq.heapify(self._kept)
        self._numbers = itertools.count(max((kept.number for kept in self._kept), default=-1) + 1)

    def clear(self) -> None:
        """Forget all pictures; the next call of `store` removes their files."""
        self._kept.clear()

    def _write(self, new: list[tuple[str, bytes | DecodedFrame | None]], names: set[str]) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for name, data in new:
            if data is not None:
                path = self._folder / name
                aside = path.with_suffix(".new")
                aside.write_bytes(data if isinstance(data, bytes) else _jpeg(data))
                aside.rename(path)
        for path in self._folder.glob(f"{self._worker}-*"):
            if path.name not in names:
                path.unlink(missing_ok=True)


def read_picture(folder: Path, name: str) -> tuple[bytes, str] | None:
    """Return the bytes of a picture and their media type; None if it is not kept any more."""
    if not _NAME.fullmatch(name):
        return None
    try:
        data = (folder / _FOLDER / name).read_bytes()
    except FileNotFoundError:
        return None
    kind = media_type(data)
    return None if kind is None else (data, kind)


def media_type(data: bytes) -> str | None:
    """Return the type of an image that browsers show, by its first bytes; None for others."""
    return next((kind for head, kind in _TYPES.items() if data.startswith(head)), None)


def _jpeg(frame: DecodedFrame) -> bytes:
    _, data = cv2.imencode(".jpg", frame.pixels(), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    encoded: bytes = data.tobytes()
    return encoded


def _describe(pair: ComparedPair, name: str, kind: str, disagreement: float) -> dict[str, Any]:
    first, second = in_order(pair)
    rotation = 0 if not isinstance(pair.data, bytes | memoryview) else pair.rotation % 4
    return {
        "id": name,
        "at": pair.at,
        "stream": pair.stream,
        "width": pair.width,
        "height": pair.height,
        "rotation": rotation,
        "type": kind,
        "disagreement": round(disagreement, 3),
        "boxes": {first.version: _boxes(first), second.version: _boxes(second)},
    }


def _boxes(result: VersionResult) -> list[dict[str, Any]]:
    boxes: Boxes = result.boxes[:MOST_BOXES]
    return [
        {
            "box": [round(float(value), 1) for value in row[:4]],
            "score": round(float(row[4]), 3),
            "label": result.labels[int(row[5])],
        }
        for row in boxes
    ]
