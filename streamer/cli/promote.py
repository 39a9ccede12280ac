"""Implements ``streamer promote``, which puts a model in the place of a served one."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streamer.cli.command import Command, Json, Quiet, epilog, number, option, terminal_of
from streamer.cli.exit_codes import EXIT_USAGE
from streamer.core.signals import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from streamer.promotion.command import Promotion

app = typer.Typer(add_completion=False)


@app.command(
    cls=Command,
    epilog=epilog(
        """
        streamer promote models/own.onnx --as v2
        streamer promote models/own.onnx --as v2 --set set/ --unless-worse 0.01
        streamer promote models/yolov9_v2.versions/OLD.onnx --as v2 --set set/
        """,
        notes="""
        The third example goes back to an earlier model. A service that runs keeps its models until it starts
        again.
        """,
        exit_codes={
            0: "promoted",
            1: "the model is worse, and nothing was changed",
            EXIT_USAGE: "wrong option, setting or part, or a package is missing",
            3: "a picture cannot be read",
            4: "the service refuses the model, or the set is wrong",
            5: "the model cannot be written to its place",
            8: "the device cannot be used",
            EXIT_INTERRUPTED: "Ctrl-C",
        },
    ),
)
def promote(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="FILE", help="model to promote", parser=Path)],
    version: Annotated[
        Literal["v1", "v2"], option("--as", "version as which the service will serve it (required)")
    ],
    unless_worse: Annotated[
        float,
        option(
            "--unless-worse",
            "by how much mAP50 may be lower than that of the served model (0.02)",
            value="0..1",
            parser=number(0, 1),
        ),
    ] = 0.02,
    folder: Annotated[
        Path | None,
        option("--set", "labelled set (the one on which FILE was trained)", value="SET", parser=Path),
    ] = None,
    part: Annotated[
        Literal["train", "val", "test"], option("--part", "pictures by which both models are judged (test)")
    ] = "test",
    force: Annotated[bool, option("--force", "promote the model even if it is worse")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Check a model, compare it with the served one on the same pictures, and put it in its place.

    The model is refused if its mAP50 on the part is lower by more than --unless-worse; the interval of the
    difference comes from a bootstrap over the pictures. The file goes where the settings expect the version
    (MODEL_V1_PATH, MODEL_V2_PATH), together with its manifest, to which the figures are added. The model
    before it is kept.
    """
    from streamer.promotion.command import Options  # noqa: PLC0415 - loads ONNX Runtime
    from streamer.promotion.command import promote as run  # noqa: PLC0415 - see above

    terminal = terminal_of(ctx)
    options = Options(model, version, folder, part, unless_worse, force)
    promotion = run(options, terminal.status)
    terminal.close()
    sys.stdout.write((dumps(_as_json(promotion), indent=2) if json else _as_text(promotion)) + "\n")
    return 0


def _as_json(promotion: Promotion) -> dict[str, object]:
    judgement, change = promotion.judgement, promotion.judgement.change
    installed = promotion.installed
    return {
        "place": str(installed.place),
        "report": str(promotion.report),
        "file": str(installed.file),
        "previous": str(installed.previous) if installed.previous else None,
        "forced": promotion.forced,
        "set": str(promotion.folder),
        "part": promotion.part,
        "pictures": promotion.pictures,
        "candidate": judgement.candidate.to_dict(),
        "served": judgement.served.to_dict() if judgement.served else None,
        "map50_change": [change.value, change.low, change.high] if change else None,
        "lost_classes": list(judgement.lost),
    }


def _as_text(promotion: Promotion) -> str:
    judgement, installed = promotion.judgement, promotion.installed
    lines = [
        f"{installed.place}: promoted{', by --force' if promotion.forced else ''}",
        f"  judged    on {promotion.pictures} pictures of part {promotion.part} of {promotion.folder}",
        f"            {judgement.text}",
    ]
    before = judgement.served.ap50 if judgement.served else {}
    for name, value in judgement.candidate.ap50.items():
        beside = f", before {_shown(before[name])}" if before else ""
        lines.append(f"            AP50 of {name}: {_shown(value)}{beside}")
    if judgement.lost:
        lines.append(f"  lost      classes that the served model has: {', '.join(judgement.lost)}")
    lines.append(f"  report    {promotion.report}")
    lines.append(f"  file      {installed.file}")
    if installed.previous is not None:
        lines.append(f"  before    {installed.previous}, which is kept")
    lines.append("  The service serves it when it starts again.")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "no objects" if value is None else f"{value:.3f}"
