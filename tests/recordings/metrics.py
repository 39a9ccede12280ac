"""Reads the exposition text of `/metrics` into names, types, helps and labels."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families


def describe_metrics(text: str) -> dict[str, Any]:
    """Return each metric's type, help and the names of its labels, by its name without suffixes."""
    return {
        family.name: {
            "type": family.type,
            "help": family.documentation,
            "labels": sorted({label for sample in family.samples for label in sample.labels} - {"le"}),
        }
        for family in text_string_to_metric_families(text)
    }
