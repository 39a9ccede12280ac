"""What a warm-up measured, kept for the next process: after a crash nothing needs to be measured again."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("inference.warmup")


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Measurements of one model on one device."""

    #: Bucket size to seconds of one run.
    cost_s: dict[int, float]
    #: Whether a session over all cores is worth its memory.
    all_cores_session: bool
    #: Whether single frames run in it to begin with.
    all_cores: bool = False


def load_warm_up(directory: str, sha256: str, provider: str) -> WarmUp | None:
    """Return what an earlier process of this replica measured on the same kind of device; None without."""
    if not directory:
        return None
    try:
        data = json.loads(_path(directory, sha256, provider).read_text())
        return WarmUp(
            {int(bucket): float(cost) for bucket, cost in data["cost_s"].items()},
            bool(data["all_cores_session"]),
            bool(data["all_cores"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save_warm_up(directory: str, sha256: str, provider: str, measured: WarmUp) -> None:
    """Keep measurements for the next process; the supervisor removes the directory at its end.

    Where they cannot be written, on a full disk for one, the next process measures again.
    """
    if not directory:
        return
    path = _path(directory, sha256, provider)
    document = {
        "cost_s": measured.cost_s,
        "all_cores_session": measured.all_cores_session,
        "all_cores": measured.all_cores,
    }
    try:
        path.write_text(json.dumps(document))
    except OSError as error:
        log.warning("what the warm-up measured cannot be kept for a restart: %s", error)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # half a document


def _path(directory: str, sha256: str, provider: str) -> Path:
    return Path(directory) / f"warm-up-{sha256[:16]}-{provider}.json"
