"""Files of drift rows are read as they were written; crashes and outages lose no row and repeat none."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.drift.history import History
from streamer.drift.row_file import (
    FILE_S,
    DamagedRows,
    OtherFeatures,
    RowFile,
    RowFileName,
    decode,
    encode,
)
from streamer.drift.rows import NUMERIC, Row
from streamer.sampling.delivery import deliver
from streamer.sampling.row_writer import LATE_S, MAX_BEHIND_S, SPREAD_S, RowWriter
from streamer.sampling.spool import Spool
from streamer.sampling.store import FolderStore
from tests.helpers.drift_rows import World, rows

BEGIN = 1_800_000_000 // FILE_S * FILE_S
#: A time at which the files of a half hour are due, whatever the delay of a replica.
DUE_S = FILE_S + LATE_S + SPREAD_S


def measured(count: int = 360, begin: float = BEGIN, stream: str = "gate") -> list[Row]:
    values = World(1).values(count)
    values[:, NUMERIC.index("jpeg_bpp")] = np.nan
    return list(rows(values, begin, stream=stream))


def test_a_file_is_read_as_it_was_written() -> None:
    written = measured()
    written[7] = replace(written[7], model="v2:cd", classes=(), session=3)
    key, body = encode(RowFile("gate", "a-1", BEGIN, 5.0, written), "1.0")
    assert (key, body) == encode(RowFile("gate", "a-1", BEGIN, 5.0, written), "1.0")
    assert len(body) < 110 * len(written), "bytes of a row"
    assert RowFileName.parse(key) == RowFileName(key, "gate", "a-1", BEGIN)
    found = decode(body, key)
    assert (found.stream, found.replica, found.begin, found.interval_s) == ("gate", "a-1", BEGIN, 5.0)
    for row, same in zip(written, found.rows, strict=True):
        np.testing.assert_allclose(row.numbers, same.numbers, rtol=1e-4)
        assert replace(row, numbers=same.numbers, at=same.at) == same
        assert abs(row.at - same.at) <= 0.0005


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schema": 2}, "field `schema` is 2; this release reads 1"),
        ({"columns": None}, "not a file of drift rows"),
        ({"columns": {}}, "field `brightness` is missing"),
        ({"models": []}, "not a file of drift rows"),
        ({"from": "x"}, "not a file of drift rows"),
    ],
)
def test_a_damaged_file_is_refused_by_name(changes: dict[str, Any], expected: str) -> None:
    _, body = encode(RowFile("gate", "a-1", BEGIN, 5.0, measured(5)), "1.0")
    document = json.loads(gzip.decompress(body)) | changes
    with pytest.raises(DamagedRows, match=f"^k: {expected}"):
        decode(gzip.compress(json.dumps(document).encode()), "k")


@pytest.mark.parametrize("column", ["at", "brightness", "classes"])
def test_a_short_column_is_refused(column: str) -> None:
    _, body = encode(RowFile("gate", "a-1", BEGIN, 5.0, measured(5)), "1.0")
    document = json.loads(gzip.decompress(body))
    del document["columns"][column][2:]
    with pytest.raises(DamagedRows, match="not a file of drift rows"):
        decode(gzip.compress(json.dumps(document).encode()), "k")


def test_other_features_cut_files_and_bombs_are_told_apart() -> None:
    _, body = encode(RowFile("gate", "a-1", BEGIN, 5.0, measured(5)), "1.0")
    document = json.loads(gzip.decompress(body)) | {"feature_version": 9}
    with pytest.raises(OtherFeatures, match="field `feature_version` is 9; this release measures 1"):
        decode(gzip.compress(json.dumps(document).encode()), "k")
    for damaged in (body[:-9], b"", b"plain", gzip.compress(bytes(33 << 20))):
        with pytest.raises(DamagedRows):
            decode(damaged, "k")


def test_other_keys_are_no_files_of_rows() -> None:
    key, _ = encode(RowFile("gate", "a-1", BEGIN, 5.0, measured(5)), "1.0")
    for other in (key + "x", "v1/rows/x", key.replace("dt=20", "dt=xx"), key.replace("rows", "images")):
        assert RowFileName.parse(other) is None
    assert RowFileName.parse(key.replace("/dt=2027-01-15", "/dt=2027-02-31")) is None


class Replica:
    """Writes rows with a clock of its own; ``stored`` delivers them and returns what the store has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = float(BEGIN)
        self.accepted = 0
        self.start()

    def start(self) -> None:
        self.history = History(self.folder / ".drift", 256 << 20)
        assert not self.history.open()
        self.spool = Spool(self.folder / ".spool", 64 << 20)
        self.spool.open()
        self.writer = RowWriter(
            self.history,
            self.spool,
            self._count,
            self.folder / ".spool" / "rows",
            interval_s=5.0,
            service_version="1.0",
            clock=lambda: self.now,
        )
        self.writer.open()

    def _count(self) -> None:
        self.accepted += 1

    def crash(self) -> None:
        """End without a word, and start again."""
        self.history.close()
        self.spool.close()
        self.start()

    def measure(self, found: list[Row]) -> None:
        for row in found:
            self.history.append(row)

    def write(self, now: float) -> None:
        """Let the writer do what is due at a time."""
        self.now = now

        async def run() -> None:
            self.writer.tick()
            await self.writer.written()

        asyncio.run(run())

    def stop(self) -> None:
        asyncio.run(self.writer.close())
        self.crash()

    def deliver(self, store: FolderStore) -> None:
        for name in self.spool.oldest():
            asyncio.run(deliver(self.spool.read(name), store))
            self.spool.remove(name)


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    started = Replica(tmp_path / "replica")
    yield started
    started.history.close()
    started.spool.close()


def stored(folder: Path) -> list[Row]:
    paths = sorted((folder / "v1/rows").rglob("*.json.gz"))
    found = [decode(path.read_bytes(), path.name) for path in paths]
    for path, file in zip(paths, found, strict=True):
        name = RowFileName.parse(path.relative_to(folder).as_posix())
        assert name is not None
        assert (name.stream, name.replica, name.begin) == (file.stream, file.replica, file.begin)
    return [row for file in found for row in file.rows]


def times(found: list[Row]) -> Counter[tuple[str, float]]:
    return Counter((row.stream, round(row.at, 3)) for row in found)


def test_each_half_hour_becomes_one_file_of_each_stream(replica: Replica, tmp_path: Path) -> None:
    written = measured(700) + measured(360, BEGIN + FILE_S, "yard")
    replica.measure(written)
    replica.write(BEGIN + FILE_S)  # a row may still arrive late
    assert not len(replica.spool)
    replica.write(BEGIN + DUE_S)
    assert (len(replica.spool), replica.accepted) == (1, 1)
    replica.write(BEGIN + FILE_S + DUE_S)
    assert (len(replica.spool), replica.accepted) == (3, 3)
    replica.deliver(FolderStore(tmp_path, 1 << 30))
    assert times(stored(tmp_path)) == times(written)


def test_a_crash_at_any_moment_loses_no_row_and_makes_the_same_files(
    replica: Replica, tmp_path: Path
) -> None:
    written = measured(700)
    replica.measure(written[:500])
    state = (replica.folder / ".spool" / "rows").read_bytes()
    replica.write(BEGIN + DUE_S)
    # The process ends after it has accepted the file, before it has noted that, and after the delivery.
    store = FolderStore(tmp_path, 1 << 30)
    replica.deliver(store)
    (replica.folder / ".spool" / "rows").write_bytes(state)
    replica.crash()
    replica.measure(written[500:])
    replica.write(BEGIN + FILE_S + DUE_S)
    assert len(replica.spool) == 2
    replica.deliver(store)
    assert times(stored(tmp_path)) == times(written)
    assert len({path.name for path in (tmp_path / "v1/rows").rglob("*.gz")}) == 2


def test_a_replica_that_is_stopped_writes_what_it_has(replica: Replica, tmp_path: Path) -> None:
    written = measured(360)
    replica.measure(written[:200])
    replica.now = BEGIN + 1000.0
    store = FolderStore(tmp_path, 1 << 30)
    replica.stop()
    replica.deliver(store)
    assert times(stored(tmp_path)) == times(written[:200])
    replica.measure(written[200:])
    replica.write(BEGIN + DUE_S)
    replica.deliver(store)
    # The second file repeats the rows of the first: a reader counts a row of a replica and time once.
    assert set(times(stored(tmp_path))) == set(times(written))


def test_a_full_spool_keeps_rows_waiting_and_loses_none(replica: Replica, tmp_path: Path) -> None:
    written = measured(1000)
    replica.measure(written)
    replica.spool.limit_bytes = 100
    replica.write(BEGIN + DUE_S)
    assert not len(replica.spool)
    replica.spool.limit_bytes = 64 << 20
    replica.write(BEGIN + DUE_S + 3 * FILE_S)
    replica.deliver(FolderStore(tmp_path, 1 << 30))
    assert times(stored(tmp_path)) == times(written)


def test_a_replica_keeps_its_id_and_a_damaged_note_makes_a_new_one(replica: Replica) -> None:
    first = replica.writer.replica
    replica.crash()
    assert replica.writer.replica == first
    (replica.folder / ".spool" / "rows").write_text("{")
    replica.now += MAX_BEHIND_S
    replica.crash()
    assert replica.writer.replica != first


def test_a_folder_keeps_the_newest_days_of_rows_and_all_samples(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, 250)
    asyncio.run(store.put("v1/images/dt=2026-01-01/stream=a/b.jpg", bytes(100), ""))
    for day in range(1, 5):
        asyncio.run(store.put(f"v1/rows/dt=2026-01-0{day}/stream=a/x", bytes(100), ""))
    assert sorted(path.name for path in (tmp_path / "v1/rows").iterdir()) == [
        "dt=2026-01-03",
        "dt=2026-01-04",
    ]
    assert store.used_bytes == FolderStore(tmp_path, 250).used_bytes == 100
