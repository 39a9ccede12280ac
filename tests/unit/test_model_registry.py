"""Tests that the bundled registry of known models is complete, and that errors in a registry are named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.models.manifest import parse_manifest
from inference.models.model import Family
from streamer.model_zoo.download_url import BadRequest
from streamer.model_zoo.registry import MAX_FILE_BYTES, Registry, RegistryEntry, parse_entry, read_registry

BUNDLED = Path(__file__).resolve().parents[2] / "models" / "catalogue.json"
GOOD: dict[str, Any] = {
    "name": "yolox_nano",
    "title": "YOLOX-Nano",
    "family": "yolox",
    "input": {"width": 416, "height": 320},
    "classes": ["cat", "dog"],
    "licence": "Apache-2.0",
    "bytes": 1000,
    "sha256": "AB" * 32,
    "url": "https://host/x.onnx",
    "source": "https://host/page",
    "trained_on": "COCO",
    "note": "A note.",
    "manifest": {"colour": "rgb"},
}


def write(folder: Path, content: object) -> Path:
    path = folder / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_an_entry_is_read_field_by_field() -> None:
    assert parse_entry(GOOD, 1) == RegistryEntry(
        name="yolox_nano",
        title="YOLOX-Nano",
        family=Family.YOLOX,
        input=(416, 320),
        classes=2,
        labels=("cat", "dog"),
        licence="Apache-2.0",
        size=1000,
        sha256="ab" * 32,
        url="https://host/x.onnx",
        source="https://host/page",
        trained_on="COCO",
        note="A note.",
        manifest={"colour": "rgb"},
    )


def test_unknown_values_are_null_and_optional_fields_may_be_absent() -> None:
    short = {name: value for name, value in GOOD.items() if name not in ("trained_on", "note", "manifest")}
    entry = parse_entry(short | {"sha256": None, "bytes": None, "classes": 80}, 1)
    assert (entry.sha256, entry.size, entry.classes, entry.labels, entry.manifest) == (
        None,
        None,
        80,
        None,
        {},
    )


def test_classes_of_one_name_are_numbered_apart() -> None:
    assert parse_entry(GOOD | {"classes": ["car", "car"]}, 1).labels == ("car", "car_2")


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("name", "Big", "small letters"),
        ("name", "../up", "small letters"),
        ("name", "catalogue", "not `catalogue`"),
        ("title", "", "printable text"),
        ("family", "yolo99", '"yolox"'),
        ("input", 640, '"width"'),
        ("classes", 0, "or a list of class names"),
        ("classes", ["a", 1], "a list of 1 to 10000 class names"),
        ("licence", None, "printable text"),
        ("bytes", 0, "or null if it is unknown"),
        ("bytes", "3 MB", "whole number"),
        ("sha256", "abc", "64 hexadecimal digits, or null"),
        ("url", "http://host/x.onnx", "https://"),
        ("url", "https://user:dummy@host/x", "without user and password"),
        ("source", "host", "https://"),
        ("manifest", [], "an object of manifest fields"),
        ("manifest", {"colour": "pink"}, "with field `colour` to be"),
        ("manifest", {"sha256": "ab" * 32}, "without `sha256`"),
    ],
)
def test_a_wrong_value_is_refused_with_entry_field_and_what_is_allowed(
    tmp_path: Path, field: str, value: object, allowed: str
) -> None:
    path = write(tmp_path, {"version": 1, "models": [GOOD | {"name": "first"}, GOOD | {field: value}]})
    with pytest.raises(BadRequest) as refused:
        read_registry(path)
    text = str(refused.value)
    assert text.startswith(f"registry {path}: entry 2 (`")
    assert f"expected field `{field}` to be" in text
    assert allowed in text
    assert "; found " in text


@pytest.mark.parametrize("field", [name for name in GOOD if name not in ("trained_on", "note", "manifest")])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    short = {name: value for name, value in GOOD.items() if name != field}
    with pytest.raises(BadRequest, match=rf"entry 1.*expected field `{field}`.*; found none"):
        read_registry(write(tmp_path, {"version": 1, "models": [short]}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected a JSON object in UTF-8"),
        ([], "expected a JSON object in UTF-8; found a list"),
        ({}, "expected `version` 1; found null"),
        ({"version": 2, "models": []}, "expected `version` 1; found a number, 2"),
        ({"version": True, "models": []}, "found a boolean"),
        ({"version": 1}, "expected `models` to be a list of entries; found null"),
        ({"version": 1, "models": [], "modles": []}, "found field `modles`"),
        ({"version": 1, "models": [3]}, "entry 1: expected an object; found a number, 3"),
        (
            {"version": 1, "models": [GOOD | {"sha": ""}]},
            "expected only the fields name, .*found field `sha`",
        ),
        (
            {"version": 1, "models": [GOOD, GOOD]},
            "entry 2: expected a unique name; found `yolox_nano` again",
        ),
        (" " * (MAX_FILE_BYTES + 1), f"expected at most {MAX_FILE_BYTES} bytes"),
    ],
)
def test_a_wrong_file_is_refused_with_what_was_found(tmp_path: Path, content: object, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(BadRequest, match=rf"^registry {re.escape(str(path))}: .*{message}"):
        read_registry(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"nowhere\.json: No such file"):
        read_registry(tmp_path / "nowhere.json")


def test_an_unknown_name_suggests_similar_ones(tmp_path: Path) -> None:
    registry = read_registry(write(tmp_path, {"version": 1, "models": [GOOD, GOOD | {"name": "dfine_s"}]}))
    assert registry.find("dfine_s").name == "dfine_s"
    with pytest.raises(BadRequest, match=r"NAME 'yolox-nano' is not in .*; did you mean yolox_nano\?"):
        registry.find("yolox-nano")
    with pytest.raises(BadRequest, match="known are yolox_nano, dfine_s"):
        registry.find("resnet")
    with pytest.raises(BadRequest, match="known are none"):
        Registry(tmp_path).find("resnet")


def test_the_bundled_registry_has_the_yolox_releases_with_checksums() -> None:
    entries = {entry.name: entry for entry in read_registry(BUNDLED).entries}
    for size in ("nano", "tiny", "s", "m", "l", "x"):
        entry = entries[f"yolox_{size}"]
        assert entry.url.startswith("https://github.com/Megvii-BaseDetection/YOLOX/releases/download/")
        assert (entry.family, entry.classes, entry.licence) == (Family.YOLOX, 80, "Apache-2.0")
        assert entry.sha256 is not None
        assert entry.size is not None


def test_the_bundled_registry_is_permissive_unambiguous_and_pinned() -> None:
    entries = read_registry(BUNDLED).entries
    assert {entry.licence for entry in entries} <= {"Apache-2.0", "MIT", "BSD-3-Clause"}
    digests = [entry.sha256 for entry in entries if entry.sha256]
    assert len(set(digests)) == len(digests)
    assert len({entry.url for entry in entries}) == len(entries)
    for entry in entries:
        # Only a URL of a release or of a revision is allowed, because a file on a branch may change.
        assert re.search(r"/releases/download/|/resolve/[0-9a-f]{40}/", entry.url)
        parse_manifest(json.dumps(dict(entry.manifest) | {"source": entry.source}).encode(), entry.name)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*GOOD, "other"]), inner, max_size=5)
            | st.just(GOOD)
        ),
        max_leaves=8,
    )
)
def test_any_json_is_either_parsed_or_refused(value: object) -> None:
    try:
        entry = parse_entry(value, 1)
    except ValueError as error:
        assert str(error).startswith("entry 1")
    else:
        assert isinstance(entry, RegistryEntry)
