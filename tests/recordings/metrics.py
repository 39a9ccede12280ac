"""Parses the text of `/metrics` into the name, type, help text and labels of each metric."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families


def describe_metrics(text: str) -> dict[str, Any]:
    """Return type, help text and label names of each metric, by the metric's name without suffixes."""
    return {
        family.name: {
            "type": family.type,
            "help": family.documentation,
            "labels": sorted({label for sample in family.samples for label in sample.labels} - {"le"}),
        }
        for family in text_string_to_metric_families(text)
    }
