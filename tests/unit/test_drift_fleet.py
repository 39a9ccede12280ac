"""The verdict about all streams, and periods of time. Pure."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from streamer.datasets.sample import BadRequest
from streamer.drift.severity import Severity
from streamer.drift_evaluation.fleet_result import FleetResult, least_unlikely
from streamer.drift_evaluation.period import Period, parse_period
from streamer.drift_evaluation.stored_rows import ReplicaRows
from streamer.drift_evaluation.stream_result import (
    FoundEpisode,
    MovedColumn,
    StreamResult,
    Verdict,
    WindowPoint,
)

DAY_S = 86_400.0
PERIOD = Period(0.0, DAY_S)


def stream(
    name: str, since: float | None = None, severity: Severity = "moderate", *, judged: bool = True
) -> StreamResult:
    verdict = Verdict.NONE if since is None else Verdict.DRIFT
    found = StreamResult(name, verdict if judged else Verdict.CANNOT_JUDGE)
    found.windows = [WindowPoint(600.0 * n, "scored", 0.5, False, False, False) for n in range(1, 145)]
    found.replicas = Counter({"a-1": 100})
    if since is not None:
        moved = [MovedColumn("brightness", 2.0, "window", (100.0, 60.0))]
        found.episodes = [FoundEpisode(since, DAY_S, True, severity, 2.0, None, None, moved, "builtin")]
    return found


def fleet(streams: list[StreamResult], min_streams: int | None = None) -> FleetResult:
    return FleetResult("p", PERIOD, "r", streams, {}, min_streams)


@pytest.mark.parametrize(
    ("expected", "needed"), [(0.0, 1), (0.03, 1), (0.06, 2), (0.3, 2), (3.0, 7), (30.0, 40), (900.0, 950)]
)
def test_more_streams_than_chance_explains_are_drift(expected: float, needed: int) -> None:
    assert least_unlikely(expected) == needed
    if expected < 100:
        terms = [math.exp(-expected) * expected**k / math.factorial(k) for k in range(needed)]
        assert 1 - sum(terms) <= 0.05
        assert needed == 1 or 1 - sum(terms[:-1]) > 0.05


def test_one_of_many_streams_is_chance_and_a_severe_one_is_not() -> None:
    quiet = [stream(f"s{number}") for number in range(19)]
    one = fleet([*quiet, stream("x", 5000.0)])
    assert (one.verdict, one.needed) == (Verdict.NONE, 3)
    assert one.summary == "1 of 20 streams has drifted. Chance explains up to 2 in 20.0 stream-days."
    assert fleet([*quiet, stream("x", 5000.0, "severe")]).verdict is Verdict.DRIFT
    assert fleet([*quiet, stream("x", 5000.0)], 1).verdict is Verdict.DRIFT
    assert fleet([*quiet, stream("x", 5000.0, "severe")], 2).verdict is Verdict.NONE
    assert fleet([stream("x", 5000.0)]).verdict is Verdict.DRIFT, "the only stream"
    three = [stream(name, 5000.0) for name in "xyz"]
    assert fleet([*quiet, *three]).verdict is Verdict.DRIFT


def test_too_few_judged_streams_are_no_verdict() -> None:
    unknown = [stream(f"u{number}", judged=False) for number in range(3)]
    assert fleet([stream("a"), *unknown]).verdict is Verdict.CANNOT_JUDGE
    assert fleet([stream("a"), stream("b"), stream("c"), *unknown]).verdict is Verdict.NONE
    assert fleet(unknown).summary == "3 streams cannot be judged."
    assert fleet([]).verdict is Verdict.CANNOT_JUDGE


def test_streams_that_begin_together_have_one_cause() -> None:
    streams = [stream("a", 3000.0), stream("b", 3600.0), stream("c", 6000.0), stream("d", 20_000.0)]
    (found,) = fleet(streams).together()
    assert (found.begin, found.end, found.streams) == (3000.0, 6000.0, ("a", "b", "c"))
    assert (found.replicas, found.columns) == (("a-1",), ("brightness",))
    assert not fleet(streams[:2]).together()


def test_a_replica_is_missing_when_its_rows_end_before_the_period() -> None:
    result = fleet([stream(name) for name in ("moved", "lost", "late")])
    ended = DAY_S - 3600
    result.streams[0].spans = {"a-1": (ended, DAY_S), "b-2": (0, ended)}
    result.streams[1].spans = {"a-1": (0, 1800), "b-2": (1800, ended)}
    result.replicas = {
        "a-1": ReplicaRows(0, DAY_S, 48, {"moved", "lost"}),
        "b-2": ReplicaRows(0, ended, 46, {"moved", "lost"}),
        "c-3": ReplicaRows(0, DAY_S - 1800, 47, {"late"}),
    }
    (text,) = result.missing()
    assert text.startswith("b-2: its last rows are of ")
    assert text.endswith(" and no other replica has gone on with lost")


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_periods_are_lengths_or_local_times(berlin: None) -> None:
    now = 1_800_230_400.0  # 2027-01-18T00:00Z
    assert parse_period("24h", "--period", now) == Period(now - DAY_S, now)
    assert parse_period("2w", "--period", now) == Period(now - 14 * DAY_S, now)
    day = parse_period("2027-01-18..2027-01-18", "--period", 0)
    assert day == Period(now - 3600, now + 23 * 3600)
    assert parse_period("2027-01-18T01:00..2027-01-18T02:00Z", "--period", 0) == Period(now, now + 7200)
    assert parse_period("2027-03-28..2027-03-28", "--period", 0).hours == 23, "the day that loses an hour"
    assert day.days() == ["2027-01-17", "2027-01-18"], "days of the store are UTC"
    assert str(day) == "2027-01-18 00:00 to 2027-01-19 00:00"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yesterday", "--period is 'yesterday'; expected a length such as 24h"),
        ("2027-01-18", "expected a length"),
        ("2027-01-18..", "expected a length"),
        ("2027-01-18..2027-01-17", "which is 0 hours; allowed is more than 0, at most 2208"),
        ("100d", "which is 2400 hours"),
        ("0h", "which is 0 hours"),
    ],
)
def test_other_periods_are_refused_by_name(text: str, expected: str) -> None:
    with pytest.raises(BadRequest, match=expected):
        parse_period(text, "--period", 1_800_230_400.0)
