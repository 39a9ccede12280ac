"""Labels of Label Studio, CVAT and YOLO tools reach a set, and what a person decided survives imports."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamer.cli.main import main
from streamer.datasets.label_file import State
from streamer.datasets.labelled_set import load_set
from streamer.datasets.set_folder import SetFolder
from tests.helpers.candidates import store_sample
from tests.unit.images import encode, scene, with_exif
from tests.unit.imported_labels import NAMES, A, B, boxes_by_name, by_name, import_labels
from tests.unit.label_exports import (
    annotation,
    cvat_coco,
    picture,
    region,
    task,
    write_cvat_coco,
    write_cvat_yolo,
    write_pictures,
    write_tasks,
    write_ultralytics,
    yolo_text,
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder with eight pictures."""
    write_pictures(tmp_path / "images", NAMES)
    return tmp_path / "images"


# -- formats -------------------------------------------------------------------------------------------


def test_label_studio_boxes_are_in_pixels_and_predictions_are_no_labels(tmp_path: Path, images: Path) -> None:
    file = write_tasks(
        tmp_path / "project-3.json",
        task(1, "/data/local-files/?d=images/p0.png", annotation([A, B])),
        task(2, "/data/upload/3/0a1b2c3d-p1.png", annotation([])),
        task(3, "/data/upload/3/0a1b2c3e-p2.png"),
        task(4, "http://host/images/p3.png", annotation([A], was_cancelled=True)),
    )
    import_labels(file, "label-studio", tmp_path / "set", "--in", images)
    assert boxes_by_name(tmp_path / "set") == {"p0.png": [A, B], "p1.png": []}
    labels = SetFolder(tmp_path / "set").labels
    first = labels[by_name(tmp_path / "set")["p0.png"].id]
    assert (first.by, first.at) == ("user 3", "2026-11-24T09:05:00.250000Z")
    assert first.source == "label-studio project-3.json: project-3.json task 1"
    assert labels[by_name(tmp_path / "set")["p1.png"].id].state is State.NOTHING_HERE


def test_a_rotated_box_becomes_the_upright_box_around_it(tmp_path: Path, images: Path) -> None:
    # 40 x 20 px at (60, 50), turned clockwise by 90 degrees around its top left corner: it then lies to the
    # left of the corner, from x = 40 to 60, and reaches down from y = 50 to 90.
    turned = region(("bolt", 60, 50, 100, 70), rotation=90)
    tilted = region(("nut", 80, 40, 100, 60), rotation=45)
    file = write_tasks(tmp_path / "x.json", task(1, "p0.png", annotation([]) | {"result": [turned, tilted]}))
    import_labels(file, "label-studio", tmp_path / "set", "--in", images)
    (found,) = load_set(tmp_path / "set").pictures
    half = 10 * math.sqrt(2)
    assert found.boxes[0].tolist() == pytest.approx([40, 50, 60, 90], abs=1e-3)
    assert found.boxes[1].tolist() == pytest.approx([80 - half, 40, 80 + half, 40 + 2 * half], abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "wins"),
    [
        ([{}, {"updated_at": "2026-11-25T08:00:00Z"}], 1),
        ([{"updated_at": "2026-11-25T08:00:00Z"}, {}], 0),
        ([{"ground_truth": True}, {"updated_at": "2026-11-25T08:00:00Z"}], 0),
        ([{"updated_at": "2026-11-25T08:00:00Z", "was_cancelled": True}, {}], 1),
    ],
)
def test_of_several_annotations_ground_truth_or_the_latest_counts_and_it_is_told(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], changes: list[dict[str, Any]], wins: int
) -> None:
    people = [{"id": 1, "email": "ann@x.org"}, {"id": 2, "email": "", "username": "bob"}]
    given = [
        annotation([box], completed_by=person, **change)
        for box, person, change in zip((A, B), people, changes, strict=True)
    ]
    file = write_tasks(tmp_path / "x.json", task(7, "p0.png", *given))
    import_labels(file, "label-studio", tmp_path / "set", "--in", images)
    assert boxes_by_name(tmp_path / "set") == {"p0.png": [(A, B)[wins]]}
    (labels,) = SetFolder(tmp_path / "set").labels.values()
    assert labels.by == ("ann@x.org", "bob")[wins]
    told = "task 7: its 2 annotations differ" in capsys.readouterr().err
    assert told is not any(change.get("was_cancelled") for change in changes)


@pytest.mark.parametrize("with_images", [True, False])
def test_cvat_coco_counts_categories_from_1(tmp_path: Path, images: Path, with_images: bool) -> None:
    file = write_cvat_coco(
        tmp_path / "cvat.zip", {"p0.png": [A, B], "p1.png": []}, ["nut", "bolt"], images=with_images
    )
    place = () if with_images else ("--in", images)
    import_labels(file, "coco", tmp_path / "set", *place, "--by", "ann")
    found = load_set(tmp_path / "set")
    assert found.classes == ("nut", "bolt")
    assert boxes_by_name(tmp_path / "set") == {"p0.png": [A, B], "p1.png": []}
    assert {entry.by for entry in SetFolder(tmp_path / "set").labels.values()} == {"ann"}


def test_crowds_are_left_out_and_a_turned_cvat_box_is_surrounded(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = cvat_coco({"p0.png": [A, ("bolt", 60, 50, 100, 70), A]}, ["bolt"])
    document["annotations"][0] |= {"iscrowd": 1, "segmentation": {"counts": [3, 1], "size": [2, 2]}}
    document["annotations"][1]["attributes"] = {"occluded": True, "rotation": 90.0}
    (tmp_path / "instances.json").write_text(json.dumps(document))
    import_labels(tmp_path / "instances.json", "coco", tmp_path / "set", "--in", images)
    assert boxes_by_name(tmp_path / "set") == {"p0.png": [("bolt", 70, 40, 90, 80), A]}
    assert "1 crowds" in capsys.readouterr().err


def test_cvat_yolo_is_read_with_its_lists(tmp_path: Path) -> None:
    file = write_cvat_yolo(tmp_path / "cvat.zip", {"p0.png": [A, B], "p1.png": []}, ["bolt", "nut"])
    import_labels(file, "yolo", tmp_path / "set")
    assert load_set(tmp_path / "set").classes == ("bolt", "nut")
    assert boxes_by_name(tmp_path / "set") == {"p0.png": [A, B], "p1.png": []}


def test_ultralytics_keeps_its_parts_and_a_missing_label_file_means_nothing(tmp_path: Path) -> None:
    parts = {"train": {"p0.png": [A], "p1.png": []}, "val": {"p2.png": [B]}, "test": {"p3.png": [A]}}
    file = write_ultralytics(tmp_path / "data", parts, ["bolt", "nut"])
    import_labels(file, "yolo", tmp_path / "set")
    assert {name: entry.part for name, entry in by_name(tmp_path / "set").items()} == {
        "p0.png": "train",
        "p1.png": "train",
        "p2.png": "val",
        "p3.png": "test",
    }
    assert boxes_by_name(tmp_path / "set")["p1.png"] == []
    import_labels(tmp_path / "data", "yolo", tmp_path / "divided", "--split", "0,0,100")
    assert {entry.part for entry in load_set(tmp_path / "divided").pictures} == {"test"}


@pytest.mark.parametrize(
    "text",
    [
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['bolt', 'nut']\n",
        "path: ../datasets/elsewhere\ntrain: [train/images]\nval: valid/images\nnames:\n- bolt\n- nut\n",
        "train: train.txt\nval: valid/images\nnames: {0: bolt, 1: nut}\ndownload: |\n  import this\n",
    ],
)
def test_other_tools_write_data_yaml_differently(tmp_path: Path, text: str) -> None:
    parts = {"train": {"p0.png": [A]}, "val": {"p2.png": [B]}}
    write_ultralytics(tmp_path, parts, ["bolt", "nut"])
    for part, name in (("train", "train"), ("val", "valid")):
        (tmp_path / name).mkdir()
        (tmp_path / "images" / part).rename(tmp_path / name / "images")
        (tmp_path / "labels" / part).rename(tmp_path / name / "labels")
    (tmp_path / "data.yaml").write_text(text)
    (tmp_path / "train.txt").write_text("./train/images/p0.png\n")
    import_labels(tmp_path / "data.yaml", "yolo", tmp_path / "set")
    assert boxes_by_name(tmp_path / "set") == {"p0.png": [A], "p2.png": [B]}


# -- samples -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_images", [True, False])
def test_yolo_of_label_studio_has_a_list_of_classes(tmp_path: Path, images: Path, with_images: bool) -> None:
    folder = tmp_path / "project-3"
    (folder / "labels").mkdir(parents=True)
    (folder / "classes.txt").write_text("bolt\nnut\n")
    (folder / "notes.json").write_text(
        '{"categories": [{"id": 0, "name": "bolt"}, {"id": 1, "name": "nut"}]}'
    )
    (folder / "labels" / "p0.txt").write_text(yolo_text([A, B], ["bolt", "nut"]))
    (folder / "labels" / "p1.txt").write_text("")
    if with_images:
        write_pictures(folder / "images", ["p0.png", "p1.png", "p2.png"])
    where = [] if with_images else ["--in", images]
    import_labels(folder, "yolo", tmp_path / "set", *where)
    # Nobody has labelled the third picture.
    assert boxes_by_name(tmp_path / "set") == {"p0.png": [A, B], "p1.png": []}


def test_ids_of_tracks_in_yolo_are_no_scores(tmp_path: Path) -> None:
    file = write_ultralytics(tmp_path / "data", {"train": {"p0.png": [A]}}, ["bolt", "nut"])
    labels = tmp_path / "data" / "labels" / "train" / "p0.txt"
    labels.write_text(labels.read_text().strip() + " 17\n")
    import_labels(file, "yolo", tmp_path / "set")
    assert boxes_by_name(tmp_path / "set") == {"p0.png": [A]}


@pytest.mark.parametrize("source", ["coco", "yolo", "label-studio"])
def test_cvat_for_images_is_refused_with_the_formats_to_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    with zipfile.ZipFile(tmp_path / "cvat.zip", "w") as archive:
        archive.writestr("annotations.xml", '<?xml version="1.0" encoding="utf-8"?>\n<annotations/>\n')
        archive.writestr("images/p0.png", b"")
    import_labels(tmp_path / "cvat.zip", source, tmp_path / "set", code=4)
    error = capsys.readouterr().err
    for words in ("annotations.xml: found XML", "`COCO 1.0`", "Ultralytics YOLO Detection 1.0"):
        assert words in error


@pytest.mark.parametrize("style", ["label-studio", "coco", "yolo"])
def test_labels_of_an_export_belong_to_their_samples(tmp_path: Path, style: str) -> None:
    samples = tmp_path / "samples"
    store_sample(samples, encode(scene()), "random")
    store_sample(samples, with_exif(encode(cv2.rotate(scene()[:, ::-1].copy(), cv2.ROTATE_180)), 3))
    words = [
        "samples",
        "export",
        "--in",
        str(samples),
        "--out",
        str(tmp_path / "tasks"),
        "--split",
        "0,0,100",
    ]
    assert main([*words, "--format", style]) == 0
    ids = {
        entry["id"] for entry in json.loads((tmp_path / "tasks/samples.json").read_text())["images"].values()
    }
    assert ids == {path.stem for path in (samples / "v1" / "images").rglob("*.jpg")}
    file = {"label-studio": "tasks.json", "coco": "annotations/instances_test.json", "yolo": "data.yaml"}[
        style
    ]
    if style == "label-studio":
        tasks = json.loads((tmp_path / "tasks" / file).read_text())
        for number, entry in enumerate(tasks, 1):
            entry |= {"id": number, "annotations": [{"result": entry["predictions"][0]["result"]}]}
        write_tasks(tmp_path / "tasks" / file, *tasks)
    for number, place in enumerate((tmp_path / "tasks", samples)):
        out = tmp_path / f"set{number}"
        import_labels(tmp_path / "tasks" / file, style, out, "--in", place, "--split", "0,0,100")
        found = load_set(out)
        assert {entry.id for entry in found.pictures} == ids
        assert {entry.part for entry in found.pictures} == {"test"}
        assert [entry.boxes.round(2).tolist() for entry in found.pictures] == [[[0, 10, 20, 30]]] * 2
        for entry in found.pictures:
            pixels = cv2.imread(str(entry.path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            assert pixels is not None
            expected = scene() if np.abs(pixels.astype(int) - scene()).mean() < 9 else scene()[:, ::-1]
            assert np.abs(pixels.astype(int) - expected).mean() < 3


# -- again ---------------------------------------------------------------------------------------------


def _time(day: int) -> dict[str, Any]:
    return {"updated_at": f"2026-11-{day}T09:00:00Z"}


def test_newer_labels_win_in_whichever_order_they_are_imported(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write_tasks(tmp_path / "old.json", task(1, "p0.png", annotation([A], **_time(20))))
    new = write_tasks(tmp_path / "new.json", task(1, "p0.png", annotation([B], **_time(21), completed_by=9)))
    nothing = write_tasks(tmp_path / "last.json", task(1, "p0.png", annotation([], **_time(22))))
    out = tmp_path / "set"
    for file in (old, new, old):
        import_labels(file, "label-studio", out, "--in", images)
    assert boxes_by_name(out) == {"p0.png": [B]}
    assert "keeps its labels by user 9" in capsys.readouterr().err
    for file in (nothing, new, old):
        import_labels(file, "label-studio", out, "--in", images)
    assert boxes_by_name(out) == {"p0.png": []}
    import_labels(old, "label-studio", out, "--in", images, "--replace")
    assert boxes_by_name(out) == {"p0.png": [A]}


def test_without_times_an_earlier_export_does_not_undo_a_correction(tmp_path: Path, images: Path) -> None:
    out = tmp_path / "set"
    first = write_cvat_coco(tmp_path / "1.zip", {"p0.png": [A], "p1.png": [A]}, ["bolt", "nut"])
    second = write_cvat_coco(tmp_path / "2.zip", {"p0.png": [B], "p1.png": []}, ["bolt", "nut"])
    third = write_cvat_coco(tmp_path / "3.zip", {"p0.png": [A, B]}, ["bolt", "nut"])
    for file in (first, second, first, first):
        import_labels(file, "coco", out)
    assert boxes_by_name(out) == {"p0.png": [B], "p1.png": []}
    for file in (third, second, first):
        import_labels(file, "coco", out)
    assert boxes_by_name(out) == {"p0.png": [A, B], "p1.png": []}


def test_a_deleted_picture_stays_deleted(tmp_path: Path, images: Path) -> None:
    out = tmp_path / "set"
    file = write_tasks(
        tmp_path / "x.json", *(task(n, f"p{n}.png", annotation([A], **_time(20))) for n in range(4))
    )
    import_labels(file, "label-studio", out, "--in", images)
    gone = by_name(out)["p2.png"].id
    assert main(["labels", "delete", str(out), gone[:12], "--by", "ann"]) == 0
    later = write_tasks(
        tmp_path / "y.json", *(task(n, f"p{n}.png", annotation([B], **_time(28))) for n in range(5))
    )
    import_labels(later, "label-studio", out, "--in", images)
    assert sorted(by_name(out)) == ["p0.png", "p1.png", "p3.png", "p4.png"]
    kept = SetFolder(out).labels[gone]
    assert (kept.state, kept.by) == (State.DELETED, "ann")
    assert main(["labels", "delete", str(out), "ffffff"]) == 2


def test_an_unchanged_import_writes_nothing(tmp_path: Path, images: Path) -> None:
    out = tmp_path / "set"
    file = write_cvat_coco(tmp_path / "1.zip", {name: [A] for name in NAMES}, ["bolt"])
    import_labels(file, "coco", out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    import_labels(file, "coco", out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_an_import_that_is_killed_at_any_moment_leaves_a_set_that_the_next_one_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_cvat_coco(tmp_path / "1.zip", {name: [A] for name in NAMES[:3]}, ["bolt"])
    rename, left = Path.rename, [0]

    def killed(path: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    for writes in range(9):  # the classes, three images, the parts and three label files
        out = tmp_path / f"set{writes}"
        left[0] = writes
        import_labels(file, "coco", out, code=130 if writes < 8 else 0)
        if writes:
            load_set(out)
        left[0] = 99
        import_labels(file, "coco", out)
        assert boxes_by_name(out) == {name: [A] for name in NAMES[:3]}


# -- parts ---------------------------------------------------------------------------------------------


def test_pictures_stay_in_their_part_and_near_duplicates_join_theirs(tmp_path: Path) -> None:
    names = [f"p{number}.png" for number in range(40)]
    write_pictures(tmp_path / "images", names)
    boxes = {name: [(("bolt", "nut", "cog")[n % 3], 10, 20, 90, 100)] for n, name in enumerate(names)}
    document: dict[str, Any] = cvat_coco(boxes, ["bolt", "nut", "cog"])
    (tmp_path / "a.json").write_text(json.dumps(document))
    out = tmp_path / "set"
    import_labels(tmp_path / "a.json", "coco", out, "--in", tmp_path / "images", "--split", "60,20,20")
    first = {entry.id: entry for entry in load_set(out).pictures}
    counts = [len(load_set(out).part(part)) for part in ("train", "val", "test")]
    assert counts == [24, 8, 8]
    for part in ("train", "val", "test"):
        assert {int(c) for entry in load_set(out).part(part) for c in entry.classes} == {0, 1, 2}
    # Copies: compressed, shrunk and darker.
    (tmp_path / "copies").mkdir()
    for number, name in enumerate(names):
        pixels = cv2.resize(picture(number), None, fx=0.9, fy=0.9, interpolation=cv2.INTER_AREA)
        pixels = (pixels * 0.8 + 5).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "copies" / name), pixels)
    for image in document["images"]:
        image |= {"width": 144, "height": 108}
    for entry in document["annotations"]:
        entry["bbox"] = [value * 0.9 for value in entry["bbox"]]
    (tmp_path / "b.json").write_text(json.dumps(document))
    import_labels(tmp_path / "b.json", "coco", out, "--in", tmp_path / "copies", "--split", "0,0,100")
    both = load_set(out)
    assert len(both.pictures) == 80
    assert all(entry.part == first[entry.id].part for entry in both.pictures if entry.id in first)
    assert [len(both.part(part)) for part in ("train", "val", "test")] == [48, 16, 16]
