"""The results of fault tests, one JSON file per test; docs/reliability.md is generated from them."""

from __future__ import annotations

import json
import os
import platform
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

#: Not in git; holds the figures of the last run on this machine.
OUT = Path(__file__).resolve().parent / "out"


@dataclass(slots=True)
class Result:
    """The figures of one test. ``figures`` maps the name of a measured quantity to a value with its unit."""

    test: str
    full: bool
    figures: dict[str, str] = field(default_factory=dict)
    passed: bool = False
    machine: str = ""

    def note(self, **figures: object) -> None:
        """Record figures. Underscores in names become spaces; floats get three significant digits."""
        for name, value in figures.items():
            text = f"{value:.3g}" if isinstance(value, float) else str(value)
            self.figures[name.replace("_", " ")] = text

    def write(self) -> None:
        """Write the file; called when the test has ended."""
        self.machine = machine()
        OUT.mkdir(exist_ok=True)
        name = re.sub(r"[^\w.-]+", "-", self.test)
        (OUT / f"{name}.json").write_text(json.dumps(asdict(self), indent=2) + "\n")


def read_results() -> dict[str, Result]:
    """Return the results of the last runs by test id."""
    found = [Result(**json.loads(path.read_text())) for path in sorted(OUT.glob("*.json"))]
    return {result.test: result for result in found}


def machine() -> str:
    """Return a description of the machine of these figures, without its name."""
    system = platform.system()
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {platform.machine()}, {system}, CPython {platform.python_version()}"
