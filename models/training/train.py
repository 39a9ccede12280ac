"""Trains one of the default models, or resumes an interrupted training; see ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from models.training import pool
from models.training.photos import as_sample, read_photos
from models.training.recipe import (
    MANIFEST,
    METADATA,
    RECIPES,
    Recipe,
    plain,
    training_record,
)
from models.training.split import photographs_digest, read_split
from models.training.symbols import CLASSES
from streamer.training import checkpoint
from streamer.training.network import Detector, grid
from streamer.training.optimisation import averaged, learn, make_optimiser, set_rate, warmed_up
from streamer.training.views import Views

_SAVE_EVERY_S = 120.0
_WARMUP_STEPS = 200


def rate_at(step: int, steps: int) -> float:
    """Return the factor of the learning rate: it rises linearly, then falls as half a cosine to 0.01."""
    return warmed_up(step, _WARMUP_STEPS, lambda: (step - _WARMUP_STEPS) / max(1, steps - _WARMUP_STEPS))


def phases(recipe: Recipe) -> list[tuple[int, int, int]]:
    """Return input side, first step and end of each phase; smaller images come first, as they cost less."""
    steps = recipe.views // recipe.batch
    turn = int(steps * recipe.early_share)
    return [(recipe.early_side, 0, turn), (recipe.side, turn, steps)]


def _loader(
    views: Views, numbers: range, recipe: Recipe, workers: int, device: torch.device
) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
    return DataLoader(
        Subset(views, numbers),
        batch_size=recipe.batch,
        num_workers=workers if len(numbers) else 0,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers and len(numbers) else None,
    )


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

    ``work`` is the folder for scenes and checkpoints, ``photos`` a folder for `photos.read_photos`, and
    ``workers`` the number of processes that prepare views. Raises ValueError when the photographs cannot be
    read or the checkpoint belongs to another recipe. Tests set ``stop_after`` to interrupt the training after
    that many steps by a KeyboardInterrupt.
    """
    torch.manual_seed(recipe.seed)
    # The loader processes are forked. OpenCV's thread pool does not survive a fork, and calls that
    # use it would wait for ever.
    cv2.setNumThreads(1)
    scenes = []
    for kind, count in ((None, recipe.scenes), ("texture", recipe.textures)):
        pool.render(work / "scenes", count, os.cpu_count() or 1, kind)
        scenes += pool.load(work / "scenes", count, kind)
    shots = [as_sample(photo) for photo in read_split().part(read_photos(photos), "train")] if photos else []
    network = Detector(recipe.shape, len(CLASSES)).to(device, memory_format=torch.channels_last)
    average = averaged(network)
    optimiser = make_optimiser(network, recipe.learning_rate, device)
    steps, first = recipe.views // recipe.batch, 0
    path = work / f"{recipe.name}.pt"
    found = checkpoint.load(path, plain(recipe))
    if found:
        network.load_state_dict(found.network)
        average.load_state_dict(found.average)
        optimiser.load_state_dict(found.optimiser)
        first = found.step
    network.train()
    saved = time.monotonic()
    shown = torch.zeros(2)
    bar = tqdm(initial=first, total=steps, desc=recipe.name, unit="step", mininterval=2.0)
    for side, begin, end in phases(recipe):
        cells = grid(side, side, device)
        views = Views(
            scenes,
            shots,
            side=side,
            count=recipe.views,
            seed=recipe.seed,
            photo_share=recipe.photo_share,
            sampled_share=recipe.sampled_share,
        )
        remaining = range(max(first, begin) * recipe.batch, end * recipe.batch)
        for step, batch in enumerate(_loader(views, remaining, recipe, workers, device), max(first, begin)):
            set_rate(optimiser, recipe.learning_rate * rate_at(step, steps))
            losses = learn(network, optimiser, batch, cells, device)
            average.update_parameters(network)
            if step % 20 == 0:
                shown = losses.cpu() if step in (0, first) else shown * 0.9 + losses.cpu() * 0.1
                bar.set_postfix_str(f"scores {shown[0]:.3f} boxes {shown[1]:.3f}", refresh=False)
            bar.update()
            if time.monotonic() - saved >= save_every_s or step + 1 == steps:
                state = (network.state_dict(), average.state_dict(), optimiser.state_dict())
                checkpoint.save(path, checkpoint.Checkpoint(plain(recipe), step + 1, *state, {}))
                saved = time.monotonic()
            if step + 1 == stop_after:
                raise KeyboardInterrupt
    bar.close()
    trained: Detector = average.module.to("cpu", memory_format=torch.contiguous_format).eval()
    return trained


def main() -> None:
    """Train a model and export it."""
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
        shots = read_split().part(read_photos(options.photos), "train") if options.photos else []
        photographs = photographs_digest(shots) if shots else None
    except ValueError as error:
        sys.exit(f"error: {error}")
    from streamer.training.export import export  # noqa: PLC0415  onnx is needed only now

    export(
        network,
        options.out / f"{recipe.name}.onnx",
        side=recipe.side,
        labels=CLASSES,
        metadata=METADATA,
        manifest=MANIFEST | {"training": training_record(recipe, photographs)},
    )


if __name__ == "__main__":
    main()
