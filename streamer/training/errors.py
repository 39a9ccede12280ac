"""Lists the errors of a training; this file loads no PyTorch."""

from __future__ import annotations


class TrainingError(Exception):
    """The root: what was asked for cannot be trained, and the message says why."""


class BadRequest(TrainingError):
    """An option cannot be used; the message names it, what was found, and what is allowed."""


class NotRecoverable(TrainingError):
    """The weights of a file do not fit the trainer's network; the message says what was found."""


class UnusableCheckpoint(TrainingError):
    """There are checkpoints, but none of them can be used for this training."""


class Busy(TrainingError):
    """Another process trains the same model."""
