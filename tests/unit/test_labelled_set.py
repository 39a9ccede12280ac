"""A labelled set is read as it was written, and what is wrong with one is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamer.datasets.label_file import BadSet, LabelledBox, PictureLabels, State
from streamer.datasets.labelled_set import load_set
from streamer.datasets.sample import BadRequest
from streamer.datasets.set_folder import SetFolder
from tests.unit.images import encode, scene


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a set with a labelled picture in train, an empty one in test, and a deleted one."""
    opened = SetFolder(tmp_path / "set")
    opened.write_classes(["bolt", "nut"], "a test")
    for name in ("a", "b", "c"):
        opened.write_image(f"{name}.png", encode(scene(), ".png"))
    opened.write_parts({"a": "train", "b": "test", "c": "test"})
    boxes = (LabelledBox((1.5, 2, 40, 50), "nut"), LabelledBox((0, 0, 160, 96), "bolt"))
    opened.write_labels(
        [
            PictureLabels("a", "a.png", 160, 96, State.LABELLED, boxes, "ann@x.org", "2026-11-24T09:00:00Z"),
            PictureLabels("b", "b.png", 160, 96, State.NOTHING_HERE),
            PictureLabels("c", "c.png", 160, 96, State.DELETED),
        ]
    )
    return tmp_path / "set"


def test_a_set_is_read_as_it_was_written(folder: Path) -> None:
    found = load_set(folder)
    assert found.classes == ("bolt", "nut")
    assert [(p.id, p.part, p.path, p.width, p.height) for p in found.pictures] == [
        ("a", "train", folder / "images" / "a.png", 160, 96),
        ("b", "test", folder / "images" / "b.png", 160, 96),
    ]
    first, second = found.pictures
    assert first.boxes.tolist() == [[1.5, 2, 40, 50], [0, 0, 160, 96]]
    assert first.classes.tolist() == [1, 0]
    assert first.boxes.dtype == np.float32
    assert first.classes.dtype == np.int64
    assert (second.boxes.shape, second.classes.shape) == ((0, 4), (0,))
    assert [p.id for p in found.part("test")] == ["b"]
    assert found.part("val") == ()
    again = SetFolder(folder)
    assert again.labels["a"].by == "ann@x.org"
    assert again.labels["c"].state is State.DELETED


def test_the_digest_changes_with_labels_parts_and_pixels_only(folder: Path) -> None:
    first = load_set(folder).digest
    opened = SetFolder(folder)
    labels = opened.labels["a"]
    opened.write_labels([replace(labels, by="someone else")])
    assert load_set(folder).digest == first
    changes: tuple[Callable[[], None], ...] = (
        lambda: opened.write_labels([replace(labels, boxes=labels.boxes[:1])]),
        lambda: opened.write_parts({"b": "val"}),
        lambda: opened.write_image("a.png", encode(scene()[::-1].copy(), ".png")),
        lambda: opened.write_classes(["washer"], ""),
    )
    for change in changes:
        change()
        assert load_set(folder).digest != first
        first = load_set(folder).digest


def test_classes_keep_their_indices_and_the_set_its_origin(folder: Path) -> None:
    SetFolder(folder).write_classes(["washer", "bolt"], "a later import")
    assert load_set(folder).classes == ("bolt", "nut", "washer")
    assert json.loads((folder / "set.json").read_bytes())["source"] == "a test"


def _changed(path: str, **fields: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        document = json.loads((folder / path).read_bytes()) | fields
        (folder / path).write_text(json.dumps({k: v for k, v in document.items() if v is not ...}))

    return change


def _box(*box: float, label: str = "nut") -> list[dict[str, object]]:
    return [{"box": list(box), "class": label}]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "set.json").unlink(), ["not a labelled set"]),
        (lambda folder: (folder / "set.json").write_text("[]"), ["set.json", "object"]),
        (lambda folder: (folder / "set.json").write_text("{"), ["set.json", "not JSON"]),
        (lambda folder: (folder / "images" / "a.png").unlink(), ["a.json", "`image`"]),
        (_changed("set.json", schema=2), ["set.json", "`schema` is 2"]),
        (_changed("set.json", classes="nut"), ["set.json", "`classes`"]),
        (_changed("set.json", classes=["nut", "nut"]), ["set.json", "twice"]),
        (_changed("set.json", classes=["nut"]), ["a.json", "`class` is 'bolt'"]),
        (_changed("parts.json", a="dev"), ["parts.json", "`a` is 'dev'", "train"]),
        (_changed("parts.json", a=...), ["parts.json", "`a` is missing"]),
        (_changed("labels/a.json", schema=7), ["a.json", "`schema` is 7"]),
        (_changed("labels/a.json", state=...), ["a.json", "`state` is missing"]),
        (_changed("labels/a.json", state="maybe"), ["a.json", "maybe"]),
        (_changed("labels/a.json", state="nothing_here"), ["a.json", "`state`", "2 boxes"]),
        (_changed("labels/a.json", boxes=[]), ["a.json", "`state`", "0 boxes"]),
        (_changed("labels/a.json", id="b"), ["a.json", "`id` is 'b'"]),
        (_changed("labels/a.json", image="../b.png"), ["a.json", "`image`"]),
        (_changed("labels/a.json", width=0), ["a.json", "`width`"]),
        (_changed("labels/a.json", boxes=_box(5, 5, 1, 9)), ["a.json", "x1 < x2"]),
        (_changed("labels/a.json", boxes=_box(5, 5, 170, 9)), ["a.json", "ends at 160, 96"]),
        (_changed("labels/a.json", boxes=_box(5, 5, float("nan"), 9)), ["a.json", "finite"]),
        (_changed("labels/a.json", boxes=[{"box": [1, 2, 3, 4]}]), ["a.json", "`class` is missing"]),
    ],
)
def test_what_is_wrong_with_a_set_is_named(
    folder: Path, damage: Callable[[Path], object], words: list[str]
) -> None:
    damage(folder)
    with pytest.raises(BadSet) as error:
        load_set(folder)
    for word in words:
        assert word in str(error.value)


def test_an_unfinished_file_is_not_read(folder: Path) -> None:
    (folder / "labels" / ".d.json.partial").write_text("{")
    assert len(load_set(folder).pictures) == 2


def test_a_folder_with_other_files_is_not_taken_for_a_set(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadRequest, match="other files"):
        SetFolder(tmp_path)
