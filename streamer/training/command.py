"""Does what `streamer train` says: reads set and base, trains or continues, and writes the model."""

from __future__ import annotations

import fcntl
import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from inference.core.detections import Boxes
from streamer.core.durable import write_durably
from streamer.datasets.label_file import BadSet
from streamer.datasets.labelled_set import LabelledPicture, LabelledSet, load_set
from streamer.training import checkpoint
from streamer.training.errors import BadRequest, Busy
from streamer.training.export import export
from streamer.training.holdout import hold_out
from streamer.training.network import SHAPES, Detector
from streamer.training.pictures import load
from streamer.training.plan import Flips, Plan, augmentation_for
from streamer.training.recovery import Recovered, recover, with_classes
from streamer.training.report import Judged, write_report
from streamer.training.trainer import CHECKPOINT, Outcome, Trainer
from streamer.training.validation import Held, Score, detect, hold, score

SCRATCH = "scratch"
#: What was trained on what, beside the checkpoints.
TRAINING_FILE = "training.json"
#: Sides in pixels that the network takes.
MIN_SIDE, MAX_SIDE = 96, 1280
#: Most held-out pictures that an evaluation looks at; it happens thirty times.
_MOST_HELD = 400
#: Pictures of the part `test` in memory at a time.
_AT_ONCE = 64

Progress = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one training."""

    folder: Path
    #: The model with whose weights it begins, or `SCRATCH`.
    base: str
    out: Path
    #: Name of the network in `SHAPES`, for a training from scratch.
    size: str
    #: Input side in pixels; None for the base's.
    side: int | None
    minutes: float
    #: Steps instead of minutes.
    steps: int | None
    batch: int
    learning_rate: float
    seed: int
    patience: int
    flips: Flips
    device: str
    cache_bytes: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training made."""

    model: Path
    work: Path
    outcome: Outcome
    #: Scores by part: `val`, and `test` if the set has that part.
    scores: dict[str, Score]
    #: The step at which it continued; 0 if it began.
    resumed_at: int
    classes: tuple[str, ...]


def work_folder(out: Path) -> Path:
    """Return the folder of a model's checkpoints and results, beside the model."""
    return out.with_name(f"{out.stem}.training")


def train(options: Options, on_progress: Progress) -> Trained:
    """Train a model and write it.

    Raises BadRequest, BadSet, NotRecoverable, UnusableCheckpoint, Busy, OSError, or KeyboardInterrupt after
    the state was saved.
    """
    device = _device(options.device)
    on_progress("reading the set", None)
    labelled = load_set(options.folder)
    if not labelled.classes:
        raise BadSet(f"{options.folder}: expected one class or more; found none")
    base = None if options.base == SCRATCH else _base(options)
    side = options.side or (base.side if base else 320)
    plan = Plan(
        classes=labelled.classes,
        set_digest=labelled.digest,
        base_sha256=base.sha256 if base else None,
        side=side,
        minutes=None if options.steps else options.minutes,
        steps=options.steps,
        batch=options.batch,
        learning_rate=options.learning_rate,
        seed=options.seed,
        patience=options.patience,
        flips=options.flips,
    )
    try:
        augmentation_for(plan.classes, plan.flips)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    work = work_folder(options.out)
    work.mkdir(parents=True, exist_ok=True)
    with _locked(work):
        if options.fresh:
            checkpoint.remove(work / CHECKPOINT)
        # Before the pictures are read, which may take minutes.
        checkpoint.load(work / CHECKPOINT, plan.plain())
        return _train(options, plan, labelled, base, device, on_progress)


def _train(
    options: Options,
    plan: Plan,
    labelled: LabelledSet,
    base: Recovered | None,
    device: torch.device,
    on_progress: Progress,
) -> Trained:
    work = work_folder(options.out)
    pictures, held_out = hold_out(labelled, plan.seed)
    loaded = load(
        pictures,
        plan.side,
        options.cache_bytes,
        lambda done, total: on_progress(f"reading pictures: {done} of {total}", done / total),
    )
    held = hold(held_out[:_MOST_HELD], plan.side)
    torch.manual_seed(plan.seed)
    network = _network(plan, base, options.size)
    trainer = Trainer(plan, network, loaded, held, work, device)
    resumed_at = trainer.resume()
    outcome = trainer.run(on_progress)
    on_progress("writing the model", None)
    scores = {"val": outcome.score}
    test = labelled.part("test")
    if test:
        scores["test"] = _score(outcome.network, test, plan)
    described = _described(plan, outcome, len(pictures), len(held_out))
    parents = [{"name": Path(options.base).stem, "sha256": base.sha256}] if base else []
    manifest = {
        "conf_threshold": round(outcome.score.threshold, 3),
        "parents": parents,
        "training": described,
        "metrics": {
            part: _figures(found, plan.classes) | {"pictures": len(held if part == "val" else test)}
            for part, found in scores.items()
        },
    }
    export(outcome.network, options.out, side=plan.side, labels=plan.classes, manifest=manifest)
    judged = Judged(plan.classes, held, outcome.found, scores, outcome.score.threshold)
    facts = {"from": options.base, "input side": plan.side, **described}
    write_report(work, options.out.name, outcome.rows, judged, facts)
    # `streamer promote` finds the set here.
    text = json.dumps({"set_folder": str(options.folder.resolve())} | facts, ensure_ascii=False, indent=2)
    write_durably(work / TRAINING_FILE, (text + "\n").encode(), work / f".{TRAINING_FILE}.part")
    return Trained(options.out, work, outcome, scores, resumed_at, plan.classes)


def _base(options: Options) -> Recovered:
    try:
        return recover(Path(options.base))
    except OSError as error:
        raise BadRequest(
            f"--from {options.base}: {error.strerror or error}; expected an ONNX file, or `{SCRATCH}`"
        ) from error


def _network(plan: Plan, base: Recovered | None, size: str) -> Detector:
    if base is None:
        return Detector(SHAPES[size], len(plan.classes))
    return with_classes(base.network, base.labels, plan.classes)


def _score(network: Detector, pictures: tuple[LabelledPicture, ...], plan: Plan) -> Score:
    held: list[Held] = []
    found: list[Boxes] = []
    for start in range(0, len(pictures), _AT_ONCE):
        some = hold(pictures[start : start + _AT_ONCE], plan.side)
        found += detect(network, some, plan.side, torch.device("cpu"))
        held += [replace(one, planes=one.planes[:, :0]) for one in some]  # the score needs boxes alone
    return score(found, held, len(plan.classes))


def _described(plan: Plan, outcome: Outcome, trained: int, held: int) -> dict[str, Any]:
    shape = outcome.network.shape
    return {
        "set": plan.set_digest,
        "pictures": trained,
        "held_out": held,
        "seed": plan.seed,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "batch": plan.batch,
        "learning_rate": plan.learning_rate,
        "network": {"stem": shape.stem, "widths": list(shape.widths), "depth": shape.depth},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "numpy": np.__version__,
        },
    }


def _figures(found: Score, classes: tuple[str, ...]) -> dict[str, Any]:
    by_class = zip(classes, found.ap50, strict=True)
    return {
        "map50": round(found.map50, 4),
        "map50_95": round(found.map50_95, 4),
        "ap50": {name: None if np.isnan(value) else round(value, 4) for name, value in by_class},
        "precision": round(found.precision, 4),
        "recall": round(found.recall, 4),
    }


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise BadRequest("--device cuda: PyTorch finds no CUDA device; expected `cpu` or `auto`")
    return torch.device(name)


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Keep other processes from training the same model. Raises Busy."""
    with (work / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Busy(f"{work}: another process trains this model") from error
        yield
