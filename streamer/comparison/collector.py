"""Adds up the pairs of one worker and writes the sums to a file, from which any worker answers.

The file is in the private folder of the replica. A worker that starts again continues it, unless a model
has changed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.comparison.blocks import STREAMS, WINDOW_S, Blocks, MalformedBlocks
from streamer.comparison.measured_frame import Previous, in_order, measure
from streamer.comparison.pair import ComparedPair
from streamer.comparison.pictures import Pictures

log = logging.getLogger("streamer.comparison")

#: Seconds between two writes while pairs arrive.
WRITE_EVERY_S = 5.0
#: Streams whose last frame is kept for jitter, which is that of box coordinates alone.
MOST_STREAMS = 512
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Models:
    """Names two versions and the SHA-256 of their models; the sums belong to exactly these."""

    first: str
    second: str
    first_sha256: str
    second_sha256: str

    def to_document(self) -> list[str]:
        """Return the four texts."""
        return [self.first, self.second, self.first_sha256, self.second_sha256]


@dataclass(slots=True)
class Sums:
    """Holds everything that one worker has added up, or all workers together."""

    models: Models
    by_stream: Blocks
    by_time: Blocks
    #: Descriptions of the kept pictures, see `pictures`.
    pictures: list[dict[str, Any]]

    def merge(self, other: Sums) -> None:
        """Add the sums of another worker."""
        self.by_stream.merge(other.by_stream)
        self.by_time.merge(other.by_time)
        self.pictures.extend(other.pictures)

    def to_document(self) -> dict[str, Any]:
        """Return the sums as JSON values."""
        return {
            "schema": _SCHEMA,
            "models": self.models.to_document(),
            "by_stream": self.by_stream.to_document(),
            "by_time": self.by_time.to_document(),
            "pictures": self.pictures,
        }


def read_sums(path: Path) -> Sums | None:
    """Return what a file holds; None if there is none, or if another version of the service wrote it."""
    try:
        document = json.loads(path.read_bytes())
        if document["schema"] != _SCHEMA:
            return None
        return Sums(
            Models(*document["models"]),
            Blocks.from_document(document["by_stream"]),
            Blocks.from_document(document["by_time"]),
            document["pictures"],
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, MalformedBlocks) as error:
        log.warning("%s cannot be read, its pairs do not count: %s", path.name, error)
        return None


def read_all(folder: Path, models: Models) -> Sums:
    """Return the sums of all workers about the given models."""
    found = Sums(models, Blocks(), Blocks(), [])
    for path in files_of(folder):
        sums = read_sums(path)
        if sums is not None and sums.models == models:
            found.merge(sums)
    return found


def files_of(folder: Path) -> Iterable[Path]:
    """Return the files of all workers."""
    return sorted(folder.glob("comparison-*.json"))


class Collector:
    """Takes the pairs of one worker. All methods run on its event loop."""

    def __init__(self, folder: Path, worker: int, *, picture_count: int = 0) -> None:
        """Continue the file of this worker in ``folder``, and keep at most ``picture_count`` pictures."""
        self._path = folder / f"comparison-{worker}.json"
        self._pictures = Pictures(folder, worker, picture_count)
        self._sums = read_sums(self._path)
        if self._sums is not None:
            self._pictures.restore(self._sums.pictures)
        self._previous: OrderedDict[str, Previous] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def add(self, pair: ComparedPair) -> None:
        """Add up one pair; takes a tenth of a millisecond for few boxes, and a millisecond at most."""
        first, second = in_order(pair)
        models = Models(first.version, second.version, first.model_sha256, second.model_sha256)
        if self._sums is None or self._sums.models != models:
            self._begin(models)
        sums = self._sums
        assert sums is not None  # noqa: S101 - set by the line above
        measured, disagreement, latest = measure(pair, self._previous.get(pair.stream))
        self._previous[pair.stream] = latest
        self._previous.move_to_end(pair.stream)
        if len(self._previous) > MOST_STREAMS:
            self._previous.popitem(last=False)
        window = int(pair.at // WINDOW_S)
        sums.by_stream.add(window, int(pair.stream, 16) % STREAMS, measured)
        sums.by_time.add(window, 0, measured)
        self._pictures.offer(pair, disagreement, window)
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_EVERY_S, self._start_writing)

    async def close(self) -> None:
        """Write what has been added since the last write."""
        if self._writing is not None:
            await self._writing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            await self._write()

    def _begin(self, models: Models) -> None:
        self._sums = Sums(models, Blocks(), Blocks(), [])
        self._previous.clear()
        self._pictures.clear()

    def _start_writing(self) -> None:
        self._timer = None
        self._writing = asyncio.get_running_loop().create_task(self._write())
        self._writing.add_done_callback(self._ended)

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._writing = None

    async def _write(self) -> None:
        """Replace the file by a complete new one."""
        sums = self._sums
        if sums is None:
            return
        sums.pictures = await self._pictures.store()
        # The document refers to lists that are replaced and never changed.
        text = sums.to_document()
        try:
            await asyncio.to_thread(_replace, self._path, text)
        except OSError as error:
            log.warning("%s cannot be written, the comparison stands still: %s", self._path.name, error)


def _replace(path: Path, document: dict[str, Any]) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(document))
    aside.rename(path)
