"""Trains in children that are killed at random moments, then to the end, and prints where each one continued.

    python -m tests.training.killed_training SET WORK KILLS

Afterwards it trains once more in WORK/whole, without a kill.

A child is a fork, so that PyTorch is loaded once. Only the children compute, because its threads do not
survive a fork.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from streamer.datasets.labelled_set import LabelledSet, load_set
from streamer.training import checkpoint
from streamer.training.network import Detector, Shape
from streamer.training.pictures import load
from streamer.training.plan import Plan
from streamer.training.trainer import CHECKPOINT, Trainer
from streamer.training.validation import hold

_SHAPE = Shape(stem=8, widths=(8, 16, 16, 16), depth=1, neck=(16, 16, 16), head=16)
_SIDE, _STEPS = 64, 14


def main() -> None:
    """Run the trial."""
    folder, work, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    whole = work / "whole"
    whole.mkdir(parents=True)
    labelled = load_set(folder)
    plan = Plan(labelled.classes, "d" * 64, None, _SIDE, None, _STEPS, 2, 2e-3, 1, 1000)
    random.seed(7)
    for number in range(kills + 2):
        seen = _digest(work)
        child = os.fork()
        if child == 0:
            _train(plan, labelled, work if number <= kills else whole)
            os._exit(0)
        if number < kills:
            while _digest(work) == seen and os.waitpid(child, os.WNOHANG) == (0, 0):
                time.sleep(0.005)
            end = time.monotonic() + random.uniform(0, 0.1)
            # On a fast machine the training must not end before the last kill.
            while time.monotonic() < end and _rows(work) < 4 * (number + 1):
                time.sleep(0.002)
            saved = checkpoint.load(work / CHECKPOINT, plan.plain())
            _say("saved", saved.step if saved else 0)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if number >= kills:
            _say("ended", status)


def _train(plan: Plan, labelled: LabelledSet, work: Path) -> None:
    torch.manual_seed(1)
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])  # one thread, which adds in a fixed order
    pictures = load(labelled.part("train"), _SIDE, 1 << 30)
    held = hold(labelled.part("val"), _SIDE)
    trainer = Trainer(plan, Detector(_SHAPE, 3), pictures, held, work, torch.device("cpu"))
    _say("from", trainer.resume())
    outcome = trainer.run(lambda *_: None, save_every_s=0)
    torch.save(outcome.network.state_dict(), work / "weights.pt")


def _digest(work: Path) -> bytes:
    """Return the first line of the checkpoint; nothing if there is none."""
    try:
        with (work / CHECKPOINT).open("rb") as file:
            return file.read(64)
    except FileNotFoundError:
        return b""


def _rows(work: Path) -> int:
    """Return how many steps the table of results has."""
    try:
        return len((work / "results.csv").read_text().splitlines()) - 1
    except FileNotFoundError:
        return 0


def _say(word: str, number: int) -> None:
    sys.stdout.write(f"{word} {number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
