"""docs/reliability.md lists every promise with its existing tests, and no promise without a test."""

from __future__ import annotations

import re

from tests.faults.promises import PROMISES, ROOT, exists
from tests.faults.report import PAGE, cut, table
from tests.faults.results import Result


def test_every_test_that_a_promise_names_exists() -> None:
    assert [test for promise in PROMISES for test in promise.tests if not exists(test)] == []


def test_a_promise_without_a_test_is_not_printed() -> None:
    assert [promise.name for promise in PROMISES if not promise.tests] == []


def test_the_page_has_the_promises_and_tests_that_there_are() -> None:
    _, inside, _ = cut(PAGE.read_text())
    rows = [line.split(" | ")[:2] for line in inside.splitlines() if line.startswith("|")]
    expected = [line.split(" | ")[:2] for line in table({}).splitlines() if line.startswith("|")]
    assert rows == expected, "run `make reliability`"


def test_the_figures_of_the_page_are_of_runs_that_passed() -> None:
    _, inside, _ = cut(PAGE.read_text())
    assert "**failed**" not in inside
    assert re.search(r"Measured on: \d+ cores", inside)


def test_figures_stand_beside_their_test_with_their_parameters() -> None:
    test = PROMISES[0].tests[0]
    results = {
        f"{test}[a]": Result(
            f"{test}[a]", full=True, figures={"frames": "7"}, passed=True, machine="2 cores"
        ),
        f"{test}[b]": Result(f"{test}[b]", full=False, figures={"frames": "8"}, machine="2 cores"),
    }
    (row,) = [line for line in table(results).splitlines() if test.partition("::")[2] in line]
    assert "a: frames 7 (soak); **failed**: b: frames 8 (short)" in row


def test_figures_of_tests_that_did_not_run_again_stay() -> None:
    first, second = PROMISES[0].tests[:2]
    old = Result(first, full=True, figures={"frames": "7"}, passed=True, machine="2 cores")
    new = Result(second, full=False, figures={"frames": "8"}, passed=True, machine="4 cores")
    page = table({second: new}, table({first: old}))
    rows = {
        name: line for line in page.splitlines() for name in (first, second) if name.split("::")[1] in line
    }
    assert rows[first].endswith("| frames 7 (soak) |")
    assert rows[second].endswith("| frames 8 (short) |")
    assert page.endswith("Measured on: 2 cores; 4 cores.")


def test_every_fault_test_belongs_to_a_promise() -> None:
    named = {test.partition("::")[0] for promise in PROMISES for test in promise.tests}
    files = {f"tests/faults/{path.name}" for path in (ROOT / "tests" / "faults").glob("test_*.py")}
    assert files - named == {"tests/faults/test_page.py"}
