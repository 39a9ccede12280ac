"""Tests that every field of a manifest is read, and that errors name the file and the field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.errors import ModelRefused
from inference.models.manifest import Activation, Colour, Manifest, parse_manifest, read_manifest
from inference.models.model import Family, Placement

EVERY_FIELD = {
    "name": "codes_v1",
    "family": "yolox",
    "input": {"width": 416, "height": 320},
    "placement": "top-left",
    "pad_value": 0,
    "colour": "bgr",
    "scale": 1,
    "mean": [0.1, 0.2, 0.3],
    "std": [1, 2, 3],
    "activation": "softmax",
    "labels": ["qr", "ean"],
    "code_classes": ["ean"],
    "sha256": "AB" * 32,
    "conf_threshold": 0.4,
    "agnostic_nms": True,
    "batch_max": 4,
    "licence": "Apache-2.0",
    "source": "https://host/model",
    "parents": [{"name": "codes_v1", "sha256": "CD" * 32}],
    "training": {"seed": 1},
    "metrics": {"val": {"map50": 0.9}},
}


def test_every_field_is_read() -> None:
    assert parse_manifest(json.dumps(EVERY_FIELD).encode(), "m.json") == Manifest(
        name="codes_v1",
        family=Family.YOLOX,
        input=(416, 320),
        placement=Placement.TOP_LEFT,
        pad_value=0,
        colour=Colour.BGR,
        scale=1.0,
        mean=(0.1, 0.2, 0.3),
        std=(1.0, 2.0, 3.0),
        activation=Activation.SOFTMAX,
        labels=("qr", "ean"),
        code_classes=("ean",),
        sha256="ab" * 32,
        conf_threshold=0.4,
        agnostic_nms=True,
        batch_max=4,
        licence="Apache-2.0",
        source="https://host/model",
        parents=({"name": "codes_v1", "sha256": "cd" * 32},),
        training={"seed": 1},
        metrics={"val": {"map50": 0.9}},
    )


def test_a_manifest_lies_beside_the_model_and_may_be_absent(tmp_path: Path) -> None:
    assert read_manifest(tmp_path / "model.onnx") == Manifest()
    (tmp_path / "model.json").write_text('{"name": "mine"}')
    assert read_manifest(tmp_path / "model.onnx") == Manifest(name="mine")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a\nb"),
        ("family", "yolo99"),
        ("input", [416, 416]),
        ("input", {"width": 416}),
        ("input", {"width": 416, "height": 416, "depth": 3}),
        ("input", {"width": 16, "height": 416}),
        ("placement", "middle"),
        ("pad_value", 256),
        ("agnostic_nms", 1),
        ("labels", "coco-90"),
        ("parents", {"name": "a", "sha256": "ab" * 32}),
        ("parents", [{"name": "a"}]),
        ("parents", [{"name": "a", "sha256": "ab"}]),
        ("training", "yesterday"),
        ("metrics", [0.9]),
        ("mean", [1, 2]),
        ("pad_value", 11.5),
        ("pad_value", True),
        ("colour", "RGB"),
        ("scale", 0),
        ("scale", "1"),
        ("scale", True),
        ("mean", [0, 0]),
        ("mean", {"r": 1}),
        ("std", [1, 1, 0]),
        ("activation", "relu"),
        ("labels", []),
        ("labels", ["a", 1]),
        ("labels", {"0": "a"}),
        ("code_classes", "qr"),
        ("code_classes", [""]),
        ("code_classes", ["a", 1]),
        ("sha256", "ab"),
        ("conf_threshold", 1.5),
        ("batch_max", 0),
        ("licence", None),
        ("source", ["https://host/model"]),
    ],
)
def test_a_wrong_value_is_refused_by_file_and_field(field: str, value: object) -> None:
    with pytest.raises(ModelRefused) as refusal:
        parse_manifest(json.dumps({field: value}).encode(), "folder/m.json")
    assert refusal.value.path == "folder/m.json"
    assert f"`{field}`" in refusal.value.expected


def test_an_unknown_field_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelRefused, match=r"m\.json.*conf_threshold.*found field `confidence`"):
        parse_manifest(b'{"confidence": 0.5}', "m.json")


@pytest.mark.parametrize(
    "data", [b"", b"[1]", b"{", b'{"scale": NaN}', b'{"scale": 1e999}', b"\xff\xfe", b"[" * 100_000]
)
def test_what_is_not_a_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ModelRefused, match=r"m\.json"):
        parse_manifest(data, "m.json")


def test_a_huge_manifest_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(ModelRefused, match="at most 1048576 bytes"):
        read_manifest(tmp_path / "model.onnx")


def test_an_unreadable_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").mkdir()
    with pytest.raises(ModelRefused, match=r"model\.json.*readable"):
        read_manifest(tmp_path / "model.onnx")


@given(
    st.dictionaries(
        st.sampled_from([*EVERY_FIELD, "other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=3,
    )
)
def test_any_json_is_either_a_manifest_or_a_refusal(values: dict[str, object]) -> None:
    try:
        manifest = parse_manifest(json.dumps(values).encode(), "m.json")
    except ModelRefused:
        return
    assert isinstance(manifest, Manifest)
