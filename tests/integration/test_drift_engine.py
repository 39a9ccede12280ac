"""Windows are still checked for drift when the Evidently process hangs, dies or cannot be started."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import SharedStatus
from streamer.config.settings import load_settings
from streamer.drift import engine
from streamer.drift.engine import run_evidently
from streamer.drift.errors import EngineFailed
from streamer.drift.monitor import Check
from streamer.drift.reference import GroupReference, Reference, learn
from streamer.drift.rows import NUMERIC, Row
from streamer.sampling.drift_api import DriftApi
from streamer.sampling.drift_service import DriftService
from streamer.sampling.metrics import DriftMetrics
from tests.helpers.drift_rows import LATER, World, drifted_check, rows
from tests.helpers.service import is_dead
from tests.helpers.waiting import wait_for


@functools.cache
def reference() -> GroupReference:
    return learn(list(rows(World(1).values(8000))), 1800, 0.001)[0]


def shifted(count: int, by: float) -> list[Row]:
    values = World(2).values(count)
    values[:, NUMERIC.index("noise")] += by
    return list(rows(values, LATER))


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Put a fake Evidently that runs ``code`` in front of the real one, with an empty pandas to save time."""
    for package, content in (("pandas", ""), ("evidently", code)):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def running(parent: int | None = None) -> list[psutil.Process]:
    """Return the Evidently processes that descend from ``parent``, or from this process."""
    found = []
    for child in psutil.Process(parent).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # another child may end meanwhile
            if "streamer.drift.evidently_process" in child.cmdline():
                found.append(child)
    return found


HANGS = "import time\ntime.sleep(3600)\n"


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (HANGS, "timeout", "stopped after 3 s"),
        ("raise ModuleNotFoundError('no evidently')", "crashed", "no evidently"),
        ("import os\nos.abort()", "crashed", "-6"),
        ("raise SystemExit(0)", "malformed", "cannot be read"),
        ("held = bytearray(4 << 30)", "crashed", "MemoryError"),
    ],
)
async def test_one_that_fails_is_said_in_time_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, reason: str, said: str
) -> None:
    pretend(tmp_path, monkeypatch, code)
    with pytest.raises(EngineFailed) as caught:
        await run_evidently([drifted_check()], {}, 3 if reason == "timeout" else 60, html=False)
    assert caught.value.reason == reason
    assert said in str(caught.value)
    assert running() == []


def ignores_sigterm(process: psutil.Process) -> bool:
    """Return whether the process ignores SIGTERM, which it does after it asked to die with its parent."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (ignored,) = re.findall(r"^SigIgn:\s*([0-9a-f]+)", status, re.MULTILINE)
    return bool(int(ignored, 16) >> (signal.SIGTERM - 1) & 1)


def test_it_does_not_outlive_the_sampling_process() -> None:
    # The Evidently process waits for a request, which this program never sends.
    code = (
        "import asyncio\nfrom streamer.drift import engine\n"
        "async def main():\n    process = await engine._start(1)\n    await process.wait()\n"
        "asyncio.run(main())"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: any(map(ignores_sigterm, running(parent.pid))))
        (orphan,) = running(parent.pid)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for(lambda: is_dead(orphan))


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DriftService]:
    monkeypatch.setenv("PROMETHEUS_DISABLE_CREATED_SERIES", "1")
    settings = load_settings(
        samples_dir=tmp_path / "samples", reference_data_path=tmp_path / "r.json", drift_engine_timeout_s=1
    )
    page, shared_status = SharedDocument(), SharedStatus()
    made = DriftService(settings, DriftMetrics(), page, shared_status)
    await made.open()
    made.monitor.set_reference(Reference({"gate": reference()}, "", ""))
    yield made
    await made.close()
    page.close()
    shared_status.close()


async def feed(service: DriftService, found: list[Row]) -> dict[str, object]:
    """Add rows, wait until their checks are settled, and return the status."""
    for row in found:
        service._handle(service.monitor.add(row))
    while service._settling is not None and not service._settling.done():
        await asyncio.sleep(0.05)
    service._publish()
    status: dict[str, object] = json.loads(service._document.read())
    return status


@pytest.mark.parametrize("absent", [True, False])
async def test_without_it_our_engine_decides_and_the_status_says_so(
    service: DriftService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: bool
) -> None:
    if absent:
        monkeypatch.setattr(engine, "installed", lambda: False)
    else:
        pretend(tmp_path, monkeypatch, HANGS)
    status = await feed(service, shifted(1080, 5.0))
    assert (status["status"], status["engine"]) == ("drift", "builtin")
    assert ("not installed" if absent else "stopped after 1 s") in str(status["engine_error"])
    # After three failures in a row the service does not start Evidently for an hour.
    started: list[object] = []

    async def start(*arguments: object, **_: object) -> None:
        started.append(arguments)
        raise EngineFailed("crashed", "it was started")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run_evidently", start)
        await feed(service, shifted(120, 5.0))
    assert started == []
    with pytest.raises(EngineFailed):
        await service.engine.score([drifted_check()], service.monitor.reference)
    answer = await DriftApi(service).handle({"method": "report"})
    assert answer["error"]["status"] == 503
    assert running() == []


async def test_an_installation_without_it_says_how_to_get_it(
    service: DriftService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("streamer.drift.engine", "streamer.sampling.drift_service", "streamer.sampling.drift_api"):
        monkeypatch.setattr(f"{name}.installed", lambda: False)
    await service.close()
    with caplog.at_level("INFO"):
        await service.open()
    expected = "Evidently is not installed; use an image that is built with it (docs/deployment.md)"
    assert f"the builtin engine decides about drift, and there is no drift report: {expected}" in caplog.text
    service.monitor.set_reference(Reference({"gate": reference()}, "", ""))
    status = await feed(service, shifted(1080, 5.0))
    assert (status["status"], status["engine"]) == ("drift", "builtin")
    assert expected in str(status["engine_error"])
    answer = await DriftApi(service).handle({"method": "report"})
    assert answer["error"]["status"] == 503
    assert expected in answer["error"]["detail"]
    assert "pip install 'real-time-vision-api[drift]'" in answer["error"]["detail"]


async def test_its_scores_count_when_it_answers(
    service: DriftService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def disagrees(checks: list[Check], *_: object, **__: object) -> engine.EvidentlyResult:
        return engine.EvidentlyResult({found.group: {"noise": 0.0} for found in checks}, "")

    monkeypatch.setattr("streamer.drift.engine.run_evidently", disagrees)
    status = await feed(service, shifted(1080, 5.0))
    assert (status["status"], status["engine"], status["engine_error"]) == ("ok", "evidently", None)
