"""Does what `streamer promote` says: checks a model, compares it with the served one, and installs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inference.models.manifest import manifest_path
from inference.models.onnx_header import external_files
from streamer.assets import MODELS_DIR
from streamer.config.settings import BUNDLED_MODELS, OWN_MODELS, SettingsError, load_settings
from streamer.datasets.labelled_set import read_classes
from streamer.evaluation.command import Evaluation, evaluate_models
from streamer.evaluation.model_score import ModelScore, difference, number
from streamer.evaluation.report_page import write_report
from streamer.model_tools.inspection import Inspection, inspect_model
from streamer.promotion.errors import BadRequest, Worse
from streamer.promotion.installation import Installed, install
from streamer.promotion.judgement import Change, Figures, Judgement

#: File of a training, beside the model, that names its set.
TRAINING_FILE = "training.json"
OnProgress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one promotion."""

    model: Path
    #: ``v1`` or ``v2``.
    version: str
    #: The labelled set; None for the one on which the model was trained.
    folder: Path | None
    part: str
    margin: float
    #: Install the model even if it is worse.
    force: bool
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Promotion:
    """What was found and done."""

    judgement: Judgement
    installed: Installed
    forced: bool
    folder: Path
    part: str
    pictures: int
    report: Path


def promote(options: Options, on_progress: OnProgress) -> Promotion:
    """Put a model in the place of a version.

    Raises BadRequest, Worse, ModelRefused, BadSet, OSError, or what `evaluate_models` raises.
    """
    place, served = places(options.version)
    on_progress(f"checking {options.model}", 0.0)
    inspection = _inspect(options.model, options.device)
    if inspection.refusal is not None:
        raise inspection.refusal
    if external_files(options.model):
        raise BadRequest(f"{options.model}: it has weights in other files; expected a single file")
    if inspection.served is None:
        raise BadRequest(f"{options.model}: nothing is known about it")
    folder = options.folder or _trained_on(options.model)
    served_labels = _labels(served, options.device)
    classes = read_classes(folder)
    comparable = served is not None and bool(set(served_labels) & set(classes))
    # The served model comes first, because an evaluation shows changes relative to its first model.
    names = ([str(served)] if comparable else []) + [str(options.model)]
    evaluation = evaluate_models(folder, names, options.part, options.device, on_progress)
    mine = inspection.served.model.labels
    lost = tuple(label for label in served_labels if label not in mine)
    judgement = _judge(evaluation, options.margin, lost)
    report = report_path(options.model)
    write_report(report, evaluation)
    if judgement.is_worse and not options.force:
        raise Worse(f"{options.model} is {judgement.text}; --force promotes it nevertheless. See {report}")
    manifest = _manifest(options, evaluation, judgement)
    installed = install(options.model, manifest, judgement.candidate.sha256, place)
    pictures = len(evaluation.pictures)
    return Promotion(judgement, installed, judgement.is_worse, folder, options.part, pictures, report)


def report_path(model: Path) -> Path:
    """Return the file of the report of a promotion, beside the model."""
    return model.with_name(f"{model.stem}.promotion.html")


def places(version: str) -> tuple[Path, Path | None]:
    """Return the file from which the settings serve a version of one's own, and the model served now.

    Raises BadRequest when the settings are wrong, or name a bundled model as the version's file.
    """
    setting = f"model_{version}_path"
    try:
        settings = load_settings()
    except SettingsError as error:
        if (first := _first_place(error, setting)) is None:
            raise BadRequest(str(error)) from error
        return first, None
    served = settings.models().get(version)
    given: Path | None = getattr(settings, setting)
    place = given or MODELS_DIR / OWN_MODELS[version]
    if place.name in BUNDLED_MODELS.values() and place.resolve().parent == MODELS_DIR.resolve():
        raise BadRequest(
            f"MODEL_{version.upper()}_PATH names the bundled {place.name}, which stays as it is; "
            "expected a file of your own"
        )
    return place, served


def _first_place(error: SettingsError, setting: str) -> Path | None:
    """Return the file that ``setting`` names, if nothing is there before the first promotion; else None."""
    if error.setting != setting or not isinstance(error.value, str | Path):
        return None
    place = Path(error.value)
    return None if place.exists() else place


def _trained_on(model: Path) -> Path:
    """Return the set on which `streamer train` trained a model. Raises BadRequest."""
    path = model.with_name(f"{model.stem}.training") / TRAINING_FILE
    try:
        folder = Path(json.loads(path.read_bytes())["set_folder"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadRequest(
            f"--set is missing, and {path} does not name the set on which {model.name} was trained"
        ) from error
    return folder


def _inspect(model: Path, device: str) -> Inspection:
    return inspect_model(model, device=device, batch_max=1, timing=False)


def _labels(model: Path | None, device: str) -> tuple[str, ...]:
    """Return the classes of the served model; none if there is none, or if it cannot be loaded."""
    if model is None:
        return ()
    found = _inspect(model, device).served
    return found.model.labels if found is not None else ()


def _judge(evaluation: Evaluation, margin: float, lost: tuple[str, ...]) -> Judgement:
    *others, score = evaluation.scores
    if not others:
        return Judgement(_figures(score), None, None, margin, lost)
    found = difference(score, others[0])
    change = Change(found.value, found.low, found.high)
    return Judgement(_figures(score), _figures(others[0]), change, margin, lost)


def _figures(score: ModelScore) -> Figures:
    precisions = {name: number(score.coco.ap50[index]) for index, name in enumerate(score.classes)}
    return Figures(
        score.name,
        score.sha256,
        score.map50.value,
        score.map50_95.value,
        precisions,
        number(score.false_per_empty.value),
        _details(score),
    )


def _details(score: ModelScore) -> dict[str, Any]:
    """Return the figures that `inference.models.model_card` reads besides those that decide."""
    point = score.point
    estimates = {
        "map50": score.map50,
        "map50_95": score.map50_95,
        "false_per_empty_picture": score.false_per_empty,
    }
    intervals = {name: [number(each.low), number(each.high)] for name, each in estimates.items()}
    return {
        "ap50_95": {name: number(score.coco.ap50_95[index]) for index, name in enumerate(score.classes)},
        "objects": {name: int(point.objects[index]) for index, name in enumerate(score.classes)},
        "by_size": {size: number(value) for size, value in score.coco.by_size.items()},
        "intervals": {name: bounds for name, bounds in intervals.items() if None not in bounds},
        "empty_pictures": int(point.is_empty.sum()),
        "threshold": round(point.threshold, 4),
        "run_ms": round(score.run_ms, 2),
        "provider": score.provider,
    }


def _manifest(options: Options, evaluation: Evaluation, judgement: Judgement) -> dict[str, Any]:
    """Return the model's own manifest, with the figures of the evaluation and of the served model."""
    path = manifest_path(options.model)
    own: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    own.setdefault("name", options.model.stem)
    figures: dict[str, Any] = {
        "set": evaluation.digest,
        "part": options.part,
        "pictures": len(evaluation.pictures),
        **judgement.candidate.to_dict(),
        "promoted": {"as": options.version, "at": datetime.now(UTC).isoformat(timespec="seconds")},
    }
    if judgement.served is not None and judgement.change is not None:
        change = judgement.change
        figures["replaced"] = {
            "name": Path(judgement.served.name).stem,
            "sha256": judgement.served.sha256,
            "map50": round(judgement.served.map50, 4),
            "change": [round(value, 4) for value in (change.value, change.low, change.high)],
        }
    return own | {"metrics": own.get("metrics", {}) | {"promotion": figures}}
