"""Tests that episodes and recurring changes survive a restart of the sampling process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from streamer.drift.blocks import Blocks, Signals
from streamer.drift.day import DAY_S
from streamer.drift.episode import Episode, Onset
from streamer.drift.episode_store import CONTINUED_WITHIN_S, StoredGroup, dump, load, parse, save
from streamer.drift.rows import NUMERIC
from tests.helpers.drift_rows import START
from tests.unit.test_drift_api import DriftRun

STEP_S = 600.0
DUSK = {"brightness": 2.0, "noise": 1.1}


def live(episode: Episode, begin_day: int, end_day: int) -> list[int]:
    """Let it get dark from 18 to 20 h on these days; return the days on which that began an episode."""
    begun = []
    for window in range(int(begin_day * DAY_S / STEP_S), int(end_day * DAY_S / STEP_S)):
        at = window * STEP_S
        dark = 18 <= at % DAY_S / 3600 < 20
        columns = DUSK if dark else dict.fromkeys(DUSK, 0.2)
        onset = Onset("sudden", at) if dark else None
        if episode.add_window(
            max(columns.values()), at, calibrated=True, effect=0.3, onset=onset, columns=columns
        ):
            begun.append(int(at // DAY_S))
    return begun


def restored(episode: Episode, away_s: float = 60.0, reference: str = "ab") -> StoredGroup | None:
    text = dump({"gate": StoredGroup(episode, 2, 3)}, ("ab", "cd"), START)
    return parse(text, reference, START + away_s).get("gate")


def test_what_recurs_is_still_known_after_a_restart() -> None:
    episode = Episode()
    assert live(episode, 0, 2) == [0, 1]
    for reference in ("ab", "cd"):
        stored = restored(episode, away_s=3 * DAY_S, reference=reference)
        assert stored is not None
        assert (stored.episodes, stored.samples) == (2, 0)
        assert list(stored.episode.past) == list(episode.past)
        assert live(stored.episode, 2, 4) == []
        assert [past.drift for past in stored.episode.past] == [True, True, False, False]
    assert restored(episode, reference="ef") is None, "with another reference, everything begins anew"
    assert live(Episode(), 2, 4) == [2, 3]


def test_an_episode_that_goes_on_is_the_same_after_a_restart() -> None:
    episode = Episode()
    for window in range(4):
        episode.add_window(2.0, START + window * STEP_S, calibrated=True, effect=0.6, columns=DUSK)
    stored = restored(episode)
    assert stored is not None
    found = stored.episode
    assert (found.on, found.since, found.severity) == (True, episode.since, episode.severity)
    assert stored.samples == 3
    assert not found.add_window(2.0, START + 5 * STEP_S, calibrated=True)
    # After a day without the process nobody knows whether it went on.
    late = restored(episode, away_s=CONTINUED_WITHIN_S + 1)
    assert late is not None
    assert not late.episode.running
    assert late.samples == 0


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"schema": 1}', '{"schema": 1, "references": ["ab"], "at": 0, "groups": {"a": 3}}'],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / ".episodes.json"
    assert load(path, "ab", START) == {}
    path.write_text(text)
    with pytest.raises(ValueError, match=r"\.episodes\.json"):
        load(path, "ab", START)
    path.write_text('{"schema": 99}')
    assert load(path, "ab", START) == {}
    save(path, dump({"gate": StoredGroup(Episode(), 1, 0)}, ("ab",), START))
    assert load(path, "ab", START)["gate"].episodes == 1


def test_infinite_ratios_are_stored_as_numbers() -> None:
    episode = Episode()
    episode.add_window(float("inf"), START, calibrated=True, columns={"noise": float("inf")})
    stored = restored(episode)
    assert stored is not None
    assert stored.episode.columns["noise"] > 1e6


def test_blocks_keep_their_values_when_the_labels_change() -> None:
    width = len(NUMERIC)
    means = np.arange(5.0 * (width + 2)).reshape(5, width + 2)
    blocks = Blocks(7, 300.0, means, np.ones_like(means))
    found = blocks.relabelled(Signals(("dog", "cat")), Signals(("cat", "bird")))
    assert (found.first, found.means.shape) == (7, means.shape)
    assert (found.means[:, :width] == means[:, :width]).all()
    assert (found.means[:, width] == means[:, width + 1]).all()
    assert np.isnan(found.means[:, width + 1]).all()
    assert found.counts.sum() == 5 * (width + 1)


async def test_the_service_continues_its_episodes_after_a_restart(tmp_path: Path) -> None:
    first = DriftRun(tmp_path)
    await first.service.open()
    first.live("gate")
    assert "result" in await first.update()
    first.live("gate", hours=1, seed=2, by=6.0)
    before = first.status()["groups"]["gate"]
    assert before["status"] == "drift"
    await first.close()
    assert json.loads((tmp_path / "samples" / ".drift" / ".episodes.json").read_bytes())["groups"]["gate"]
    second = DriftRun(tmp_path)
    await second.service.open()
    try:
        found = second.status()["groups"]["gate"]
        assert {name: found[name] for name in ("status", "since", "severity", "episodes")} == {
            name: before[name] for name in ("status", "since", "severity", "episodes")
        }
        # A new reference ends the episode for good.
        assert "result" in await second.update(force=True)
        assert second.status()["groups"]["gate"]["status"] == "insufficient_data"
    finally:
        await second.close()
    third = DriftRun(tmp_path)
    await third.service.open()
    try:
        assert third.status()["groups"]["gate"]["status"] == "insufficient_data"
    finally:
        await third.close()
