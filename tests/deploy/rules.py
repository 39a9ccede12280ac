"""Reads the alert rules of the chart and finds the programs that tests use to check them."""

from __future__ import annotations

import shutil
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
