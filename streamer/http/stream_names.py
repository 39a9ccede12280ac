"""Removes names and figures of streams from answers to clients that may not see them. Pure."""

from __future__ import annotations

import re
from typing import Any

#: Metric samples whose labels name a group of streams (`data_drift_…`).
_NAMED_SAMPLE = re.compile(rb"^[^#\s{]+\{(?:[^\n]*,)?group=\"[^\n]*\n", re.MULTILINE)


def hide_in_metrics(text: bytes) -> bytes:
    """Return Prometheus text without the series that name streams."""
    return _NAMED_SAMPLE.sub(b"", text)


def hide_in_drift_status(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of `/drift/status` without the names and figures of groups of streams."""
    reduced = {**body, "groups": {}} if "groups" in body else dict(body)
    reference = body.get("reference")
    if isinstance(reference, dict):
        reduced["reference"] = {**reference, "groups": {}}
    return reduced
