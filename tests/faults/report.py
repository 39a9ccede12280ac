"""``make reliability``: writes the table of promises in docs/reliability.md with the measured figures.

A test without new results keeps the figures that are on the page, so the long forms may be run one by one.
"""

from __future__ import annotations

import re
import sys

from tests.faults.promises import PROMISES, ROOT, exists
from tests.faults.results import Result, read_results

PAGE = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- begin of the table: make reliability -->"
END = "<!-- end of the table -->"
_ROW = re.compile(r"\[(\w+)\]\(\.\./[^)]+\) \| (.*) \|$", re.MULTILINE)
_MACHINES = re.compile(r"^Measured on: (.*)\.$", re.MULTILINE)
_NOTHING = "pass or fail"
_HEAD = "| promise | test | measured |\n| --- | --- | --- |"


def _measured(test: str, results: dict[str, Result]) -> str:
    """Return what the runs of a test measured, with its parameters; empty if the test records no figures."""
    lines = []
    for name, result in results.items():
        if name.partition("[")[0] != test:
            continue
        parameter = name.partition("[")[2].rstrip("]")
        figures = ", ".join(f"{what} {value}" for what, value in result.figures.items())
        form = "soak" if result.full else "short"
        outcome = "" if result.passed else "**failed**: "
        lines.append(f"{outcome}{parameter + ': ' if parameter else ''}{figures} ({form})")
    return "; ".join(lines)


def table(results: dict[str, Result], before: str = "") -> str:
    """Return the table, with a row for each test of each promise that has one.

    Figures that are missing in ``results`` are taken from ``before``, an earlier table.
    """
    rows, kept = [_HEAD], dict(_ROW.findall(before))
    for promise in PROMISES:
        first = f"**{promise.name}** {promise.text}"
        for test in filter(exists, promise.tests):
            path, _, name = test.partition("::")
            link = f"[{name}](../{path})"
            rows.append(f"| {first} | {link} | {_measured(test, results) or kept.get(name, _NOTHING)} |")
            first = ""
    machines = {result.machine for result in results.values()}
    for line in _MACHINES.findall(before):
        machines |= set(line.split("; "))
    return "\n".join([*rows, "", f"Measured on: {'; '.join(sorted(machines)) or 'nothing yet'}."])


def cut(page: str) -> tuple[str, str, str]:
    """Return the text before the table, the table, and the text after it."""
    before, _, rest = page.partition(BEGIN)
    inside, _, after = rest.partition(END)
    return before + BEGIN, inside.strip(), END + after


def main() -> int:
    """Rewrite the table; return exit code 1 if there are no results."""
    results = read_results()
    if not results:
        sys.stderr.write("no results: run the tests in tests/faults first, or `make soak`\n")
        return 1
    before, inside, after = cut(PAGE.read_text())
    PAGE.write_text(f"{before}\n{table(results, inside)}\n{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
