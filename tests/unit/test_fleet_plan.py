"""The plan of a fleet holds what it promises, and the page about fleets shows what the command prints."""

from __future__ import annotations

import json
import re
import shlex
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.cli.main import main
from streamer.simulation.errors import BadScenario
from streamer.simulation.fleet_plan import Fleet, plan
from tests.helpers.service import ROOT

PAGE = ROOT / "docs" / "operations" / "fleet.md"
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.M | re.S)


@settings(max_examples=200, deadline=None)
@given(
    cameras=st.integers(1, 10**6),
    fps=st.floats(0.1, 30),
    live=st.floats(0.01, 1),
    replica_fps=st.floats(50, 10_000),
    zones=st.integers(1, 5),
    lost=st.integers(0, 2),
    cell_replicas=st.integers(5, 60),
)
def test_every_plan_holds_all_streams_with_and_without_the_lost_zones(
    cameras: int, fps: float, live: float, replica_fps: float, zones: int, lost: int, cell_replicas: int
) -> None:
    fleet = Fleet(
        cameras=cameras,
        replica_fps=replica_fps,
        fps=fps,
        live=live,
        zones=zones,
        lost_zones=min(lost, zones - 1),
        cell_replicas=cell_replicas,
    )
    found = plan(fleet)
    in_cell = ceil(found.live_streams / found.cells)
    assert found.live_streams >= cameras * live
    assert found.cells * found.cameras_per_cell >= cameras
    assert found.replicas == found.cells * found.replicas_per_cell
    assert found.replicas_per_cell <= cell_replicas
    assert found.replicas_per_cell % zones == 0
    assert found.replicas_per_cell * found.streams_per_replica >= in_cell
    left = found.replicas_per_cell // zones * (zones - fleet.lost_zones)
    assert left * found.streams_after_loss >= in_cell
    assert found.streams_per_replica * fps <= replica_fps * 0.7 + 1e-6
    assert found.streams_after_loss * fps <= replica_fps * 0.95 + 1e-6
    # No smaller cell holds them.
    fewer = found.replicas_per_cell - zones
    assert (
        fewer * found.streams_per_replica < in_cell
        or fewer // zones * (zones - fleet.lost_zones) * found.streams_after_loss < in_cell
    )


def test_the_figures_follow_from_the_inputs() -> None:
    found = plan(Fleet(cameras=10_000, replica_fps=1300, zones=1, lost_zones=0, cell_replicas=1000))
    assert (found.streams_per_replica, found.limit) == (182, "model")  # 1300 * 0.7 / 5
    assert (found.replicas, found.cells) == (55, 1)  # 10000 / 182
    assert found.received_gbps == pytest.approx(10_000 * 29e3 * 8 * 5 / 1e9)
    assert found.received_tb_per_month == pytest.approx(10_000 * 29e3 * 5 * 30 * 86400 / 1e12)
    assert found.results_tb_per_month == pytest.approx(10_000 * 600 * 5 * 30 * 86400 / 1e12)
    assert found.series == 27_500
    assert found.samples_per_s == pytest.approx(27_500 / 15)


@pytest.mark.parametrize(
    ("changes", "limit", "streams"),
    [
        ({}, "model", 182),
        ({"video_fps": 25.0}, "cores", 144),  # 16 cores * 1000 ms * 0.7 / (25 * 3.1 ms)
        ({"workers": 1}, "sessions", 64),
        ({"replica_mbps": 100.0}, "network", 70),  # 100 Mbit/s * 0.7 / 1 Mbit/s
    ],
)
def test_the_scarcest_resource_is_the_limit(changes: dict[str, Any], limit: str, streams: int) -> None:
    inputs: dict[str, Any] = {
        "cameras": 100,
        "replica_fps": 1300,
        "source": "video",
        "cores": 16,
        "workers": 8,
    }
    found = plan(Fleet(**inputs | changes))
    assert (found.limit, found.streams_per_replica) == (limit, streams)


def test_a_relayed_video_passes_a_relay_twice() -> None:
    video = Fleet(cameras=7000, replica_fps=1300, source="video", cores=64, workers=8, relayed=50)
    found = plan(video)
    assert found.relayed_streams == 3500
    assert found.relayed_gbps == pytest.approx(7.0)
    assert found.turn_servers == 2  # 7 Gbit/s at 3.5 each


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cameras": 0}, "cameras: expected a number above 0"),
        ({"fps": float("nan")}, "fps: expected a number above 0 to 1e.09; found nan"),
        ({"replica_fps": float("inf")}, "replica-fps: .* found inf"),
        ({"live": 1.5}, "live: expected a number above 0 to 1; found 1.5"),
        ({"lost_zones": 3}, "lost-zones: expected fewer than the 3 zones; found 3"),
        ({"lost_zones": -1}, "lost-zones: expected a number from 0"),
        ({"target": 96.0}, "target-after-loss: expected at least the target, 96; found 95"),
        ({"source": "video"}, "cores: expected a number above 0 for video"),
        ({"relayed": 5.0}, "relayed: expected 0 for JPEGs over WebSocket"),
        (
            {"cell_replicas": 2},
            "cell-replicas: expected at least one replica in each of the 3 zones; found 2",
        ),
        ({"fps": 1000.0}, "less than one camera at 70 percent load; the limit: model"),
        ({"replica_mbps": 1.0}, "the limit: network"),
    ],
)
def test_wrong_and_contradictory_inputs_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadScenario, match=said):
        plan(Fleet(**{"cameras": 10, "replica_fps": 1300.0} | changes))


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(PAGE.read_text())


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    shown = [
        (text, follower)
        for (kind, text), (_, follower) in zip(blocks(), blocks()[1:], strict=False)
        if kind == "sh"
    ]
    assert main(shlex.split(shown[0][0])[1:]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed == [line.split() for line in shown[0][1].splitlines()]
    for text, _ in shown[1:]:
        assert main(shlex.split(text)[1:]) == 0, text


def test_the_table_from_a_laptop_to_a_million_is_computed(capsys: pytest.CaptureFixture[str]) -> None:
    rows = re.findall(
        r"^\| ([\d,]+) \| (\d+) fps \| [^`|]*`([^`]*)` \| (\d+) \| (\d+) \| ([\d.]+) Gbit/s \| ([\d,]+) \|$",
        PAGE.read_text(),
        re.M,
    )
    assert len(rows) == 6
    for cameras, fps, options, replicas, cells, received, series in rows:
        words = ["simulate", "fleet", "--cameras", cameras.replace(",", ""), "--fps", fps, *options.split()]
        assert main([*words, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["plan"]
        assert (found["replicas"], found["cells"]) == (int(replicas), int(cells)), cameras
        assert found["received_gbps"] == pytest.approx(float(received), rel=0.05)
        assert found["series"] == int(series.replace(",", ""))


def test_cameras_find_their_cells_as_the_page_says() -> None:
    space: dict[str, Any] = {}
    exec(next(text for kind, text in blocks() if kind == "python"), space)  # noqa: S102 - our own page
    cells = [f"c{number:02}.vision.example" for number in range(8)]
    cameras = [f"camera-{number}" for number in range(4000)]
    homes = {camera: space["cell_of"](camera, cells) for camera in cameras}
    sizes = [list(homes.values()).count(cell) for cell in cells]
    assert min(sizes) > 400, "each cell gets about 500"
    assert max(sizes) < 600
    more = {camera: space["cell_of"](camera, [*cells, "c08.vision.example"]) for camera in cameras}
    assert {more[camera] for camera in cameras if more[camera] != homes[camera]} == {"c08.vision.example"}
    fewer = {camera: space["cell_of"](camera, cells[1:]) for camera in cameras}
    assert all(fewer[camera] == homes[camera] for camera in cameras if homes[camera] != cells[0])
