"""The network learns, an interrupted training ends like an uninterrupted one, and the export is checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train` (make .venv/installed-training)")

from inference.engine.detector import Detector as Served  # noqa: E402
from inference.models.model import Family  # noqa: E402
from models.training import pool  # noqa: E402
from models.training.recipe import RECIPES, Recipe, plain  # noqa: E402
from models.training.symbols import CLASSES  # noqa: E402
from models.training.train import phases, rate_at, train  # noqa: E402
from streamer.training import checkpoint  # noqa: E402
from streamer.training.assigner import assign, overlaps  # noqa: E402
from streamer.training.export import export  # noqa: E402
from streamer.training.loss import ciou, detection_loss  # noqa: E402
from streamer.training.network import STRIDES, Detector, Exported, Shape, corners, grid  # noqa: E402
from streamer.training.views import Views  # noqa: E402

TINY = Shape(stem=8, widths=(8, 16, 16, 16), depth=1, neck=(16, 16, 16), head=16)
RECIPE = Recipe(
    name="tiny",
    shape=TINY,
    side=96,
    scenes=8,
    textures=0,
    views=48,
    batch=4,
    learning_rate=2e-3,
    seed=5,
    early_side=64,
    early_share=0.34,
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a work folder that already contains rendered scenes."""
    work = tmp_path_factory.mktemp("training")
    pool._render_shard((_made(work / "scenes"), 0, None))
    return work


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _one_code(side: int) -> tuple[Any, Any]:
    class_ids = torch.tensor([[1, -2]])
    return class_ids, torch.tensor([[[side * 0.25, side * 0.25, side * 0.75, side * 0.75], [0, 0, 0, 0]]])


def test_cells_cover_the_image_at_every_stride() -> None:
    middles, _ = grid(64, 96)
    assert len(middles) == sum(64 * 96 // stride**2 for stride in STRIDES)
    assert middles[0].tolist() == [4.0, 4.0]
    assert middles.max(0).values.tolist() == [92.0, 60.0]
    box = corners(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[100.0, 50.0]]), torch.tensor([[8.0]]))
    assert box.tolist() == [[92.0, 34.0, 124.0, 82.0]]


def test_overlap_of_boxes() -> None:
    first = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    assert overlaps(first, torch.tensor([[0.0, 0.0, 10.0, 5.0]])).item() == pytest.approx(0.5)
    assert ciou(first, first).item() == pytest.approx(1.0, abs=1e-5)
    assert ciou(first, torch.tensor([[20.0, 20.0, 30.0, 30.0]])).item() < -0.3


def test_only_cells_inside_a_code_answer_for_it_and_ignored_ones_count_for_nothing() -> None:
    middles, strides = grid(96, 96)
    scores = torch.full((1, len(middles), len(CLASSES)), 0.01)
    boxes = corners(torch.ones(1, len(middles), 4), middles, strides)
    class_ids = torch.tensor([[1, -1, -2]])
    wanted = torch.tensor([[[0.0, 0.0, 48.0, 48.0], [48.0, 48.0, 96.0, 96.0], [0.0, 0.0, 0.0, 0.0]]])
    targets = assign(scores, boxes, middles, strides, class_ids, wanted)
    chosen = middles[targets.positive[0]]
    assert 1 <= len(chosen) <= 10
    assert (chosen < 48).all()
    assert (targets.boxes[0, targets.positive[0]] == wanted[0, 0]).all()
    assert targets.scores[0, :, 1].max() > 0.2
    assert targets.scores[0, :, [0, 2, 3, 4]].max() == 0
    uncounted = middles[~targets.counted[0]]
    assert len(uncounted)
    assert (uncounted > 48).all()


def test_a_code_smaller_than_a_cell_still_has_one() -> None:
    middles, strides = grid(96, 96)
    scores = torch.full((1, len(middles), len(CLASSES)), 0.01)
    boxes = corners(torch.ones(1, len(middles), 4), middles, strides)
    tiny = torch.tensor([[[39.0, 39.0, 41.0, 41.0]]])
    assert assign(scores, boxes, middles, strides, torch.tensor([[2]]), tiny).positive.any()


def test_the_network_learns_one_image_by_heart() -> None:
    torch.manual_seed(0)
    network = Detector(TINY, len(CLASSES)).train()
    middles, strides = grid(96, 96)
    class_ids, wanted = _one_code(96)
    image = torch.zeros(1, 3, 96, 96)
    image[:, :, 24:72, 24:72] = torch.rand(48, 48)
    images = image.expand(4, -1, -1, -1) + torch.randn(4, 3, 96, 96) * 0.02
    class_ids, wanted = class_ids.expand(4, -1), wanted.expand(4, -1, -1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3)
    losses = []
    for _ in range(80):
        logits, distances = network(images)
        score_loss, box_loss = detection_loss(logits, distances, middles, strides, class_ids, wanted)
        optimiser.zero_grad()
        (score_loss + box_loss).backward()
        optimiser.step()
        losses.append((score_loss + box_loss).item())
    assert losses[-1] < 0.3 * losses[0]
    with torch.no_grad():  # still in training mode: after so few steps the running statistics lag
        logits, distances = network(images)
    best = int(logits[0].max(-1).values.argmax())
    assert int(logits[0, best].argmax()) == 1
    assert overlaps(corners(distances, middles, strides)[0, best], wanted[0, 0]) > 0.7


def test_views_are_made_from_their_number_and_their_boxes_fit(scenes: Path) -> None:
    samples = pool.load(scenes / "scenes", 8)
    views = Views(samples, samples[:2], side=96, count=200, seed=1, photo_share=0.3)
    codes = 0
    for number in range(0, 200, 5):
        image, class_ids, boxes = views[number]
        again = views[number]
        assert torch.equal(image, again[0])
        assert torch.equal(boxes, again[2])
        assert (image.shape, image.dtype) == ((3, 96, 96), torch.uint8)
        real = class_ids > -2
        assert (boxes[real] >= 0).all()
        assert (boxes[real] <= 96).all()
        assert (boxes[real][:, 2:] > boxes[real][:, :2]).all()
        codes += int((class_ids >= 0).sum())
    assert codes > 20


def test_the_rate_rises_then_falls_to_a_hundredth() -> None:
    rates = [rate_at(step, 2000) for step in range(2000)]
    assert rates[0] < 0.01
    assert max(rates) == pytest.approx(1.0)
    assert rates[200:] == sorted(rates[200:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)


def test_small_images_come_first_and_every_step_belongs_to_one_phase() -> None:
    assert phases(RECIPE) == [(64, 0, 4), (96, 4, 12)]
    for recipe in RECIPES.values():
        (_, first, turn), (side, begin, last) = phases(recipe)
        assert (first, turn, last) == (0, begin, recipe.views // recipe.batch)
        assert side == recipe.side


def test_a_training_that_was_cut_off_ends_as_one_that_was_not(scenes: Path, tmp_path: Path) -> None:
    device = torch.device("cpu")

    def work(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "scenes").symlink_to(scenes / "scenes")
        return folder

    whole = train(RECIPE, work("whole"), None, device, 0)
    cut = work("cut")
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, cut, None, device, 0, save_every_s=0, stop_after=3)
    state = checkpoint.load(cut / "tiny.pt", plain(RECIPE))
    assert state
    assert state.step == 3
    resumed = train(RECIPE, cut, None, device, 0)
    for name, value in whole.state_dict().items():
        assert torch.allclose(value.float(), resumed.state_dict()[name].float(), atol=1e-5), name


def test_the_file_is_served_as_it_was_trained(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = Detector(TINY, len(CLASSES)).eval()
    path = tmp_path / "tiny.onnx"
    export(network, path, side=96, labels=CLASSES)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tiny.json", "tiny.onnx"]
    served = Served(path, version="v1", device="cpu", batch_max=4)
    assert (served.model.family, served.model.labels) == (Family.YOLO, CLASSES)
    assert (served.model.input_width, served.buckets[-1]) == (96, 4)
    frame = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    found = served.infer([frame, frame], thread=0).arrays[0]
    planes = torch.from_numpy(frame[..., ::-1].transpose(2, 0, 1).copy())[None].float() / 255
    with torch.no_grad():
        wanted = Exported(network, 96)(planes).numpy()
    assert np.abs(found[0] - wanted[0]).max() < 0.05
    assert json.loads((tmp_path / "tiny.json").read_text())["labels"] == list(CLASSES)


def test_an_export_that_differs_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.training.export._SCORE_TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="differs from PyTorch"):
        export(Detector(TINY, len(CLASSES)).eval(), tmp_path / "tiny.onnx", side=96, labels=CLASSES)
    assert list(tmp_path.iterdir()) == []


def test_the_recipes_keep_to_the_sizes_that_were_promised() -> None:
    for name, limit in (("v1", 6e6), ("v2", 12e6)):
        network = Detector(RECIPES[name].shape, len(CLASSES))
        assert sum(weight.numel() for weight in network.parameters()) * 4 < limit
    assert (RECIPES["v1"].side, RECIPES["v2"].side) == (320, 416)
