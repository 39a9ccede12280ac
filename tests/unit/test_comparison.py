"""Pairs are measured, added up by blocks, kept over restarts, and judged."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from inference.core.detections import Boxes
from inference.ipc.served_model import ServedModel
from inference.models.model import Family, ModelInfo, Placement
from streamer.comparison import blocks as blocks_module
from streamer.comparison.blocks import WINDOW_S, Blocks, MalformedBlocks
from streamer.comparison.collector import Collector, Models, Sums, read_all
from streamer.comparison.measured_frame import SUMS, Measured, measure
from streamer.comparison.pair import ComparedPair, VersionResult
from streamer.comparison.pictures import Pictures, read_picture
from streamer.comparison.sequential_test import LEAST_UNITS
from streamer.comparison.verdict import Verdict, judge
from streamer.comparison.verdict_text import sentence
from streamer.server.comparison import describe, judge_by_labels
from streamer.server.comparison_document import ComparisonDocument

LABELS = ("mug", "key")
MODELS = Models("v1", "v2", "a" * 64, "b" * 64)
JPEG = b"\xff\xd8\xff" + bytes(100)


def boxes(*rows: tuple[float, ...]) -> Boxes:
    """Return boxes of 10 px at x, with a score and a class."""
    found = [[x, 0, x + 10, 10, score, label] for x, score, label in rows]
    return np.array(found, np.float32).reshape(-1, 6)


def side(version: str, found: Boxes, **changes: Any) -> VersionResult:
    sha256 = MODELS.first_sha256 if version == "v1" else MODELS.second_sha256
    fields: dict[str, Any] = {"labels": LABELS, "inference_ms": 5.0, "batch_size": 1} | changes
    return VersionResult(version, version, sha256, threshold=0.4, boxes=found, **fields)


def pair(first: Boxes, second: Boxes, seq: int = 1, at: float = 0.0, **changes: Any) -> ComparedPair:
    fields: dict[str, Any] = {"stream": "0" * 15 + "7", "data": JPEG, "may_keep_image": True} | changes
    served, shadow = side("v1", first), side("v2", second)
    return ComparedPair(
        seq=seq, at=at, width=64, height=48, served=served, shadow=shadow, rotation=0, **fields
    )


def sums_of(measured: Measured) -> dict[str, float]:
    return dict(zip(SUMS, measured.sums, strict=True))


def test_a_frame_is_measured_by_matched_boxes() -> None:
    first, second = boxes((0, 0.9, 0), (50, 0.8, 1)), boxes((0, 0.7, 0), (90, 0.5, 1), (120, 0.4, 1))
    measured, disagreement, _ = measure(pair(first, second), None)
    found = sums_of(measured)
    assert (found["first"], found["second"], found["both"]) == (2, 3, 1)
    assert found["score_change"] == pytest.approx(-0.2)
    assert disagreement == pytest.approx(1 - 1.6 / 3.3)
    assert measured.by_class == {"mug": [1, 1, 1], "key": [1, 2, 0]}
    assert measure(pair(boxes(), boxes()), None)[1] == 0


def test_classes_are_compared_by_name_and_versions_in_their_order() -> None:
    swapped = pair(boxes(), boxes())
    swapped.served = side("v2", boxes((0, 0.9, 1), (50, 0.9, 0)), labels=("pen", "mug"))
    swapped.shadow = side("v1", boxes((0, 0.9, 0), (20, 0.9, 1)))
    measured, _, _ = measure(swapped, None)
    found = sums_of(measured)
    assert (found["first"], found["second"], found["both"]) == (1, 1, 1)
    assert (found["first_foreign"], found["second_foreign"]) == (1, 1)
    assert measured.by_class == {"mug": [1, 1, 1]}


def test_jitter_needs_the_frame_before() -> None:
    _, _, before = measure(pair(boxes((0, 0.9, 0)), boxes((0, 0.9, 0)), seq=1, at=1.0), None)
    moved = pair(boxes((0, 0.9, 0)), boxes((2, 0.9, 0)), seq=2, at=1.1)
    found = sums_of(measure(moved, before)[0])
    assert (found["followed"], found["first_jitter"]) == (1, 0)
    assert found["second_jitter"] == pytest.approx(1 - 8 / 12)
    for other in (dataclasses.replace(moved, seq=3), dataclasses.replace(moved, at=2.0)):
        assert sums_of(measure(other, before)[0])["followed"] == 0


def test_times_of_other_batch_sizes_are_not_compared() -> None:
    one = pair(boxes(), boxes())
    one.served.batch_size = 4
    assert sums_of(measure(one, None)[0])["timed"] == 0


def test_too_many_blocks_become_longer_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "MOST_BLOCKS", 8)
    found = Blocks()
    frame = measure(pair(boxes((0, 0.9, 0)), boxes()), None)[0]
    for window in range(100):
        found.add(window, window % 2, frame)
    assert len(found.blocks) <= 8
    assert sum(block.sums[0] for block in found.blocks.values()) == 100
    other = Blocks.from_document(json.loads(json.dumps(found.to_document())))
    assert other.to_document() == found.to_document()
    short = Blocks()
    short.add(3, 0, frame)
    short.merge(found)
    assert short.length == found.length
    assert sum(block.by_class["mug"][0] for block in short.blocks.values()) == 101
    assert all(window + found.length <= 50 for window, _ in found.before(50).blocks)


@pytest.mark.parametrize("document", [None, {}, {"length": 3, "blocks": []}, {"length": 1, "blocks": [[1]]}])
def test_what_is_no_document_of_blocks_is_refused(document: Any) -> None:
    with pytest.raises(MalformedBlocks):
        Blocks.from_document(document)


def run(folder: Path, pairs: list[ComparedPair], worker: int = 0, picture_count: int = 2) -> None:
    async def collect() -> None:
        collector = Collector(folder, worker, picture_count=picture_count)
        for each in pairs:
            collector.add(each)
        await collector.close()

    asyncio.run(collect())


def test_workers_add_up_and_go_on_after_a_restart(tmp_path: Path) -> None:
    one = pair(boxes((0, 0.9, 0)), boxes())
    run(tmp_path, [one])
    run(tmp_path, [one])
    run(tmp_path, [one], worker=1)
    (tmp_path / "comparison-2.json").write_text("{")
    found = read_all(tmp_path, MODELS)
    assert [block.sums[0] for block in found.by_stream.blocks.values()] == [3]
    assert [block.sums[0] for block in found.by_time.blocks.values()] == [3]
    # Another model begins anew, and what was added up for the old one does not count.
    other = dataclasses.replace(one, shadow=dataclasses.replace(one.shadow, model_sha256="c" * 64))
    run(tmp_path, [other])
    assert [block.sums[0] for block in read_all(tmp_path, MODELS).by_time.blocks.values()] == [1]
    changed = dataclasses.replace(MODELS, second_sha256="c" * 64)
    assert [block.sums[0] for block in read_all(tmp_path, changed).by_time.blocks.values()] == [1]


def test_the_worst_pictures_are_kept(tmp_path: Path) -> None:
    def frame(stream: int, loss: int, at: float = 0.0, **changes: Any) -> ComparedPair:
        first = boxes(*((20 * x, 0.9, 0) for x in range(4)))
        return pair(first, first[: 4 - loss], at=at, stream=f"{stream:016x}", **changes)

    pairs = [
        frame(1, 2),
        frame(1, 3),  # the same stream and window: it takes the place of the first
        frame(2, 4),
        frame(3, 4, may_keep_image=False),
        frame(4, 4, data=b"GIF89a"),
        frame(5, 1),
        frame(6, 0),
    ]
    run(tmp_path, pairs)
    kept = read_all(tmp_path, MODELS).pictures
    assert [each["stream"][-1] for each in kept] == ["2", "1"]
    assert kept[1]["boxes"]["v2"] == [{"box": [0, 0, 10, 10], "score": 0.9, "label": "mug"}]
    assert all(read_picture(tmp_path, each["id"]) == (JPEG, "image/jpeg") for each in kept)
    assert read_picture(tmp_path, "../comparison-0") is None
    # They survive a restart, make room for worse ones, and go with the model.
    run(tmp_path, [frame(7, 4, at=WINDOW_S)])
    assert [each["stream"][-1] for each in read_all(tmp_path, MODELS).pictures] == ["7", "2"]
    assert read_picture(tmp_path, kept[1]["id"]) is None
    other = frame(1, 0)
    other.shadow.model_sha256 = "c" * 64
    run(tmp_path, [other])
    assert not list((tmp_path / "comparison-pictures").iterdir())


def test_video_frames_become_jpegs(tmp_path: Path) -> None:
    class Video:
        width, height, nbytes = 8, 8, 192

        def pixels(self) -> Any:
            return np.zeros((8, 8, 3), np.uint8)

        def grey(self) -> Any:
            raise NotImplementedError

    async def keep() -> list[dict[str, Any]]:
        pictures = Pictures(tmp_path, 0, 1)
        pictures.offer(pair(boxes((0, 0.9, 0)), boxes(), data=Video(), stream="a" * 16), 1.0, 0)
        return await pictures.store()

    (kept,) = asyncio.run(keep())
    picture = read_picture(tmp_path, kept["id"])
    assert picture is not None
    assert picture[0].startswith(b"\xff\xd8\xff")


def world(second: Callable[[int, np.random.Generator], int], windows: int = 40, streams: int = 3) -> Sums:
    """Return the sums of streams in which the first version finds 100 boxes in every window."""
    rng = np.random.default_rng(1)
    found = Sums(MODELS, Blocks(), Blocks(), [])
    for window in range(windows):
        for stream in range(streams):
            count = second(window, rng)
            sums = dict.fromkeys(SUMS, 0.0) | {"frames": 50.0, "first": 100.0, "second": float(count)}
            both = min(100, count) - 1.0
            sums |= {"both": both, "scores": 0.8 * (100 + count), "agreed": 1.6 * both}
            measured = Measured([sums[name] for name in SUMS], {"mug": [100.0, float(count), both]})
            found.by_stream.add(window, stream, measured)
            found.by_time.add(window, 0, measured)
    return found


@pytest.mark.parametrize(
    ("second", "windows", "verdict"),
    [
        (lambda _, rng: 100 + int(rng.integers(-3, 4)), 40, Verdict.NO_DIFFERENCE),
        (lambda _, rng: 90 + int(rng.integers(-3, 4)), 40, Verdict.DIFFERS),
        (lambda _, rng: 90 + int(rng.integers(-3, 4)), LEAST_UNITS - 1, Verdict.UNDECIDED),
        (lambda _, rng: 100 + int(rng.integers(-25, 26)), LEAST_UNITS, Verdict.UNDECIDED),
        # Half a day with more boxes and half a day with fewer.
        (lambda window, _: 110 if window < 20 else 90, 40, Verdict.UNDECIDED),
    ],
    ids=["equal", "a tenth lost", "too few windows", "noise", "night and day"],
)
def test_the_verdict(
    second: Callable[[int, np.random.Generator], int], windows: int, verdict: Verdict
) -> None:
    sums = world(second, windows)
    judgement = judge(sums.by_stream, sums.by_time, labels=2)
    assert judgement.verdict is verdict
    assert judgement.windows == windows
    text = sentence(judgement, "v1", "v2")
    if verdict is Verdict.DIFFERS:
        assert text.startswith("v2 differs: it finds 10 % fewer boxes")
        assert "'mug'" in text
        assert judgement.same_direction == judgement.streams == 3
    (boxes_finding, *_) = judgement.quantities
    low, high = boxes_finding.always_valid.low, boxes_finding.always_valid.high
    if boxes_finding.interval is not None and low is not None and high is not None:
        assert low <= boxes_finding.interval[0] < boxes_finding.interval[1] <= high


def served(version: str, sha256: str, card: dict[str, Any] | None = None) -> ServedModel:
    info = ModelInfo("own", sha256, Family.YOLO, LABELS, 320, 256, Placement.CENTRED, 114, card=card)
    return ServedModel(0, version, info, {1: 5.0}, in_flight=2, parallel=1, inference_threads=1)


@pytest.mark.parametrize("names", [True, False])
def test_the_document_has_no_classes_and_pictures_for_everybody(names: bool) -> None:
    sums = world(lambda _, rng: 90 + int(rng.integers(-3, 4)))
    judgement = judge(sums.by_stream, sums.by_time, labels=2)
    models = served("v1", MODELS.first_sha256), served("v2", MODELS.second_sha256)
    document = describe(judgement, sums, *models, names=names, pictures=names)
    TypeAdapter(ComparisonDocument).validate_python(document, strict=True)
    assert document["verdict"] == "differs"
    assert document["quantities"]["boxes"]["difference"] == pytest.approx(-0.1, abs=0.01)
    assert ("mug" in json.dumps(document)) is names
    assert ("pictures" in document) is names
    assert document["text"].startswith("v2 differs: it finds 10 % fewer boxes")


def test_nothing_compared_is_undecided() -> None:
    judgement = judge(Blocks(), Blocks(), labels=2)
    models = served("v1", MODELS.first_sha256), served("v2", MODELS.second_sha256)
    nothing = Sums(MODELS, Blocks(), Blocks(), [])
    document = describe(judgement, nothing, *models, names=True, pictures=True)
    TypeAdapter(ComparisonDocument).validate_python(document, strict=True)
    assert (
        document["text"] == "Undecided: no window of five minutes with frames of both versions is over yet."
    )
    assert document["history"] == []


def test_versions_without_common_classes_cannot_be_compared() -> None:
    frame = pair(boxes((0, 0.9, 0)), boxes())
    frame.served.labels, frame.shadow.labels = ("mug",), ("key",)
    sums = Blocks()
    sums.add(0, 0, measure(frame, None)[0])
    text = sentence(judge(sums, sums, labels=0), "v1", "v2")
    assert text == "Undecided: v1 and v2 have found no box of a class that both have."


def evaluation(map50: float, low: float, high: float, **changes: Any) -> dict[str, Any]:
    score = {"set": "ab", "part": "test", "pictures": 40, "map50": map50, "intervals": {"map50": [low, high]}}
    return {"evaluations": {"test": score | changes}}


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (evaluation(0.7, 0.65, 0.74), evaluation(0.8, 0.76, 0.84), "better"),
        (evaluation(0.8, 0.76, 0.84), evaluation(0.7, 0.65, 0.74), "worse"),
        (evaluation(0.7, 0.65, 0.74), evaluation(0.75, 0.7, 0.79), "undecided"),
        (evaluation(0.7, 0.65, 0.74), evaluation(0.8, 0.76, 0.84, set="cd"), None),
        (None, evaluation(0.8, 0.76, 0.84), None),
        # The difference on the same pictures is more exact than both intervals.
        (
            evaluation(0.7, 0.65, 0.74),
            evaluation(0.75, 0.7, 0.79)
            | {
                "promotion": {
                    "replaced": {
                        "name": "own",
                        "sha256": MODELS.first_sha256,
                        "map50_change": {"value": 0.05, "low": 0.01, "high": 0.09},
                    }
                }
            },
            "better",
        ),
    ],
)
def test_labelled_pictures_say_which_is_better(
    first: dict[str, Any] | None, second: dict[str, Any], verdict: str | None
) -> None:
    absent: dict[str, str] = {}
    models = served("v1", MODELS.first_sha256, first), served("v2", MODELS.second_sha256, second)
    found = judge_by_labels(*models, absent)
    assert (found and found["verdict"]) == verdict
    assert ("labelled" in absent) is (verdict is None)
