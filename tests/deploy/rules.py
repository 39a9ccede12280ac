"""Reads the alert rules of the chart, and finds and runs the programs that check rules and queries."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "charts" / "real-time-vision-api" / "files"
ALERTS = FILES / "alerts.yaml"
DASHBOARD = FILES / "dashboard.json"


def alert_rules() -> dict[str, dict[str, Any]]:
    """Return every alerting rule by its name."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def tool(name: str, package: str) -> str:
    """Return a program's path; if it is not installed, skip the test and name the Debian package."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (Debian package {package})")
    return found


def promtool(*arguments: str) -> None:
    """Run promtool, and raise AssertionError with its output if it finds a fault."""
    command = [tool("promtool", "prometheus"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def run_rule_tests(folder: Path, rules: list[str], tests: list[dict[str, Any]]) -> None:
    """Let promtool run ``tests`` on the rules in the files ``rules``; ``folder`` is the test's own."""
    if not rules:  # promtool requires a file
        (folder / "none.yml").write_text("groups: []\n")
        rules = [str(folder / "none.yml")]
    given = {"rule_files": rules, "evaluation_interval": "1m", "tests": tests}
    (folder / "test.yml").write_text(yaml.safe_dump(given))
    promtool("test", "rules", str(folder / "test.yml"))
