"""Computes what a fleet of cameras needs: replicas, cells, traffic, relays and metric series. Pure.

Every figure follows from the inputs by the formulas in the docstrings; nothing is simulated. What one
replica can run comes from a measurement or from ``streamer simulate streams``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil, floor
from typing import Literal

from streamer.simulation.errors import BadScenario

#: Days in a month of traffic and of cost.
MONTH_DAYS = 30
#: Share of a network interface or of a relay that is planned to be in use.
NETWORK_SHARE = 0.7
#: WebRTC sessions of one worker: the default of WEBRTC_SESSIONS_MAX.
SESSIONS_PER_WORKER = 64
#: Inputs that may be 0, and the largest values of those that are shares or percentages.
_MAY_BE_0 = {"cores", "lost_zones", "relayed", "replica_price", "egress_price"}
_LARGEST = {"live": 1, "target": 100, "target_after_loss": 100, "relayed": 100, "hours": 24, "zones": 100}
_LARGEST_OTHER = 1e9

Source = Literal["jpeg", "video"]
Limit = Literal["model", "cores", "sessions", "network"]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Holds the cameras, what one replica can do, and how replicas are spread.

    Raises `BadScenario` for a value that cannot be meant.
    """

    cameras: int
    #: Frames per second that one replica runs, with decoding and everything else, at full load.
    replica_fps: float
    #: Frames per second of one camera that the model shall run on.
    fps: float = 5.0
    #: Largest share of the cameras that send at the same time.
    live: float = 1.0
    #: "jpeg": each frame is an image, over WebSocket. "video": H.264 or VP8 over WebRTC.
    source: Source = "jpeg"
    #: Kilobytes (1,000 bytes) of one JPEG.
    frame_kb: float = 29.0
    #: Kilobits per second and frames per second of one video.
    video_kbps: float = 1000.0
    video_fps: float = 10.0
    #: Milliseconds of processor time for one frame of video outside of the model: the table of docs/webrtc.md
    #: at 20 sessions of VP8.
    video_frame_ms: float = 3.1
    #: Cores and workers of one replica. Only video needs them: `replica_fps` includes the decoding of JPEGs.
    cores: int = 0
    workers: int = 1
    #: Megabits per second of a replica's network interface.
    replica_mbps: float = 10_000.0
    #: Load in percent at which a replica is planned to run, and that it may reach after the loss of zones.
    target: float = 70.0
    target_after_loss: float = 95.0
    #: Zones over which replicas are spread evenly, and how many of them may fail at the same time.
    zones: int = 3
    lost_zones: int = 1
    #: Most replicas of one cell, which is one release of the chart.
    cell_replicas: int = 30
    #: Bytes of one result: about 175, and 40 for each box.
    result_bytes: float = 600.0
    #: Percent of the videos that reach the replica through TURN, and megabits per second of one TURN server.
    relayed: float = 0.0
    turn_mbps: float = 5_000.0
    #: Hours per day in which the live share of the cameras sends.
    hours: float = 24.0
    #: Metric series of one replica, and seconds between two scrapes.
    series: int = 500
    scrape_s: float = 15.0
    #: Prices in any currency: one replica for an hour, and one gigabyte that leaves the site.
    replica_price: float = 0.0
    egress_price: float = 0.0

    def __post_init__(self) -> None:
        """Check each value by itself, then those that depend on each other."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str):
                _check_number(field.name, value)
        for wrong, text in self._contradictions():
            if wrong:
                raise BadScenario(text)

    def _contradictions(self) -> tuple[tuple[bool, str], ...]:
        return (
            (
                self.lost_zones >= self.zones,
                f"lost-zones: expected fewer than the {self.zones} zones; found {self.lost_zones}. "
                "With one zone, use 0",
            ),
            (
                self.target_after_loss < self.target,
                f"target-after-loss: expected at least the target, {self.target:g}; "
                f"found {self.target_after_loss:g}",
            ),
            (
                self.source == "video" and not self.cores,
                "cores: expected a number above 0 for video, because each frame is decoded; found 0",
            ),
            (
                self.source == "jpeg" and self.relayed > 0,
                f"relayed: expected 0 for JPEGs over WebSocket, which need no TURN; found {self.relayed:g}",
            ),
            (
                self.cell_replicas < self.zones,
                f"cell-replicas: expected at least one replica in each of the {self.zones} zones; "
                f"found {self.cell_replicas}",
            ),
        )

    @property
    def stream_kbps(self) -> float:
        """Return the kilobits per second that one live camera sends."""
        return self.video_kbps if self.source == "video" else self.frame_kb * 8 * self.fps


def _check_number(name: str, value: float) -> None:
    most = _LARGEST.get(name, _LARGEST_OTHER)
    low = "from 0" if name in _MAY_BE_0 else "above 0"
    if not 0 <= value <= most or (value == 0 and name not in _MAY_BE_0):
        raise BadScenario(f"{name.replace('_', '-')}: expected a number {low} to {most:g}; found {value:g}")


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """Holds what a fleet needs. Traffic is that of all cells together unless the name says otherwise."""

    #: Streams of one replica at the target, and what limits them.
    streams_per_replica: int
    limit: Limit
    #: Streams that it must take after the loss of zones.
    streams_after_loss: int
    live_streams: int
    #: Replicas that the load alone needs at the target, without zones and cells.
    replicas_for_load: int
    cells: int
    replicas_per_cell: int
    cameras_per_cell: int
    replicas: int
    received_gbps: float
    received_gbps_per_cell: float
    received_tb_per_month: float
    results_gbps: float
    results_tb_per_month: float
    relayed_streams: int
    #: Both directions, as the relays see them.
    relayed_gbps: float
    turn_servers: int
    series: int
    samples_per_s: float
    replica_cost_per_month: float
    egress_cost_per_month: float


def plan(fleet: Fleet) -> FleetPlan:
    """Compute the plan of a fleet.

    Raises `BadScenario` if one replica cannot serve a single camera at the target.
    """
    limits = _streams_per_replica(fleet, fleet.target)
    per_replica, limit = min((value, name) for name, value in limits.items())
    if per_replica < 1:
        raise BadScenario(
            f"one replica serves less than one camera at {fleet.target:g} percent load; "
            f"the limit: {limit}. Ask for fewer frames per second, or describe a larger replica"
        )
    after_loss = min(_streams_per_replica(fleet, fleet.target_after_loss).values())
    live = ceil(fleet.cameras * fleet.live)
    cells, in_cell = _cells(fleet, live, per_replica, after_loss)
    replicas = cells * in_cell
    received = live * fleet.stream_kbps / 1e6
    results = live * fleet.fps * fleet.result_bytes * 8 / 1e9
    relayed = ceil(live * fleet.relayed / 100)
    relayed_gbps = 2 * relayed * fleet.stream_kbps / 1e6
    month_s = MONTH_DAYS * fleet.hours * 3600
    results_tb = results / 8 * month_s / 1000
    return FleetPlan(
        streams_per_replica=per_replica,
        limit=limit,
        streams_after_loss=after_loss,
        live_streams=live,
        replicas_for_load=ceil(live / per_replica),
        cells=cells,
        replicas_per_cell=in_cell,
        cameras_per_cell=ceil(fleet.cameras / cells),
        replicas=replicas,
        received_gbps=received,
        received_gbps_per_cell=received / cells,
        received_tb_per_month=received / 8 * month_s / 1000,
        results_gbps=results,
        results_tb_per_month=results_tb,
        relayed_streams=relayed,
        relayed_gbps=relayed_gbps,
        turn_servers=ceil(relayed_gbps * 1000 / (fleet.turn_mbps * NETWORK_SHARE)),
        series=replicas * fleet.series,
        samples_per_s=replicas * fleet.series / fleet.scrape_s,
        replica_cost_per_month=replicas * MONTH_DAYS * 24 * fleet.replica_price,
        egress_cost_per_month=results_tb * 1000 * fleet.egress_price,
    )


def _streams_per_replica(fleet: Fleet, load_percent: float) -> dict[Limit, int]:
    """Return the streams of one replica that each resource allows at a load."""
    share = load_percent / 100
    # Sums such as 0.7 * 100 / 7 must not lose a stream to rounding.
    found: dict[Limit, int] = {
        "model": floor(fleet.replica_fps * share / fleet.fps + 1e-9),
        "network": floor(fleet.replica_mbps * NETWORK_SHARE * 1000 / fleet.stream_kbps + 1e-9),
    }
    if fleet.source == "video":
        found["cores"] = floor(fleet.cores * 1000 * share / (fleet.video_fps * fleet.video_frame_ms) + 1e-9)
        found["sessions"] = fleet.workers * SESSIONS_PER_WORKER
    return found


def _cells(fleet: Fleet, live: int, per_replica: int, after_loss: int) -> tuple[int, int]:
    """Return the number of cells and the replicas of each, a multiple of the zones.

    A cell must hold its share of the live streams at the target with all zones, and at the load after a loss
    with the zones that remain.
    """
    kept = fleet.zones - fleet.lost_zones
    in_zone_most = fleet.cell_replicas // fleet.zones
    most = min(in_zone_most * fleet.zones * per_replica, in_zone_most * kept * after_loss)
    cells = ceil(live / most)
    streams = ceil(live / cells)
    in_zone = max(ceil(streams / (per_replica * fleet.zones)), ceil(streams / (after_loss * kept)))
    return cells, in_zone * fleet.zones
