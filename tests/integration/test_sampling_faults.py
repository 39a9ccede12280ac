"""Failures of store, disk and sampling process lose no accepted sample, and cause only PUT requests."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.sampling import sample_sender
from tests.helpers.sampling_process_run import SamplingProcessRun
from tests.helpers.stores.faulty import FAULTS, FaultyS3
from tests.helpers.waiting import wait_for


def hashes_in(store: FaultyS3) -> set[str]:
    """Return the hashes of the complete samples, and check that each image matches its hash."""
    complete = set()
    for key, body in list(store.objects.items()):
        if not key.endswith(".json"):
            continue
        sidecar = json.loads(body)
        image = store.objects[sidecar["image"]["key"]]  # uploaded before its sidecar
        assert hashlib.sha256(image).hexdigest() == sidecar["image"]["sha256"]
        complete.add(sidecar["image"]["sha256"])
    return complete


@pytest.mark.timeout(600)  # eight starts of the sampling process
def test_kills_at_random_moments_and_every_fault_lose_nothing_that_was_accepted(tmp_path: Path) -> None:
    rng = random.Random(5)
    accepted: set[str] = set()
    with (
        FaultyS3(share=0.15) as store,
        SamplingProcessRun(tmp_path, store.environment | {"S3_TIMEOUT_S": "0.5"}) as run,
    ):
        number = 0
        for turn in range(8):
            run.wait_on()
            # The sampling process starts its decoder at the first image. Even turns may kill it during that
            # start; odd turns delay the kill until the process has accepted six more samples.
            before, wanted = run.spooled() | hashes_in(store), 6 * (turn % 2)
            length_s, give_up = rng.uniform(0.05, 1.2), time.monotonic() + 120
            kill_at = time.monotonic() + length_s
            while wanted or time.monotonic() < kill_at:
                run.submit(number := number + 1)
                time.sleep(0.02)
                if wanted and len((run.spooled() | hashes_in(store)) - before) >= wanted:
                    wanted, kill_at = 0, time.monotonic() + length_s
                assert not wanted or time.monotonic() < give_up, "samples are accepted"
            run.kill()
            accepted |= run.spooled() | hashes_in(store)
            run.start()
        run.wait_on()
        # A slow machine has sent few requests so far: send more samples until some requests have failed.
        store.share, give_up = 0.5, time.monotonic() + 120
        while sum(store.broken.values()) < 3:
            run.submit(number := number + 1)
            time.sleep(0.02)
            assert time.monotonic() < give_up, "requests to the store fail"
        store.share = 0.0
        wait_for(lambda: run.spooled() == set(), timeout_s=240)
        assert len(accepted) >= 24  # six in each odd turn
        assert accepted <= hashes_in(store)
        assert run.metric("active_learning_samples_total") <= len(hashes_in(store))
        assert set(store.methods) == {"PUT"}
        assert store.changed == []
        assert run.stop() == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone_only_delays(tmp_path: Path, fault: str) -> None:
    with (
        FaultyS3(share=1.0, faults=(fault,)) as store,
        SamplingProcessRun(tmp_path, store.environment) as run,
    ):
        run.wait_on()
        run.submit(1)
        wait_for(lambda: run.metric("active_learning_uploads_total", result="failed") >= 1)
        assert len(run.spooled()) == 1
        store.share = 0.0
        wait_for(lambda: len(hashes_in(store)) == 1)
        wait_for(lambda: run.metric("active_learning_uploads_total", result="stored") == 1)
        assert set(store.methods) == {"PUT"}


def test_what_an_outage_left_is_sent_by_the_next_start(tmp_path: Path) -> None:
    with (
        FaultyS3() as store,
        SamplingProcessRun(tmp_path, store.environment | {"SAMPLES_DRAIN_S": "0.5"}) as run,
    ):
        store.answer = (503, "Busy")
        run.wait_on()
        for number in range(5):
            run.submit(number)
        wait_for(lambda: len(run.spooled()) == 5)
        begun = time.monotonic()
        assert run.stop() == 0
        took_s = time.monotonic() - begun
        assert len(run.spooled()) == 5
        store.answer = None
        run.start()
        wait_for(lambda: len(hashes_in(store)) == 5)
        wait_for(lambda: run.spooled() == set())
        begun = time.monotonic()
        assert run.stop() == 0
        usual_s = time.monotonic() - begun
        # The default of SAMPLES_DRAIN_S is 10.
        assert took_s < 8 + 3 * usual_s


def test_a_wrong_setting_is_told_once_with_a_hint_and_mended_without_loss(tmp_path: Path) -> None:
    with FaultyS3() as store, SamplingProcessRun(tmp_path, store.environment) as run:
        store.answer = (404, "NoSuchBucket")
        run.wait_on()
        run.submit(1)
        wait_for(lambda: run.metric("active_learning_upload_blocked", reason="no_bucket") == 1)
        wait_for(lambda: run.metric("active_learning_breaker_open") == 1)
        wait_for(lambda: "make the bucket, or set S3_BUCKET_NAME" in run.log_path.read_text())
        assert run.log_path.read_text().count("make the bucket, or set S3_BUCKET_NAME") == 1
        run.kill()
        store.answer = None
        run.start()
        wait_for(lambda: len(hashes_in(store)) == 1)
        wait_for(lambda: run.metric("active_learning_upload_blocked", reason="no_bucket") == 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 16 MB and return its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root, to mount a file system of 16 MB")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.timeout(600)  # hundreds of samples are stored and sent
def test_a_full_disk_refuses_new_samples_and_keeps_every_accepted_one(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_sender, "MAX_WAITING", 100_000)
    with FaultyS3() as store, SamplingProcessRun(small_disk, store.environment) as run:
        store.answer = (503, "Busy")
        run.wait_on()
        number = 0
        while run.metric("active_learning_dropped_total", reason="spool_full") == 0:
            run.submit(number := number + 1)
            assert number < 5000
            # The process yields to all others, so it may need long for a sample.
            wait_for(lambda: run.waiting < 8)
        kept = run.spooled()
        assert run.metric("active_learning_samples_total") >= len(kept) > 100
        assert shutil.disk_usage(small_disk).free > 1 << 20
        store.answer = None
        run.kill()  # a restart is faster than the pause of the circuit breaker
        run.start()
        wait_for(lambda: kept <= hashes_in(store), timeout_s=300)
        run.submit(10_000)
        wait_for(lambda: len(run.spooled()) == 0, timeout_s=300)
        assert run.metric("active_learning_dropped_total", reason="disk_error") == 0
