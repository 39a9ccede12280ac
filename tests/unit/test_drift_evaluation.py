"""Evaluating stored rows: replicas are joined, repetitions count once, and what cannot be judged is named."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from streamer.cli.main import main
from streamer.config.settings import Settings
from streamer.datasets.sample import BadRequest
from streamer.datasets.source import FolderSource
from streamer.drift.learned_reference import LearnedReference, publish
from streamer.drift.monitor import Check, DriftConfig, Monitor
from streamer.drift.reference import Reference, learn
from streamer.drift.rows import Row
from streamer.drift_evaluation import evaluation as module
from streamer.drift_evaluation.evaluation import EvaluationOptions, evaluate
from streamer.drift_evaluation.fleet_result import FleetResult
from streamer.drift_evaluation.report_page import report_text
from streamer.drift_evaluation.stream_result import StreamResult, Verdict
from tests.helpers.stored_rows import HOUR, MIDNIGHT, between, camera, changed, files_of, store

#: A day of reference, and eight hours of the next day.
DAY = MIDNIGHT + 24 * HOUR
END = DAY + 8 * HOUR
BLURRED_FROM = DAY + 3 * HOUR
REFERENCE, PERIOD = "2027-01-18T00:00Z..2027-01-19T00:00Z", "2027-01-19T00:00Z..2027-01-19T08:00Z"
SETTINGS = Settings(_env_file=None, drift_sample_interval_s=15)


@functools.cache
def gate() -> tuple[Row, ...]:
    """Return the rows of a camera that loses its focus in the period."""
    return tuple(camera("gate", 32, blurred_from=BLURRED_FROM))


@functools.cache
def yard() -> tuple[Row, ...]:
    """Return the rows of a camera that stays as it is."""
    return tuple(camera("yard", 32, seed=2))


@functools.cache
def whole_store() -> dict[str, bytes]:
    """Return the files of two replicas; `gate` moves from one to the other before its lens changes."""
    moved = DAY + 1.25 * HOUR
    first = [*between(gate(), 0, moved), *between(yard(), 0, DAY)]
    second = [*between(gate(), moved, END), *between(yard(), DAY, END)]
    return files_of(first, "a-1") | files_of(second, "b-2")


def run(folder: Path, **changes: Any) -> FleetResult:
    """Evaluate a folder with the builtin engine."""
    options: dict[str, Any] = {
        "period": PERIOD,
        "reference": REFERENCE,
        "evidently": False,
        "reports": False,
    } | changes
    shown: list[float] = []

    def progress(text: str, share: float | None = None) -> None:
        assert text
        shown.append(share or 0.0)

    result = evaluate(FolderSource(folder), "place", SETTINGS, EvaluationOptions(**options), progress).result
    assert shown == sorted(shown)
    return result


def stream_of(result: FleetResult, name: str) -> StreamResult:
    return next(stream for stream in result.streams if stream.stream == name)


def ratios(stream: StreamResult) -> list[tuple[float, str, float, bool]]:
    return [(each.end, each.outcome, round(each.ratio, 9), each.drift) for each in stream.windows]


def test_the_stream_of_two_replicas_that_changes_is_found(tmp_path: Path) -> None:
    store(tmp_path, whole_store())
    result = run(tmp_path)
    found = stream_of(result, "gate")
    assert (result.verdict, found.verdict) == (Verdict.DRIFT, Verdict.DRIFT)
    assert stream_of(result, "yard").verdict is Verdict.NONE
    (episode,) = found.episodes
    assert BLURRED_FROM < episode.since <= BLURRED_FROM + HOUR
    assert episode.goes_on
    assert episode.moved[0].name == "log_sharpness"
    assert (found.rows, set(found.replicas)) == (8 * 240, {"a-1", "b-2"})
    assert not result.missing()
    assert not found.gaps


def test_the_service_and_the_evaluation_judge_the_same(tmp_path: Path) -> None:
    store(tmp_path, whole_store())
    found = ratios(stream_of(run(tmp_path, streams=frozenset({"gate"})), "gate"))
    config = DriftConfig.of(SETTINGS)
    # Stored numbers have five digits, so the service is given the stored ones.
    stored = [row for each in _read(whole_store(), "gate") for row in each]
    monitor = Monitor(config)
    learned, _ = learn(between(stored, 0, DAY), config.window_s, config.alpha)
    monitor.set_reference(Reference({"gate": learned}, "", ""))
    for row in between(stored, DAY - 7 * HOUR, DAY):
        monitor.restore(row)
    monitor.next_check = DAY + config.step_s
    judged: list[tuple[float, str, float, bool]] = []

    def settle(checks: Sequence[Check]) -> None:
        for check in checks:
            monitor.settle(check)
            on = monitor.groups["gate"].episode.on
            judged.append((check.window.end, check.outcome, round(check.ratio, 9), on))

    for row in between(stored, DAY, END):
        settle(monitor.add(row))
    settle(monitor.advance(END))
    assert found == judged


def _read(files: Mapping[str, bytes], stream: str) -> list[Sequence[Row]]:
    from streamer.drift.row_file import decode  # noqa: PLC0415 - used here alone

    keys = sorted(key for key in files if f"stream={stream}/" in key)
    return [decode(files[key], key).rows for key in keys]


def test_rows_that_are_stored_twice_count_once(tmp_path: Path) -> None:
    store(tmp_path / "once", whole_store())
    store(tmp_path / "twice", whole_store())
    # A replica that was stopped has stored a part of a half hour, and later all of it.
    store(tmp_path / "twice", files_of(between(gate(), DAY + 2 * HOUR, DAY + 2 * HOUR + 700), "b-2"))
    once, twice = (
        stream_of(run(tmp_path / name, streams=frozenset({"gate"})), "gate") for name in ("once", "twice")
    )
    assert (once.repeated, twice.repeated) == (0, 47)
    assert ratios(once) == ratios(twice)
    assert once.replicas == twice.replicas


def test_other_models_features_and_damaged_files_are_named(tmp_path: Path) -> None:
    files = dict(whole_store())
    keys = [key for key in files if "stream=yard" in key and "dt=2027-01-19" in key]
    files |= {key: changed(files[key], models=["v1:cd"]) for key in keys[:14]}
    files |= {keys[14]: changed(files[keys[14]], feature_version=2), keys[15]: b"damaged"}
    store(tmp_path, files)
    found = run(tmp_path, streams=frozenset({"yard"}))
    yard_result = stream_of(found, "yard")
    assert found.verdict is yard_result.verdict is Verdict.CANNOT_JUDGE
    assert "its rows are of model v1:cd, the reference is of model v1:ab" in yard_result.reason
    assert found.left_out == 2
    assert "field `feature_version` is 2; this release measures 1" in found.file_notes[0]
    assert "not a file of drift rows" in found.file_notes[1]


def test_gaps_missing_replicas_and_shared_names_are_named(tmp_path: Path) -> None:
    files = files_of(between(gate(), 0, DAY + 3 * HOUR), "a-1")
    other = [*between(gate(), DAY, DAY + 2 * HOUR), *between(yard(), 0, DAY + HOUR)]
    files |= files_of([*other, *between(yard(), DAY + 4 * HOUR, END)], "b-2")
    store(tmp_path, files)
    result = run(tmp_path)
    assert stream_of(result, "yard").gaps == [(DAY + HOUR, DAY + 4 * HOUR)]
    assert stream_of(result, "gate").gaps == [(DAY + 3 * HOUR, END)]
    (missing,) = result.missing()
    assert missing.startswith("a-1: its last rows are of ")
    assert "gate" in missing
    (note,) = [note for note in stream_of(result, "gate").notes if "at the same time" in note]
    assert note.startswith("2 replicas measured it at the same time for 1")


def test_without_a_usable_reference_nothing_is_judged(tmp_path: Path) -> None:
    store(tmp_path, files_of([*between(gate(), DAY - 4 * HOUR, END), *between(yard(), DAY, END)], "a-1"))
    result = run(tmp_path)
    assert result.verdict is Verdict.CANNOT_JUDGE
    assert "4.0 h of rows of model v1:ab; needed are about 10 h" in stream_of(result, "gate").reason
    assert stream_of(result, "yard").reason == "the reference period has no rows"
    assert stream_of(result, "yard").rows == 8 * 240


def test_a_reference_file_of_the_service_is_used(tmp_path: Path) -> None:
    store(tmp_path, whole_store())
    config = DriftConfig.of(SETTINGS)
    learned = LearnedReference({"gate": learn(between(gate(), 0, DAY), config.window_s, config.alpha)})
    path = tmp_path / "reference.json"
    publish(path, learned, window_s=config.window_s, alpha=config.alpha, interval_s=15)
    result = run(tmp_path, reference=path.read_bytes(), reference_name="reference.json")
    assert stream_of(result, "gate").verdict is Verdict.DRIFT
    assert stream_of(result, "yard").reason == "the reference has no rows of this stream"
    assert report_text(result).count("<svg") >= 3
    with pytest.raises(BadRequest, match=r"--reference is reference\.json: not JSON"):
        run(tmp_path, reference=b"{", reference_name="reference.json")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reference": "2027-01-18..2027-01-19"}, "overlaps the evaluated period"),
        (
            {"period": "2026-01-01..2026-01-02"},
            "has no rows in the period; the newest are of 2027-01-19",
        ),
        (
            {"streams": frozenset({"hall"})},
            "--stream is hall; streams with rows in the period are gate, yard",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    store(tmp_path, whole_store())
    with pytest.raises(BadRequest, match=expected):
        run(tmp_path, **changes)


class _Evidently:
    """Scores as the builtin engine, or 0."""

    def __init__(self, *, agrees: bool) -> None:
        self.problem = ""
        self.on = True
        self.scored: list[float] = []
        self._agrees = agrees

    def score(self, checks: Sequence[Check], model: str) -> Mapping[float, Mapping[str, float]]:
        assert model == "v1:ab"
        self.scored += [check.window.end for check in checks]
        return {
            check.window.end: {
                each.name: each.score if self._agrees else 0.0
                for each in check.columns
                if each.score is not None
            }
            for check in checks
        }

    def report(self, check: Check, model: str) -> str:
        return f"<p>{check.group} {model}</p>"


@pytest.mark.parametrize("agrees", [True, False])
def test_evidently_decides_about_the_windows_that_begin_an_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agrees: bool
) -> None:
    store(tmp_path, whole_store())
    engine = _Evidently(agrees=agrees)
    monkeypatch.setattr(module, "Evidently", lambda *_, **__: engine)
    found = stream_of(run(tmp_path, streams=frozenset({"gate"})), "gate")
    assert 1 <= len(engine.scored) <= 3
    began = found.episodes[0].since
    assert began == max(engine.scored) if agrees else began > max(engine.scored)
    assert found.episodes[0].engine == ("evidently" if agrees else "builtin")


class _Page(HTMLParser):
    """Checks that every element is closed, and collects links and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: set[str] = set()
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links |= {str(found["href"])} if "href" in found else set()
        self.ids |= {f"#{found['id']}"} if "id" in found else set()
        if tag not in ("meta", "br") and not str(self.get_starttag_text()).endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_command_writes_a_report_and_says_the_verdict_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_SAMPLE_INTERVAL_S", "15")
    engine = _Evidently(agrees=True)
    monkeypatch.setattr(module, "Evidently", lambda *_, **__: engine)
    store(tmp_path / "rows", whole_store())
    command = ["drift", "evaluate", str(tmp_path / "rows"), "--period", PERIOD, "--reference", REFERENCE]
    assert main([*command, "--out", str(tmp_path / "out-%Y%m%dT%H%M"), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    folder = tmp_path / "out-20270119T0800"
    assert json.loads((folder / "drift.json").read_text()) == printed
    assert (printed["verdict"], printed["streams"]["gate"]["verdict"]) == ("drift", "drift")
    assert printed["streams"]["yard"]["verdict"] == "none", printed["streams"]["yard"]
    page = _Page()
    page.feed((folder / "report.html").read_text())
    assert page.open == []
    assert page.links == {"#gate", "evidently-gate.html"}
    assert page.links & page.ids == {"#gate"}
    assert (folder / "evidently-gate.html").read_text() == "<p>gate v1:ab</p>"
    assert main([*command, "--stream", "yard", "--quiet"]) == 0
    assert "None of 1 stream has drifted." in capsys.readouterr().out
    assert main([*command, "--timezone", "Mars/Base"]) == 2
    assert "--timezone is 'Mars/Base'" in capsys.readouterr().err
