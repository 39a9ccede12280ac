"""The judge of a training: codes of photographs and scenes and pictures without one are counted apart."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra `train` (make .venv/installed-training)")

from models.training import pool
from models.training.finetune import deceptive
from models.training.judge import Judge
from models.training.pool import Sample
from models.training.scene import Scene, draw_scene
from streamer.assets import MODELS_DIR
from streamer.training.recovery import recover

MODEL = MODELS_DIR / "codes_v1.onnx"


def _blank() -> Sample:
    return pool.stored(
        Scene(np.full((96, 96, 3), 128, np.uint8), np.zeros(0, np.int64), np.zeros((0, 4), np.float32))
    )


def _easy(count: int) -> list[Sample]:
    """Return scenes that one large code fills."""
    scenes = (draw_scene(number, kind="flush") for number in range(100))
    easy = (s for s in scenes if len(s.boxes) == 1 and s.class_ids[0] >= 0 and min(s.image.shape[:2]) > 200)
    return [pool.stored(next(easy)) for _ in range(count)]


def test_what_is_found_is_counted_apart_from_false_boxes() -> None:
    easy = _easy(5)
    judge = Judge([*easy[:3], _blank()], easy[3:], [easy[0]], side=320, agnostic_nms=True)
    found = judge.look(recover(MODEL).network, 0.2)
    tally = judge.tally(found, 0.35)
    assert tally.photographed == (3, 3)
    assert tally.drawn == (2, 2)
    assert tally.empty == (1, 2), "the blank photograph counts as one without a code, and has no box"
    assert tally.recall == 1.0
    assert tally.empty_share == 0.5
    assert judge.tally(found, 0.9999).photographed == (0, 3)


def test_pictures_that_deceive_are_those_with_a_box() -> None:
    code = _easy(1)[0]
    assert deceptive(MODEL, [_blank(), code]) == [code]
