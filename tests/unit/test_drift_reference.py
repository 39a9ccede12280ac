"""A reference survives writing and reading; a file written by hand loads too, or the error says why not."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.drift.blocks import Blocks
from streamer.drift.errors import ReferenceBroken
from streamer.drift.learned_reference import KEPT, load, save
from streamer.drift.reference import Reference, learn
from streamer.drift.reference_document import document_of, parse
from streamer.drift.rows import NUMERIC, Table
from tests.helpers.drift_rows import START, World, rows

CONFIG = {"window_s": 1800.0, "alpha": 0.001}


def document(count: int = 300, seed: int = 1) -> bytes:
    values = World(seed).values(count)
    values[::7, 3] = np.nan
    return document_of({"gate": learn(list(rows(values)), 1800, 0.001)}, window_s=1800, interval_s=5)


def edited(change: dict[str, Any], **group: Any) -> bytes:
    whole = json.loads(document())
    whole["groups"]["gate"] |= group
    del whole["sha256"]
    return json.dumps(whole | change).encode()


def test_what_is_read_measures_as_what_was_written() -> None:
    values = World(4).values(8000)
    learnt, kept = learn(list(rows(values)), 1800, 0.001)
    text = document_of({"gate": (learnt, kept)}, window_s=1800, interval_s=5)
    read = parse(text, **CONFIG).groups["gate"]
    assert (read.model, read.rows) == (learnt.model, learnt.rows)
    assert read.calibrated
    for hour in (0, 7):
        ours, theirs = (each.at(START + hour * 3600) for each in (learnt, read))
        assert theirs.thresholds == pytest.approx(ours.thresholds, rel=1e-3)
        np.testing.assert_allclose(theirs.numbers["noise"], ours.numbers["noise"], rtol=1e-5)
        assert theirs.categories["classes"].names == ours.categories["classes"].names
    assert read.limits is not None
    assert learnt.limits is not None
    assert read.limits.seen.gaps == learnt.limits.seen.gaps
    signals = learnt.limits.signals
    later = World(9).values(1440)
    at = np.asarray(START + 5.0 * np.arange(1440), np.float64)
    blocks = Blocks.of(at, signals.values(Table.of(list(rows(later)))), 300, int(START // 300), 24)
    judged = [each.judge(blocks, steps=True) for each in (learnt.limits, read.limits)]
    assert judged[0].keys() == judged[1].keys()
    for name, evidence in judged[0].items():
        assert judged[1][name].ratio == pytest.approx(evidence.ratio, rel=0.02)


def test_plain_rows_without_times_load_uncalibrated_for_every_group() -> None:
    plain = [{"brightness": 100 + i % 7, "n_boxes": i % 3, "top_class": "cat"} for i in range(200)]
    for text in (plain, {"rows": plain}):
        reference = parse(json.dumps(text).encode(), **CONFIG)
        found = reference.of("any stream at all")
        assert found is not None
        assert (found.rows, found.model, found.calibrated) == (200, "", False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{", "not JSON"),
        (b'{"groups": {"g": {"rows": [[1e999, 1]]}}}', "schema is None"),
        (b'{"groups": {"g": {"rows": [[%d]]}}}' % 10**30, "not JSON that fits"),
        (b"[" * 100_000, "not JSON"),
        (b"3", "a list of rows"),
        (b"[]", "a list of rows"),
        (b"[1]", "row 0 is 1"),
        (json.dumps([{"brightness": 1, "hue": 2}]).encode(), "row 0 has the column 'hue'"),
        (json.dumps([{"brightness": "x"}]).encode(), "row 0: brightness is 'x'"),
        (json.dumps([{"brightness": 1}] * 99).encode(), "has 99 rows"),
        (edited({"schema": 3}), "schema is 3; this release reads 1 and 2"),
        (edited({"feature_version": 9}), "feature_version is 9"),
        (edited({"columns": ["at", "hue"]}), "columns is ['at', 'hue']"),
        (edited({"groups": {}}), "groups is empty"),
        (edited({}, rows=[[1, 2]]), "group 'gate', row 0: needed is a list of 33 values"),
        (edited({}, limits=3), "group 'gate': limits is no map"),
        (edited({}, limits={"labels": 1}), "group 'gate': limits: labels is 1; needed is a list"),
        (edited({}, limits={"labels": []}), "limits: expected is missing"),
        (edited({}, limits={"labels": [], "expected": [[["x"]]]}), "expected is no array of numbers"),
        (edited({}, limits={"labels": [], "expected": [[[1]]]}), "needed is (1 or 7, 48, 27)"),
        (document().replace(b'"span_h":0.4', b'"span_h":9.4'), "sha256 does not fit"),
    ],
)
def test_what_is_wrong_is_said(text: bytes, said: str) -> None:
    with pytest.raises(ReferenceBroken) as caught:
        parse(text, **CONFIG)
    assert said in str(caught.value)


def test_the_file_is_replaced_whole_and_five_old_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "data" / "reference.json"
    assert load(path, **CONFIG) is None
    for count in range(100, 108):
        save(path, document(count))
    newest = load(path, **CONFIG)
    assert isinstance(newest, Reference)
    assert newest.groups["gate"].rows == 107
    older = [load(path.with_name(f"reference.json.{n}"), **CONFIG) for n in range(1, KEPT + 1)]
    assert [found.groups["gate"].rows for found in older if found] == [106, 105, 104, 103, 102]
    assert {entry.name for entry in path.parent.iterdir()} == {
        "reference.json",
        *(f"reference.json.{n}" for n in range(1, KEPT + 1)),
    }


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(document()[:-40])
    for path in (tmp_path, tmp_path / "cut"):
        with pytest.raises(ReferenceBroken, match=str(path)):
            load(path, **CONFIG)


def test_columns_may_be_fewer_than_they_are_today() -> None:
    whole = json.loads(document())
    del whole["sha256"]
    whole["columns"] = ["at", "brightness"]
    whole["groups"]["gate"]["rows"] = [[i, i % 5] for i in range(200)]
    found = parse(json.dumps(whole).encode(), **CONFIG).groups["gate"]
    assert len(found.at(0).numbers["brightness"]) == 200
    assert len(found.at(0).numbers[NUMERIC[1]]) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"limits": {"7": []}}, r"objects: limits has '7'"),
        ({"limits": {"6": [1.0]}}, r"limits: 6 has the shape \(1,\)"),
        ({"typical": {}}, "typical: 6 is missing"),
        ({"exponent": "x"}, "exponent is no array of numbers"),
    ],
)
def test_a_wrong_limit_of_means_over_objects_is_named(change: dict[str, object], said: str) -> None:
    whole = json.loads(long_document())
    objects = whole["groups"]["gate"]["limits"]["objects"]
    objects |= change
    with pytest.raises(ReferenceBroken, match=said):
        parse(json.dumps(whole).encode(), **CONFIG)


@functools.cache
def long_document() -> bytes:
    learnt, kept = learn(list(rows(World(4).values(2880), interval_s=15.0)), 1800, 0.01)
    whole = json.loads(document_of({"gate": (learnt, kept)}, window_s=1800, interval_s=15))
    del whole["sha256"]
    return json.dumps(whole).encode()


def test_a_file_of_an_older_release_is_learned_again_from_its_rows() -> None:
    learnt, kept = learn(list(rows(World(4).values(8000))), 1800, 0.01)
    whole = json.loads(document_of({"gate": (learnt, kept)}, window_s=1800, interval_s=5))
    del whole["sha256"]
    group = whole["groups"]["gate"]
    del group["limits"]
    old = {"calibration": {"blocks": 30, "thresholds": {"noise": 0.4}}, "seasons": {}}
    text = json.dumps(whole | {"schema": 1, "groups": {"gate": group | old}}).encode()
    found = parse(text, **CONFIG).groups["gate"]
    assert found.calibrated
    assert found.rows == 5000
    assert found.at(START).thresholds["noise"] == pytest.approx(learnt.at(START).thresholds["noise"], rel=0.2)
