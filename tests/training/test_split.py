"""Splits: near-copies are in one part, what was trained on stays in training, and the record is checked."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train` (make .venv/installed-training)")

from models.training.content import embedding, hashes, near_copies  # noqa: E402
from models.training.photos import read_photos  # noqa: E402
from models.training.scene import draw_scene  # noqa: E402
from models.training.split import PARTS, Split, assign, key_of, read_split, write_split  # noqa: E402
from models.training.textures import Image  # noqa: E402
from streamer.assets import MODELS_DIR  # noqa: E402
from streamer.training.recovery import recover  # noqa: E402
from tests.conftest import shared  # noqa: E402


def _copies(image: Image) -> list[Image]:
    """Return what people make of a photograph: greyed, darker, smaller and compressed, cut, turned."""
    height, width = image.shape[:2]
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    dark = (image * 0.8).astype(np.uint8)
    small = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
    cut = image[height // 50 : -height // 50, width // 50 : -width // 50]
    return [grey, dark, cv2.imdecode(data, cv2.IMREAD_COLOR), cut, cv2.rotate(image, cv2.ROTATE_180)]


def test_copies_are_found_and_other_pictures_are_not() -> None:
    torch.set_num_threads(1)
    network = recover(MODELS_DIR / "codes_v1.onnx").network
    images = [draw_scene(seed, side=320, kind="photo").image for seed in range(6)]
    copies = [copy for image in images[:2] for copy in _copies(image)]
    everything = images + copies
    pairs = near_copies([hashes(i) for i in everything], [embedding(network, i) for i in everything])
    origin = [0, 1, 2, 3, 4, 5, *[0] * 5, *[1] * 5]
    assert all(origin[first] == origin[second] for first, second in pairs)
    found = {second for first, second in pairs if first in (0, 1) and second >= 6}
    assert len(found) >= 8, "of ten copies, those that are turned may be missed"


def test_a_cluster_with_a_seen_photograph_is_trained_on_and_others_stay_together() -> None:
    keys = [f"{number * 2654435761 % 2**32:08x}" for number in range(60)]
    seen = [number == 0 for number in range(60)]
    split = assign(keys, seen, [(0, 5), (5, 9), *((number, number + 1) for number in range(20, 58, 2))])
    assert [split.parts[keys[number]] for number in (0, 5, 9)] == ["train"] * 3
    assert sum(part == "train" for part in split.parts.values()) == 3
    assert all(split.parts[keys[n]] == split.parts[keys[n + 1]] for n in range(20, 58, 2))
    assert set(split.parts.values()) == set(PARTS)
    again = assign(keys[::-1], seen[::-1], [(59 - b, 59 - a) for a, b in [(0, 5), (5, 9)]])
    assert again.parts[keys[9]] == "train"


def test_a_record_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    write_split(Split({"aa": "train", "bb": "test"}), path)
    assert read_split(path).parts == {"aa": "train", "bb": "test"}
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"train": [], "test": ["aa", "bb"]}))
    with pytest.raises(ValueError, match="expected the digest"):
        read_split(path)


def test_each_shared_photograph_has_a_part_and_a_copy_that_differs_in_light_has_the_same() -> None:
    photos = read_photos(shared("data/codes"))
    split = read_split()
    assert {key_of(photo) for photo in photos} == set(split.parts)
    by_name = {photo.path.name: split.parts[key_of(photo)] for photo in photos}
    for name, part in by_name.items():  # the greyed copies of the code-free photographs
        if (copy := name.replace("falsepositives_", "falsepositives-1_")) != name and copy in by_name:
            assert by_name[copy] == part == "train"
    assert len(split.part(photos, "test")) > 100
    with pytest.raises(ValueError, match="split"):
        Split({}).part(photos, "test")
