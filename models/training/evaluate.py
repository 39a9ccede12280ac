"""Print the model card's table: the files on photographs, through the code that serves; see ``--help``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from inference.core.detection_params import DetectionParams
from inference.engine.detector import Detector
from models.training.photos import Photo, is_validation, read_photos
from models.training.score import Score, score_photos
from models.training.symbols import CLASSES
from streamer.evaluation.model_run import detect_file

_DEFAULTS = (Path("models/codes_v1.onnx"), Path("models/codes_v2.onnx"))
_TIMED_ROUNDS, _TIMED_RUNS = 5, 20


def open_model(path: Path) -> Detector:
    """Load a model on one core. Raises ModelRefused as the service would."""
    return Detector(path, version="v1", device="cpu", batch_max=1)


def score(detector: Detector, photos: Sequence[Photo], threshold: float) -> Score:
    """Return the score of a detector on the photographs."""
    params = DetectionParams(conf_threshold=threshold)
    found = [
        detect_file(detector, photo.path, params).boxes
        for photo in tqdm(photos, desc=detector.model.name, unit="photo", leave=False)
    ]
    return score_photos(photos, found, threshold)


def rates(detectors: Sequence[Detector]) -> list[float]:
    """Return the images per second of each detector on one core: the best of several interleaved rounds."""
    rng = np.random.default_rng(0)
    slots = [
        rng.integers(0, 256, (d.model.input_height, d.model.input_width, 3), np.uint8) for d in detectors
    ]
    best = [0.0] * len(detectors)
    for _ in range(_TIMED_ROUNDS):
        for index, (detector, slot) in enumerate(zip(detectors, slots, strict=True)):
            start = time.perf_counter()
            for _ in range(_TIMED_RUNS):
                detector.infer([slot], thread=0)
            best[index] = max(best[index], _TIMED_RUNS / (time.perf_counter() - start))
    return best


def table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a Markdown table whose columns are aligned, so that it is also readable as plain text."""
    lines = [list(head), *([title, *cells] for title, cells in rows)]
    lines = [[*line, *[""] * (len(head) - len(line))] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m models.training.evaluate",
        description=__doc__,
        epilog="example:\n"
        "  python -m models.training.evaluate --photos ../shared/data/codes --beside yolox_nano.onnx",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", type=Path, default=list(_DEFAULTS), help="models to evaluate")
    parser.add_argument("--photos", type=Path, required=True, help="folder with annotations.json and images/")
    parser.add_argument("--all", action="store_true", help="also evaluate photographs that were trained on")
    parser.add_argument("--threshold", type=float, help="instead of the manifest's")
    parser.add_argument(
        "--beside", type=Path, action="append", default=[], help="a model to compare the speed with"
    )
    parser.add_argument(
        "--wrong", action="store_true", help="list the photographs with a miss or a false box"
    )
    options = parser.parse_args()
    try:
        photos = [photo for photo in read_photos(options.photos) if options.all or is_validation(photo)]
    except ValueError as error:
        sys.exit(f"error: {error}")
    detectors = [open_model(path) for path in options.models]
    others = [open_model(path) for path in options.beside]
    scores = []
    for detector in detectors:
        threshold = options.threshold
        if threshold is None:
            threshold = detector.model.default_params.conf_threshold
        scores.append((threshold, score(detector, photos, threshold)))
    speeds = rates([*detectors, *others])
    names = [d.model.name for d in (*detectors, *others)]
    rows: list[tuple[str, list[str]]] = [("threshold", [f"{threshold:.2f}" for threshold, _ in scores])]
    rows += [
        (f"recall {name}", [f"{s.recall(name):.3f} of {s.codes(name)}" for _, s in scores])
        for name in CLASSES
    ]
    rows.append(("precision", [f"{s.precision:.3f}" for _, s in scores]))
    rows.append(
        (
            "false per empty photo",
            [f"{s.false_per_empty:.2f} of {int(s.point.is_empty.sum())}" for _, s in scores],
        )
    )
    rows.append(("images/s on one core", [f"{speed:.1f}" for speed in speeds]))
    print(table(["", *names], rows))
    if options.wrong:
        for detector, (_, result) in zip(detectors, scores, strict=True):
            print(f"\n{detector.model.name}:", *result.wrong, sep="\n  ")


if __name__ == "__main__":
    main()
