"""Delivery stores the image first, removes a sample only once it is stored, and retries after failures."""

from __future__ import annotations

import json
import random
import stat
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.sampling import delivery as module
from streamer.sampling.delivery import CircuitBreaker, Delivery
from streamer.sampling.errors import ObjectRefused, StoreError, StoreMisconfigured, StoreUnavailable
from streamer.sampling.sidecar import image_key, sidecar_key
from streamer.sampling.spool import Spool
from streamer.sampling.store import FolderStore
from tests.helpers.waiting import wait_for


class FakeStore:
    """Keeps objects; the first ``failures`` puts fail, and so does any key with ``refused_key`` in it."""

    def __init__(self, failures: int = 0, error: StoreError | None = None, refused_key: str = "?") -> None:
        self.failures = failures
        self.error = error or StoreUnavailable("not now")
        self.refused_key = refused_key
        self.objects: dict[str, bytes] = {}
        self.order: list[str] = []
        self.closed = False

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error
        if self.refused_key in key:
            raise ObjectRefused("400 InvalidArgument")
        self.objects[key] = body
        self.order.append(f"{content_type} {key}")

    async def close(self) -> None:
        self.closed = True


class FakeMetrics:
    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.states: list[tuple[bool, str]] = []

    def delivered(self, result: str, seconds: float) -> None:
        assert seconds >= 0
        self.results[result] += 1

    def held_back(self, *, is_open: bool, blocked: str) -> None:
        self.states.append((is_open, blocked))


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "OPEN_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "MISCONFIGURED_PAUSE_S", 0.01)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / ".spool", 1 << 30)
    opened.open()
    yield opened
    opened.close()


def accept(spool: Spool, name: str) -> str:
    key = image_key("gate", 1_800_000_000.0, name, "jpg")
    spool.accept(name, name.encode(), {"image": {"key": key}}, time.time())
    return key


def test_keys_depend_on_capture_and_content_alone() -> None:
    key = image_key("gate", 1_800_000_000.0, "ab", "png")
    assert key == "v1/images/dt=2027-01-15/stream=gate/ab.png"
    assert sidecar_key(key) == "v1/samples/dt=2027-01-15/stream=gate/ab.json"


def test_the_image_goes_first_and_then_the_spool_forgets_it(spool: Spool) -> None:
    store, metrics = FakeStore(), FakeMetrics()
    key = accept(spool, "a")
    delivery = Delivery(spool, store, metrics)
    delivery.start()
    wait_for(lambda: len(spool) == 0)
    second = accept(spool, "b")
    delivery.wake()
    wait_for(lambda: len(spool) == 0)
    delivery.stop(60.0)
    assert store.order == [
        f"image/jpeg {key}",
        f"application/json {sidecar_key(key)}",
        f"image/jpeg {second}",
        f"application/json {sidecar_key(second)}",
    ]
    assert json.loads(store.objects[sidecar_key(key)])["image"]["key"] == key
    assert metrics.results == {"stored": 2}
    assert store.closed


def test_what_fails_is_tried_again_until_it_is_stored(spool: Spool) -> None:
    store, metrics = FakeStore(failures=5), FakeMetrics()
    for name in "abc":
        accept(spool, name)
    delivery = Delivery(spool, store, metrics)
    delivery.start()
    wait_for(lambda: len(spool) == 0)
    delivery.stop(60.0)
    assert (len(store.objects), metrics.results) == (6, {"failed": 5, "stored": 3})


def test_a_store_that_stays_away_holds_the_end_up_only_for_the_drain(spool: Spool) -> None:
    delivery = Delivery(spool, FakeStore(failures=1 << 30), FakeMetrics())
    accept(spool, "a")
    delivery.start()
    begun = time.monotonic()
    delivery.stop(0.3)
    assert time.monotonic() - begun > 0.25
    wait_for(lambda: not delivery._thread.is_alive())
    assert spool.oldest() == ["a"]


def test_failures_in_a_row_open_the_breaker_and_a_success_closes_it(spool: Spool) -> None:
    store, metrics = FakeStore(failures=6), FakeMetrics()
    accept(spool, "a")
    delivery = Delivery(spool, store, metrics)
    delivery.start()
    wait_for(lambda: len(spool) == 0)
    delivery.stop(60.0)
    assert metrics.states == [(False, "")] * 4 + [(True, "")] * 2 + [(False, "")]


def test_a_wrong_setting_is_told_and_nothing_is_given_up(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    error = StoreMisconfigured("no_bucket", "404 NoSuchBucket; make the bucket, or set S3_BUCKET_NAME")
    store, metrics = FakeStore(failures=3, error=error), FakeMetrics()
    accept(spool, "a")
    delivery = Delivery(spool, store, metrics)
    delivery.start()
    wait_for(lambda: len(spool) == 0)
    delivery.stop(60.0)
    assert metrics.states == [(True, "no_bucket")] * 3 + [(False, "")]
    assert [record.getMessage() for record in caplog.records].count(
        "samples cannot be delivered, 1 wait in the spool: "
        "404 NoSuchBucket; make the bucket, or set S3_BUCKET_NAME"
    ) == 1


def test_one_sample_that_is_refused_does_not_hold_up_the_others_and_is_kept(
    spool: Spool, tmp_path: Path
) -> None:
    store, metrics = FakeStore(refused_key="stream=gate/b."), FakeMetrics()
    for name in "abc":
        accept(spool, name)
    delivery = Delivery(spool, store, metrics)
    delivery.start()
    wait_for(lambda: len(store.objects) == 4)
    accept(spool, "d")
    delivery.wake()
    wait_for(lambda: len(spool) == 0)
    delivery.stop(60.0)
    assert metrics.results == {"stored": 3, "failed": 10, "dead": 1}
    assert sorted(path.name for path in (tmp_path / ".spool" / "dead").iterdir()) == ["b.bin", "b.json"]
    assert spool.used_bytes > 0


def test_a_store_that_refuses_everything_loses_nothing(spool: Spool) -> None:
    metrics = FakeMetrics()
    delivery = Delivery(spool, FakeStore(refused_key="gate"), metrics)
    accept(spool, "a")
    delivery.start()
    wait_for(lambda: metrics.results["failed"] > module.MAX_REFUSALS)
    delivery.stop(0.0)
    wait_for(lambda: not delivery._thread.is_alive())
    assert spool.oldest() == ["a"]


@pytest.mark.parametrize("misconfigured", [False, True])
def test_pauses_grow_to_a_bound_and_are_jittered(
    misconfigured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    pauses = [
        [breaker.failed(misconfigured=misconfigured) for _ in range(40)]
        for breaker in (CircuitBreaker(random.Random(seed)) for seed in range(50))
    ]
    first = 60.0 if misconfigured else 1.0
    assert all(first / 2 <= run[0] <= first for run in pauses)
    assert all(30 <= pause <= 300 for run in pauses for pause in run[5:])
    assert len({run[-1] for run in pauses}) == 50


def test_the_end_delivers_what_waits(spool: Spool) -> None:
    store = FakeStore()
    delivery = Delivery(spool, store, FakeMetrics())
    delivery.start()
    for name in "abc":
        accept(spool, name)  # without a call of wake()
    delivery.stop(60.0)
    assert (len(spool), len(store.objects)) == (0, 6)


async def test_a_folder_has_the_layout_of_a_bucket_and_keeps_count(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert store.used_bytes == 0
    key = image_key("gate", 1_800_000_000.0, "ab", "jpg")
    for body in (b"12345", b"12345"):
        await store.put(key, body, "image/jpeg")
    assert (tmp_path / key).read_bytes() == b"12345"
    assert [path.name for path in (tmp_path / key).parent.iterdir()] == ["ab.jpg"]
    assert stat.S_IMODE((tmp_path / key).stat().st_mode) == 0o600
    assert store.used_bytes == 5
    assert FolderStore(tmp_path).used_bytes == 5


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "v1").write_text("in the way")
    with pytest.raises(StoreUnavailable, match="v1"):
        await FolderStore(tmp_path).put("v1/images/a.jpg", b"x", "image/jpeg")
