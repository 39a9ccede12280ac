"""Fine-tuning: it begins with the bundled weights, an interrupted one continues, another plan is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train` (make .venv/installed-training)")

from models.training import finetune  # noqa: E402
from models.training.finetune import FineTuning, Plan  # noqa: E402
from models.training.photos import Photo  # noqa: E402
from models.training.pool import Sample  # noqa: E402
from models.training.scene import draw_scene  # noqa: E402
from models.training.split import Split, key_of  # noqa: E402
from streamer.assets import MODELS_DIR  # noqa: E402
from streamer.training.errors import UnusableCheckpoint  # noqa: E402

BASE = MODELS_DIR / "codes_v1.onnx"
PLAN = Plan("codes_v1", "ab", "cd", 64, 4, 0, 0, 1e-5, 2, 1e-4, photo_share=0.5, seed=1)


def _sample(seed: int) -> Sample:
    scene = draw_scene(seed, side=96, kind="photo")
    return Sample(cv2.imencode(".jpg", scene.image)[1].tobytes(), scene.class_ids, scene.boxes)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small pictures gain nothing from a second thread, which waits for the first on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Photo]:
    """Return two photographs, one to train on and one to judge by, and make scenes and judging small."""
    scenes = [draw_scene(seed, side=96, kind="flush") for seed in (1, 2)]
    made = []
    for number, scene in enumerate(scenes):
        path = tmp_path / f"photo_{number}.png"
        cv2.imwrite(str(path), scene.image)
        made.append(Photo(path, ("",) * len(scene.boxes), np.abs(scene.class_ids), scene.boxes))
    split = Split({key_of(made[0]): "train", key_of(made[1]): "val"})
    monkeypatch.setattr(finetune, "read_split", lambda: split)
    monkeypatch.setattr(finetune, "_JUDGED", 1)
    monkeypatch.setattr(finetune, "_CALIBRATION_VIEWS", 2)
    monkeypatch.setattr(
        finetune,
        "load_pictures",
        lambda plan, base, work, train: ([_sample(s) for s in range(4)], [_sample(9)]),
    )
    return made


def test_it_trains_keeps_the_best_and_continues_where_it_was(tmp_path: Path, photos: list[Photo]) -> None:
    network, steps = FineTuning(PLAN, BASE, tmp_path, photos).run()
    assert steps == 1
    assert not network.training
    lines = (tmp_path / "codes_v1-finetune.csv").read_text().splitlines()
    assert lines[0] == "step,seconds,score_loss,box_loss,recall,empty_with_box,fitness"
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1"]
    for name in ("codes_v1-00", "codes_v1-01"):
        manifest = json.loads((tmp_path / f"{name}.json").read_text())
        assert manifest["sha256"] == hashlib.sha256((tmp_path / f"{name}.onnx").read_bytes()).hexdigest()
        assert manifest["parents"] == [{"name": "codes_v1", "sha256": PLAN.base_sha256}]
        assert manifest["training"]["data"] == PLAN.data_digest
    again, steps = FineTuning(PLAN, BASE, tmp_path, photos).run()
    assert steps == 1, "it was finished"
    for name, value in network.state_dict().items():
        assert value.equal(again.state_dict()[name]), name
    with pytest.raises(UnusableCheckpoint, match="`seed` was 1, and is 2"):
        FineTuning(replace(PLAN, seed=2), BASE, tmp_path, photos)


def test_the_digest_of_the_data_changes_with_what_the_pictures_depend_on() -> None:
    digests = {
        replace(PLAN, **change).data_digest
        for change in ({}, {"hard": 1}, {"split": "x"}, {"seed": 9}, {"mined": 2})
    }
    assert len(digests) == 5
    assert replace(PLAN, learning_rate=1.0).data_digest == PLAN.data_digest
