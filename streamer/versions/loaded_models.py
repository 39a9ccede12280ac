"""Judges what new engines have loaded: whether it is what was asked for, and has the classes served before.

`model_check.py` looks into a file before it is loaded. The supervisor imports this: without NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from inference.models.model import ModelInfo
from streamer.versions.errors import ChangeRefused
from streamer.versions.state_file import Assignment


def with_digests(assignment: Assignment, loaded: Mapping[str, ModelInfo]) -> Assignment:
    """Return ``assignment`` with the digests of the files that are loaded."""
    return {
        version: replace(model, sha256=loaded[version].sha256) if version in loaded else model
        for version, model in assignment.items()
    }


def not_loaded(assignment: Assignment, cause: str) -> ChangeRefused:
    """Return the refusal of models that engines could not load, with the cause that the engines gave."""
    for model in assignment.values():  # clients get no paths of the machine
        cause = cause.replace(str(model.path), model.path.name)
    if "SIGKILL" in cause:
        cause += ": it took too much memory, or was not ready within MODEL_START_TIMEOUT_S"
    return ChangeRefused("model_refused", cause)


def check_digests(assignment: Assignment, loaded: Mapping[str, ModelInfo]) -> None:
    """Raise ChangeRefused if the engines have loaded other bytes than those that were checked."""
    for version, model in assignment.items():
        found = loaded[version].sha256 if version in loaded else "nothing"
        if model.sha256 and found != model.sha256:
            raise ChangeRefused(
                "file_changed",
                f"{model.path.name} changed while it was loaded: sha256 {model.sha256} was checked, and "
                f"{found} was loaded",
            )


def check_labels(serving: Mapping[str, ModelInfo], loaded: Mapping[str, ModelInfo]) -> None:
    """Raise ChangeRefused if a version would get other classes than it has."""
    for version, model in loaded.items():
        before = serving.get(version)
        if before is not None and before.labels != model.labels:
            raise ChangeRefused(
                "other_labels",
                f"{version} serves {_listed(before.labels)}, and {model.file or model.name} has "
                f"{_listed(model.labels)}; clients that know classes by number would misread it. Set "
                "`labels_may_change` to true if it is meant",
            )


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:20])
    noun = "class" if len(labels) == 1 else "classes"
    return f"{len(labels)} {noun} ({shown}{', …' if len(labels) > 20 else ''})"
