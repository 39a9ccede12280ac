"""Measures the bundled models, and writes the figures of the model card; see ``--help``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference.engine.detector import Detector
from models.training import card
from models.training.measure import Sources, measure
from models.training.photos import read_photos
from models.training.split import read_split

_DEFAULTS = (Path("models/codes_v1.onnx"), Path("models/codes_v2.onnx"))
_TIMED_ROUNDS, _TIMED_RUNS = 5, 20


def open_model(path: Path) -> Detector:
    """Load a model on one core. Raises ModelRefused as the service would."""
    return Detector(path, version="v1", device="cpu", batch_max=1)


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


def main() -> None:
    """Measure, print the table of the model card, and write what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m models.training.evaluate",
        description=__doc__,
        epilog="example:\n"
        "  python -m models.training.evaluate --photos ../shared/data/codes --json figures.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", type=Path, default=list(_DEFAULTS), help="models to evaluate")
    parser.add_argument("--photos", type=Path, required=True, help="folder with annotations.json and images/")
    parser.add_argument(
        "--part", default="test", choices=("train", "val", "test"), help="of the split (test)"
    )
    parser.add_argument(
        "--empty", type=Path, action="append", default=[], help="folder of images without a code"
    )
    parser.add_argument("--video", type=Path, action="append", default=[], help="video without a code")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--card", type=Path, help="write the tables into this model card")
    parser.add_argument(
        "--manifests", action="store_true", help="write the figures into the models' manifests"
    )
    parser.add_argument("--speed", action="store_true", help="also print the images per second on one core")
    parser.add_argument(
        "--beside", type=Path, action="append", default=[], help="a model to compare the speed with"
    )
    parser.add_argument(
        "--wrong", action="store_true", help="list the photographs with a miss or a false box"
    )
    options = parser.parse_args()
    try:
        split = read_split()
        photos = split.part(read_photos(options.photos), options.part)
        sources = Sources(photos, split.digest, options.empty, options.video)
        detectors = [open_model(path) for path in options.models]
        results = measure(detectors, sources, lambda text: print(text, file=sys.stderr))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(card.tables(results))
    if options.speed:
        timed = [*detectors, *(open_model(path) for path in options.beside)]
        for detector, rate in zip(timed, rates(timed), strict=True):
            print(f"{detector.model.name}: {rate:.1f} images/s on one core")
    if options.wrong:
        for result in results:
            print(f"\n{result['name']}:", *result["photographs"]["wrong"], sep="\n  ")
    if options.card:
        card.write(options.card, results)
    if options.manifests:
        for path, result in zip(options.models, results, strict=True):
            card.write_metrics(path, result)


if __name__ == "__main__":
    main()
