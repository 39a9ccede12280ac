"""Implements ``streamer simulate fleet``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, fields
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from streamer.cli.command import (
    Command,
    Json,
    any_number,
    any_whole_number,
    epilog,
    option,
)
from streamer.cli.exit_codes import EXIT_USAGE

if TYPE_CHECKING:
    from streamer.simulation.fleet_plan import Fleet, FleetPlan

_CAMERAS, _REPLICA, _LAYOUT, _COST = "Cameras", "One replica", "Zones and cells", "Metrics and cost"

app = typer.Typer(add_completion=False)


def _number(name: str, text: str, group: str) -> Any:
    return option(name, text, value="N", group=group, parser=any_number)


def _whole(name: str, text: str, group: str) -> Any:
    return option(name, text, value="N", group=group, parser=any_whole_number)


@app.command(
    cls=Command,
    short_help="what a fleet of cameras needs: replicas, cells, traffic, relays, series",
    epilog=epilog(
        """
        streamer simulate fleet --cameras 10000 --fps 5 --replica-fps 1300
        streamer simulate fleet --cameras 99 --replica-fps 99 --source video --cores 8
        streamer simulate fleet --cameras 1000000 --fps 1 --replica-fps 1300 --json
        """,
        notes="""
        --replica-fps is what one replica runs as a whole: measure it with `make bench` on your device, or
        take it from `streamer simulate streams`. docs/operations/fleet.md explains every line of the result.
        """,
        exit_codes={0: "done", EXIT_USAGE: "wrong option, or a camera that no replica can serve"},
    ),
)
def fleet(
    cameras: Annotated[int, _whole("--cameras", "number of cameras", _CAMERAS)],
    replica_fps: Annotated[
        float, _number("--replica-fps", "frames per second that one replica runs at full load", _REPLICA)
    ],
    fps: Annotated[
        float, _number("--fps", "frames per second of a camera on which the model runs (5)", _CAMERAS)
    ] = 5,
    live: Annotated[
        float, _number("--live", "largest share of the cameras that send at the same time (1)", _CAMERAS)
    ] = 1,
    hours: Annotated[float, _number("--hours", "hours per day in which they send (24)", _CAMERAS)] = 24,
    source: Annotated[
        Literal["jpeg", "video"],
        option("--source", "images over WebSocket, or video over WebRTC (jpeg)", group=_CAMERAS),
    ] = "jpeg",
    frame_kb: Annotated[float, _number("--frame-kb", "kilobytes of one JPEG (29)", _CAMERAS)] = 29,
    video_kbps: Annotated[
        float, _number("--video-kbps", "kilobits per second of one video (1000)", _CAMERAS)
    ] = 1000,
    video_fps: Annotated[
        float, _number("--video-fps", "frames per second of one video; each is decoded (10)", _CAMERAS)
    ] = 10,
    relayed: Annotated[float, _number("--relayed", "percent of the videos that need TURN (0)", _CAMERAS)] = 0,
    result_bytes: Annotated[
        float, _number("--result-bytes", "bytes of one result: 175, and 40 for each box (600)", _CAMERAS)
    ] = 600,
    cores: Annotated[
        int, _whole("--cores", "cores of a replica, required for video (0: not given)", _REPLICA)
    ] = 0,
    workers: Annotated[
        int, _whole("--workers", "WORKERS; each takes 64 sessions of WebRTC (1)", _REPLICA)
    ] = 1,
    video_frame_ms: Annotated[
        float,
        _number(
            "--video-frame-ms",
            "processor time for a frame of video without the model, ms (3.1: 640x480)",
            _REPLICA,
        ),
    ] = 3.1,
    replica_mbps: Annotated[
        float, _number("--replica-mbps", "network of a replica, megabits per second (10000)", _REPLICA)
    ] = 10_000,
    turn_mbps: Annotated[float, _number("--turn-mbps", "the same of a TURN server (5000)", _REPLICA)] = 5_000,
    target: Annotated[float, _number("--target", "planned load in percent (70)", _LAYOUT)] = 70,
    target_after_loss: Annotated[
        float, _number("--target-after-loss", "load in percent after the loss of zones (95)", _LAYOUT)
    ] = 95,
    zones: Annotated[int, _whole("--zones", "zones over which replicas are spread (3)", _LAYOUT)] = 3,
    lost_zones: Annotated[
        int, _whole("--lost-zones", "zones that may fail at the same time (1)", _LAYOUT)
    ] = 1,
    cell_replicas: Annotated[int, _whole("--cell-replicas", "most replicas of one cell (30)", _LAYOUT)] = 30,
    series: Annotated[int, _whole("--series", "metric series of one replica (500)", _COST)] = 500,
    scrape_s: Annotated[float, _number("--scrape-s", "seconds between scrapes (15)", _COST)] = 15,
    replica_price: Annotated[
        float, _number("--replica-price", "price of one replica for an hour (0: not shown)", _COST)
    ] = 0,
    egress_price: Annotated[
        float, _number("--egress-price", "price of a gigabyte that leaves the site (0: not shown)", _COST)
    ] = 0,
    json: Json = False,
) -> int:
    """Compute what a fleet of cameras needs from what one replica can do.

    The result is arithmetic over your figures, not a simulation, and it does not know your cloud.
    """
    from streamer.core.terminal import Table, write_tables  # noqa: PLC0415 - as the others
    from streamer.simulation.fleet_plan import Fleet, plan  # noqa: PLC0415 - see above

    given = locals()
    described = Fleet(**{field.name: given[field.name] for field in fields(Fleet)})
    found = plan(described)
    if json:
        sys.stdout.write(dumps({"fleet": asdict(described), "plan": asdict(found)}, indent=2) + "\n")
        return 0
    rows = tuple(_rows(described, found))
    head = ("", "needed", "because")
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    write_tables(
        lambda: [Table(f"{described.cameras:,} cameras", head, rows, frozenset({"needed"}))],
        lambda: "\n".join(
            f"{what:{widths[0]}}  {needed:>{widths[1]}}  {because}".rstrip() for what, needed, because in rows
        ),
    )
    return 0


def _rows(fleet: Fleet, plan: FleetPlan) -> Iterator[tuple[str, str, str]]:
    """Return the lines of the result: what, how much, and why."""
    yield (
        "streams per replica",
        f"{plan.streams_per_replica:,}",
        f"{fleet.fps:g} fps each, at {fleet.target:g} % load; limit: {plan.limit}",
    )
    yield "live streams", f"{plan.live_streams:,}", f"{fleet.live:.0%} of the cameras"
    yield "replicas for the load", f"{plan.replicas_for_load:,}", "without zones and cells"
    loss = (
        f"{fleet.lost_zones} of {fleet.zones} zones may fail: then {plan.streams_after_loss:,} streams each"
    )
    yield "replicas", f"{plan.replicas:,}", loss if fleet.lost_zones else "no zone may fail"
    yield (
        "cells",
        f"{plan.cells:,}",
        f"replicas in each: {plan.replicas_per_cell}; cameras: {plan.cameras_per_cell:,}",
    )
    what = "video" if fleet.source == "video" else f"JPEGs of {fleet.frame_kb:g} kB"
    yield (
        "received, Gbit/s",
        _decimal(plan.received_gbps),
        f"{fleet.stream_kbps:,.0f} kbit/s of {what} per camera",
    )
    yield "received by a cell, Gbit/s", _decimal(plan.received_gbps_per_cell), "what its ingress must carry"
    yield "received, TB a month", _decimal(plan.received_tb_per_month), f"{fleet.hours:g} h a day"
    yield (
        "results, TB a month",
        _decimal(plan.results_tb_per_month),
        f"{_decimal(plan.results_gbps)} Gbit/s leave the site",
    )
    if fleet.relayed:
        yield (
            "TURN servers",
            f"{plan.turn_servers:,}",
            f"{plan.relayed_streams:,} relayed videos, {_decimal(plan.relayed_gbps)} Gbit/s in and out",
        )
    yield (
        "metric series",
        f"{plan.series:,}",
        f"{plan.samples_per_s:,.0f} samples per second; {fleet.series} series per replica",
    )
    if fleet.replica_price:
        yield (
            "replicas, cost a month",
            f"{plan.replica_cost_per_month:,.0f}",
            f"{fleet.replica_price:g} per hour",
        )
    if fleet.egress_price:
        yield "results, cost a month", f"{plan.egress_cost_per_month:,.0f}", f"{fleet.egress_price:g} per GB"


def _decimal(value: float) -> str:
    """Return a number with three significant digits, without an exponent."""
    for digits, least in ((0, 100.0), (1, 10.0), (2, 1.0)):
        if value >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.2g}" if value else "0"
