"""Labels in READ_CODES_CLASSES that no served model has end the start, or are told."""

from __future__ import annotations

import logging

import pytest

from inference.core.errors import ModelRefused
from inference.core.settings import InferenceSettings
from inference.models.labels import check_code_classes
from inference.models.model import Family, ModelInfo, Placement


def model(*labels: str, code_classes: tuple[str, ...] | None = None) -> ModelInfo:
    return ModelInfo(
        "m", "0" * 64, Family.YOLO, labels, 64, 64, Placement.CENTRED, 114, code_classes=code_classes
    )


MODELS = {"v1": model("Barcode", "QR_code"), "v2": model("label", "parcel")}


@pytest.mark.parametrize("wanted", [(), ("barcode",), ("qr_code", "label")])
def test_labels_of_any_served_model_are_accepted_whatever_their_case(wanted: tuple[str, ...]) -> None:
    check_code_classes(MODELS, wanted, given=True, restarted=False)


def test_a_label_that_no_model_has_ends_the_start_with_the_labels_that_there_are() -> None:
    with pytest.raises(ModelRefused) as refusal:
        check_code_classes(MODELS, ("barcode", "qr"), given=True, restarted=False)
    assert str(refusal.value) == (
        "READ_CODES_CLASSES: expected labels of served models, which are v1: Barcode, QR_code; v2: label, "
        "parcel; found `qr`. Write the labels as the models have them, or name the classes in `code_classes` "
        "of a manifest."
    )


def test_a_process_that_starts_again_with_another_model_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_code_classes(MODELS, ("barcode", "qr"), given=True, restarted=True)
    assert "READ_CODES=1 reads no codes of these classes: qr. READ_CODES_CLASSES takes labels" in caplog.text


@pytest.mark.parametrize(
    ("models", "warns"),
    [
        ({"v1": model("person", "car")}, True),
        ({"v1": model("person", "qr_code")}, False),
        ({"v1": model("person", "car", code_classes=("car",))}, False),
    ],
    ids=["no code", "one of them", "named by the manifest"],
)
def test_the_default_warns_if_no_model_has_any_of_its_classes(
    models: dict[str, ModelInfo], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    check_code_classes(models, ("barcode", "qr_code"), given=False, restarted=False)
    assert bool(caplog.records) is warns


def test_the_inference_process_gets_them() -> None:
    settings = InferenceSettings({"v1": "m.onnx"}, code_classes=("qr",), code_classes_given=True)
    assert InferenceSettings.from_json(settings.to_json()) == settings
