"""Tests that each alert fires on its fault, stays quiet otherwise, and links to a section of the runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.alert_cases import CASES, Case, series
from tests.deploy.rules import ALERTS, ROOT, alert_rules, tool

RUNBOOK = ROOT / "docs" / "operations" / "runbook.md"


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub generates for a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_promtool_accepts_the_rules() -> None:
    promtool = tool("promtool", "prometheus")
    done = subprocess.run([promtool, "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    assert [case.alert for case in CASES] == list(alert_rules())


@pytest.mark.parametrize("name", alert_rules())
def test_every_alert_says_what_it_is_and_where_to_read_on(name: str) -> None:
    rule = alert_rules()[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    page, _, anchor = notes["runbook_url"].partition("#")
    assert ROOT / page == RUNBOOK
    assert anchor == name.lower()
    assert anchor in anchors(RUNBOOK)


@pytest.mark.parametrize("name", alert_rules())
def test_its_page_says_what_it_means_what_to_look_at_and_what_to_do(name: str) -> None:
    section = RUNBOOK.read_text().split(f"## {name}\n")[1].split("\n## ")[0]
    for part in ("**Means.**", "**Look at.**", "**Do.**"):
        assert part in section


def test_the_runbook_knows_no_alert_that_is_not_there() -> None:
    assert re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE) == list(alert_rules())


def expected(case: Case, at: int, *, firing: bool) -> dict[str, Any]:
    """Return a test for promtool that one alert is firing, or not firing, at minute ``at``."""
    alerts = []
    if firing:
        rule = alert_rules()[case.alert]
        target = {"job": "vision", "instance": "a:8000"} if case.by_replica else {}
        alerts = [
            {
                "exp_labels": dict(rule["labels"]) | target | case.labels,
                "exp_annotations": dict(rule["annotations"]) | {"description": case.says},
            }
        ]
    return {"eval_time": f"{at}m", "alertname": case.alert, "exp_alerts": alerts}


def group(case: Case, values: dict[str, str], checks: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": series(name), "values": text} for name, text in values.items()],
        "alert_rule_test": checks,
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_it_fires_in_time_and_only_then(case: Case, tmp_path: Path) -> None:
    promtool = tool("promtool", "prometheus")
    checks = [expected(case, case.at, firing=True)]
    if case.not_yet is not None:
        checks.insert(0, expected(case, case.not_yet, firing=False))
    quiet = [expected(case, minute, firing=False) for minute in (2, 9, 12, 16, 25)]
    tests = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [group(case, case.fires, checks), group(case, case.quiet, quiet)],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        [promtool, "test", "rules", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_series_at_all_is_no_ready_replica(tmp_path: Path) -> None:
    promtool = tool("promtool", "prometheus")
    case = CASES[0]
    check = expected(case, 5, firing=True)
    check["exp_alerts"][0]["exp_labels"].pop("job")
    path = tmp_path / "test.yaml"
    tests = {"rule_files": [str(ALERTS)], "tests": [group(case, {"up": "0x20"}, [check])]}
    path.write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        [promtool, "test", "rules", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
