"""Implements ``streamer simulate``: commands that answer questions of size without a service or a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from streamer.cli import simulate_fleet, simulate_streams
from streamer.cli.command import (
    Command,
    Group,
    Json,
    Quiet,
    any_number,
    any_whole_number,
    epilog,
    option,
    terminal_of,
    whole_number,
)
from streamer.cli.exit_codes import EXIT_USAGE
from streamer.core.signals import EXIT_INTERRUPTED

app = typer.Typer(
    cls=Group,
    add_completion=False,
    help="Simulate the service at other sizes, without a service (docs/operations/scaling.md).",
    epilog=epilog(
        """
        streamer simulate streams 16x10 64x10 --run-times 1:8,4:20 --cores 8
        streamer simulate autoscaling
        streamer simulate autoscaling --capacity 180 --cold-start 60,600 --day flash
        streamer simulate fleet --cameras 10000 --fps 5 --replica-fps 1300
        """,
        exit_codes={0: "done", EXIT_USAGE: "wrong option or file", EXIT_INTERRUPTED: "Ctrl-C"},
    ),
)
app.add_typer(simulate_streams.app)
app.add_typer(simulate_fleet.app)

_STREAMS, _RELEASE, _AUTOSCALER, _FAULTS = "Streams", "Release", "Autoscaler", "What goes wrong"


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(any_number(each) for each in text.split(","))


def _words(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(","))


def _methods(text: str) -> tuple[str, ...]:
    allowed = ("hpa", "keda", "keda-value")
    found = _words(text)
    if not set(found) <= set(allowed):
        raise typer.BadParameter(f"expected some of {', '.join(allowed)}, comma-separated; found {text!r}")
    return found


def _several(
    name: str, text: str, *, group: str, value: str, parser: Callable[[str], tuple[float | str, ...]]
) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = option(name, text, value=value, group=group, parser=parser)
    return found


def _number(name: str, text: str, group: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = option(name, text, value="N", group=group, parser=any_number)
    return found


@app.command(
    cls=Command,
    short_help="days of an autoscaled release: refusals, oscillation and replica-hours",
    epilog=epilog(
        """
        streamer simulate autoscaling --capacity 7,32,180,680 --cold-start 10,600
        streamer simulate autoscaling --method hpa,keda --target 80 --up 4/60,100%/60
        streamer simulate autoscaling --day monday.csv --peak 900 --capacity 45
        streamer simulate autoscaling --day flash --target 40,60,80
        streamer simulate autoscaling --find --cold-start 60,180,600 --min-fps 10
        streamer simulate autoscaling --day ramp --cold-start 600 --plot ramp.svg
        """,
        notes="""
        Options with a list simulate every combination. A day is one of weekday, weekend, ramp, flash and
        constant, or a CSV file with the columns hour and streams. Policies are PODS/SECONDS or
        PERCENT%/SECONDS, as in the chart's autoscaling.behavior; the one that allows most applies.
        """,
        exit_codes={0: "done", EXIT_USAGE: "wrong option or file", EXIT_INTERRUPTED: "Ctrl-C"},
    ),
)
def autoscaling(
    ctx: typer.Context,
    day: Annotated[
        Any,
        _several("--day", "shapes of the day (weekday)", group=_STREAMS, value="DAY,...", parser=_words),
    ] = None,
    days: Annotated[
        int, option("--days", "simulated days (1)", value="N", group=_STREAMS, parser=any_whole_number)
    ] = 1,
    peak: Annotated[
        float, _number("--peak", "streams at the highest point (10 times the capacity)", _STREAMS)
    ] = 0,
    fps: Annotated[
        Any,
        _several(
            "--fps",
            "rates for which streams ask, each equally often (10)",
            group=_STREAMS,
            value="N,...",
            parser=_numbers,
        ),
    ] = None,
    min_fps: Annotated[
        float, _number("--min-fps", "a stream that would get less is refused: STREAM_MIN_FPS (5)", _STREAMS)
    ] = 5,
    minutes: Annotated[float, _number("--minutes", "mean time for which a stream stays (30)", _STREAMS)] = 30,
    permanent: Annotated[
        float, _number("--permanent", "share of streams at the peak that stay all day (0.1)", _STREAMS)
    ] = 0.1,
    capacity: Annotated[
        Any,
        _several(
            "--capacity",
            "streams that one replica serves at their full rate (32)",
            group=_RELEASE,
            value="N,...",
            parser=_numbers,
        ),
    ] = None,
    cold_start: Annotated[
        Any,
        _several(
            "--cold-start",
            "seconds until a new replica is ready (60)",
            group=_RELEASE,
            value="S,...",
            parser=_numbers,
        ),
    ] = None,
    spares: Annotated[
        Any,
        _several(
            "--spares",
            "warmSpares.count: placeholders for new replicas (0)",
            group=_RELEASE,
            value="N,...",
            parser=_numbers,
        ),
    ] = None,
    warm_start: Annotated[
        float,
        _number("--warm-start", "seconds until a replica in place of a spare is ready (30)", _RELEASE),
    ] = 30,
    route: Annotated[
        Literal["random", "least"],
        option("--route", "replica of a new stream: random, or the one with fewest (random)", group=_RELEASE),
    ] = "random",
    affinity: Annotated[
        float,
        _number("--affinity", "probability that a refused stream returns to its replica (0.5)", _RELEASE),
    ] = 0.5,
    remove: Annotated[
        Literal["newest", "emptiest"],
        option("--remove", "replica that is removed first (newest)", group=_RELEASE),
    ] = "newest",
    rebalance: Annotated[
        float,
        _number("--rebalance", "percent of the fullest replica's streams moved per minute (20)", _RELEASE),
    ] = 20,
    method: Annotated[
        Any,
        _several(
            "--method",
            "hpa, keda, or keda-value, which runs away (hpa)",
            group=_AUTOSCALER,
            value="A,...",
            parser=_methods,
        ),
    ] = None,
    target: Annotated[
        Any,
        _several(
            "--target",
            "load per replica in percent, autoscaling.targets (75)",
            group=_AUTOSCALER,
            value="N,...",
            parser=_numbers,
        ),
    ] = None,
    min_replicas: Annotated[
        int, option("--min-replicas", "(1)", value="N", group=_AUTOSCALER, parser=any_whole_number)
    ] = 1,
    max_replicas: Annotated[
        int, option("--max-replicas", "(1000)", value="N", group=_AUTOSCALER, parser=any_whole_number)
    ] = 1000,
    schedule: Annotated[
        Any,
        _several(
            "--schedule",
            "least replicas at hours of the day, as KEDA's cron trigger: BEGIN-END:REPLICAS,...",
            group=_AUTOSCALER,
            value="TIMES",
            parser=_words,
        ),
    ] = None,
    find: Annotated[
        bool,
        option(
            "--find",
            "find the cheapest target and number of spares that refuse less than 0.1 percent",
            group=_AUTOSCALER,
        ),
    ] = False,
    up: Annotated[
        str | None, option("--up", "policies of scaleUp (the chart's)", value="POLICY,...", group=_AUTOSCALER)
    ] = None,
    up_window: Annotated[
        int | None,
        option(
            "--up-window",
            "stabilizationWindowSeconds of scaleUp (the chart's)",
            value="S",
            group=_AUTOSCALER,
            parser=whole_number(0, 3600),
        ),
    ] = None,
    down: Annotated[
        str | None,
        option("--down", "policies of scaleDown (the chart's)", value="POLICY,...", group=_AUTOSCALER),
    ] = None,
    down_window: Annotated[
        int | None,
        option(
            "--down-window",
            "the same of scaleDown (the chart's)",
            value="S",
            group=_AUTOSCALER,
            parser=whole_number(0, 3600),
        ),
    ] = None,
    failures: Annotated[float, _number("--failures", "nodes that die per day (0)", _FAULTS)] = 0,
    outages: Annotated[
        float, _number("--outages", "interruptions of the metrics per day, 10 minutes each (0)", _FAULTS)
    ] = 0,
    seed: Annotated[
        int, option("--seed", "first random seed (0)", value="N", parser=whole_number(0, 2**31))
    ] = 0,
    seeds: Annotated[
        int,
        option(
            "--seeds",
            "runs of each combination, with different seeds (1)",
            value="N",
            parser=whole_number(1, 1000),
        ),
    ] = 1,
    plot: Annotated[
        Path | None,
        option("--plot", "write the course of the only run into this file", value="FILE.svg", parser=Path),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Simulate days of an autoscaled release, and show what streams and the budget would see of it.

    Streams stay at their replica. The autoscalers are those of Kubernetes, with the chart's values unless
    options say otherwise.
    """
    from streamer.core.terminal import write_tables  # noqa: PLC0415 - as the others
    from streamer.simulation.autoscaling import advice, grid, report  # noqa: PLC0415 - loads NumPy
    from streamer.simulation.autoscaling.loop import Outcome  # noqa: PLC0415 - see above
    from streamer.simulation.autoscaling.plot import write_plot  # noqa: PLC0415 - see above
    from streamer.simulation.autoscaling.scenario import Scenario, Scheduled  # noqa: PLC0415 - see above
    from streamer.simulation.errors import BadScenario  # noqa: PLC0415 - see above

    terminal = terminal_of(ctx)
    base = Scenario(
        days=days,
        peak=peak,
        fps=fps or (10.0,),
        min_fps=min_fps,
        minutes=minutes,
        permanent=permanent,
        route=route,
        affinity=affinity,
        remove=remove,
        rebalance=rebalance,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        behavior=grid.behavior(up, up_window, down, down_window),
        failures=failures,
        outages=outages,
        warm_start_s=warm_start,
        schedule=tuple(Scheduled.parse(each) for each in schedule or ()),
    )
    if find:
        wanted = grid.combinations(
            base,
            day=day or ("weekday",),
            capacity=capacity or (32.0,),
            cold_start_s=cold_start or (60.0,),
            method=method or ("hpa",),
        )
        found = advice.find(
            wanted,
            target or advice.TARGETS,
            tuple(map(int, spares or advice.SPARES)),
            tuple(range(seed, seed + seeds)),
            terminal.status,
        )
        terminal.close()
        if json:
            sys.stdout.write(dumps({"advice": [each.to_dict() for each in found]}, indent=2) + "\n")
        else:
            write_tables(lambda: [advice.table(found)], lambda: advice.text(found))
        return 0
    scenarios = grid.combinations(
        base,
        day=day or ("weekday",),
        capacity=capacity or (32.0,),
        cold_start_s=cold_start or (60.0,),
        method=method or ("hpa",),
        target=target or (75.0,),
        spares=tuple(map(int, spares or (0,))),
        seed=tuple(range(seed, seed + seeds)),
    )
    if plot is not None and len(scenarios) != 1:
        raise BadScenario(f"--plot: expected options with one run; found {len(scenarios)} runs")
    outcomes: list[Outcome] = []
    lines = grid.run(scenarios, terminal.status, outcomes.append)
    terminal.close()
    if plot is not None:
        write_plot(outcomes[0], plot)
    if json:
        sys.stdout.write(dumps({"runs": [line.to_dict() for line in lines]}, indent=2) + "\n")
    else:
        write_tables(lambda: [report.table(lines)], lambda: report.text(lines))
    return 0
