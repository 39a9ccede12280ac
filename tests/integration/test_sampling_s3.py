"""Stores samples in a real S3 service, Ceph's gateway.

Where Ceph is not installed, these tests are skipped; test_sampling_faults needs no S3 service.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.cli.main import main
from streamer.datasets.labelled_set import load_set
from streamer.datasets.source import BucketSource, verify
from streamer.drift.history import History
from streamer.drift.row_file import FILE_S
from streamer.drift.rows import Row
from streamer.sampling.errors import StoreMisconfigured
from streamer.sampling.s3 import Bucket, S3Store, open_client
from tests.conftest import shared
from tests.helpers.model_factory import null_model
from tests.helpers.sampling_process_run import SamplingProcessRun, reported, spooled
from tests.helpers.service import PATIENT, Service
from tests.helpers.stored_rows import HOUR, INTERVAL_S, between, camera
from tests.helpers.stores.ceph import ACCESS_KEY, PACKAGES, SECRET_KEY, Ceph, missing
from tests.helpers.stores.faulty import FaultyS3
from tests.helpers.waiting import wait_for
from tests.helpers.wire_client import WireClient
from tests.unit.images import encode, scene, with_jpeg_segment

BUCKET = "ml-active-learning"


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    absent = missing()
    if absent:
        pytest.skip(f"needs a real S3; not found: {', '.join(absent)} (as root: apt-get install {PACKAGES})")
    with Ceph(tmp_path_factory.mktemp("ceph")) as running:
        yield running


@pytest.fixture
def environment(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return settings with a bucket prefix for this test alone, and set them in the test's process too."""
    values = {
        "S3_ENDPOINT_URL": ceph.url,
        "S3_PREFIX": f"t{time.monotonic_ns()}",
        "S3_TIMEOUT_S": "2",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    asyncio.run(_make_bucket(ceph.url))
    return values


async def _make_bucket(url: str) -> None:
    async with open_client(Bucket(BUCKET, endpoint=url)) as client:
        try:
            await client.create_bucket(Bucket=BUCKET)
        except client.exceptions.BucketAlreadyOwnedByYou:
            return


def keys(environment: dict[str, str], prefix: str = "v1/samples/") -> list[str]:
    bucket = Bucket(BUCKET, environment["S3_PREFIX"], environment["S3_ENDPOINT_URL"])
    with BucketSource(bucket) as source:
        return list(source.keys(prefix))


def hashes_in(environment: dict[str, str]) -> set[str]:
    """Return the hashes of the samples in the bucket, as their keys name them."""
    return {key.rpartition("/")[2].removesuffix(".json") for key in keys(environment)}


def test_the_service_fills_a_bucket_that_the_commands_read(
    yolox_nano: Path,
    environment: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bus = shared("data/images/bus.jpg").read_bytes()
    settings = PATIENT | {
        "MODEL_V1_PATH": str(yolox_nano),
        "UNCERTAINTY_THRESHOLD": "0",
        "SAMPLES_INTERVAL_S": "0",
        "SAMPLES_STRIP_METADATA": "1",
        "SAMPLES_RANDOM_EVERY_S": "0",
    }
    with Service(environment | settings) as service:
        wait_for(lambda: service.get_json("/health").get("sampling") == "on")
        wait_for(lambda: f"s3://{BUCKET}/{environment['S3_PREFIX']}" in service.log)
        request = urllib.request.Request(f"{service.http_url}/v1/predict", data=bus)  # noqa: S310 - loopback
        request.add_header("Content-Type", "image/jpeg")
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - loopback
            shown: list[Any] = json.loads(answer.read())["detections"]
        wait_for(lambda: service.metric("active_learning_uploads_total", result="stored") == 1)
        # Only the sampling process gets the credentials of the store.
        assert "AWS_SECRET_ACCESS_KEY" in service.sampling_process.environ()
        for process in (*service.workers, service.inference):
            assert not any(name.startswith("AWS_") for name in process.environ())
        assert SECRET_KEY not in " ".join(service.sampling_process.cmdline())
    place = f"s3://{BUCKET}/{environment['S3_PREFIX']}"
    assert main(["samples", "verify", "--in", place]) == 0
    assert "1 samples, 0 problems" in capsys.readouterr().out
    out = ["--out", str(tmp_path / "out"), "--format", "coco", "--split", "1,0,0"]
    assert main(["samples", "export", "--in", place, *out]) == 0
    annotations = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    (image,) = (tmp_path / "out" / "images" / "train").iterdir()
    assert image.stat().st_size <= len(bus)
    for annotation, detection in zip(annotations["annotations"], shown, strict=True):
        x, y, width, height = annotation["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(detection["box"], abs=0.02)
    # The corrected labels come back, and their pictures out of the bucket.
    labels = str(tmp_path / "out" / "annotations" / "instances_train.json")
    labelled = ["--out", str(tmp_path / "set"), "--split", "1,0,0", "--by", "ann"]
    assert main(["labels", "import", labels, "--from", "coco", "--in", place, *labelled]) == 0
    (picture,) = load_set(tmp_path / "set").pictures
    assert {picture.id} == hashes_in(environment)
    assert picture.path.read_bytes() == image.read_bytes()
    assert picture.boxes == pytest.approx(np.array([entry["box"] for entry in shown]), abs=0.02)
    nowhere = ["--in", f"{place}-none", *labelled]
    assert main(["labels", "import", labels, "--from", "coco", *nowhere]) == 4
    assert "there is no sample for" in capsys.readouterr().err


def test_outages_of_the_gateway_only_delay(ceph: Ceph, environment: dict[str, str], tmp_path: Path) -> None:
    with SamplingProcessRun(tmp_path, environment) as run:
        run.wait_on()
        run.submit(1)
        wait_for(lambda: len(keys(environment)) == 1)
        ceph.freeze_gateway()
        run.submit(2)
        wait_for(lambda: run.metric("active_learning_uploads_total", result="failed") >= 1)
        ceph.thaw_gateway()
        wait_for(lambda: run.spooled() == set())
        ceph.stop_gateway()
        failed = run.metric("active_learning_uploads_total", result="failed")
        run.submit(3)
        wait_for(lambda: run.metric("active_learning_uploads_total", result="failed") > failed)
        assert len(run.spooled()) == 1
        ceph.start_gateway()
        wait_for(lambda: run.spooled() == set())
        assert len(keys(environment)) == 3
        assert len(keys(environment, "v1/images/")) == 3
        assert reported(1).data != reported(2).data


@pytest.mark.timeout(1200)
def test_kills_of_everything_at_random_moments_lose_nothing_that_was_accepted(
    ceph: Ceph, environment: dict[str, str], tmp_path: Path, full: bool
) -> None:
    """The test kills all processes of a service at once, while 30 % of the requests to the store fail."""
    folder, rng = tmp_path / "samples", random.Random(7)
    with FaultyS3(share=0.3, behind=ceph.url) as between:
        settings = environment | {
            "S3_ENDPOINT_URL": between.url,
            "S3_TIMEOUT_S": "1",
            "SAMPLES_DIR": str(folder),
            # This model loads at once and finds nothing, so the service starts quickly and is killed often.
            "MODEL_V1_PATH": str(null_model(tmp_path / "null.onnx")),
            "UNCERTAINTY_THRESHOLD": "0",
            "SAMPLES_INTERVAL_S": "0",
            "SAMPLES_SPACING_S": "0",
            "SAMPLES_RANDOM_EVERY_S": "0",
            "SAMPLES_PER_HOUR": "100000",
            "STREAM_MIN_FPS": "0",
        }
        accepted: set[str] = set()
        for number in range(20 if full else 3):
            with Service(settings) as service:
                asyncio.run(_stream(service, f"run{number}", _moment(number % 4, service, between)))
                time.sleep(rng.uniform(0.0, 1.0))
                service.kill_all()
            accepted |= spooled(folder) | hashes_in(environment)
        between.share = 0.0
        with Service(settings):
            wait_for(lambda: not spooled(folder), timeout_s=300)
        # The store has every accepted sample, and received only PUT requests.
        assert accepted
        assert accepted <= hashes_in(environment)
        assert set(between.methods) == {"PUT"}
        assert sum(between.broken.values()) > 0
    place = Bucket(BUCKET, environment["S3_PREFIX"], environment["S3_ENDPOINT_URL"])
    with BucketSource(place) as source:
        assert verify(source).problems == []


def _moment(kind: int, service: Service, store: FaultyS3) -> Callable[[], bool]:
    """Return the condition that a kill waits for; the kinds cover every stage on a machine of any speed."""
    broken = sum(store.broken.values())
    return {
        0: lambda: True,  # the sampling process may still be starting
        1: lambda: bool(service.get_json("/health")["samples"]),
    }.get(kind, lambda: sum(store.broken.values()) > broken)


async def _stream(service: Service, name: str, until: Callable[[], bool]) -> None:
    """Send distinct images, each over a new stream, until ``until`` returns true."""
    image = encode(scene(640, 480))
    for number in itertools.count():
        streams = [{"id": n, "codec": "jpeg", "name": f"{name}-{number}-{n}"} for n in range(8)]
        async with WireClient(f"{service.ws_url}/v1/stream") as client:
            await client.hello(streams=streams, params={"conf_threshold": 0.02})
            for n in range(8):
                data = with_jpeg_segment(image, 0xFE, f"{name} {number} {n}".encode())
                await client.send_frame(1, data, stream=n)
            for n in range(8):
                await client.until_outcomes([1], stream=n)
        if await asyncio.to_thread(until):
            return
        await asyncio.sleep(0.5)


@pytest.mark.parametrize(
    ("change", "reason", "hint"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "dummy-wrong"}, "credentials", "AWS_SECRET_ACCESS_KEY does not belong"),
        ({"AWS_ACCESS_KEY_ID": "dummy-wrong"}, "credentials", "AWS_ACCESS_KEY_ID is not known"),
        ({"S3_BUCKET_NAME": "no-such-bucket"}, "no_bucket", "make the bucket, or set S3_BUCKET_NAME"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said_and_nothing_is_lost(
    environment: dict[str, str], tmp_path: Path, change: dict[str, str], reason: str, hint: str
) -> None:
    with SamplingProcessRun(tmp_path, environment | change) as run:
        run.wait_on()
        run.submit(1)
        wait_for(lambda: run.metric("active_learning_upload_blocked", reason=reason) == 1)
        wait_for(lambda: hint in run.log_path.read_text(), "the hint is logged")
        assert len(run.spooled()) == 1


async def test_a_store_that_knows_no_hosts_with_buckets_is_said_to_want_paths(
    ceph: Ceph, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **more: resolve("127.0.0.1", *rest, **more))
    endpoint = ceph.url.replace("127.0.0.1", "store.example")
    virtual = S3Store(Bucket(BUCKET, endpoint=endpoint, addressing="virtual"))
    with pytest.raises(StoreMisconfigured, match="S3_ADDRESSING_STYLE=path") as caught:
        await virtual.put("v1/images/x.jpg", b"x", "image/jpeg")
    await virtual.close()
    assert caught.value.reason == "addressing"
    path = S3Store(Bucket(BUCKET, endpoint=endpoint))
    await path.put("v1/images/x.jpg", b"x", "image/jpeg")
    await path.close()


def test_a_bucket_that_cannot_be_read_is_named(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["samples", "stats", "--in", "s3://no-such-bucket/x"]) == 3
    assert "no-such-bucket" in capsys.readouterr().err
    assert main(["samples", "stats", "--in", "s3:///x"]) == 2
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "dummy-wrong")
    assert main(["samples", "verify", "--in", f"s3://{BUCKET}"]) == 3
    assert "AWS_SECRET_ACCESS_KEY" in capsys.readouterr().err


def test_the_rows_of_two_replicas_are_judged_together(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The last half hour is over for longer than a replica waits for late rows.
    end = int(time.time() - 300) // FILE_S * FILE_S
    begin, yesterday, today = end - 28 * HOUR, end - 16 * HOUR, end - 4 * HOUR
    cameras = {
        "gate": camera("gate", 28, begin=begin, blurred_from=today + HOUR),
        "yard": camera("yard", 28, begin=begin, seed=2),
    }
    settings = environment | {"DRIFT_ROWS": "1", "DRIFT_SAMPLE_INTERVAL_S": str(INTERVAL_S)}
    with contextlib.ExitStack() as replicas:
        for stream, measured in cameras.items():
            folder = tmp_path / stream
            kept = between(measured, begin, yesterday) + between(measured, today, end)
            _measured_before(folder / "samples", f"{stream}-1", begin, kept)
            run = replicas.enter_context(SamplingProcessRun(folder, settings))
            run.wait_on()
        # A process that is killed while it stores rows loses none, and none counts twice.
        wait_for(lambda: _stored(environment, "yard"), timeout_s=60)
        run.kill()
        run.start()
        wait_for(lambda: all(len(_stored(environment, each)) == 32 for each in cameras), timeout_s=60)
    place = f"s3://{BUCKET}/{environment['S3_PREFIX']}"
    period, reference = (f"{_utc(first)}..{_utc(last)}" for first, last in ((today, end), (begin, yesterday)))
    command = [
        "drift",
        "evaluate",
        place,
        "--period",
        period,
        "--reference",
        reference,
        "--builtin",
        "--json",
    ]
    assert main([*command, "--out", f"{place}/reports"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {name: each["verdict"] for name, each in found["streams"].items()} == {
        "gate": "drift",
        "yard": "none",
    }
    for stream, each in found["streams"].items():
        assert each["replicas"].keys() == {f"{stream}-1"}
        assert each["rows"] == 4 * 240
    assert found["files_left_out"] == 0
    assert set(keys(environment, "reports/")) == {"reports/drift.json", "reports/report.html"}


def _stored(environment: dict[str, str], stream: str) -> list[str]:
    return [key for key in keys(environment, "v1/rows/") if f"stream={stream}/" in key]


def _measured_before(folder: Path, replica: str, begin: int, measured: Sequence[Row]) -> None:
    """Leave what a replica has measured and not stored when it ended."""
    history = History(folder / ".drift", 256 << 20)
    assert not history.open()
    for row in measured:
        history.append(row)
    history.close()
    (folder / ".spool").mkdir()
    (folder / ".spool" / "rows").write_text(json.dumps({"replica": replica, "through": begin}))


def _utc(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat()
