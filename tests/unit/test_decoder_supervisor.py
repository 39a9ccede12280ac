"""Protections that decoders lack on this machine are published, and logged once."""

from __future__ import annotations

import json
import logging

import pytest

from streamer.accounting.metrics import PROTECTIONS, WorkerMetrics
from streamer.decoding.decoder_group import DecoderGroup, DecoderProcess
from streamer.decoding.decoder_supervisor import DecoderSupervisor
from streamer.decoding.messages import Answer, Verdict


def test_missing_protections_are_published_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    metrics = WorkerMetrics()
    metrics.preset(("v1",))
    group = DecoderGroup.of_ring(None, 4096)
    missing: list[str] = []

    def note(name: str) -> None:
        missing.append(name)
        metrics.protection_missing(name)

    supervisor = DecoderSupervisor(
        2, 1 << 20, "none", lambda *_: None, count_end=lambda _: None, note_missing=note
    )
    text = json.dumps(
        {"protections": ["rlimits", "seccomp"], "missing": ["landlock: this kernel has no Landlock"]}
    )
    try:
        for key in (1, 2):
            supervisor._processes[key] = (group, DecoderProcess(key, 0))
            with caplog.at_level(logging.WARNING):
                supervisor.ready(group, Answer(Verdict.READY, key, text=text))
    finally:
        group.close()
    assert missing == ["landlock"]
    assert len(caplog.records) == 1
    values = {name: metrics.unprotected.labels(name)._value.get() for name in PROTECTIONS}
    assert values == {"landlock": 1.0, "seccomp": 0.0, "oom_score_adj": 0.0}
