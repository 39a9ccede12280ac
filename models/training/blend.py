"""Chooses weights between those before and after a fine-tuning; see ``--help``.

Fine-tuned weights have fewer false boxes and find fewer codes. Between both sets of weights, on the straight
line, there often are better ones than either (Wortsman et al. 2022, arXiv:2109.01903). The merged weights of
the ONNX files are mixed, so no normalisation has statistics that fit neither.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from models.training import pool
from models.training.empty import files
from models.training.finetune import FIRST_JUDGED
from models.training.judge import Judge, Picture, Tally
from models.training.photos import read_photos
from models.training.recipe import AGNOSTIC_NMS, MANIFEST, METADATA, THRESHOLD
from models.training.scene import Scene, draw_scene
from models.training.split import read_split
from models.training.symbols import CLASSES
from streamer.training.errors import NotRecoverable
from streamer.training.export import export
from streamer.training.network import Detector
from streamer.training.recovery import recover
from streamer.training.views import Labelled

#: Drawn pictures that choose. Neither a training nor a figure on the card uses their numbers. Most scenes
#: have small and covered codes; those of the kind "flush" show which class a plain code gets.
_FIRST_DRAWN, _EMPTY = 6_000_000, 300
_DRAWN: dict[str | None, int] = {None: 200, "among": 50, "flush": 250}
_GREY = 114
_SHARES = (0.4, 0.6, 0.8, 1.0)
#: Thresholds of the mixed weights that are tried. Scores are shifted so that the chosen one is `THRESHOLD`.
THRESHOLDS = tuple(number / 100 for number in range(20, 61, 2))


@dataclass(frozen=True, slots=True)
class Candidate:
    """Mixed weights with a threshold, and what they do."""

    tuned: Path
    #: Share of the tuned weights, 0..1.
    share: float
    tally: Tally


def mixed(first: Detector, second: Detector, share: float) -> Detector:
    """Return a network with ``share`` of the second weights. Raises ValueError for other networks."""
    if (first.shape, first.class_count) != (second.shape, second.class_count):
        raise ValueError(f"expected two networks of one shape; found {first.shape} and {second.shape}")
    made, ours, theirs = Detector(first.shape, first.class_count), first.state_dict(), second.state_dict()
    made.load_state_dict(
        {
            name: torch.lerp(value, theirs[name], share) if value.is_floating_point() else value
            for name, value in ours.items()
        }
    )
    return made.eval()


@torch.no_grad()
def shift_scores(network: Detector, threshold: float, wanted: float) -> None:
    """Change the biases of all class scores, in place: what had the score ``threshold`` has ``wanted``."""
    for head in network.heads:
        head.to_classes.bias += _logit(wanted) - _logit(threshold)


def _logit(score: float) -> float:
    return math.log(score / (1 - score))


def choose(base: Tally, candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate with boxes on the fewest pictures without a code; None if none is better.

    It must find as many codes as the base, in photographs and in drawn scenes. Of equal ones it is the one
    that finds more codes.
    """
    able = [
        candidate
        for candidate in candidates
        if candidate.tally.photographed[0] >= base.photographed[0]
        and candidate.tally.drawn[0] >= base.drawn[0]
        and candidate.tally.empty[0] < base.empty[0]
    ]
    return min(
        able, key=lambda c: (c.tally.empty[0], -c.tally.photographed[0], -c.tally.drawn[0]), default=None
    )


def harder(photo: Labelled) -> list[pool.Sample]:
    """Return a photograph at half its size on grey, turned by 90 degrees, and dim and blurred.

    Nearly all codes of the part `val` are found as they are, so only harder views tell weights apart.
    """
    image, boxes = photo.image(), photo.boxes
    height, width = image.shape[:2]
    small = cv2.resize(image, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    ratio = np.array([small.shape[1] / width, small.shape[0] / height] * 2, np.float32)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    half = np.full_like(image, _GREY)
    half[top : top + small.shape[0], left : left + small.shape[1]] = small
    x1, y1, x2, y2 = boxes.T
    turned = np.stack([y1, width - x2, y2, width - x1], 1)
    blurred = cv2.GaussianBlur(image, (0, 0), max(height, width) / 520)
    views = [
        (half, boxes * ratio + np.array([left, top] * 2, np.float32)),
        (np.ascontiguousarray(np.rot90(image)), turned),
        ((blurred * 0.6).astype(np.uint8), boxes),
    ]
    return [pool.stored(Scene(seen, photo.class_ids, places)) for seen, places in views]


def _scenes() -> Iterator[pool.Sample]:
    """Yield drawn scenes with codes."""
    for kind, count in _DRAWN.items():
        scenes = (draw_scene(number, kind=kind) for number in itertools.count(_FIRST_DRAWN))
        with_codes = (scene for scene in scenes if (scene.class_ids >= 0).any())
        yield from map(pool.stored, itertools.islice(with_codes, count))


def _describe(candidate: Candidate) -> str:
    tally = candidate.tally
    counts = (tally.photographed, tally.drawn, tally.empty)
    figures = "  ".join(f"{part:3} of {whole:3}" for part, whole in counts)
    return f"{candidate.tuned.name:24}  {candidate.share:.1f}  {tally.threshold:.2f}  {figures}"


def manifest_of(chosen: Candidate, base: Path, sha256: str) -> dict[str, Any]:
    """Return the manifest of mixed weights: the training of the tuned ones, and how they were mixed.

    ``sha256`` is the digest of the base. Raises OSError or ValueError for the manifest of the tuned weights.
    """
    path = chosen.tuned.with_suffix(".json")
    training = json.loads(path.read_text("utf-8")).get("training", {})
    mixture = {"tuned_share": chosen.share, "tuned_threshold": chosen.tally.threshold}
    return MANIFEST | {"parents": [{"name": base.stem, "sha256": sha256}], "training": training | mixture}


def main() -> None:
    """Compare mixtures, and export the best."""
    parser = argparse.ArgumentParser(
        prog="python -m models.training.blend",
        description="Mix the weights before and after a fine-tuning in several shares, and try thresholds. "
        "Of the mixtures that find as many codes as the weights before, export the one with a box on the "
        "fewest pictures without a code, with its scores shifted so that the threshold is the usual one. "
        "The photographs of the part val in four views, drawn pictures and the folders named here choose.",
        epilog="example:\n  python -m models.training.blend models/codes_v2.onnx "
        "build/training/codes_v2-1*.onnx --photos ../shared/data/codes",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("base", type=Path, help="ONNX file before the fine-tuning")
    parser.add_argument("tuned", type=Path, nargs="+", help="ONNX files of the fine-tuning, with manifests")
    parser.add_argument("--photos", type=Path, required=True, help="folder with annotations.json and images/")
    parser.add_argument(
        "--empty", type=Path, action="append", default=[], help="folder of further images without a code"
    )
    parser.add_argument("--shares", type=float, nargs="+", default=list(_SHARES), help="of the tuned weights")
    parser.add_argument("--out", type=Path, default=Path("build/blended"), help="folder of the result")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    try:
        first = recover(options.base)
        empty: list[Picture] = [
            pool.stored(draw_scene(FIRST_JUDGED + number, kind="hard")) for number in range(_EMPTY)
        ]
        empty += [file for folder in options.empty for file in files(folder)]
        photos = read_split().part(read_photos(options.photos), "val")
        seen: list[Labelled] = [
            *photos,
            *(view for photo in photos if len(photo.boxes) for view in harder(photo)),
        ]
        judge = Judge(seen, list(_scenes()), empty, first.side, agnostic_nms=AGNOSTIC_NMS)
        base = judge.tally(judge.look(first.network, THRESHOLD), THRESHOLD)
        print(_describe(Candidate(options.base, 0.0, base)), flush=True)
        candidates = []
        for tuned in options.tuned:
            second = recover(tuned).network
            for share in options.shares:
                found = judge.look(mixed(first.network, second, share), THRESHOLDS[0])
                tried = [Candidate(tuned, share, judge.tally(found, t)) for t in THRESHOLDS]
                print(*map(_describe, tried), sep="\n", flush=True)
                candidates += tried
        chosen = choose(base, candidates)
        if chosen is None:
            sys.exit(
                "none of the mixtures has fewer false boxes and finds as many codes: nothing is exported"
            )
        print(f"chosen: {_describe(chosen)}")
        network = mixed(first.network, recover(chosen.tuned).network, chosen.share)
        shift_scores(network, chosen.tally.threshold, THRESHOLD)
        options.out.mkdir(parents=True, exist_ok=True)
        export(
            network,
            options.out / options.base.name,
            side=first.side,
            labels=CLASSES,
            metadata=METADATA,
            manifest=manifest_of(chosen, options.base, first.sha256),
        )
    except (NotRecoverable, ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
