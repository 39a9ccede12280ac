"""Wrong labels are refused with task, annotation or line, before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamer.cli.main import main
from tests.unit.imported_labels import NAMES, A, B, boxes_by_name, by_name, import_labels
from tests.unit.label_exports import (
    HEIGHT,
    WIDTH,
    annotation,
    cvat_coco,
    picture,
    region,
    task,
    write_cvat_coco,
    write_pictures,
    write_tasks,
    write_ultralytics,
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder with eight pictures."""
    write_pictures(tmp_path / "images", NAMES)
    return tmp_path / "images"


def _value(**value: Any) -> dict[str, Any]:
    return annotation([]) | {"result": [region(A, 4, **value)]}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (_value(x=99), ["task 5, region r4", "ends at 160, 120"]),
        (_value(width=-10), ["task 5, region r4", "x1 < x2"]),
        (_value(height=0), ["task 5, region r4", "y1 < y2"]),
        (_value(x=float("nan")), ["task 5, region r4", "finite"]),
        (_value(rectanglelabels=[]), ["task 5, region r4", "no class"]),
        (_value(rectanglelabels=["cog"]), ["task 5, region r4", "'cog'", "bolt, nut"]),
        (annotation([]) | {"result": [region(A) | {"type": "polygonlabels"}]}, ["polygonlabels"]),
        (annotation([]) | {"result": [region(A) | {"image_rotation": 90}]}, ["image_rotation"]),
        (
            annotation([]) | {"result": [region(A, 4, rotation=30) | {"original_width": None}]},
            ["task 5, region r4", "`rotation` is 30", "`original_width`"],
        ),
        # With the tags Rectangle and Labels, instead of RectangleLabels, a region has two results.
        (
            annotation([]) | {"result": [region(A) | {"type": "rectangle"}]},
            ["'rectangle'", "rectanglelabels"],
        ),
        (annotation([]) | {"result": [region(A) | {"original_width": 90}]}, ["task 5", "90x120", "160x120"]),
        (annotation([]) | {"result": [{"type": "rectanglelabels", "value": {}}]}, ["task 5"]),
    ],
)
def test_a_wrong_box_of_label_studio_is_refused_with_its_task(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], entry: dict[str, Any], words: list[str]
) -> None:
    file = write_tasks(tmp_path / "x.json", task(4, "p0.png", annotation([A])), task(5, "p1.png", entry))
    out = tmp_path / "set"
    import_labels(file, "label-studio", out, "--in", images, "--classes", "bolt,nut", code=4)
    error = capsys.readouterr().err
    for word in ("x.json", *words):
        assert word in error
    assert not out.exists()
    import_labels(file, "label-studio", out, "--in", images, "--classes", "bolt,nut", "--skip-wrong")
    assert boxes_by_name(out)["p0.png"] == [A]


def test_a_box_that_ends_just_outside_is_cut_off(tmp_path: Path, images: Path) -> None:
    file = write_cvat_coco(tmp_path / "x.zip", {"p0.png": [("bolt", -0.6, 3, 160.9, 120.4)]}, ["bolt"])
    import_labels(file, "coco", tmp_path / "set")
    assert boxes_by_name(tmp_path / "set") == {"p0.png": [("bolt", 0, 3, 160, 120)]}


def _coco(change: str) -> dict[str, Any]:
    document = cvat_coco({"p0.png": [A], "p1.png": [B]}, ["bolt", "nut"])
    entry, image = document["annotations"][1], document["images"][1]
    match change:
        case "category":
            entry["category_id"] = 0
        case "image":
            entry["image_id"] = 9
        case "box":
            entry["bbox"] = [1, 2, 3]
        case "picture":
            image["file_name"] = "gone.png"
        case "size":
            image["width"] = 161
        case "lists":
            del document["categories"]
        case "twice":
            image["file_name"] = "p0.png"
    return document


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("category", ["annotation 2", "`category_id` is 0", "1, 2"]),
        ("image", ["annotation 2", "`image_id` is 9"]),
        ("box", ["annotation 2", "`bbox`"]),
        ("picture", ["image 2", "gone.png"]),
        ("size", ["image 2", "161x120", "160x120"]),
        ("lists", ["categories"]),
        ("twice", ["image 2", "same picture"]),
    ],
)
def test_wrong_coco_is_refused_with_its_annotation(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], change: str, words: list[str]
) -> None:
    (tmp_path / "x.json").write_text(json.dumps(_coco(change)))
    import_labels(tmp_path / "x.json", "coco", tmp_path / "set", "--in", images, code=4)
    error = capsys.readouterr().err
    for word in ("x.json", *words):
        assert word in error


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 0.5 0.5 0.1 0.1", ["its class is 2", "0 to 1"]),
        ("0 0.5 0.5 0.1", ["expected `class cx cy w h`"]),
        ("0 0.5 0.5 0.1 0.1 0.3 0.3", ["expected `class cx cy w h`", "polygon"]),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5", ["expected `class cx cy w h`", "oriented box"]),
        ("0 0.5 0.5 0.1 0.1 0.87", ["expected `class cx cy w h`", "score of a prediction"]),
        ("0 0.5 0.5 nan 0.1", ["finite"]),
        ("0 0.95 0.5 0.3 0.1", ["ends at 160, 120"]),
        ("0 0.5 0.5 -0.1 0.1", ["x1 < x2"]),
        ("bolt 0.5 0.5 0.1 0.1", ["expected `class cx cy w h`"]),
    ],
)
def test_a_wrong_line_of_yolo_is_refused_with_its_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, words: list[str]
) -> None:
    file = write_ultralytics(tmp_path, {"train": {"p0.png": [A]}}, ["bolt", "nut"])
    with (tmp_path / "labels" / "train" / "p0.txt").open("a") as text:
        text.write(f"\n{line}\n")
    import_labels(file, "yolo", tmp_path / "set", code=4)
    error = capsys.readouterr().err
    for word in ("p0.txt line 3", *words):
        assert word in error


@pytest.mark.parametrize(
    ("content", "source", "words"),
    [
        ("{", "label-studio", ["not JSON"]),
        ("{}", "label-studio", ["list of tasks"]),
        ('[{"id": 1, "image": "p0.png", "label": []}]', "label-studio", ["JSON-MIN"]),
        ("[]", "label-studio", ["nobody has labelled"]),
        ("[]", "coco", ["lists images"]),
        ('\ufeff<?xml version="1.0"?><annotations/>', "coco", ["found XML", "COCO 1.0"]),
        ("<annotations/>", "label-studio", ["found XML"]),
        ("names: [bolt]\n", "yolo", ["`train`"]),
        ("names: 3\ntrain: images\n", "yolo", ["`names`"]),
        ("names: [bolt]\ntrain: nowhere\n", "yolo", ["`train`", "nowhere"]),
        ("names: [bolt\n", "yolo", ["data.yaml"]),
    ],
)
def test_a_file_of_another_format_is_refused(
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
    source: str,
    words: list[str],
) -> None:
    file = tmp_path / ("data.yaml" if source == "yolo" else "x.json")
    file.write_text(content)
    import_labels(file, source, tmp_path / "set", "--in", images, code=4)
    error = capsys.readouterr().err
    assert all(word in error for word in words)


def test_pictures_of_one_name_are_told_apart_by_folder_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "images" / "a", ["p0.png"])
    write_pictures(tmp_path / "images" / "b", ["p1.png"])
    (tmp_path / "images" / "b" / "p1.png").rename(tmp_path / "images" / "b" / "p0.png")
    clear = write_cvat_coco(tmp_path / "1.zip", {"b/p0.png": [A]}, ["bolt"], images=False)
    import_labels(clear, "coco", tmp_path / "set", "--in", tmp_path / "images")
    assert list(by_name(tmp_path / "set")) == ["p1.png"]
    unclear = write_cvat_coco(tmp_path / "2.zip", {"p0.png": [A]}, ["bolt"], images=False)
    import_labels(unclear, "coco", tmp_path / "set", "--in", tmp_path / "images", code=4)
    assert "may be any of" in capsys.readouterr().err


def test_a_file_under_two_names_is_one_picture(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "again.png").write_bytes((images / "p1.png").read_bytes())
    file = write_cvat_coco(tmp_path / "1.zip", {"p1.png": [A], "again.png": [A]}, ["bolt"], images=False)
    import_labels(file, "coco", tmp_path / "set", "--in", images, "--json")
    assert json.loads(capsys.readouterr().out)["pictures"] == {"new": 1, "repeated": 1}


def test_sizes_of_the_builders_are_those_of_the_pictures() -> None:
    assert picture(3).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("option", ["FILE", "--out"])
def test_a_bucket_is_refused_where_only_folders_can_be(
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
) -> None:
    monkeypatch.chdir(tmp_path)  # a folder named after the scheme would appear here
    file = write_tasks(tmp_path / "x.json", task(4, "p0.png", annotation([A])))
    address = "s3://bucket/some/place"
    places = [address, "--out", "set"] if option == "FILE" else [str(file), "--out", address]
    words = ["--from", "label-studio", "--in", str(images), "--classes", "bolt,nut"]
    assert main(["labels", "import", *places, *words]) == 2
    error = capsys.readouterr().err
    assert f"{option} is an address of a bucket, {address};" in error
    assert "only --in may be in a bucket" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "x.json"]
