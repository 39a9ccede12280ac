"""Train one of the default models, or go on where it was cut off; see ``--help``."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from models.training import checkpoint, pool
from models.training.dataset import Views
from models.training.loss import detection_loss
from models.training.network import Detector, grid
from models.training.photos import as_sample, is_validation, read_photos
from models.training.recipe import RECIPES, Recipe
from models.training.symbols import CLASSES

_SAVE_EVERY_S = 120.0
_WARMUP_STEPS = 200
_FINAL_RATE = 0.01
_WEIGHT_DECAY = 0.03
_MAX_GRADIENT = 10.0
#: Time constant of the averaged weights, in steps; shorter at the start.
_AVERAGE_STEPS = 1000


def rate_at(step: int, steps: int) -> float:
    """Return the learning rate's factor: a linear rise, then half a cosine down to a hundredth."""
    if step < _WARMUP_STEPS:
        return (step + 1) / _WARMUP_STEPS
    progress = (step - _WARMUP_STEPS) / max(1, steps - _WARMUP_STEPS)
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def averaged(network: nn.Module) -> AveragedModel:
    """Return the exponential moving average of a network's weights and statistics."""

    def blend(average: Tensor, current: Tensor, count: Tensor) -> Tensor:
        steps = float(count)
        decay = 1 - 1 / min(_AVERAGE_STEPS, 10 + steps)
        return average * decay + current * (1 - decay) if average.is_floating_point() else current

    return AveragedModel(network, avg_fn=blend, use_buffers=True)


def _groups(network: nn.Module) -> list[dict[str, object]]:
    """Weights of convolutions decay; biases and normalisations do not."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    return [
        {"params": decayed, "weight_decay": _WEIGHT_DECAY},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]


def train(
    recipe: Recipe,
    work: Path,
    photos: Path | None,
    device: torch.device,
    workers: int,
    *,
    save_every_s: float = _SAVE_EVERY_S,
    stop_after: int | None = None,
) -> Detector:
    """Return the trained (averaged) network, in evaluation mode.

    ``work`` keeps scenes and checkpoints, ``photos`` is a folder as `photos.read_photos` wants it,
    ``workers`` are processes that load. Stops after some steps by KeyboardInterrupt where a test asks for
    it. Raises ValueError when the photographs or a checkpoint do not fit.
    """
    torch.manual_seed(recipe.seed)
    # The loaders are forked; a pool of OpenCV's threads would not survive that and wait for ever.
    cv2.setNumThreads(1)
    pool.render(work / "scenes", 0, recipe.scenes, os.cpu_count() or 1)
    scenes = pool.load(work / "scenes", 0, recipe.scenes)
    shots = [as_sample(photo) for photo in read_photos(photos) if not is_validation(photo)] if photos else []
    views = Views(
        scenes, shots, side=recipe.side, count=recipe.views, seed=recipe.seed, photo_share=recipe.photo_share
    )
    network = Detector(recipe.shape, len(CLASSES)).to(device, memory_format=torch.channels_last)
    average = averaged(network)
    optimiser = torch.optim.AdamW(_groups(network), lr=recipe.learning_rate, fused=device.type == "cuda")
    steps, first = recipe.views // recipe.batch, 0
    path = work / f"{recipe.name}.pt"
    found = checkpoint.load(path, recipe)
    if found:
        network.load_state_dict(found.network)
        average.load_state_dict(found.average)
        optimiser.load_state_dict(found.optimiser)
        first = found.step
    middles, strides = grid(recipe.side, recipe.side, device)
    loader = DataLoader(
        Subset(views, range(first * recipe.batch, steps * recipe.batch)),
        batch_size=recipe.batch,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=False,
        prefetch_factor=4 if workers else None,
    )
    network.train()
    saved = time.monotonic()
    shown: list[float] = [0.0, 0.0]
    bar = tqdm(loader, initial=first, total=steps, desc=recipe.name, unit="step", mininterval=2.0)
    for step, (pictures, class_ids, boxes) in enumerate(bar, start=first):
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * rate_at(step, steps)
        inputs = pictures.to(device, non_blocking=True).to(memory_format=torch.channels_last).float() / 255
        with torch.autocast(device.type, torch.bfloat16):
            logits, distances = network(inputs)
        score_loss, box_loss = detection_loss(
            logits, distances, middles, strides, class_ids.to(device), boxes.to(device)
        )
        optimiser.zero_grad(set_to_none=True)
        (score_loss + box_loss).backward()
        nn.utils.clip_grad_norm_(network.parameters(), _MAX_GRADIENT)
        optimiser.step()
        average.update_parameters(network)
        if step % 20 == 0:
            for index, value in enumerate((score_loss, box_loss)):
                shown[index] = shown[index] * 0.9 + value.item() * 0.1 if step else value.item()
            bar.set_postfix_str(f"scores {shown[0]:.3f} boxes {shown[1]:.3f}", refresh=False)
        if time.monotonic() - saved >= save_every_s or step + 1 == steps:
            state = (network.state_dict(), average.state_dict(), optimiser.state_dict())
            checkpoint.save(path, checkpoint.Checkpoint(checkpoint.plain(recipe), step + 1, *state))
            saved = time.monotonic()
        if step + 1 == stop_after:
            raise KeyboardInterrupt
    bar.close()
    trained: Detector = average.module.to("cpu", memory_format=torch.contiguous_format).eval()
    return trained


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(
        prog="python -m models.training.train",
        description="Train a default model on synthetic scenes, and on photographs where a folder is given, "
        "and export it. A training that was cut off goes on where its last checkpoint was.",
        epilog="examples:\n"
        "  python -m models.training.train v1\n"
        "  python -m models.training.train v2 --photos ../shared/data/codes --device cuda",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--photos", type=Path, help="folder with annotations.json (COCO) and images/")
    parser.add_argument("--work", type=Path, default=Path("build/training"), help="scenes and checkpoints")
    parser.add_argument(
        "--out", type=Path, default=Path("models"), help="where the .onnx and its manifest go"
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda"
    )
    parser.add_argument(
        "--workers", type=int, default=min(8, os.cpu_count() or 1), help="processes that load"
    )
    parser.add_argument("--views", type=int, help="train for so many views instead of the recipe's")
    options = parser.parse_args()
    recipe = RECIPES[options.model]
    if options.views:
        recipe = replace(recipe, views=options.views)
    options.work.mkdir(parents=True, exist_ok=True)
    try:
        network = train(recipe, options.work, options.photos, torch.device(options.device), options.workers)
    except ValueError as error:
        sys.exit(f"error: {error}")
    from models.training.export import export  # noqa: PLC0415  onnx is needed only now

    export(network, recipe, options.out)


if __name__ == "__main__":
    main()
