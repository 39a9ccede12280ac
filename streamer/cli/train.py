"""Implements ``streamer train``, which trains a detector on a labelled set."""

from __future__ import annotations

import signal
import sys
from json import dumps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streamer.cli.command import (
    Command,
    Json,
    Quiet,
    epilog,
    number,
    option,
    terminal_of,
    whole_number,
)
from streamer.cli.exit_codes import EXIT_USAGE
from streamer.core.extras import install_command
from streamer.core.signals import EXIT_INTERRUPTED, EXIT_TERMINATED

if TYPE_CHECKING:
    from streamer.training.command import Trained

EXIT_UNAVAILABLE = 8

app = typer.Typer(add_completion=False)


@app.command(
    cls=Command,
    epilog=epilog(
        """
        streamer train set/ --from models/codes_v1.onnx --out models/own.onnx
        streamer train set/ --from own.onnx --out better.onnx --minutes 30
        streamer train set/ --from scratch --size s --side 416 --out own.onnx
        """,
        notes=f"""
        The same command continues a training that was interrupted, whatever ended it; --fresh begins anew.
        This command needs PyTorch: {install_command("train")}.
        """,
        exit_codes={
            0: "done",
            EXIT_USAGE: "wrong option or set, or the checkpoint belongs to another training",
            4: "the model given by --from cannot be continued",
            5: "a file cannot be read or written, or another process trains the same model",
            EXIT_UNAVAILABLE: "a package is missing",
            EXIT_INTERRUPTED: "Ctrl-C; the same command continues",
            EXIT_TERMINATED: "SIGTERM; the same command continues",
        },
    ),
)
def train(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="SET", help="folder of a labelled set", parser=Path)],
    base: Annotated[
        str,
        option("--from", "model with whose weights it begins, or `scratch` (required)", value="FILE|scratch"),
    ],
    out: Annotated[Path, option("--out", "model to write (required)", value="FILE", parser=Path)],
    size: Annotated[
        Literal["n", "s"],
        option("--size", "network of a training from scratch: n is that of codes_v1, s that of codes_v2 (n)"),
    ] = "n",
    side: Annotated[
        int | None,
        option(
            "--side",
            "input side in pixels, divisible by 32 (that of --from, else 320)",
            value="PX",
            parser=whole_number(96, 1280),
        ),
    ] = None,
    minutes: Annotated[
        float,
        option("--minutes", "how long it trains (9)", value="N", parser=number(0.05, 100_000)),
    ] = 9.0,
    steps: Annotated[
        int | None,
        option(
            "--steps",
            "steps instead of minutes; the same on every machine",
            value="N",
            parser=whole_number(1, 10_000_000),
        ),
    ] = None,
    batch: Annotated[
        int, option("--batch", "pictures per step (16)", value="N", parser=whole_number(2, 1024))
    ] = 16,
    rate: Annotated[
        float, option("--rate", "largest learning rate (0.002)", value="N", parser=number(1e-6, 1))
    ] = 0.002,
    patience: Annotated[
        int,
        option(
            "--patience",
            "end after so many of the 30 evaluations without improvement (12)",
            value="N",
            parser=whole_number(1, 1000),
        ),
    ] = 12,
    flips: Annotated[
        Literal["auto", "none", "horizontal", "all"],
        option("--flips", "which mirror images are still right (auto: by the names of the classes)"),
    ] = "auto",
    seed: Annotated[
        int, option("--seed", "of views and held-out pictures (1)", value="N", parser=whole_number(0, 2**31))
    ] = 1,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], option("--device", "where it computes (auto)")
    ] = "auto",
    cache_mb: Annotated[
        int,
        option(
            "--cache-mb",
            "memory for pictures; the others are read each time (1024)",
            value="N",
            parser=whole_number(0, 1_000_000),
        ),
    ] = 1024,
    fresh: Annotated[bool, option("--fresh", "begin anew, even if there is a checkpoint")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Train a detector for the classes of a labelled set, and write it with its manifest.

    The training begins with the weights of a model that the bundled ones or this command made, and ends after
    --minutes. Pictures of part `val` decide which weights are kept; without that part, some of `train` are
    held out, and no near-duplicate of them is trained on. Checkpoints, results.csv and a report are in
    NAME.training beside the model.
    """
    from streamer.training.command import Options  # noqa: PLC0415 - loads PyTorch
    from streamer.training.command import train as run  # noqa: PLC0415 - see above
    from streamer.training.errors import BadRequest  # noqa: PLC0415 - see above
    from streamer.training.plan import Flips  # noqa: PLC0415 - see above

    if out.suffix != ".onnx":
        raise BadRequest(f"--out {out}: expected a name that ends in .onnx")
    if side is not None and side % 32:
        raise BadRequest(f"--side {side}: expected a multiple of 32, such as {side // 32 * 32 + 32}")
    options = Options(
        folder=folder,
        base=base,
        out=out,
        size=size,
        side=side,
        minutes=minutes,
        steps=steps,
        batch=batch,
        learning_rate=rate,
        seed=seed,
        patience=patience,
        flips=Flips(flips),
        device=device,
        cache_bytes=cache_mb << 20,
        fresh=fresh,
    )
    terminal = terminal_of(ctx)
    terminated: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        terminated.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        trained = run(options, terminal.status)
    except KeyboardInterrupt:
        terminal.line("interrupted; the same command continues the training", always=True)
        return EXIT_TERMINATED if terminated else EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    terminal.close()
    sys.stdout.write((dumps(_as_json(trained), indent=2) if json else _as_text(trained)) + "\n")
    return 0


def _as_json(trained: Trained) -> dict[str, object]:
    return {
        "model": str(trained.model),
        "results": str(trained.work),
        "steps": trained.outcome.steps,
        "seconds": round(trained.outcome.seconds, 1),
        "resumed_at": trained.resumed_at,
        "stopped_early": trained.outcome.stopped_early,
        "threshold": round(trained.outcome.score.threshold, 3),
        "metrics": {
            part: {"map50": round(score.map50, 4), "map50_95": round(score.map50_95, 4)}
            for part, score in trained.scores.items()
        },
    }


def _as_text(trained: Trained) -> str:
    outcome = trained.outcome
    resumed = f", continued at step {trained.resumed_at}" if trained.resumed_at else ""
    early = "; it ended early, because nothing improved any more" if outcome.stopped_early else ""
    lines = [
        f"{trained.model}: {', '.join(trained.classes)}",
        f"  trained   {outcome.steps} steps in {outcome.seconds / 60:.1f} minutes{resumed}{early}",
    ]
    for part, score in trained.scores.items():
        lines.append(f"  {part:<8}  mAP50 {score.map50:.3f}, mAP50-95 {score.map50_95:.3f}")
    lines.append(
        f"  threshold {outcome.score.threshold:.2f}, with precision {outcome.score.precision:.2f} and recall "
        f"{outcome.score.recall:.2f} on the pictures held out"
    )
    lines.append(f"  results   {trained.work}")
    return "\n".join(lines)
