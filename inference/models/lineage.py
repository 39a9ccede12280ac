"""Reads from a manifest where a model comes from and what it scored, as far as clients are told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from inference.models.manifest import Manifest

#: Bounds of what workers are sent of a manifest.
_MAX_PARENTS, _MAX_SCORES, _MAX_CHARS = 4, 4, 64
_FIGURES = ("map50", "map50_95")


def lineage_of(manifest: Manifest) -> dict[str, Any] | None:
    """Return parents, digest of the set, and scores by part; None if the manifest has none of these.

    Manifests are written by people, too: values of another kind than `streamer train` writes are left out.
    """
    training, metrics = manifest.training or {}, manifest.metrics or {}
    digest = training.get("set")
    found = {
        "parents": [dict(parent) for parent in (manifest.parents or ())[:_MAX_PARENTS]],
        "set": digest if isinstance(digest, str) and len(digest) <= _MAX_CHARS else None,
        "scores": {
            part[:_MAX_CHARS]: scores
            for part, values in list(metrics.items())[:_MAX_SCORES]
            if isinstance(values, Mapping) and (scores := _scores(values))
        },
    }
    return found if any(found.values()) else None


def _scores(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name in _FIGURES
        if isinstance(value := values.get(name), int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }
