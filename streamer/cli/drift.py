"""Implements ``streamer drift``: the command ``evaluate``."""

from __future__ import annotations

import os
import sys
import time
from json import dumps
from typing import Annotated

import typer

from streamer.cli.command import Command, Group, Json, Quiet, epilog, option, terminal_of, whole_number
from streamer.cli.exit_codes import EXIT_USAGE
from streamer.core.signals import EXIT_INTERRUPTED

#: Exit codes of the verdicts.
EXIT_DRIFT, EXIT_CANNOT_JUDGE = 1, 4

_EXIT_CODES = {
    0: "no drift",
    EXIT_DRIFT: "drift: more streams than chance explains, or a severe one",
    EXIT_USAGE: "wrong option, no rows, or a package is missing",
    3: "the store cannot be read, or the report cannot be written",
    EXIT_CANNOT_JUDGE: "fewer than half of the streams can be judged",
    EXIT_INTERRUPTED: "Ctrl-C",
}

app = typer.Typer(
    cls=Group,
    add_completion=False,
    help="Judge drift over the rows that all replicas have stored (docs/drift.md).",
    epilog=epilog(
        """
        streamer drift evaluate s3://parcels/line-4 --out report/
        streamer drift evaluate --period 24h --reference 7d
        """,
        exit_codes=_EXIT_CODES,
    ),
)


@app.callback()
def _group() -> None:
    """Keep `evaluate` a command of a group: typer would run the only command without its name."""


@app.command(
    cls=Command,
    short_help="has any stream drifted, of all replicas?",
    epilog=epilog(
        """
        streamer drift evaluate s3://parcels/line-4 --out report/
        streamer drift evaluate s3://parcels/line-4 --period 24h --reference 14d
        streamer drift evaluate copy/ --reference 2026-11-01..2026-11-14
        streamer drift evaluate --reference s3://parcels/reference.json --json
        streamer drift evaluate --stream gate --timezone Europe/Berlin --out gate/
        """,
        notes="""
        Replicas store their rows with DRIFT_ROWS=1. A length such as 24h ends with the last half hour whose
        rows have arrived; the reference 7d are the seven days before the period. Dates include the whole
        day. One false episode in 42 to 56 stream-days is normal, so of many streams one in drift is not
        drift of the fleet: --min-streams 1 makes it so.
        """,
        exit_codes=_EXIT_CODES,
    ),
)
def evaluate(
    ctx: typer.Context,
    place: Annotated[
        str | None,
        typer.Argument(
            metavar="PLACE",
            help="folder, or s3://BUCKET/PREFIX (default: where the service's settings store samples)",
        ),
    ] = None,
    period: Annotated[
        str, option("--period", "what to judge: a length, or FROM..TO (24h)", value="PERIOD")
    ] = "24h",
    reference: Annotated[
        str,
        option(
            "--reference",
            "what is normal: a length before the period, FROM..TO, or a reference file of the service, also "
            "s3://BUCKET/KEY (7d)",
            value="PERIOD|FILE",
        ),
    ] = "7d",
    out: Annotated[
        str | None,
        option(
            "--out",
            "write report.html, drift.json and pages of Evidently into a folder or s3://BUCKET/PREFIX; "
            "%Y-%m-%d and %H%M are the end of the period",
            value="PLACE",
        ),
    ] = None,
    stream: Annotated[
        list[str] | None, option("--stream", "only this stream; may be repeated", value="NAME")
    ] = None,
    min_streams: Annotated[
        int | None,
        option(
            "--min-streams",
            "streams in drift from which the exit code is 1 (more than chance explains)",
            value="N",
            parser=whole_number(1, 1_000_000),
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        option("--timezone", "zone of times and of times of day, such as Europe/Berlin (TZ)", value="ZONE"),
    ] = None,
    builtin: Annotated[
        bool, option("--builtin", "let the builtin engine decide alone; no pages of Evidently")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Judge whether streams have drifted, over the rows and samples that all replicas have stored.

    The monitor of the service runs over the rows of each stream, whichever replicas measured it. Evidently
    confirms the windows that begin an episode. The report names missing replicas, gaps and other models.
    """
    from streamer.core.terminal import write_tables  # noqa: PLC0415 - as the others
    from streamer.drift_evaluation.command import evaluate_place  # noqa: PLC0415 - the extra `server`
    from streamer.drift_evaluation.document import document_of, tables_of, text_of  # noqa: PLC0415
    from streamer.drift_evaluation.evaluation import EvaluationOptions  # noqa: PLC0415
    from streamer.drift_evaluation.stream_result import Verdict  # noqa: PLC0415

    if timezone is not None:
        _set_zone(timezone)
    terminal = terminal_of(ctx)
    options = EvaluationOptions(
        period, reference, "", frozenset(stream or ()), min_streams, not builtin, out is not None
    )
    result, written = evaluate_place(place, options, out, terminal.status)
    terminal.close()
    if json:
        sys.stdout.write(dumps(document_of(result), ensure_ascii=False, indent=2) + "\n")
    else:
        write_tables(lambda: tables_of(result), lambda: text_of(result))
    if written:
        terminal.line(f"{written}/report.html is written", always=not json)
    codes = {Verdict.DRIFT: EXIT_DRIFT, Verdict.CANNOT_JUDGE: EXIT_CANNOT_JUDGE, Verdict.NONE: 0}
    return codes[result.verdict]


def _set_zone(name: str) -> None:
    """Make a zone the local one of this process. Raises BadRequest for one that the system does not know."""
    from datetime import datetime  # noqa: PLC0415 - used here alone
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - used here alone

    from streamer.datasets.sample import BadRequest  # noqa: PLC0415 - the extra `server`

    try:
        zone = ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise BadRequest(
            f"--timezone is {name!r}; expected the name of a zone such as Europe/Berlin"
        ) from error
    os.environ["TZ"] = name
    time.tzset()
    # The C library takes a zone whose file is missing for UTC, without a word.
    moments = [datetime(2026, month, 1, 12, tzinfo=zone) for month in (1, 7)]
    if any(time.localtime(each.timestamp()).tm_hour != 12 for each in moments):
        raise BadRequest(f"--timezone is {name!r}; this system has no data of zones (package tzdata)")
