"""Trains a bundled model further, with pictures that resemble codes; see ``--help``."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import cv2
import torch
from torch import Tensor

from models.training import pool
from models.training.evaluate import open_model
from models.training.judge import Judge
from models.training.measure import detect
from models.training.photos import Photo, as_sample, read_photos
from models.training.pool import Sample
from models.training.recipe import AGNOSTIC_NMS, MANIFEST, METADATA, RECIPES, THRESHOLD, data_digest
from models.training.scene import draw_scene
from models.training.split import read_split
from models.training.symbols import CLASSES
from streamer.core.durable import write_durably
from streamer.training import checkpoint
from streamer.training.batches import Batches
from streamer.training.export import export
from streamer.training.network import Detector, grid
from streamer.training.optimisation import averaged, has_bfloat16, learn, make_optimiser, set_rate, warmed_up
from streamer.training.recovery import calibrate, recover
from streamer.training.views import Views

_SAVE_EVERY_S = 60.0
_WARMUP_STEPS = 40
_CALIBRATION_VIEWS = 32
#: Pictures without a code for the choice of the best weights. Their numbers are far above those of training.
_JUDGED, FIRST_JUDGED = 96, 5_000_000
_EVALUATIONS = 12
#: Pictures without a code are shown more often if the first weights have a box with at least this score.
_MINED_SCORE = 0.15
#: Views are mosaics until this share of the training; then they look as pictures do.
_MOSAIC_UNTIL = 0.75
_SAMPLED_SHARE = 0.15
_COLUMNS = "step,seconds,score_loss,box_loss,recall,empty_with_box,fitness"


@dataclass(frozen=True, slots=True)
class Plan:
    """Describes a fine-tuning. The same plan continues an interrupted one."""

    model: str
    base_sha256: str
    split: str
    side: int
    #: Number of rendered scenes: of all kinds, with codes among what resembles codes, and without codes.
    scenes: int
    among: int
    hard: int
    minutes: float
    batch: int
    learning_rate: float
    photo_share: float
    seed: int
    #: How many times as often as others are shown: a picture without a code that deceives the first weights,
    #: and a photograph without a code.
    mined: int = 1
    empty_photos: int = 1

    @property
    def data_digest(self) -> str:
        """SHA-256 of what determines the pictures: counts, seed, split of photographs, first weights."""
        names = ("scenes", "among", "hard", "seed", "split", "mined", "empty_photos", "base_sha256")
        return data_digest(**{name: getattr(self, name) for name in names})


@dataclass(slots=True)
class _State:
    """What changes from step to step, apart from weights; a checkpoint keeps it."""

    step: int = 0
    seconds: float = 0.0
    #: One row for each evaluation, as `_COLUMNS` says.
    rows: list[list[float]] = field(default_factory=list)
    #: Averaged weights of the best evaluation.
    best: dict[str, Tensor] = field(default_factory=dict)
    #: Sums of both losses, and their number, since the last evaluation.
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])


def load_pictures(
    plan: Plan, base: Path, work: Path, photos: Sequence[Photo]
) -> tuple[list[Sample], list[Sample]]:
    """Render what is missing, and return the scenes and the photographs to train on."""
    scenes = []
    for kind, count in ((None, plan.scenes), ("among", plan.among), ("hard", plan.hard)):
        pool.render(work / "scenes", count, os.cpu_count() or 1, kind)
        scenes += pool.load(work / "scenes", count, kind)
    if plan.mined > 1:
        scenes += deceptive(base, [scene for scene in scenes if not len(scene.boxes)]) * (plan.mined - 1)
    shots = [as_sample(photo) for photo in photos]
    return scenes, shots + [shot for shot in shots if not len(shot.boxes)] * (plan.empty_photos - 1)


def deceptive(base: Path, samples: Sequence[Sample]) -> list[Sample]:
    """Return those of pictures without a code on which a model has a box, also one with a low score."""
    detector = open_model(base)
    params = replace(detector.model.default_params, conf_threshold=_MINED_SCORE)
    return [sample for sample in samples if len(detect(detector, sample.image(), params))]


def publish(network: Detector, path: Path, plan: Plan, steps: int) -> None:
    """Export weights, with a manifest that says from what and how they were trained."""
    training = {"seed": plan.seed, "data": plan.data_digest, "split": plan.split, "steps": steps}
    export(
        network,
        path,
        side=plan.side,
        labels=CLASSES,
        metadata=METADATA,
        manifest=MANIFEST
        | {"parents": [{"name": plan.model, "sha256": plan.base_sha256}], "training": training},
    )


class FineTuning:
    """Trains one model further; its state is saved in ``work`` once a minute, and at each evaluation."""

    def __init__(self, plan: Plan, base: Path, work: Path, photos: Sequence[Photo]) -> None:
        """Load the pictures, and the last checkpoint if there is one.

        Raises UnusableCheckpoint when that belongs to another plan, NotRecoverable when ``base`` has another
        network, ValueError when the split lacks a photograph.
        """
        torch.manual_seed(plan.seed)
        cv2.setNumThreads(1)
        split = read_split()
        self._plan, self._work, self._device = plan, work, torch.device("cpu")
        scenes, shots = load_pictures(plan, base, work, split.part(photos, "train"))
        shown = [pool.stored(draw_scene(FIRST_JUDGED + n, kind="hard")) for n in range(_JUDGED)]
        self._judge = Judge(split.part(photos, "val"), (), shown, plan.side, agnostic_nms=AGNOSTIC_NMS)
        self._views = Views(
            scenes,
            shots,
            side=plan.side,
            count=1,
            seed=plan.seed,
            photo_share=plan.photo_share,
            sampled_share=_SAMPLED_SHARE,
        )
        network = recover(base).network
        views = [self._views.make(number, may_join=False)[0] for number in range(_CALIBRATION_VIEWS)]
        calibrate(network, torch.stack(views).float() / 255)
        self._network = network.to(memory_format=torch.channels_last)
        self._average = averaged(self._network)
        self._optimiser = make_optimiser(self._network, plan.learning_rate, self._device)
        self._path = work / f"{plan.model}-finetune.pt"
        self._state = _State()
        found = checkpoint.load(self._path, asdict(plan))
        if found:
            self._network.load_state_dict(found.network)
            self._average.load_state_dict(found.average)
            self._optimiser.load_state_dict(found.optimiser)
            self._state = _State(**found.memory)

    def run(self) -> tuple[Detector, int]:
        """Train until the end; return the best averaged weights, in evaluation mode, and the steps."""
        state, plan = self._state, self._plan
        half, cells = has_bfloat16(self._device), grid(plan.side, plan.side, self._device)
        if not state.rows:
            self._evaluate()  # the weights that it begins with, to which the result must not be worse
        self._network.train()
        last = saved = time.monotonic()
        with Batches(
            self._views, plan.batch, state.step, lambda _: self._progress() < _MOSAIC_UNTIL
        ) as batches:
            while self._progress() < 1:
                rate = plan.learning_rate * warmed_up(state.step, _WARMUP_STEPS, self._progress)
                set_rate(self._optimiser, rate)
                losses = learn(self._network, self._optimiser, batches.take(), cells, self._device, half=half)
                self._average.update_parameters(self._network)
                state.step += 1
                for index, loss in enumerate([*losses.tolist(), 1.0]):
                    state.losses[index] += loss
                now = time.monotonic()
                state.seconds, last = state.seconds + now - last, now
                if int(self._progress() * _EVALUATIONS) > len(state.rows) - 1:
                    self._evaluate()
                    last = saved = time.monotonic()  # evaluating is no training
                elif now - saved >= _SAVE_EVERY_S:
                    self._save()
                    saved = time.monotonic()
        return self._plain(state.best), state.step

    def _progress(self) -> float:
        return min(1.0, self._state.seconds / (self._plan.minutes * 60))

    def _evaluate(self) -> None:
        state = self._state
        tally = self._judge.tally(self._judge.look(self._average.module, THRESHOLD), THRESHOLD)
        self._network.train()
        fitness = tally.recall - tally.empty_share
        if not state.rows or fitness > max(row[-1] for row in state.rows):
            state.best = {name: value.clone() for name, value in self._average.module.state_dict().items()}
        losses = [value / max(1.0, state.losses[2]) for value in state.losses[:2]]
        state.rows.append([state.step, state.seconds, *losses, tally.recall, tally.empty_share, fitness])
        state.losses = [0.0, 0.0, 0.0]
        lines = [_COLUMNS, *(",".join(f"{value:.6g}" for value in row) for row in state.rows)]
        path = self._work / f"{self._plan.model}-finetune.csv"
        write_durably(path, ("\n".join(lines) + "\n").encode(), path.with_name(f".{path.name}.part"))
        self._keep()
        self._save()

    def _keep(self) -> None:
        """Export the averaged weights of this evaluation, which `models.training.blend` can choose."""
        network = self._plain(self._average.module.state_dict())
        name = f"{self._plan.model}-{len(self._state.rows) - 1:02d}.onnx"
        publish(network, self._work / name, self._plan, self._state.step)

    def _plain(self, weights: Mapping[str, Tensor]) -> Detector:
        network = Detector(self._network.shape, self._network.class_count)
        network.load_state_dict(weights)
        return network.eval()

    def _save(self) -> None:
        weights = (self._network.state_dict(), self._average.state_dict(), self._optimiser.state_dict())
        memory = asdict(self._state)
        checkpoint.save(
            self._path, checkpoint.Checkpoint(asdict(self._plan), self._state.step, *weights, memory)
        )


def main() -> None:
    """Fine-tune a model, and export it."""
    parser = argparse.ArgumentParser(
        prog="python -m models.training.finetune",
        description="Train a bundled model further, with drawn pictures that resemble codes. A training that "
        "was cut off goes on where its last checkpoint was. The best weights are those with the highest "
        "recall on the photographs of the part val, less the share of pictures without a code with a box.",
        epilog="example:\n  python -m models.training.finetune v2 --photos ../shared/data/codes",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--photos", type=Path, required=True, help="folder with annotations.json and images/")
    parser.add_argument("--from", dest="base", type=Path, help="ONNX file to begin with")
    parser.add_argument("--work", type=Path, default=Path("build/training"), help="scenes and checkpoints")
    parser.add_argument("--out", type=Path, default=Path("build/tuned"), help="folder of the result")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long it trains (60)")
    parser.add_argument("--scenes", type=int, default=6000, help="rendered scenes of all kinds (6000)")
    parser.add_argument(
        "--among", type=int, default=1000, help="scenes with codes among such pictures (1000)"
    )
    parser.add_argument("--hard", type=int, default=3000, help="pictures without a code (3000)")
    parser.add_argument("--rate", type=float, default=2.5e-4, help="highest learning rate (2.5e-4)")
    parser.add_argument(
        "--mined", type=int, default=3, help="how often pictures count that deceive the first weights (3)"
    )
    parser.add_argument(
        "--empty-photos", type=int, default=3, help="how often photographs without a code count (3)"
    )
    parser.add_argument("--photo-share", type=float, default=0.3, help="share of photographs (0.3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = RECIPES[options.model]
    base = options.base or Path("models") / f"{recipe.name}.onnx"
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        photos = read_photos(options.photos)
        plan = Plan(
            recipe.name,
            hashlib.sha256(base.read_bytes()).hexdigest(),
            read_split().digest,
            recipe.side,
            options.scenes,
            options.among,
            options.hard,
            options.minutes,
            recipe.batch,
            options.rate,
            photo_share=options.photo_share,
            seed=recipe.seed,
            mined=options.mined,
            empty_photos=options.empty_photos,
        )
        network, steps = FineTuning(plan, base, options.work, photos).run()
    except ValueError as error:
        sys.exit(f"error: {error}")
    publish(network, options.out / f"{recipe.name}.onnx", plan, steps)


if __name__ == "__main__":
    main()
