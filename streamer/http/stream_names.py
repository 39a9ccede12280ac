"""Removes names and figures of streams from answers to clients that may not see them. Pure."""

from __future__ import annotations

import re

from streamer.drift.status import DriftStatusDocument

#: Metric samples whose labels name a group of streams (`data_drift_…`).
_NAMED_SAMPLE = re.compile(rb"^[^#\s{]+\{(?:[^\n]*,)?group=\"[^\n]*\n", re.MULTILINE)


def hide_in_metrics(text: bytes) -> bytes:
    """Return Prometheus text without the series that name streams."""
    return _NAMED_SAMPLE.sub(b"", text)


def hide_in_drift_status(body: DriftStatusDocument) -> DriftStatusDocument:
    """Return the body of `/drift/status` without the names and figures of groups of streams."""
    reduced = body.copy()
    if "groups" in body:
        reduced["groups"] = {}
    reference = body.get("reference")
    if reference is not None:
        reduced["reference"] = {**reference, "groups": {}}
    return reduced
