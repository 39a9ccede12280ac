"""Mixing weights: shares and shifted scores are exact, and the choice never gives up a code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train` (make .venv/installed-training)")

from models.training import pool  # noqa: E402
from models.training.blend import Candidate, choose, harder, manifest_of, mixed, shift_scores  # noqa: E402
from models.training.judge import Tally  # noqa: E402
from models.training.scene import Scene  # noqa: E402
from streamer.training.network import Detector, Shape  # noqa: E402

SHAPE = Shape(stem=8, widths=(8, 8, 8, 8), depth=1, neck=(8, 8, 8), head=8)
BASE = Tally(0.35, photographed=(84, 86), drawn=(380, 500), empty=(60, 300))


def _network(seed: int) -> Detector:
    torch.manual_seed(seed)
    network = Detector(SHAPE, 2)
    network.eval()
    return network


def _candidate(
    photographed: int, drawn: int, empty: int, share: float = 0.5, threshold: float = 0.4
) -> Candidate:
    return Candidate(
        Path("tuned.onnx"), share, Tally(threshold, (photographed, 86), (drawn, 500), (empty, 300))
    )


def test_a_mixture_has_the_share_of_each_weight() -> None:
    first, second = _network(1), _network(2)
    for share in (0.0, 0.25, 1.0):
        made = mixed(first, second, share).state_dict()
        for name, value in first.state_dict().items():
            if value.is_floating_point():
                expected = (1 - share) * value + share * second.state_dict()[name]
                assert torch.allclose(made[name], expected, atol=1e-6), name
    with pytest.raises(ValueError, match="expected two networks of one shape"):
        mixed(first, Detector(SHAPE, 3), 0.5)


def test_shifted_scores_put_a_threshold_where_it_is_wanted() -> None:
    network = _network(3)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = network(images)[0].sigmoid()
        threshold = float(before.median())
        shift_scores(network, threshold, 0.35)
        after = network(images)[0].sigmoid()
    at = before == before.median()
    assert torch.allclose(after[at], torch.full_like(after[at], 0.35), atol=1e-4)
    assert ((before - threshold).abs() < 1e-6).logical_or((before > threshold) == (after > 0.35)).all()


def test_the_choice_has_the_fewest_false_boxes_among_those_that_find_as_many_codes() -> None:
    fewest, able = _candidate(83, 400, 1), _candidate(84, 381, 20)
    assert choose(BASE, [fewest, _candidate(85, 379, 2), able, _candidate(86, 400, 21)]) is able
    more = _candidate(85, 381, 20)
    assert choose(BASE, [able, more]) is more


def test_nothing_is_chosen_unless_it_is_better() -> None:
    assert choose(BASE, [_candidate(86, 400, 60), _candidate(83, 400, 0)]) is None
    assert choose(BASE, []) is None


def test_the_manifest_says_what_was_mixed(tmp_path: Path) -> None:
    tuned = tmp_path / "tuned.onnx"
    tuned.with_suffix(".json").write_text(json.dumps({"training": {"seed": 2, "data": "ab"}}))
    candidate = Candidate(tuned, 0.6, Tally(0.3, (84, 86), (381, 500), (20, 300)))
    manifest = manifest_of(candidate, Path("models/codes_v2.onnx"), "cd")
    assert manifest["training"] == {"seed": 2, "data": "ab", "tuned_share": 0.6, "tuned_threshold": 0.3}
    assert manifest["parents"] == [{"name": "codes_v2", "sha256": "cd"}]
    assert manifest["conf_threshold"] == 0.35


def test_boxes_are_where_the_codes_are_in_harder_views() -> None:
    image = np.full((121, 200, 3), 255, np.uint8)
    image[20:60, 30:130] = 0
    box = np.array([[30, 20, 130, 60]], np.float32)
    half, turned, dim = harder(pool.stored(Scene(image, np.array([3]), box)))
    for view in (half, turned, dim):
        assert view.class_ids.tolist() == [3]
        dark = view.image().max(2) < 60
        rows, columns = np.nonzero(dark.any(1))[0], np.nonzero(dark.any(0))[0]
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.allclose(view.boxes[0], found, atol=1.5), found
    assert half.image().shape == dim.image().shape == (121, 200, 3)
    assert turned.image().shape == (200, 121, 3)
