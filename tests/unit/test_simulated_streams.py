"""Simulated streams lose no frame, share the device fairly, and agree with what can be computed by hand."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamer.cli.main import main
from streamer.simulation.errors import BadScenario
from streamer.simulation.streams.capacity import Limits, find_most, usual_seconds
from streamer.simulation.streams.report import Report, jain
from streamer.simulation.streams.run_times import RunTimes
from streamer.simulation.streams.scenario import Cameras, Machine, Scenario, ServiceSettings, parse_mix
from streamer.simulation.streams.simulation import simulate
from tests.helpers.documented import blocks
from tests.helpers.service import ROOT

#: Times without chance. A frame takes 12.3 ms of a core, so two cores run 162.6 frames per second.
MACHINE = Machine(RunTimes({1: 10.0}), 2, decode_s=1e-3, frame_s=1e-3, post_s=3e-4, run_jitter=0.0)
CAPACITY_FPS = 2 / 12.3e-3
#: A GPU without any other cost: 8 frames in 16 ms.
GPU = Machine(
    RunTimes({1: 8.0, 2: 9.0, 4: 11.0, 8: 16.0}),
    8,
    accelerator=True,
    decode_s=1e-5,
    frame_s=1e-5,
    post_s=1e-5,
)
REGULAR = Cameras(jitter_s=0.0, latency_jitter_s=0.0, ramp_s=2.0)
EVERYTHING_ADMITTED = ServiceSettings(stream_min_fps=0.0)


def run(mix: str, machine: Machine = MACHINE, cameras: Cameras = REGULAR, **changes: Any) -> Report:
    settings = changes.pop("settings", EVERYTHING_ADMITTED)
    scenario = Scenario(parse_mix(mix), machine, cameras, settings, settle_s=4.0, seconds=5.0)
    return simulate(replace(scenario, **changes))


def outcome(report: Report) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(report).items() if name != "real_s"}


def test_the_age_of_a_lonely_frame_is_the_sum_of_its_stages() -> None:
    report = run("1x5")
    # Network, receiving, decoding, submitting, reading, run, post-processing, sending, network.
    age_ms = 5 + 0.4 + 1 + 0.2 + 0.1 + 10 + 0.2 + 0.4 + 5
    assert report.age_p50 == report.age_p99 == pytest.approx(age_ms, abs=1e-3)
    assert report.delivered_fps == report.captured_fps == pytest.approx(5.0)
    assert report.drops == {}
    assert report.utilisation.cores == pytest.approx(5 * 12.3e-3 / 2, rel=0.05)


def test_threads_that_sleep_are_woken_up_and_busy_ones_are_not() -> None:
    """A lonely frame wakes the event loop three times, a decoder, the reading and the inference thread."""
    slow_to_wake = replace(MACHINE, wake_up_s=1e-3)
    assert run("1x5", slow_to_wake).age_p50 == pytest.approx(22.3 + 6 * 1.0, abs=1e-3)
    with_client = replace(slow_to_wake, client_s=1e-3)
    assert run("1x5", with_client).age_p50 == pytest.approx(22.3 + 1.0 + 7 * 1.0, abs=1e-3)
    full = run("40x10", slow_to_wake)
    assert full.delivered_fps == pytest.approx(CAPACITY_FPS, rel=0.05)


def test_cores_that_others_use_are_missing_at_saturation_only() -> None:
    machine = replace(MACHINE, idle_cores=0.2)
    assert run("40x10", machine).delivered_fps == pytest.approx(0.9 * CAPACITY_FPS, rel=0.03)
    assert run("1x5", machine).age_p50 == pytest.approx(22.3, abs=1e-3)


def test_a_single_frame_may_run_on_all_cores() -> None:
    machine = replace(MACHINE, run_times=RunTimes({1: 10.0}, all_cores_ms=6.0))
    report = run("1x5", machine)
    assert report.age_p50 == pytest.approx(22.3 - 4.0, abs=1e-3)
    assert report.age_p99 == pytest.approx(22.3, abs=0.1)  # now and then a run on one core is compared


def test_saturation_gives_the_capacity_of_the_cores() -> None:
    report = run("40x10")
    assert report.delivered_fps == pytest.approx(CAPACITY_FPS, rel=0.03)
    assert report.utilisation.cores == pytest.approx(1.0, abs=0.02)
    slower = run("40x10", replace(MACHINE, core_efficiency=0.8))
    assert slower.delivered_fps == pytest.approx(0.8 * CAPACITY_FPS, rel=0.03)


def test_saturation_gives_the_capacity_of_the_device_in_full_batches() -> None:
    report = run("100x10", GPU)
    assert report.delivered_fps == pytest.approx(500.0, rel=0.06)
    assert report.batch > 7
    assert report.utilisation.device > 0.93
    assert run("150x10", replace(GPU, gain=1.5)).delivered_fps == pytest.approx(750.0, rel=0.06)


def test_half_the_capacity_loses_nothing() -> None:
    report = run("8x10", cameras=replace(REGULAR, jitter_s=0.04))
    assert (report.drop_share, report.granted) == (0.0, 0)
    assert report.age_p95 is not None
    assert report.age_p95 < 60


@pytest.mark.parametrize(
    ("machine", "cameras", "settings"),
    [
        (MACHINE, replace(REGULAR, jitter_s=0.03, jitter="normal"), EVERYTHING_ADMITTED),
        (MACHINE, replace(REGULAR, stall_every_s=2.0, stall_s=0.7, posts_per_s=40.0), EVERYTHING_ADMITTED),
        (replace(MACHINE, workers=3, run_jitter=0.5), REGULAR, ServiceSettings(stream_max_age_s=0.05)),
        (GPU, replace(REGULAR, clients=3), EVERYTHING_ADMITTED),
    ],
)
def test_each_captured_frame_has_one_outcome(
    machine: Machine, cameras: Cameras, settings: ServiceSettings
) -> None:
    report = run("30x10,10x30", machine, cameras, settings=settings)
    assert report.drop_share > 0
    assert (report.unfinished, report.in_flight) == (0, 0)
    assert sum(report.drops.values()) == pytest.approx(report.drop_share)


def test_equal_streams_get_equal_rates_and_small_ones_what_they_ask_for() -> None:
    report = run("20x5,20x30", seconds=10.0)
    small, large = report.fairness
    assert (small.fps, large.fps) == (5.0, 30.0)
    assert small.jain > 0.98
    assert large.jain > 0.97
    # 162.6 frames per second for 40 streams are 4.1 for each; no stream gets what another one lacks.
    assert small.median_fps == pytest.approx(large.median_fps, rel=0.25)
    few = run("4x5,20x30", seconds=10.0).fairness[0]
    assert few.least_fps > 4.0


@pytest.mark.parametrize("mix", ["24x10", "20x5,20x30"])
def test_grants_are_stable_while_clients_obey_and_count_the_time_of_decoding(mix: str) -> None:
    """A frame takes 5 ms of a core besides its run of 10 ms and everything else, 1.3 ms."""
    machine = replace(MACHINE, decode_s=5e-3)
    report = run(mix, machine, settle_s=8.0, seconds=12.0)
    assert report.granted
    assert report.grant_changes < 1, "they ended and began anew, six times in this time with 24 streams"
    streams = parse_mix(mix).streams
    assert report.lowest_grant_fps is not None
    promised_fps = report.lowest_grant_fps * streams
    assert promised_fps < 1.15 * 2 / 16.3e-3, "without the decoding, 200 frames per second were promised"


def test_the_same_seed_gives_the_same_outcome() -> None:
    cameras = replace(REGULAR, jitter_s=0.02, stall_every_s=3.0, stall_s=0.5, posts_per_s=10.0)
    first, again, other = (
        outcome(run("20x10", cameras=cameras, seed=seed, machine=replace(MACHINE, run_jitter=0.2)))
        for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other


def test_streams_that_would_get_too_little_are_refused() -> None:
    report = run(
        "100x10", settings=ServiceSettings(stream_min_fps=5.0), cameras=replace(REGULAR, ramp_s=10.0)
    )
    assert 0 < report.refused < 100
    assert report.refusals >= report.refused
    assert report.fairness[0].streams == 100 - report.refused
    assert report.fairness[0].median_fps > 3.0


def test_posts_are_served_beside_streams() -> None:
    report = run("4x10", cameras=replace(REGULAR, posts_per_s=20.0))
    assert report.posts is not None
    assert report.posts["refused"] == {}
    assert report.posts["served_per_s"] == pytest.approx(report.posts["sent_per_s"])
    assert 20 < report.posts["p50"] < 100
    overloaded = run("4x10", cameras=replace(REGULAR, posts_per_s=300.0)).posts
    assert overloaded is not None
    assert set(overloaded["refused"]) <= {"OverLimit", "Saturated"}
    assert sum(overloaded["refused"].values()) > 0


def test_the_largest_number_of_streams_within_limits_is_found() -> None:
    scenario = Scenario(parse_mix("1x10"), MACHINE, REGULAR, EVERYTHING_ADMITTED, settle_s=3.0, seconds=4.0)
    found = find_most(scenario, Limits(0.05, 250.0), fixed_seconds=True)
    assert CAPACITY_FPS / 10 * 0.9 < found.streams <= CAPACITY_FPS / 10 * 1.06
    with pytest.raises(BadScenario, match="even 1x10 exceeds them"):
        find_most(scenario, Limits(0.05, 10.0))


def test_many_frames_are_measured_for_a_shorter_time() -> None:
    assert usual_seconds(parse_mix("16x10")) == 20.0
    assert usual_seconds(parse_mix("10000x10")) == 5.0


def test_jains_index() -> None:
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain([0.0, 0.0]) == 1.0


@pytest.mark.parametrize("text", ["", "10", "x5", "0x5", "3x0", "3x5,", "3xnan", "1.5x5", "200000x1"])
def test_a_mix_that_cannot_be_simulated_is_refused(text: str) -> None:
    with pytest.raises(BadScenario, match="streams: expected"):
        parse_mix(text)


# -- the command ---------------------------------------------------------------------------------------

COMMAND = ["simulate", "streams", "--quiet", "--cores", "2", "--seconds", "2", "--run-times", "1:10"]


def test_the_command_prints_a_row_for_each_mix(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "2x10", "40x10", "--min-fps", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "no GPU, 2 cores, 1 worker, runs of 1: 10 ms"
    assert lines[1].split()[:3] == ["streams", "frames/s", "results/s"]
    assert [line.split()[0] for line in lines[2:4]] == ["2x10", "40x10"]
    assert any(line.startswith("40x10: dropped: ") for line in lines)
    assert "times real time" in lines[-1]


def test_the_command_finds_the_number_of_streams(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "1x10", "--find", "--json", "--decode-ms", "1", "--frame-cost-ms", "1"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["simulations"]
    assert found["mix"] == f"{found['streams']}x10"
    assert 13 <= found["streams"] <= 17


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["2x10", "--run-times", "4:10"], "run times: the smallest batch is 4"),
        (["2x10", "--run-times", "nowhere.json"], "nowhere.json cannot be read"),
        (["ten"], "streams: expected COUNTxFPS"),
        (["9x10", "--find", "--max-age-ms", "1"], "limits: even 9x10 exceeds them"),
    ],
)
def test_wrong_input_is_explained(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main([*COMMAND, *words]) == 2
    assert said in capsys.readouterr().err


def test_a_report_decides_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "times.json"
    timings = [{"batch": 1, "one_core_ms": 4.0}, {"batch": 2, "one_core_ms": 5.0}]
    path.write_text(json.dumps({"device": "cuda", "cores": 6, "batch": None, "timings": timings}))
    command = ["simulate", "streams", "--quiet", "--seconds", "1", "--run-times", str(path), "2x10"]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("a GPU and 6 cores, 1 worker, runs of 1: 4 ms, 2: 5 ms\n")


def test_the_documented_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "operations" / "scaling.md"
    commands = [command for block in blocks(page, "sh") for command in block.commands()]
    # The first one makes a report; tests/integration/test_models_check.py reads such a report.
    report, *simulations = [command for command in commands if "best" in command or "simulate" in command]
    assert report == "streamer models check best.onnx --json > best-times.json"
    assert len(simulations) == 3
    monkeypatch.chdir(tmp_path)
    Path("best-times.json").write_text(
        json.dumps({"timings": [{"batch": 1, "one_core_ms": 5.0}], "cores": 2})
    )
    for command in simulations:
        assert main([*command.split()[1:], "--quiet", "--seconds", "0.5"]) == 0, command
