"""What tests of ``streamer models optimize`` share: the metadata of their model, and the type of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Metadata that the model of these tests has.
METADATA = {"names": "{0: 'blob'}", "licence": "MIT"}

#: Runs the command with arguments; returns its exit code, and its JSON or the error.
Optimise = Callable[..., tuple[int, dict[str, Any]]]
