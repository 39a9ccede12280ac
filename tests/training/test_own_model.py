"""Training on a labelled set: pictures, scores, what is held out, kills at any moment, the command."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train` (make .venv/installed-training)")

from inference.engine.detector import Detector as Served  # noqa: E402
from streamer.cli.main import main  # noqa: E402
from streamer.datasets.label_file import BadSet  # noqa: E402
from streamer.datasets.labelled_set import LabelledPicture, LabelledSet, load_set  # noqa: E402
from streamer.training.export import export  # noqa: E402
from streamer.training.holdout import hold_out, near_duplicates  # noqa: E402
from streamer.training.network import Detector, Shape  # noqa: E402
from streamer.training.pictures import load, read  # noqa: E402
from streamer.training.plan import Flips, Plan, augmentation_for  # noqa: E402
from streamer.training.validation import Held, confusion, errors, hold, score  # noqa: E402
from tests.training.drawn_set import CLASSES, write_set  # noqa: E402

TINY = Shape(stem=8, widths=(8, 16, 16, 16), depth=1, neck=(16, 16, 16), head=16)
SIDE = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small labelled set."""
    made = tmp_path_factory.mktemp("sets") / "set"
    write_set(made, 20, size=(160, 120))
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of the trainer's network with other classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "base.onnx"
    export(Detector(TINY, 2).eval(), path, side=SIDE, labels=("barcode", "sign"))
    return path


def picture(number: int, boxes: int = 1, part: str = "train") -> LabelledPicture:
    corners = np.array([[10 * i, 10, 10 * i + 8, 20] for i in range(boxes)], np.float32).reshape(-1, 4)
    path = Path(f"{number}.jpg")
    return LabelledPicture(f"p{number}", path, 100, 80, corners, np.zeros(boxes, np.int64), part)


# -- pictures -------------------------------------------------------------------------------------------


def test_pictures_are_kept_at_the_size_of_the_input_and_within_the_limit(folder: Path) -> None:
    pictures = load_set(folder).pictures
    whole = load(pictures, SIDE, 1 << 30)
    longest = {max(loaded.image().shape) for loaded in whole}
    assert longest == {120}  # 1.25 times the side
    assert np.allclose(whole[0].boxes, pictures[0].boxes * 0.75)
    one = whole[0].image().nbytes
    part = load(pictures, SIDE, 3 * one + 10)
    assert sum(loaded._kept is not None for loaded in part) == 3
    assert np.array_equal(part[-1].image(), whole[-1].image())


def test_a_picture_that_is_not_what_its_labels_say_is_named(folder: Path, tmp_path: Path) -> None:
    good = load_set(folder).pictures[0]
    with pytest.raises(BadSet, match=r"the image has 160x120 pixels; its labels say 100x80"):
        read(LabelledPicture("x", good.path, 100, 80, good.boxes, good.classes, "train"))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(good.path.read_bytes()[:40])
    with pytest.raises(BadSet, match=r"broken\.jpg"):
        read(LabelledPicture("x", broken, 160, 120, good.boxes, good.classes, "train"))


@pytest.mark.parametrize(
    ("classes", "flips", "mirror", "upside_down"),
    [
        (("mug", "key"), Flips.AUTO, 0.5, 0.0),
        (("arrow-left", "arrow-right"), Flips.AUTO, 0.0, 0.0),
        (("barcode", "qr_code"), Flips.AUTO, 0.4, 0.2),
        (("cell",), Flips.ALL, 0.5, 0.5),
        (("mug",), Flips.NONE, 0.0, 0.0),
    ],
)
def test_flips_follow_the_names_of_the_classes(
    classes: tuple[str, ...], flips: Flips, mirror: float, upside_down: float
) -> None:
    chosen = augmentation_for(classes, flips)
    assert (chosen.mirror, chosen.upside_down) == (mirror, upside_down)


def test_flips_that_contradict_the_names_are_refused() -> None:
    with pytest.raises(ValueError, match="the words left"):
        augmentation_for(("turn left",), Flips.ALL)


def test_progress_is_that_of_the_minutes_or_of_the_steps() -> None:
    plan = Plan(("mug",), "", None, SIDE, 2.0, None, 4, 0.002, 1, 12)
    assert [plan.progress(7, seconds) for seconds in (0, 30, 120, 500)] == [0, 0.25, 1, 1]
    counted = replace(plan, minutes=None, steps=10)
    assert [counted.progress(step, 1e6) for step in (0, 5, 10, 11)] == [0, 0.5, 1, 1]


# -- what is held out -----------------------------------------------------------------------------------


def test_the_part_val_is_held_out_if_there_is_one() -> None:
    pictures = (*(picture(n) for n in range(6)), picture(6, part="val"), picture(7, part="test"))
    train, val = hold_out(LabelledSet(("a",), pictures), 1)
    assert [p.id for p in val] == ["p6"]
    assert len(train) == 6


@pytest.mark.parametrize("seed", range(5))
def test_without_it_groups_of_near_duplicates_stay_on_one_side(seed: int) -> None:
    pictures = [picture(number) for number in range(40)]
    groups = [number // 4 for number in range(40)]
    train, val = hold_out(LabelledSet(("a",), tuple(pictures)), seed, lambda _: groups)
    sides = [{int(p.id[1:]) // 4 for p in side} for side in (train, val)]
    assert not sides[0] & sides[1]
    assert len(train) + len(val) == 40
    assert 4 <= len(val) <= 8


def test_near_duplicates_are_found_in_the_pictures_themselves(folder: Path) -> None:
    pictures = list(load_set(folder).pictures[:5])
    groups = near_duplicates([*pictures, pictures[0]])
    assert groups[0] == groups[5]
    assert len(set(groups)) == 5


def test_sets_that_cannot_be_learned_from_are_refused() -> None:
    with pytest.raises(BadSet, match="part `train` has 2 pictures, and part `val` none; expected 4"):
        hold_out(LabelledSet(("a",), (picture(1), picture(2))), 1)
    with pytest.raises(BadSet, match=r"all 5 pictures .* are near-duplicates"):
        hold_out(LabelledSet(("a",), tuple(picture(n) for n in range(5))), 1, lambda p: [0] * len(p))
    with pytest.raises(BadSet, match="no box; expected boxes to learn from"):
        hold_out(LabelledSet(("a",), (picture(1, 0), picture(2, 1, "val"))), 1)


# -- scores ---------------------------------------------------------------------------------------------


def held(*pictures: LabelledPicture) -> list[Held]:
    empty: npt.NDArray[np.uint8] = np.zeros((3, 32, 32), np.uint8)
    return [Held(one, empty, one.boxes) for one in pictures]


def boxes(*rows: list[float]) -> npt.NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 6)


def test_scores_agree_with_pycocotools(folder: Path) -> None:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO  # noqa: PLC0415 - may be absent
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415 - see above

    rng = np.random.default_rng(4)
    pictures = hold(load_set(folder).pictures, SIDE)
    found = []
    for one in pictures:
        rows = [
            [*(box + rng.normal(0, 0.8, 4)), rng.uniform(0.1, 1), class_id if rng.random() < 0.8 else 0]
            for box, class_id in zip(one.boxes, one.source.classes, strict=True)
        ]
        rows += [[5, 5, 30, 40, rng.uniform(0.05, 0.6), rng.integers(3)] for _ in range(int(rng.integers(3)))]
        found.append(boxes(*sorted(rows, key=lambda row: -row[4])))
    truth = COCO()
    truth.dataset = {
        "images": [{"id": n} for n in range(len(pictures))],
        "categories": [{"id": n} for n in range(3)],
        "annotations": [
            {
                "id": 100 * n + m + 1,
                "image_id": n,
                "category_id": int(one.source.classes[m]),
                "bbox": [*map(float, box[:2]), *map(float, box[2:] - box[:2])],
                "area": 1.0,
                "iscrowd": 0,
            }
            for n, one in enumerate(pictures)
            for m, box in enumerate(one.boxes)
        ],
    }
    truth.createIndex()
    results = [
        {
            "image_id": n,
            "category_id": int(row[5]),
            "bbox": [*map(float, row[:2]), *map(float, row[2:4] - row[:2])],
            "score": float(row[4]),
        }
        for n, rows in enumerate(found)
        for row in rows
    ]
    judge = COCOeval(truth, truth.loadRes(results), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    ours = score(found, pictures, 3)
    assert ours.map50_95 == pytest.approx(judge.stats[0], abs=1e-6)
    assert ours.map50 == pytest.approx(judge.stats[1], abs=1e-6)


def test_the_threshold_is_where_f1_is_best() -> None:
    pictures = held(picture(1, 2), picture(2, 1))
    first, second = picture(1, 2).boxes.tolist()
    found = [boxes([*first, 0.9, 0], [*second, 0.6, 0], [50, 50, 60, 60, 0.3, 0]), boxes([*first, 0.8, 0])]
    result = score(found, pictures, 1)
    assert (result.precision, result.recall, result.f1) == (1, 1, 1)
    assert 0.3 < result.threshold < 0.6
    assert errors(found[0], pictures[0], 0.2) == (0, 1)
    assert errors(found[0], pictures[0], 0.7) == (1, 0)


def test_confusions_count_misses_and_false_boxes_in_the_last_row_and_column() -> None:
    first, second = picture(1, 2).boxes.tolist()
    found = [boxes([*first, 0.9, 1], [50, 50, 60, 60, 0.8, 0])]
    assert confusion(found, held(picture(1, 2)), 2, 0.5).tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert second  # the second object is the one that is missed


def test_nothing_found_scores_nothing() -> None:
    result = score([boxes()], held(picture(1)), 2)
    assert (result.map50, result.recall) == (0, 0)
    assert np.isnan(result.ap50[1])


# -- training -------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_a_training_that_is_killed_at_random_moments_loses_nothing_that_was_saved(
    folder: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "tests.training.killed_training", str(folder), str(tmp_path / "work"), "3"]
    answer = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    lines = [(line.split()[0], int(line.split()[1])) for line in answer.stdout.splitlines()]
    assert [word for word, _ in lines].count("saved") == 3
    killed, (ended, whole, ended_whole) = lines[:-3], lines[-3:]
    assert (ended, whole, ended_whole) == (("ended", 0), ("from", 0), ("ended", 0))
    steps = [step for _, step in killed]
    assert steps[0] == 0
    assert steps == sorted(steps), killed
    first = torch.load(tmp_path / "work" / "weights.pt")
    for name, value in torch.load(tmp_path / "work" / "whole" / "weights.pt").items():
        assert torch.allclose(value.float(), first[name].float(), atol=1e-4), name
    rows = list(csv.DictReader((tmp_path / "work" / "results.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, 15))


def run_command(folder: Path, base: Path, out: Path, *more: str) -> int:
    return main(
        ["train", str(folder), "--from", str(base), "--out", str(out), "--steps", "2", "--batch", "4", *more]
    )


@pytest.mark.timeout(600)
def test_the_command_writes_a_model_that_the_service_serves_and_a_manifest_with_its_descent(
    folder: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "own.onnx"
    assert run_command(folder, base, out, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    served = Served(out, version="v2", device="cpu", batch_max=1)
    assert served.model.labels == CLASSES
    assert served.model.conf_threshold == pytest.approx(printed["threshold"])
    manifest = json.loads(out.with_suffix(".json").read_text())
    parent = json.loads(base.with_suffix(".json").read_text())
    assert manifest["parents"] == [{"name": "base", "sha256": parent["sha256"]}]
    assert manifest["training"]["set"] == load_set(folder).digest
    assert set(manifest["metrics"]) == {"val", "test"}
    rows = list(csv.DictReader((tmp_path / "own.training" / "results.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [1, 2]
    page = (tmp_path / "own.training" / "report.html").read_text()
    assert "<h2>Worst pictures</h2>" in page
    assert "AP50 of mug" in page
    for plot in ("curves.svg", "confusion.svg"):
        assert "</svg>" in (tmp_path / "own.training" / plot).read_text()

    # The same command continues what is finished: it writes the same model again.
    assert run_command(folder, base, out, "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["resumed_at"], again["metrics"]) == (2, printed["metrics"])
    assert json.loads(out.with_suffix(".json").read_text()) == manifest

    assert run_command(folder, base, out, "--seed", "2") == 2
    assert "`seed` was 1, and is 2 now" in capsys.readouterr().err
    assert run_command(folder, base, out, "--seed", "2", "--fresh", "--json") == 0
    assert json.loads(capsys.readouterr().out)["resumed_at"] == 0


@pytest.mark.parametrize(
    ("change", "code", "found"),
    [
        (["--from", "none.onnx"], 2, "none.onnx: No such file"),
        (["--side", "100"], 2, "--side 100: expected a multiple of 32"),
        (["--out", "own.pt"], 2, "expected a name that ends in .onnx"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_reason(
    folder: Path,
    base: Path,
    tmp_path: Path,
    change: list[str],
    code: int,
    found: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(folder, base, tmp_path / "own.onnx", *change) == code
    assert found in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_set_is_refused(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(tmp_path, base, tmp_path / "own.onnx") == 2
    assert "is not a labelled set" in capsys.readouterr().err
