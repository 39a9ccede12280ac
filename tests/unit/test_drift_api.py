"""Tests updates of the drift reference: what is learned and refused; rows and reference survive a restart."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.ipc.shared_document import CAPACITY_BYTES, SharedDocument
from inference.ipc.shared_status import SharedStatus
from streamer.config.settings import load_settings
from streamer.drift.history import History
from streamer.drift.rows import NUMERIC
from streamer.drift.status_document import DriftStatus
from streamer.sampling.drift_api import DriftApi
from streamer.sampling.drift_service import DriftService
from streamer.sampling.metrics import DriftMetrics
from tests.helpers.drift_rows import World, rows

HOURS = 11


class DriftRun:
    """Holds a drift service, whose files are in one folder, and its API."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.page, self.shared_status = SharedDocument(), SharedStatus()
        self.settings = load_settings(
            samples_dir=folder / "samples",
            reference_data_path=folder / "r.json",
            drift_engine="builtin",
            **settings,
        )
        self.service = DriftService(self.settings, DriftMetrics(), self.page, self.shared_status)
        self.api = DriftApi(self.service)

    async def update(self, body: Any = None, *, dry_run: bool = False, force: bool = False) -> dict[str, Any]:
        text = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        request = {"method": "update", "body": text, "dry_run": dry_run, "force": force}
        return await self.api.handle(request)

    def live(self, stream: str, hours: float = HOURS, seed: int = 1, by: float = 0.0) -> None:
        """Add the rows of a camera for the last ``hours``; ``by`` is added to the noise column."""
        values = World(seed).values(int(hours * 720))
        values[:, NUMERIC.index("noise")] += by
        for row in rows(values, time.time() - hours * 3600, stream=stream):
            self.service.history.append(row)
            self.service._handle(self.service.monitor.add(row))

    def status(self) -> dict[str, Any]:
        self.service._publish()
        status: dict[str, Any] = json.loads(self.page.read())
        return status

    async def close(self) -> None:
        await self.service.close()
        self.page.close()
        self.shared_status.close()


@pytest.fixture
async def drift(tmp_path: Path) -> AsyncIterator[DriftRun]:
    made = DriftRun(tmp_path)
    await made.service.open()
    yield made
    await made.close()


async def test_the_last_hours_are_learnt_and_found_again_by_the_next_process(
    drift: DriftRun, tmp_path: Path
) -> None:
    drift.live("gate")
    drift.live("yard", hours=0.5)
    assert drift.status()["status"] == "no_reference"
    tried = (await drift.update({"hours": 24, "dry_run": True}))["result"]
    assert not (tmp_path / "r.json").exists()
    learnt = (await drift.update({"hours": 24}))["result"]
    assert learnt["groups"] == tried["groups"]
    assert (tried["sha256"], tried["dry_run"]) == (None, True)
    gate = learnt["groups"]["gate"]
    assert (gate["calibrated"], gate["rows"], gate["model"]) == (True, 5000, "v1:ab")
    assert gate["ratio_after"] < 1
    assert "360 rows" in learnt["skipped"]["yard"]
    await drift.service.close()
    again = DriftRun(tmp_path)
    await again.service.open()
    try:
        found = again.status()
        assert found["reference"]["sha256"] == learnt["sha256"]
        group = again.service.monitor.groups["gate"]
        assert len(group.recent.window(group.recent.newest).rows) >= 350
    finally:
        await again.close()


async def test_drift_is_not_learnt_unless_somebody_insists(drift: DriftRun) -> None:
    drift.live("gate")
    await drift.update()
    drift.live("gate", hours=1, seed=2, by=6.0)
    found = drift.status()
    assert (found["status"], found["alert"]) == ("drift", True)
    assert drift.shared_status.read("drift") == DriftStatus.DRIFT
    refused = (await drift.update())["error"]
    assert (refused["status"], refused["code"]) == (409, "in_drift")
    tried = (await drift.update({"dry_run": True}))["result"]["groups"]["gate"]
    assert tried["ratio_before"] > 1.5
    assert "result" in await drift.update(force=True)
    assert drift.status()["status"] == "insufficient_data"


async def test_one_group_is_learnt_beside_the_others_and_two_updates_do_not_meet(drift: DriftRun) -> None:
    drift.live("gate")
    drift.live("yard", seed=4)
    first, second = await asyncio.gather(drift.update({"group": "gate"}), drift.update())
    assert first["result"]["sha256"]
    assert (second["error"]["status"], second["error"]["code"]) == (423, "locked")
    assert set(drift.status()["reference"]["groups"]) == {"gate"}
    assert "result" in await drift.update({"group": "yard"})
    assert set(drift.status()["reference"]["groups"]) == {"gate", "yard"}
    document = (drift.folder / "r.json").read_bytes()
    assert set((await drift.update(document))["result"]["groups"]) == {"gate", "yard"}
    assert (drift.folder / "r.json").read_bytes() == document
    nobody = (await drift.update({"group": "nobody"}))["error"]
    assert (nobody["status"], nobody["code"]) == (409, "too_little_data")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        ({"hours": 0}, "Field `hours` is 0"),
        ({"hours": True}, "Field `hours` is True"),
        ({"minutes": 3}, "Field `minutes` is not known"),
        ({"source": "s3"}, "Field `source` is 's3'"),
        ({"force": 1}, "Field `force` is 1"),
        ({"rows": [{"hue": 1}]}, "Field `rows`: row 0 has the column 'hue'"),
        ({"groups": {}, "schema": 7}, "The document: schema is 7"),
        (b"3", "no JSON object"),
    ],
)
async def test_what_is_wrong_with_an_update_is_said(drift: DriftRun, body: Any, said: str) -> None:
    error = (await drift.update(body))["error"]
    assert error["status"] == 400
    assert said in error["detail"]
    assert not (drift.folder / "r.json").exists()


async def test_rows_without_times_are_taken_from_who_insists(drift: DriftRun) -> None:
    plain = [{"brightness": float(value)} for value in np.random.default_rng(0).normal(100, 9, 600)]
    assert (await drift.update({"rows": plain}))["error"]["code"] == "too_little_data"
    learnt = (await drift.update({"rows": plain}, force=True))["result"]
    assert learnt["groups"]["*"]["calibrated"] is False
    assert drift.status()["reference"]["groups"]["*"]["rows"] == 600


async def test_a_broken_file_is_said_and_mended_by_another(drift: DriftRun) -> None:
    path = drift.folder / "r.json"
    path.write_text("[1]")
    await drift.service._read_reference()
    found = drift.status()
    assert found["status"] == "error"
    assert f"{path}: row 0 is 1" in found["error"]
    drift.live("gate", hours=0.5)
    assert drift.status()["status"] == "error"
    path.write_text(json.dumps([{"brightness": i % 5} for i in range(200)]))
    await drift.service._read_reference()
    assert drift.status()["error"] is None
    path.unlink()
    await drift.service._read_reference()
    assert drift.status()["status"] == "no_reference"


async def test_a_disk_that_cannot_be_written_costs_the_update_alone(drift: DriftRun) -> None:
    drift.live("gate")
    (drift.folder / "r.json").mkdir()
    error = (await drift.update())["error"]
    assert (error["status"], error["code"]) == (503, "cannot_write")


async def test_there_is_no_report_before_there_is_something_to_report(drift: DriftRun) -> None:
    assert (await drift.api.handle({"method": "report"}))["error"]["status"] == 409
    assert (await drift.api.handle({"method": "report", "group": "x"}))["error"]["status"] == 404


def test_rows_on_disk_survive_a_cut_and_are_bounded(tmp_path: Path) -> None:
    history = History(tmp_path, 1 << 20)
    assert history.open() == ""
    assert "another replica" in History(tmp_path, 1 << 20).open()
    found = list(rows(World(1).values(9000)))
    history.append(next(rows(World(1).values(1), stream="lock")))
    assert history.groups() == ["lock"]
    for row in found[:5000]:
        history.append(row)
    history.close()
    newest = max((tmp_path / "gate").glob("*.rows"))
    newest.write_bytes(newest.read_bytes()[:-7])
    assert history.open() == ""
    for row in found[5000:]:
        history.append(row)
    read = list(history.read("gate", found[4500].at))
    assert [row.at for row in read] == [row.at for row in found[4500:4999] + found[5000:]]
    np.testing.assert_array_equal(read[0].numbers, found[4500].numbers)
    assert read[-1].classes == found[-1].classes
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.rows")) < 1.6 * (1 << 20)
    history.close()
    assert list(History(tmp_path / "none", 1).read("gate", 0)) == []
    assert "DRIFT_HISTORY_BYTES" in History(tmp_path / "off", 0).open()
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in History(tmp_path / "file", 1).open()


def test_the_page_never_shows_half_an_edition() -> None:
    page = SharedDocument()
    reader = SharedDocument(page.fd)
    assert reader.read() == b""
    page.publish(b"first")
    assert reader.read() == b"first"
    page._memory[20:22] = b"xx"  # as if a writer was killed while it wrote
    page._memory[0] += 1
    assert reader.read() == b"first"
    page.publish(b"second, longer")
    assert reader.read() == b"second, longer"
    with pytest.raises(ValueError, match="the document holds"):
        page.publish(bytes(CAPACITY_BYTES))
    page.close()
