"""Trains a network on labelled pictures: steps, evaluations, checkpoints, and the end.

A training continues at its last checkpoint, which is at most `SAVE_EVERY_S` old, whatever ended it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor

from inference.core.detections import Boxes
from streamer.training import checkpoint, history
from streamer.training.batches import Batches
from streamer.training.history import Row
from streamer.training.network import Detector, grid
from streamer.training.optimisation import (
    averaged,
    has_bfloat16,
    learn,
    make_optimiser,
    set_rate,
    warmed_up,
)
from streamer.training.pictures import TrainingPicture
from streamer.training.plan import Plan, augmentation_for
from streamer.training.recovery import calibrate
from streamer.training.validation import Held, Score, detect, score
from streamer.training.views import Views

CHECKPOINT, RESULTS = "checkpoint.pt", "results.csv"
#: A checkpoint of the smaller network takes a tenth of a second.
SAVE_EVERY_S = 30.0
EVALUATIONS = 30
_WARMUP_STEPS = 100
#: Views are mosaics until this share of the training; then they look as pictures do.
_MOSAIC_UNTIL = 0.75
_CALIBRATION_PICTURES = 32
_MAX_THREADS = 16


@dataclass(slots=True)
class Outcome:
    """A finished training."""

    #: The best averaged weights, on the CPU, in evaluation mode.
    network: Detector
    #: Of these weights, on the pictures held out.
    score: Score
    #: Boxes found in them.
    found: list[Boxes]
    rows: list[Row]
    steps: int
    seconds: float
    #: Whether it ended because nothing improved any more.
    stopped_early: bool


@dataclass(slots=True)
class _State:
    """What changes from step to step, apart from weights."""

    step: int = 0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    best_fitness: float = -1.0
    #: Averaged weights of the best evaluation. None before the first one.
    best: dict[str, Tensor] | None = None
    #: Number of the last evaluation among `EVALUATIONS`.
    mark: int = 0
    #: Evaluations since the best one.
    without_gain: int = 0
    #: Sums of both losses, and their number, since the last evaluation.
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    finished: bool = False


class Trainer:
    """Trains one network. ``work`` is the folder of its checkpoints, which one trainer at a time uses."""

    def __init__(
        self,
        plan: Plan,
        network: Detector,
        train: Sequence[TrainingPicture],
        held: Sequence[Held],
        work: Path,
        device: torch.device,
    ) -> None:
        torch.manual_seed(plan.seed)
        if device.type == "cpu":
            torch.set_num_threads(min(_MAX_THREADS, len(os.sched_getaffinity(0))))
        # The views have a thread of their own; more of them would take cores from the network.
        cv2.setNumThreads(1)
        self._plan, self._held, self._device = plan, held, device
        self._work, self._path = work, work / CHECKPOINT
        augmentation = augmentation_for(plan.classes, plan.flips)
        self._views = Views(train, [], side=plan.side, count=1, seed=plan.seed, augmentation=augmentation)
        self._half = has_bfloat16(device)
        self._cells = grid(plan.side, plan.side, device)
        if plan.base_sha256 is not None:
            calibrate(network, self._plain_views(min(_CALIBRATION_PICTURES, len(train))))
        self._network = network.to(device, memory_format=torch.channels_last)
        self._average = averaged(self._network)
        self._optimiser = make_optimiser(self._network, plan.learning_rate, device)
        self._state = _State()

    def resume(self) -> int:
        """Load the last checkpoint, if there is one; return its step. Raises UnusableCheckpoint."""
        found = checkpoint.load(self._path, self._plan.plain())
        if found is None:
            return 0
        self._network.load_state_dict(found.network)
        self._average.load_state_dict(found.average)
        self._optimiser.load_state_dict(found.optimiser)
        memory = dict(found.memory)
        self._state = _State(**{**memory, "rows": history.from_plain(memory["rows"])})
        history.write_csv(self._work / RESULTS, self._state.rows)
        return found.step

    def run(
        self, on_progress: Callable[[str, float], None], *, save_every_s: float = SAVE_EVERY_S
    ) -> Outcome:
        """Train until the end, and return the result. After a KeyboardInterrupt the state is saved."""
        state, plan = self._state, self._plan
        if not state.finished:
            try:
                self._learn_until_end(on_progress, save_every_s)
                if state.best is None:  # interrupted during the only evaluation
                    self._evaluate()
            except KeyboardInterrupt:
                self._save()
                raise
            state.finished = True
            self._save()
        network = Detector(self._network.shape, self._network.class_count)
        assert state.best is not None  # noqa: S101 - set above, or before the checkpoint
        network.load_state_dict(state.best)
        network.eval()
        found = detect(network, self._held, plan.side, torch.device("cpu"))
        return Outcome(
            network,
            score(found, self._held, len(plan.classes)),
            found,
            state.rows,
            state.step,
            state.seconds,
            stopped_early=self._progress() < 1,
        )

    def _learn_until_end(self, on_progress: Callable[[str, float], None], save_every_s: float) -> None:
        state, plan = self._state, self._plan
        self._network.train()
        last = saved = time.monotonic()

        def may_join(step: int) -> bool:
            return plan.progress(step, state.seconds) < _MOSAIC_UNTIL

        with Batches(self._views, plan.batch, state.step, may_join) as batches:
            while self._progress() < 1 and state.without_gain < plan.patience:
                factor = warmed_up(state.step, _WARMUP_STEPS, self._progress)
                set_rate(self._optimiser, plan.learning_rate * factor)
                losses = learn(
                    self._network,
                    self._optimiser,
                    batches.take(),
                    self._cells,
                    self._device,
                    half=self._half,
                )
                self._average.update_parameters(self._network)
                state.step += 1
                for index, loss in enumerate([*losses.tolist(), 1.0]):
                    state.losses[index] += loss
                now = time.monotonic()
                state.seconds, last = state.seconds + now - last, now
                mark = int(self._progress() * EVALUATIONS)
                if mark > state.mark:
                    state.mark = mark
                    self._evaluate()
                if now - saved >= save_every_s:
                    self._save()
                    saved = time.monotonic()
                on_progress(self._summary(), self._progress())

    def _evaluate(self) -> None:
        state, plan = self._state, self._plan
        found = detect(self._average.module, self._held, plan.side, self._device)
        result = score(found, self._held, len(plan.classes))
        count = max(1.0, state.losses[2])
        rate = self._optimiser.param_groups[0]["lr"]
        row = Row(
            state.step,
            round(state.seconds, 1),
            float(rate),
            state.losses[0] / count,
            state.losses[1] / count,
            result.map50,
            result.map50_95,
            result.precision,
            result.recall,
            result.threshold,
        )
        state.rows.append(row)
        state.losses = [0.0, 0.0, 0.0]
        if result.fitness > state.best_fitness:
            state.best_fitness, state.without_gain = result.fitness, 0
            state.best = {
                name: value.detach().to("cpu", copy=True)
                for name, value in self._average.module.state_dict().items()
            }
        else:
            state.without_gain += 1
        self._network.train()
        history.write_csv(self._work / RESULTS, state.rows)

    def _progress(self) -> float:
        return self._plan.progress(self._state.step, self._state.seconds)

    def _plain_views(self, count: int) -> Tensor:
        made = [self._views.make(number, may_join=False)[0] for number in range(count)]
        return torch.stack(made).float() / 255

    def _save(self) -> None:
        memory: dict[str, Any] = {name: getattr(self._state, name) for name in _State.__slots__}
        memory["rows"] = history.to_plain(self._state.rows)
        weights = (
            self._network.state_dict(),
            self._average.state_dict(),
            self._optimiser.state_dict(),
        )
        saved = checkpoint.Checkpoint(self._plan.plain(), self._state.step, *weights, memory)
        checkpoint.save(self._path, saved)

    def _summary(self) -> str:
        rows = self._state.rows
        scored = f", mAP50 {rows[-1].map50:.3f}, best {max(row.map50 for row in rows):.3f}" if rows else ""
        return f"training: step {self._state.step}{scored}"
