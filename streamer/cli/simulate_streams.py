"""Implements ``streamer simulate streams``: cameras on the scheduler of the service, in virtual time."""

from __future__ import annotations

import os
import sys
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from streamer.cli.command import (
    Command,
    Json,
    Quiet,
    epilog,
    number,
    option,
    positive,
    seconds,
    terminal_of,
    whole_number,
)
from streamer.cli.exit_codes import EXIT_USAGE
from streamer.core.signals import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from streamer.simulation.streams.report import Report

app = typer.Typer(add_completion=False)
_CAMERAS, _MACHINE, _SERVICE, _LIMITS = "Cameras", "Machine", "Service", "Limits for --find"


def _number(name: str, text: str, group: str, value: str = "N") -> Any:
    return option(name, text, value=value, group=group, parser=number(0, 1e6))


def _count(name: str, text: str, group: str, low: int, high: int) -> Any:
    return option(name, text, value="N", group=group, parser=whole_number(low, high))


def _stalls(text: str) -> tuple[float, float]:
    every, colon, length = text.partition(":")
    if not colon:
        raise typer.BadParameter(f"expected EVERY:LENGTH in seconds, such as 60:2; found {text!r}")
    return seconds(every), seconds(length)


def _size(text: str) -> tuple[int, int]:
    width, sign, height = text.partition("x")
    if not sign:
        raise typer.BadParameter(f"expected WIDTHxHEIGHT, such as 640x480; found {text!r}")
    side = whole_number(1, 8192)
    return side(width), side(height)


@app.command(
    cls=Command,
    short_help="streams on one replica: ages, drops, fairness, and how many it holds",
    epilog=epilog(
        """
        streamer models check best.onnx --json > best-times.json
        streamer simulate streams 8x10 16x10 32x10 --run-times best-times.json
        streamer simulate streams 1x10 --find --run-times 1:8,2:15,4:29 --cores 8
        streamer simulate streams 99x5,9x30 --device gpu --run-times 1:6,16:17.6
        """,
        notes="""
        Each argument is one simulation: COUNTxFPS, or several of them with commas for a mix of rates. Run
        times are milliseconds for each batch size. Missing powers of two are interpolated; nothing is assumed
        beyond the largest. What a frame costs besides its run depends on the image and on the cores; see
        docs/operations/scaling.md.
        """,
        exit_codes={
            0: "done",
            EXIT_USAGE: "wrong option or run times, or a package is missing",
            EXIT_INTERRUPTED: "Ctrl-C",
        },
    ),
)
def streams(
    ctx: typer.Context,
    mixes: Annotated[list[str], typer.Argument(metavar="MIX", help="streams, such as 16x10 or 100x5,20x30")],
    run_times: Annotated[
        str,
        option(
            "--run-times", "SIZE:MS,... or the JSON report of `models check`", value="TIMES", group=_MACHINE
        ),
    ],
    find: Annotated[
        bool, option("--find", "multiply each mix as often as the limits allow", group=_LIMITS)
    ] = False,
    most_drops: Annotated[
        float,
        option(
            "--max-drops",
            "share of frames without a result (0.05)",
            value="0..1",
            group=_LIMITS,
            parser=number(0, 1),
        ),
    ] = 0.05,
    max_age_p95_ms: Annotated[
        float, _number("--max-age-ms", "95th percentile of the age of results (250)", _LIMITS)
    ] = 250.0,
    device: Annotated[
        Literal["cpu", "gpu"] | None,
        option(
            "--device",
            "whether runs use the cores or a device of their own (as in the report, else cpu)",
            group=_MACHINE,
        ),
    ] = None,
    cores: Annotated[
        int | None,
        _count(
            "--cores",
            "cores for everything but a GPU's runs (of the report, else of this machine)",
            _MACHINE,
            1,
            1024,
        ),
    ] = None,
    batch_max: Annotated[
        int | None, _count("--batch-max", "BATCH_MAX (the largest measured)", _MACHINE, 1, 64)
    ] = None,
    inference_threads: Annotated[
        int, _count("--inference-threads", "INFERENCE_LANES; 0: as the service chooses (0)", _MACHINE, 0, 256)
    ] = 0,
    core_efficiency: Annotated[
        float | None,
        option(
            "--core-efficiency",
            "speed of a core while all are busy (of the report, else 1)",
            value="0..1",
            group=_MACHINE,
            parser=number(0.05, 1),
        ),
    ] = None,
    gain: Annotated[
        float | None,
        option(
            "--gain",
            "speed of a GPU with several threads, relative to one (of the report, else 1)",
            value="N",
            group=_MACHINE,
            parser=number(1, 16),
        ),
    ] = None,
    run_jitter: Annotated[
        float,
        option(
            "--run-jitter",
            "relative deviation of run and decode times (0.05)",
            value="0..1",
            group=_MACHINE,
            parser=number(0, 1),
        ),
    ] = 0.05,
    decode_ms: Annotated[
        float, _number("--decode-ms", "processor time to decode a frame (1.2)", _MACHINE, "MS")
    ] = 1.2,
    frame_cost_ms: Annotated[
        float,
        _number(
            "--frame-cost-ms", "processor time of a frame on a worker's event loop (0.5)", _MACHINE, "MS"
        ),
    ] = 0.5,
    post_ms: Annotated[
        float,
        _number(
            "--post-ms",
            "processor time of a frame in the inference process besides its run (0.3)",
            _MACHINE,
            "MS",
        ),
    ] = 0.3,
    client_ms: Annotated[
        float,
        _number("--client-ms", "the same in clients on these cores (0: they are elsewhere)", _MACHINE, "MS"),
    ] = 0.0,
    wake_up_ms: Annotated[
        float | None,
        _number(
            "--wake-up-ms",
            "time until a sleeping process or thread gets a message (of the report, else 0)",
            _MACHINE,
            "MS",
        ),
    ] = None,
    idle_cores: Annotated[
        float,
        _number("--idle-cores", "cores that are used without any stream (0)", _MACHINE),
    ] = 0.0,
    workers: Annotated[int, _count("--workers", "WORKERS (1)", _SERVICE, 1, 64)] = 1,
    min_fps: Annotated[float, _number("--min-fps", "STREAM_MIN_FPS (5)", _SERVICE)] = 5.0,
    stale_ms: Annotated[float, _number("--stale-ms", "STREAM_MAX_AGE_MS (500)", _SERVICE, "MS")] = 500.0,
    interactive_share: Annotated[
        float,
        option(
            "--interactive-share",
            "INTERACTIVE_SHARE (0.25)",
            value="0..1",
            group=_SERVICE,
            parser=number(0.01, 0.99),
        ),
    ] = 0.25,
    jitter_ms: Annotated[
        float, _number("--jitter-ms", "deviation of captures from their regular time (2)", _CAMERAS, "MS")
    ] = 2.0,
    jitter: Annotated[
        Literal["uniform", "normal"], option("--jitter", "its distribution (uniform)", group=_CAMERAS)
    ] = "uniform",
    latency_ms: Annotated[
        float, _number("--latency-ms", "delay of the network in each direction (5)", _CAMERAS, "MS")
    ] = 5.0,
    latency_jitter_ms: Annotated[
        float, _number("--latency-jitter-ms", "its standard deviation (1)", _CAMERAS, "MS")
    ] = 1.0,
    stalls: Annotated[
        Any,
        option(
            "--stalls",
            "mean seconds between stalls of a connection, and their length (none); what was "
            "sent meanwhile arrives in a burst",
            value="EVERY:LENGTH",
            group=_CAMERAS,
            parser=_stalls,
        ),
    ] = None,
    clients: Annotated[
        int,
        _count(
            "--clients",
            "clients that share the streams; 0: each stream has its own (0)",
            _CAMERAS,
            0,
            100_000,
        ),
    ] = 0,
    ramp_s: Annotated[
        float,
        option(
            "--ramp", "seconds in which the streams connect (5)", value="S", group=_CAMERAS, parser=seconds
        ),
    ] = 5.0,
    size: Annotated[
        Any,
        option(
            "--size", "width and height of the frames (640x480)", value="WxH", group=_CAMERAS, parser=_size
        ),
    ] = None,
    posts: Annotated[
        float, _number("--posts", "images per second that other clients POST (0)", _CAMERAS)
    ] = 0.0,
    duration_s: Annotated[
        float | None,
        option(
            "--seconds",
            "virtual seconds that are measured (20; less for many frames)",
            value="S",
            parser=positive,
        ),
    ] = None,
    seed: Annotated[int, option("--seed", "random seed (1)", value="N", parser=whole_number(0, 2**31))] = 1,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Simulate streams on one replica: the real scheduler and flow control, with given run times.

    Cameras obey their window and their granted rate as the client library does. Cores are shared by decoding,
    event loops and, on a CPU, by the runs of the model. Equal options give equal results.
    """
    from streamer.accounting.metrics import WorkerMetrics  # noqa: F401, PLC0415 - names the missing extra first
    from streamer.core.terminal import write_tables  # noqa: PLC0415 - as the others
    from streamer.simulation.errors import BadScenario  # noqa: PLC0415 - see above
    from streamer.simulation.streams import tables  # noqa: PLC0415 - see above
    from streamer.simulation.streams.capacity import Limits, find_most, usual_seconds  # noqa: PLC0415 - see above
    from streamer.simulation.streams.run_times import read_run_times  # noqa: PLC0415 - see above
    from streamer.simulation.streams.scenario import (  # noqa: PLC0415 - see above
        Cameras,
        Machine,
        Scenario,
        ServiceSettings,
        parse_mix,
    )
    from streamer.simulation.streams.simulation import simulate  # noqa: PLC0415 - see above

    terminal = terminal_of(ctx)
    parsed = [parse_mix(text) for text in mixes]
    times = read_run_times(run_times, batch_max)
    accelerator = device == "gpu" if device else times.provider not in (None, "cpu", "openvino")
    machine = Machine(
        times,
        cores or times.cores or len(os.sched_getaffinity(0)),
        accelerator,
        inference_threads,
        times.gain if gain is None else gain,
        times.core_efficiency if core_efficiency is None and not accelerator else core_efficiency or 1.0,
        workers,
        decode_ms / 1e3,
        frame_cost_ms / 1e3,
        post_ms / 1e3,
        client_ms / 1e3,
        run_jitter,
        (times.wake_up_ms if wake_up_ms is None else wake_up_ms) / 1e3,
        idle_cores,
    )
    if machine.idle_cores >= machine.cores:
        raise BadScenario(
            f"--idle-cores: expected less than the number of cores, {machine.cores}; found {idle_cores:g}"
        )
    every_s, stall_s = stalls or (0.0, 0.0)
    cameras = Cameras(
        jitter_ms / 1e3,
        jitter,
        latency_ms / 1e3,
        latency_jitter_ms / 1e3,
        every_s,
        stall_s,
        clients,
        ramp_s,
        size or (640, 480),
        posts,
    )
    settings = ServiceSettings(min_fps, stale_ms / 1e3, interactive_share)
    reports: list[Report] = []
    for mix in parsed:
        scenario = Scenario(
            mix, machine, cameras, settings, seconds=duration_s or usual_seconds(mix), seed=seed
        )
        if find:
            limits = Limits(most_drops, max_age_p95_ms)
            reports.append(
                find_most(scenario, limits, fixed_seconds=bool(duration_s), progress=terminal.status)
            )
        else:
            reports.append(simulate(scenario, terminal.status))
    terminal.close()
    if json:
        text = dumps({"simulations": [report.to_json() for report in reports]}, indent=2)
        sys.stdout.write(text + "\n")
    else:
        write_tables(lambda: tables.tables(reports, machine), lambda: tables.text(reports, machine))
    return 0
