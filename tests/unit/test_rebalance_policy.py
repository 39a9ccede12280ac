"""Streams move only from the fullest replica, only where they help and last, and never back and forth."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from streamer.replicas.load_report import LoadReport
from streamer.replicas.rebalance_policy import (
    HOLD_S,
    LASTING_S,
    ROOM_LOAD,
    SETTLE_S,
    STALE_S,
    START_LOAD,
    STAY_S,
    STOP_LOAD,
    MovableStream,
    Move,
    PeerReport,
    RebalancePolicy,
)
from tests.unit.simulated_release import ROUND_S, Release

FULL = LoadReport(1.2, 12, 100.0, available=True)
EMPTY = LoadReport(0.0, 0, 100.0, available=True)
#: A stream that has been open since the beginning.
OLD = MovableStream("old", 0.1, opened_at=0.0)


def streams(count: int = 12) -> list[MovableStream]:
    return [MovableStream(f"s{number}", 0.1, opened_at=float(number)) for number in range(count)]


def ask(
    own: LoadReport = FULL,
    peers: dict[str, LoadReport] | None = None,
    movable: list[MovableStream] | None = None,
    *,
    report_age_s: float = 0.0,
    seconds: float = 60.0,
    per_minute: float = 1.0,
) -> list[Move]:
    """Ask a policy every ten seconds while nothing changes but what it moves, and return all moves."""
    policy = RebalancePolicy(per_minute, choose=random.Random(1))
    known = {"b": EMPTY} if peers is None else peers
    left = streams() if movable is None else list(movable)
    moves: list[Move] = []
    now = 1000.0
    while now <= 1000.0 + seconds:
        reports = {name: PeerReport(load, now - report_age_s) for name, load in known.items()}
        made = policy.decide(now, own, reports, left)
        moves += made
        left = [each for each in left if each.key not in {move.key for move in made}]
        now += 10.0
    return moves


def test_the_newest_streams_of_a_full_replica_move() -> None:
    moves = ask()
    assert moves
    assert {move.to for move in moves} == {"b"}
    assert [move.key for move in moves] == [f"s{11 - index}" for index in range(len(moves))]


@pytest.mark.parametrize(
    "peers",
    [
        {},
        {"b": replace(EMPTY, available=False)},
        {"b": replace(EMPTY, capacity_fps=0.0)},
        {"b": replace(EMPTY, load=ROOM_LOAD)},
        {"b": EMPTY, "c": replace(FULL, load=1.5)},
        {"b": replace(EMPTY, load=1.1), "c": replace(EMPTY, load=1.15)},
    ],
    ids=["alone", "draining", "no model", "no room", "another is fuller", "all are full"],
)
def test_nothing_moves_where_it_does_not_help(peers: dict[str, LoadReport]) -> None:
    assert ask(peers=peers) == []


def test_nothing_moves_from_a_replica_within_its_target() -> None:
    assert ask(own=replace(FULL, load=START_LOAD - 0.01)) == []
    assert ask(own=replace(FULL, load=START_LOAD + 0.01))


def test_a_fuller_replica_that_cannot_move_streams_keeps_no_other_from_it() -> None:
    fuller = replace(FULL, load=1.5, can_move=False)
    assert ask(peers={"b": EMPTY, "c": fuller})


def test_nothing_moves_on_old_reports() -> None:
    assert ask(report_age_s=STALE_S + 0.1) == []
    assert ask(report_age_s=STALE_S - 0.1)


def test_a_short_overload_moves_nothing() -> None:
    assert ask(seconds=HOLD_S - 5.1) == []


def test_room_must_last() -> None:
    policy = RebalancePolicy(1.0)
    moves: list[Move] = []
    for step in range(12):
        room = EMPTY if step % 2 else replace(EMPTY, load=ROOM_LOAD)
        moves += policy.decide(10.0 * step, FULL, {"b": PeerReport(room, 10.0 * step)}, streams())
    assert moves == [], f"it never has room for {LASTING_S} s"


def test_streams_that_moved_recently_or_are_idle_stay() -> None:
    recent = replace(OLD, key="recent", moved_at=1000.0 - STAY_S / 2)
    idle = replace(OLD, key="idle", load=0.0)
    settled = replace(OLD, key="settled", moved_at=1000.0 - STAY_S)
    assert ask(movable=[recent, idle]) == []
    assert [move.key for move in ask(movable=[recent, idle, settled])] == ["settled"]


def test_a_small_share_moves_in_a_minute() -> None:
    own = replace(FULL, load=2.0)
    many = [replace(each, load=0.01) for each in streams(100)]
    moved = len(ask(own, movable=many, per_minute=0.05, seconds=240))
    assert 10 <= moved <= 5 * 4 + 1
    assert len(ask(own, movable=many[:4], per_minute=0.05, seconds=240)) <= 5, "few streams: one a minute"


def test_a_receiver_gets_no_more_than_it_can_take() -> None:
    moves = ask(replace(FULL, load=5.0), {"b": replace(EMPTY, load=0.65)}, seconds=SETTLE_S)
    assert len(moves) == 1, "its load has not been reported with the stream yet"
    slow = {"b": replace(EMPTY, load=0.65, capacity_fps=50.0)}
    assert ask(replace(FULL, load=5.0), slow) == [], "there, a stream takes twice the share"


def test_a_receiver_that_claims_a_larger_device_is_doubted() -> None:
    assert ask(peers={"b": replace(EMPTY, load=0.45, capacity_fps=200.0)}) == []
    assert ask(peers={"b": replace(EMPTY, load=0.45)})


def test_a_receiver_that_refused_must_show_room_again() -> None:
    policy = RebalancePolicy(1.0)
    own = replace(FULL, load=3.0)
    moves: list[float] = []
    for step in range(20):
        now = 5.0 * step
        if policy.decide(now, own, {"b": PeerReport(EMPTY, now)}, streams()):
            moves.append(now)
            policy.refused("b")
    assert len(moves) >= 2
    assert min(later - earlier for earlier, later in itertools.pairwise(moves)) >= LASTING_S


def test_a_stream_that_finds_no_room_is_placed_where_there_is_some() -> None:
    policy = RebalancePolicy(1.0, choose=random.Random(1))
    reports = {
        "b": PeerReport(replace(EMPTY, load=ROOM_LOAD - 0.05), 0.0),
        "c": PeerReport(replace(EMPTY, available=False), 0.0),
    }
    placed = [policy.place(0.0, FULL, reports, 0.02) for _ in range(5)]
    assert placed == ["b", "b", None, None, None], "no more than it can take"
    assert not policy.has_room(STALE_S + 1, FULL, reports)


# -- simulated releases ---------------------------------------------------------------------------------


def grown(
    seed: int, old: int, new: int, *, each: int = 12, load: float = 1.05, processes: int = 1
) -> Release:
    """Return a release of full replicas to which new ones were added a minute later."""
    release = Release({f"old{n}": 100.0 for n in range(old)}, seed, processes=processes)
    for number in range(old):
        for _ in range(each):
            release.open(f"old{number}", load * 100 / each * release.random.uniform(0.9, 1.1))
    release.run(60)
    for number in range(new):
        release.start(f"new{number}", 100.0)
    return release


def most_at_once(release: Release, receiver: str, window_s: float) -> int:
    """Return the largest number of streams that a replica received in so many seconds."""
    times = [at for at, _, to in release.moves if to == receiver]
    return max((sum(at <= other < at + window_s for other in times) for at in times), default=0)


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize(("old", "new", "each"), [(1, 1, 12), (3, 1, 12), (2, 2, 40), (9, 1, 20)])
def test_a_grown_release_is_balanced_gently(old: int, new: int, each: int, processes: int) -> None:
    for seed in range(6 if old < 9 else 2):
        release = grown(seed, old, new, each=each, processes=processes)
        begun = release.now
        release.run(900)
        moves = release.moves
        loads = [release.load(name) for name in release.capacities]
        context = f"seed {seed}: {loads}"
        # The mean load, or what the new replicas may be given at most, bounds what is possible.
        possible = max(sum(loads) / len(loads), (old * 1.05 - new * ROOM_LOAD) / old)
        assert max(loads) < max(STOP_LOAD, possible) + 0.22, context
        assert max(release.load(f"new{number}") for number in range(new)) < 1.0, context
        assert min(at for at, *_ in moves) >= begun + min(HOLD_S, LASTING_S), context
        # A replica that is relieved early may have room for a stream of one that is not.
        assert Counter(to[:3] for *_, to in moves)["old"] <= len(moves) // 10, context
        assert all(len(stream.moves) <= 1 for stream in release.streams), context
        # A fifth of the streams of each sender per minute, or one from each process.
        senders_per_round = old * max(1.0, 0.2 * each * ROUND_S * 1.2 / 60)
        assert most_at_once(release, "new0", 1.0) <= max(4, senders_per_round), context


def test_streams_that_come_and_go_are_not_moved_back_and_forth() -> None:
    for seed in range(5):
        release = grown(seed, 3, 1)
        names = list(release.capacities)
        for _ in range(120):
            release.run(30)
            if release.random.random() < 0.5 and len(release.streams) > 20:
                release.streams.remove(release.random.choice([s for s in release.streams if s.replica]))
            else:
                release.open(release.random.choice(names), 100 / 12)
        for stream in release.streams:
            times = [at for at, *_ in stream.moves]
            assert all(b - a >= STAY_S for a, b in itertools.pairwise(times)), f"seed {seed}"
        per_hour = len(release.moves) / (release.now / 3600)
        assert per_hour < 90, f"seed {seed}: {per_hour} moves an hour for some 60 changes"


def test_a_balanced_release_moves_nothing() -> None:
    for seed in range(3):
        release = grown(seed, 4, 0, load=0.95)
        release.run(3600)
        assert release.moves == []


def drain(release: Release) -> None:
    release.unavailable.add("new0")


def fall_silent(release: Release) -> None:
    release.silent.add("new0")


def claim_to_be_full(release: Release) -> None:
    release.lies["new0"] = 1e9


@pytest.mark.parametrize("fault", [drain, fall_silent, claim_to_be_full])
def test_a_replica_that_cannot_take_streams_gets_none(fault: Callable[[Release], None]) -> None:
    release = grown(1, 2, 1)
    fault(release)
    release.run(600)
    assert release.moves == []


def test_a_replica_that_claims_to_be_empty_gets_no_more_than_a_small_share_per_minute() -> None:
    release = grown(1, 1, 1)
    release.lies["new0"] = 0.0
    release.run(120)
    assert len(release.moves) <= 2 * 0.2 * 12 + 1
    release.run(3600)
    assert release.load("old0") >= STOP_LOAD - 0.12, "the sender keeps what it can serve"
