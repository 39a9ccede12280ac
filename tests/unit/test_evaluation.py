"""The figures of an evaluation are those of pycocotools, and the report shows them."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from inference.core.detections import Boxes
from streamer.assets import MODELS_DIR
from streamer.cli.main import main
from streamer.datasets.label_file import LabelledBox, PictureLabels, State
from streamer.datasets.labelled_set import LabelledPicture, load_set
from streamer.datasets.sample import BadRequest
from streamer.datasets.set_folder import SetFolder
from streamer.evaluation.bootstrap import (
    average_precisions,
    interval,
    mean_precisions,
    resample_counts,
    resampled_means,
)
from streamer.evaluation.coco_score import CocoScore, coco_score
from streamer.evaluation.model_run import detect, model_path, open_model
from streamer.evaluation.operating_point import operating_point
from tests.helpers.model_factory import colour_model
from tests.helpers.service import ROOT
from tests.unit.images import encode
from tests.unit.label_exports import picture

CLASSES = ("bolt", "nut", "cog", "washer")


def _drawn(count: int, seed: int) -> tuple[list[LabelledPicture], list[Boxes]]:
    """Return pictures with objects of three classes in all sizes, and boxes that find many of them."""
    rng = np.random.default_rng(seed)
    pictures, found = [], []
    for number in range(count):
        objects = int(rng.integers(0, 5))
        corner, side = rng.uniform(0, 300, (objects, 2)), rng.choice([12, 60, 150], (objects, 1))
        boxes = np.hstack([corner, corner + side * rng.uniform(0.8, 1.2, (objects, 2))]).astype(np.float32)
        classes = rng.integers(0, 3, objects)
        pictures.append(LabelledPicture(str(number), Path(), 500, 500, boxes, classes, "test"))
        rows = []
        for box, kind in zip(boxes, classes, strict=True):
            for _ in range(int(rng.integers(0, 3))):
                moved = box + rng.normal(0, 0.06, 4) * np.tile(box[2:] - box[:2], 2)
                guessed = kind if rng.random() < 0.8 else rng.integers(0, 3)
                rows.append([*moved, rng.random(), guessed])
        rows += [[x, y, x + 30, y + 30, rng.random() / 2, 1] for x, y in rng.uniform(0, 300, (2, 2))]
        array = np.array(rows, np.float32).reshape(-1, 6)
        found.append(array[np.argsort(-array[:, 4])])
    return pictures, found


def _by_pycocotools(
    folder: Path, pictures: list[LabelledPicture], found: list[Boxes]
) -> tuple[npt.NDArray[np.float64], list[float]]:
    """Return the twelve statistics and the AP50-95 by class as its own documentation computes them."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    truth: dict[str, Any] = {
        "images": [{"id": n} for n in range(len(pictures))],
        "categories": [{"id": n + 10, "name": name} for n, name in enumerate(CLASSES)],
        "annotations": [],
    }
    results = []
    for number, (entry, boxes) in enumerate(zip(pictures, found, strict=True)):
        for (x1, y1, x2, y2), kind in zip(entry.boxes.tolist(), entry.classes.tolist(), strict=True):
            annotation = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            ids = {"id": len(truth["annotations"]) + 1, "image_id": number, "category_id": kind + 10}
            truth["annotations"].append(annotation | ids)
        for x1, y1, x2, y2, score, kind in boxes.tolist():
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            results.append(box | {"image_id": number, "category_id": int(kind) + 10})
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = coco.COCO(str(folder / "truth.json"))
        evaluation = cocoeval.COCOeval(loaded, loaded.loadRes(str(folder / "results.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        by_class = []
        for kind in range(len(CLASSES)):
            evaluation.params.catIds = [kind + 10]
            evaluation.evaluate()
            evaluation.accumulate()
            values = evaluation.eval["precision"][:, :, 0, 0, -1]
            by_class.append(float(values[values > -1].mean()) if (values > -1).any() else math.nan)
        evaluation.params.catIds = [n + 10 for n in range(len(CLASSES))]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.array(evaluation.stats), by_class


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_an_independent_call_of_pycocotools(tmp_path: Path, seed: int) -> None:
    pictures, found = _drawn(25, seed)
    score = coco_score(pictures, found, CLASSES)
    stats, by_class = _by_pycocotools(tmp_path, pictures, found)
    assert [score.map50_95, score.map50] == pytest.approx(stats[[0, 1]], abs=1e-9)
    assert list(score.by_size.values()) == pytest.approx(stats[3:6], abs=1e-9)
    assert list(score.ap50_95) == pytest.approx(by_class, abs=1e-9, nan_ok=True)
    assert math.isnan(score.ap50[3])  # no picture has a washer


def test_a_class_that_is_never_found_counts_as_0(tmp_path: Path) -> None:
    pictures, found = _drawn(25, 7)
    found = [boxes[boxes[:, 5] != 2] for boxes in found]
    score = coco_score(pictures, found, CLASSES)
    stats, by_class = _by_pycocotools(tmp_path, pictures, found)
    assert score.map50 == pytest.approx(stats[1])
    assert score.ap50_95[2] == by_class[2] == 0


def test_a_model_that_finds_nothing_at_all_scores_0() -> None:
    pictures, found = _drawn(10, 1)
    score = coco_score(pictures, [boxes[:0] for boxes in found], CLASSES)
    assert (score.map50, score.map50_95) == (0, 0)


# -- intervals -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> tuple[list[LabelledPicture], list[Boxes], CocoScore]:
    """Return 40 pictures, boxes and their score."""
    pictures, found = _drawn(40, 11)
    return pictures, found, coco_score(pictures, found, CLASSES)


def test_a_resample_with_every_picture_once_has_the_figures_of_pycocotools(
    drawn: tuple[list[LabelledPicture], list[Boxes], CocoScore],
) -> None:
    _, _, score = drawn
    once = np.ones((1, 40), np.int64)
    map50, map50_95 = mean_precisions(score.matches, once)
    assert map50[0] == pytest.approx(score.map50, abs=1e-9)
    assert map50_95[0] == pytest.approx(score.map50_95, abs=1e-9)


def test_a_resample_without_some_pictures_has_the_figures_of_the_others(
    drawn: tuple[list[LabelledPicture], list[Boxes], CocoScore],
) -> None:
    pictures, found, score = drawn
    rest = coco_score(pictures[:25], found[:25], CLASSES)
    counts = np.array([1] * 25 + [0] * 15)
    for kind in range(3):
        mean = average_precisions(score.matches[kind], counts).mean()
        assert mean == pytest.approx(rest.ap50_95[kind], abs=1e-9)


def test_intervals_contain_the_figure_and_shrink_with_more_pictures() -> None:
    widths = []
    for count in (30, 300):
        pictures, found = _drawn(count, 3)
        score = coco_score(pictures, found, CLASSES)
        map50, _ = mean_precisions(score.matches, resample_counts(count, 200))
        low, high = interval(map50)
        assert low < score.map50 < high
        widths.append(high - low)
    assert widths[1] < 0.6 * widths[0]


def test_resamples_are_the_same_in_every_call_and_have_all_pictures() -> None:
    counts = resample_counts(50, 400)
    assert (counts == resample_counts(50, 400)).all()
    assert (counts.sum(axis=1) == 50).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(50), abs=0.25)


def test_a_mean_over_no_pictures_has_no_interval() -> None:
    counts = np.array([[2, 0, 1], [0, 3, 0]])
    means = resampled_means(np.array([4, 9, 1]), np.array([True, False, True]), counts)
    assert means[0] == 3
    assert math.isnan(means[1])
    assert all(map(math.isnan, interval(np.array([math.nan]))))


# -- counts at a threshold -----------------------------------------------------------------------------


def test_objects_boxes_and_confusions_are_counted() -> None:
    bolt, nut, cog = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]
    truth = [
        (np.array([bolt, nut, cog], np.float32), np.array([0, 1, 2])),
        (np.zeros((0, 4), np.float32), np.zeros(0, np.int64)),
    ]
    found: list[Boxes] = [
        np.array(
            [
                [*bolt, 0.9, 0],  # right
                [*nut, 0.8, 0],  # a nut taken for a bolt
                [*bolt, 0.7, 0],  # the bolt again
                [*cog, 0.4, 2],  # below the threshold
            ],
            np.float32,
        ),
        np.array([[0, 0, 5, 5, 0.6, 1], [0, 0, 5, 5, 0.5, 1]], np.float32),
    ]
    point = operating_point(truth, found, 3, 0.5)
    assert point.confusion.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [1, 2, 0, 0]]
    assert point.recall.tolist() == [1, 0, 0]
    assert point.precision[:2].tolist() == [1 / 3, 0]
    assert math.isnan(point.precision[2])
    assert point.false_per_empty == 2
    assert [(e.missed, e.false) for e in point.errors] == [((1, 2), (1, 2)), ((), (0, 1))]
    assert math.isnan(operating_point(truth[:1], found[:1], 3, 0.5).false_per_empty)


def test_a_right_box_wins_over_one_of_another_class_that_fits_better() -> None:
    truth = [(np.array([[0, 0, 10, 10]], np.float32), np.array([0]))]
    found: list[Boxes] = [np.array([[0, 0, 10, 10, 0.9, 1], [1, 0, 10, 10, 0.8, 0]], np.float32)]
    assert operating_point(truth, found, 2, 0.5).confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


# -- the command ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a set of the project's stills, labelled with what v1 finds in them, and three empty pictures."""
    folder = tmp_path_factory.mktemp("codes") / "set"
    opened = SetFolder(folder)
    opened.write_classes(["qr_code", "barcode", "aztec", "crate"], "a test")
    model = open_model("v1", opened.classes)
    labels, parts = [], {}
    for name in ("belt", "leaflet"):
        data = (ROOT / "data" / "stills" / f"{name}.jpg").read_bytes()
        opened.write_image(f"{name}.jpg", data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        height, width = image.shape[:2]
        unlabelled = LabelledPicture(
            name,
            folder / "images" / f"{name}.jpg",
            width,
            height,
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.int64),
            "test",
        )
        found = detect(model, unlabelled).boxes
        boxes = tuple(
            LabelledBox((x1, y1, min(x2, width), min(y2, height)), opened.classes[int(kind)])
            for x1, y1, x2, y2, score, kind in found.tolist()
            if score >= 0.35
        )
        labels.append(PictureLabels(name, f"{name}.jpg", width, height, State.LABELLED, boxes))
        parts[name] = "test"
    for number in range(3):
        opened.write_image(f"e{number}.png", encode(picture(number), ".png"))
        labels.append(PictureLabels(f"e{number}", f"e{number}.png", 160, 120, State.NOTHING_HERE))
        parts[f"e{number}"] = "test" if number else "val"
    model.close()
    opened.write_parts(parts)
    opened.write_labels(labels)
    return folder


def test_models_are_compared_and_reported(
    codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    words = ["evaluate", str(codes), "v1", str(MODELS_DIR / "codes_v2.onnx"), "--report", str(report)]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["digest"] == load_set(codes).digest
    first, second = result["models"]
    for model in (first, second):
        assert model["by_class"]["crate"]["objects"] == 0
        assert model["by_class"]["crate"]["lacking"] is True
        assert model["by_class"]["crate"]["ap50"] is None
        assert model["empty_pictures"] == 2
        assert model["map50"]["low"] <= model["map50"]["value"] <= model["map50"]["high"]
    assert first["map50"]["value"] == 1
    assert first["map50_change"]["value"] == 0
    page = report.read_text()
    assert page.count("<svg") == 2
    assert "Evaluation of v1 and" in page
    assert re.search(r"(src|href)=\"(?!data:)", page) is None
    assert "<script" not in page

    assert main(["evaluate", str(codes), "v1", "codes_v2"]) == 0
    shown = capsys.readouterr().out
    assert "5 pictures of test" not in shown
    assert "4 pictures of test, 2 of them empty" in shown
    assert re.search(r"^v1 +1\.000 \(1\.000, 1\.000\)", shown, re.MULTILINE)
    assert "v1 lacks crate" in shown
    assert "mAP50 compared with v1" in shown


def test_names_in_the_report_are_escaped(codes: Path, tmp_path: Path) -> None:
    model = tmp_path / "<img src=x>.onnx"
    model.symlink_to(MODELS_DIR / "codes_v1.onnx")
    model.with_suffix(".json").symlink_to(MODELS_DIR / "codes_v1.json")
    assert main(["evaluate", str(codes), str(model), "--report", str(tmp_path / "r.html"), "--quiet"]) == 0
    assert "<img src=x>" not in (tmp_path / "r.html").read_text()


def test_what_cannot_be_evaluated_is_refused(
    codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colours = colour_model(tmp_path / "colours.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    for words, code, said in (
        ([codes, "v1", "--part", "train"], 2, "the set has 0 train, 1 val, 4 test"),
        ([codes, "v1", "--part", "val"], 2, "none with objects"),
        ([codes, "v9"], 2, "expected a file, one of v1"),
        ([codes, colours], 2, "none of the set's classes (qr_code"),
        ([codes, tmp_path / "broken.onnx"], 4, "broken.onnx"),
        ([tmp_path, "v1"], 4, "not a labelled set"),
        ([codes, "v1", "--report", tmp_path / "no" / "r.html"], 3, "r.html"),
    ):
        assert main(["evaluate", *map(str, words)]) == code, words
        assert said in capsys.readouterr().err


def test_a_model_is_found_by_path_version_or_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_path("v1").name == "codes_v1.onnx"
    assert model_path("codes_v2") == MODELS_DIR / "codes_v2.onnx"
    own = colour_model(tmp_path / "own.onnx")
    assert model_path(str(own)) == own
    monkeypatch.setenv("MODEL_V1_PATH", str(own))
    assert model_path("v1") == own
    with pytest.raises(BadRequest, match=r"MODEL is '\.\./codes_v1'"):
        model_path("../codes_v1")
