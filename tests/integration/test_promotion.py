"""`streamer promote` puts a model in the place of the served one, unless it is worse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from inference.models.manifest import manifest_path
from streamer.assets import MODELS_DIR
from streamer.cli.main import main
from streamer.config.settings import SettingsError, load_settings
from streamer.datasets.label_file import LabelledBox, PictureLabels, State
from streamer.datasets.labelled_set import LabelledPicture, load_set
from streamer.datasets.set_folder import SetFolder
from streamer.evaluation.model_run import detect, open_model
from streamer.imaging.image_header import Limits
from tests.helpers.service import PATIENT, ROOT, Service

CLASSES = ("barcode", "qr_code", "data_matrix", "aztec", "pdf417")


def copy_model(source: Path, target: Path, **changes: object) -> Path:
    """Copy a model with its manifest, some fields of which are changed."""
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)
    manifest = json.loads(manifest_path(source).read_text()) | changes
    manifest_path(target).write_text(json.dumps(manifest))
    return target


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a set in which exactly that is labelled which codes_v1 finds."""
    folder = SetFolder(tmp_path_factory.mktemp("sets") / "set")
    model = open_model(str(MODELS_DIR / "codes_v1.onnx"), CLASSES)
    labels = []
    for path in sorted((ROOT / "data" / "stills").glob("*.jpg")):
        width, height = Limits().read_header(path.read_bytes()).upright_size
        empty = LabelledPicture(
            path.stem, path, width, height, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), "test"
        )
        boxes = tuple(
            LabelledBox((float(x1), float(y1), float(x2), float(y2)), CLASSES[int(kind)])
            for x1, y1, x2, y2, score, kind in detect(model, empty).boxes.tolist()
            if score >= model.threshold
        )
        state = State.LABELLED if boxes else State.NOTHING_HERE
        folder.write_image(path.name, path.read_bytes())
        labels.append(PictureLabels(path.stem, path.name, width, height, state, boxes))
    model.close()
    folder.write_classes(CLASSES, "test")
    folder.write_parts({one.id: "test" for one in labels})
    folder.write_labels(labels)
    return folder.folder


def test_a_worse_model_is_refused_and_a_good_one_is_served_with_its_figures(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copy_model(MODELS_DIR / "codes_v1.onnx", tmp_path / "served" / "own.onnx", name="first")
    before = json.loads(manifest_path(place).read_text())["sha256"]
    monkeypatch.setenv("MODEL_V2_PATH", str(place))
    swapped = ["qr_code", "barcode", *CLASSES[2:]]
    worse = copy_model(MODELS_DIR / "codes_v2.onnx", tmp_path / "worse.onnx", labels=swapped)

    assert main(["promote", str(worse), "--as", "v2", "--set", str(labelled)]) == 1
    told = capsys.readouterr().err
    assert "which is more than 0.02 lower" in told
    assert "--force promotes it nevertheless" in told
    assert "worse.onnx" in (tmp_path / "worse.promotion.html").read_text()
    assert not place.is_symlink()
    assert not place.with_name("own.versions").exists()

    good = copy_model(
        MODELS_DIR / "codes_v1.onnx",
        tmp_path / "good.onnx",
        name="second",
        parents=[{"name": "first", "sha256": before}],
        training={"set": load_set(labelled).digest},
    )
    assert main(["promote", str(good), "--as", "v2", "--set", str(labelled), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["candidate"]["map50"] == done["served"]["map50"] == pytest.approx(1.0)
    assert done["map50_change"] == [0, 0, 0]
    assert Path(done["previous"]).read_bytes() == (MODELS_DIR / "codes_v1.onnx").read_bytes()
    assert json.loads(manifest_path(Path(done["previous"])).read_text())["name"] == "first"

    with Service(PATIENT | {"MODEL_V2_PATH": str(place), "BATCH_MAX": "1"}, bundled=True) as service:
        served = service.get_json("/health")["models"]["v2"]
    assert served["name"] == "second"
    assert served["lineage"]["parents"] == [{"name": "first", "sha256": before}]
    assert served["lineage"]["set"] == load_set(labelled).digest
    assert served["lineage"]["scores"]["promotion"]["map50"] == pytest.approx(1.0)

    assert main(["promote", str(worse), "--as", "v2", "--set", str(labelled), "--force"]) == 0
    assert "promoted, by --force" in capsys.readouterr().out
    assert place.resolve().read_bytes() == worse.read_bytes()
    # Back to the one before, which was kept.
    assert main(["promote", done["file"], "--as", "v2", "--set", str(labelled)]) == 0
    assert place.resolve() == Path(done["file"]).resolve()


def test_without_a_set_the_command_names_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = copy_model(MODELS_DIR / "codes_v1.onnx", tmp_path / "own.onnx")
    assert main(["promote", str(model), "--as", "v2"]) == 2
    assert "--set is missing" in capsys.readouterr().err


def test_the_first_model_is_promoted_to_a_place_where_nothing_is_yet(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "new" / "own.onnx"
    monkeypatch.setenv("MODEL_V2_PATH", str(place))
    with pytest.raises(SettingsError, match=r"MODEL_V2_PATH=.*: no such file"):
        load_settings()
    model = copy_model(MODELS_DIR / "codes_v1.onnx", tmp_path / "good.onnx", name="first")
    assert main(["promote", str(model), "--as", "v2", "--set", str(labelled), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["served"], done["previous"]) == (None, None)
    # The service starts with what has been promoted.
    served = load_settings().models()["v2"]
    assert served.read_bytes() == model.read_bytes()
    assert json.loads(manifest_path(served).read_text())["name"] == "first"
    # A folder in the place is no first promotion.
    monkeypatch.setenv("MODEL_V2_PATH", str(tmp_path))
    assert main(["promote", str(model), "--as", "v2", "--set", str(labelled)]) == 2
    assert "no such file" in capsys.readouterr().err
