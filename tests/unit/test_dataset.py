"""Exports turn samples into datasets whose boxes fit the images, and damaged samples are reported."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.cli.main import main
from streamer.datasets.export import (
    DatasetFormat,
    ExportOptions,
    LabelledImage,
    coco_instances,
    export,
    yolo_lines,
)
from streamer.datasets.sample import BadRequest, CannotRead, DamagedSample, parse_sample
from streamer.datasets.source import FolderSource, verify
from streamer.datasets.statistics import SUBSETS, Split, Statistics, Weights
from tests.helpers.candidates import store_sample
from tests.unit.images import encode, scene, with_exif

ALL = Split((1.0, 0.0, 0.0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one sample."""
    store_sample(tmp_path / "samples", encode(scene()))
    return tmp_path / "samples"


def test_a_sample_is_read_as_the_service_wrote_it(folder: Path) -> None:
    (key,) = FolderSource(folder).keys("v1/samples/")
    sample = parse_sample(FolderSource(folder).read(key), key)
    assert (sample.stream, sample.width, sample.height, sample.hour) == ("gate", 160, 96, "2027-01-15T08")
    assert [(d.label, d.score, d.below_threshold) for d in sample.detections] == [
        ("cat", 0.9, False),
        ("cat", 0.3, True),
    ]
    assert sample.detections[1].box == (50.0, 10.0, 70.0, 30.0)
    assert (sample.reasons, sample.labels) == (("uncertainty",), ("cat", "dog", "bird"))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"schema": 9}, "schema"),
        ({"image": {}}, "key"),
        ({"detections": [{"box": [9, 0, 1, 1], "score": 1, "label": "a", "below_threshold": False}]}, "box"),
        ({"detections": [{"box": [1, 2], "score": 1, "label": "a", "below_threshold": False}]}, "where"),
        ({"classes": None}, "where"),
    ],
)
def test_a_damaged_sidecar_is_named(folder: Path, change: dict[str, Any], word: str) -> None:
    (key,) = FolderSource(folder).keys("v1/samples/")
    fields = json.loads(FolderSource(folder).read(key)) | change
    with pytest.raises(DamagedSample, match=word):
        parse_sample(json.dumps(fields).encode(), "where")
    with pytest.raises(DamagedSample):
        parse_sample(b"\xff", "where")


@pytest.mark.parametrize("text", ["", "1,2", "a,b,c", "0,0,0", "-1,50,51"])
def test_an_invalid_split_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="--split"):
        Split.parse(text)


def test_a_stream_and_hour_is_never_split_and_the_shares_are_met() -> None:
    split = Split.parse("80,10,10")
    parts = Counter(split.subset_of(f"s{n % 40}", f"2027-01-15T{n // 40:02}") for n in range(960))
    assert parts["train"] / 960 == pytest.approx(0.8, abs=0.05)
    assert parts["val"] / 960 == pytest.approx(0.1, abs=0.04)
    assert {split.subset_of("gate", "2027-01-15T08") for _ in range(10)} == {
        split.subset_of("gate", "2027-01-15T08")
    }


@given(st.text(max_size=5), st.text(max_size=5))
def test_a_subset_with_share_zero_gets_nothing(stream: str, hour: str) -> None:
    assert Split.parse("0,0,1").subset_of(stream, hour) == "test"
    assert Split.parse("1,0,0").subset_of(stream, hour) == "train"


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize(("orientation", "rotation"), [(1, 0), (6, 0), (3, 0), (1, 1), (8, 3), (2, 2)])
def test_exported_images_are_upright(tmp_path: Path, suffix: str, orientation: int, rotation: int) -> None:
    upright = scene()
    stored = upright
    # These turns are the inverse of a viewer's: first the sender's rotation, then the EXIF orientation.
    if rotation:
        turns = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
        stored = cv2.rotate(stored, turns[rotation])
    undone = {
        1: lambda i: i,
        2: lambda i: cv2.flip(i, 1),
        3: lambda i: cv2.rotate(i, cv2.ROTATE_180),
        6: lambda i: cv2.rotate(i, cv2.ROTATE_90_COUNTERCLOCKWISE),
        8: lambda i: cv2.rotate(i, cv2.ROTATE_90_CLOCKWISE),
    }
    stored = undone[orientation](stored)
    data = encode(stored, suffix)
    store_sample(
        tmp_path / "samples", with_exif(data, orientation) if orientation != 1 else data, rotation=rotation
    )
    assert verify(FolderSource(tmp_path / "samples")).problems == []
    export(FolderSource(tmp_path / "samples"), tmp_path / "out", ExportOptions(DatasetFormat.COCO, ALL))
    (path,) = (tmp_path / "out" / "images" / "train").iterdir()
    shown = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert shown is not None
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).mean() < 3


def test_coco_loads_in_pycocotools(folder: Path, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    store_sample(folder, encode(scene()[:, ::-1].copy()), "random")
    done = export(FolderSource(folder), tmp_path / "out", ExportOptions(DatasetFormat.COCO, ALL))
    assert done.images == {"train": 2}
    loaded = coco.COCO(str(tmp_path / "out" / "annotations" / "instances_train.json"))
    assert [category["name"] for category in loaded.loadCats(loaded.getCatIds())] == ["cat", "dog", "bird"]
    for image in loaded.loadImgs(loaded.getImgIds()):
        pixels = cv2.imread(str(tmp_path / "out" / "images" / "train" / image["file_name"]))
        assert pixels is not None
        assert pixels.shape[:2] == (image["height"], image["width"])
        (annotation,) = loaded.loadAnns(loaded.getAnnIds(imgIds=image["id"]))
        assert (annotation["bbox"], annotation["category_id"]) == ([0.0, 10.0, 20.0, 20.0], 1)
    for part in ("val", "test"):
        assert coco.COCO(str(tmp_path / "out" / "annotations" / f"instances_{part}.json")).getImgIds() == []


def test_yolo_has_a_label_file_for_every_image(folder: Path, tmp_path: Path) -> None:
    export(
        FolderSource(folder), tmp_path / "out", ExportOptions(DatasetFormat.YOLO, ALL, below_threshold=True)
    )
    (image,) = (tmp_path / "out" / "images" / "train").iterdir()
    text = (tmp_path / "out" / "labels" / "train" / f"{image.stem}.txt").read_text()
    assert [line.split() for line in text.splitlines()] == [
        ["0", f"{10 / 160:.6f}", f"{20 / 96:.6f}", f"{20 / 160:.6f}", f"{20 / 96:.6f}"],
        ["0", f"{60 / 160:.6f}", f"{20 / 96:.6f}", f"{20 / 160:.6f}", f"{20 / 96:.6f}"],
    ]
    yaml = (tmp_path / "out" / "data.yaml").read_text()
    assert '  2: "bird"' in yaml
    assert all(f"{subset}: images/{subset}\n" in yaml for subset in SUBSETS)


def test_label_studio_gets_percentages_and_the_most_informative_images_first(
    folder: Path, tmp_path: Path
) -> None:
    options = ExportOptions(DatasetFormat.LABEL_STUDIO, ALL, address="s3://bucket/x/")
    export(FolderSource(folder), tmp_path / "out", options)
    (task,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert task["data"]["image"].startswith("s3://bucket/x/images/train/gate_2027-01-15_")
    (prediction,) = task["predictions"]
    assert prediction["score"] == pytest.approx(0.1)
    (result,) = prediction["result"]
    assert result["value"] == {
        "x": 0.0,
        "y": pytest.approx(10.4167),
        "width": 12.5,
        "height": pytest.approx(20.8333),
        "rotation": 0,
        "rectanglelabels": ["cat"],
    }
    assert '<Label value="dog"/>' in (tmp_path / "out" / "label_config.xml").read_text()


def test_every_format_has_the_same_boxes_and_labels(folder: Path) -> None:
    (key,) = FolderSource(folder).keys("v1/samples/")
    sample = parse_sample(FolderSource(folder).read(key), key)
    labelled = LabelledImage(sample, "a.jpg", "train", sample.detections)
    annotations = coco_instances([labelled], ["x", "cat"])["annotations"]
    assert [a["category_id"] for a in annotations] == [2, 2]
    assert yolo_lines(labelled, ["x", "cat"]).startswith("1 ")


def test_samples_are_selected_by_reason_and_no_samples_is_an_error(folder: Path, tmp_path: Path) -> None:
    store_sample(folder, encode(scene()[::-1].copy()), "random", "uncertainty")
    random_only = ExportOptions(DatasetFormat.YOLO, ALL, reasons=frozenset({"random"}))
    assert export(FolderSource(folder), tmp_path / "a", random_only).images.total() == 1
    with pytest.raises(BadRequest, match="reasons"):
        export(
            FolderSource(folder),
            tmp_path / "b",
            ExportOptions(DatasetFormat.YOLO, ALL, reasons=frozenset({"user"})),
        )
    with pytest.raises(BadRequest, match="exists already"):
        export(FolderSource(folder), tmp_path / "a", random_only)


def test_a_failed_export_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    (key,) = FolderSource(folder).keys("v1/images/")
    (folder / key).unlink()
    with pytest.raises(DamagedSample, match="is missing"):
        export(FolderSource(folder), tmp_path / "out", ExportOptions(DatasetFormat.COCO, ALL))
    assert [path.name for path in tmp_path.iterdir()] == ["samples"]


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x00"), "sha256"),
        (lambda path: path.unlink(), "missing"),
    ],
    ids=["short", "changed", "gone"],
)
def test_damage_is_found_and_named(folder: Path, damage: Any, word: str) -> None:
    (key,) = FolderSource(folder).keys("v1/images/")
    damage(folder / key)
    result = verify(FolderSource(folder))
    (problem,) = result.problems
    assert word in problem
    assert result.samples == 1


def test_an_image_without_a_sidecar_is_no_problem(folder: Path) -> None:
    (folder / "v1/images/extra.jpg").write_bytes(b"x")
    result = verify(FolderSource(folder))
    assert (result.problems, result.incomplete) == ([], ["v1/images/extra.jpg"])


def test_a_size_that_differs_from_the_boxes_is_found(tmp_path: Path) -> None:
    store_sample(tmp_path, encode(scene(96, 160)))
    assert "its sidecar says 160x96" in verify(FolderSource(tmp_path)).problems[0]


def test_the_commands_print_what_they_found(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["samples", "stats", "--in", str(folder), "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert (stats["samples"], stats["labels"], stats["reasons"]) == (1, {"cat": 1}, {"uncertainty": 1})
    assert main(["samples", "stats", "--in", str(folder)]) == 0
    assert "1 samples" in capsys.readouterr().out
    assert main(["samples", "verify", "--in", str(folder)]) == 0
    assert "1 samples, 0 problems" in capsys.readouterr().out
    out = ["--out", str(tmp_path / "out"), "--split", "0,1,0"]
    assert main(["samples", "export", "--in", str(folder), "--format", "coco", *out]) == 0
    assert "1 val" in capsys.readouterr().out
    (key,) = FolderSource(folder).keys("v1/images/")
    (folder / key).unlink()
    assert main(["samples", "verify", "--in", str(folder)]) == 4
    assert main(["samples", "stats", "--in", str(tmp_path / "none")]) == 2
    assert "holds no samples" in capsys.readouterr().err


def test_keys_that_lead_out_of_the_folder_are_not_followed(folder: Path) -> None:
    with pytest.raises(CannotRead, match="leads out"):
        FolderSource(folder).read("../../etc/passwd")


def test_sidecars_of_the_first_schema_are_read(folder: Path) -> None:
    source = FolderSource(folder)
    (key, *_) = source.keys("v1/samples/")
    fields = json.loads(source.read(key))
    old = fields | {"schema": 1, "sample_id": fields["image"]["sha256"]}
    assert parse_sample(json.dumps(old).encode(), key) == parse_sample(source.read(key), key)


def test_statistics_show_the_weights_of_random_samples() -> None:
    weights = Weights()
    for probability in (0.5, 0.5, 0.1):
        weights.add(probability)
    assert weights.to_dict() == {
        "samples": 3,
        "stand_for": 14.0,
        "effective": pytest.approx(196 / 108, abs=1e-3),
    }
    text = Statistics(samples=3, random={"gate": weights}).to_text()
    assert re.search(r"random samples by stream.*\n +3 +14 +1\.8 +gate$", text)


def test_two_samples_of_one_image_are_one_image_of_a_dataset(tmp_path: Path) -> None:
    image = encode(scene())
    for reason in ("uncertainty", "random"):
        store_sample(tmp_path / "samples", image, reason)
    source = FolderSource(tmp_path / "samples")
    assert len(list(source.keys("v1/samples/"))) == 2
    counts = export(source, tmp_path / "out", ExportOptions(DatasetFormat.COCO, ALL))
    assert counts.images.total() == 1
