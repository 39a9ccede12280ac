"""Runs a real Prometheus that scrapes one service every second and evaluates the project's rules."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.deploy.rules import ROOT, tool
from tests.helpers.ports import free_port

CONFIG = ROOT / "deploy" / "prometheus.yml"


class Prometheus:
    """Runs Prometheus with the shipped configuration, but with another target; ``with`` starts it."""

    def __init__(self, folder: Path, scraped_port: int, rules: Path) -> None:
        config = yaml.safe_load(CONFIG.read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(rules)]
        job = config["scrape_configs"][0]
        # Replace the host name, which only resolves in Docker Compose, by a local address.
        job.pop("dns_sd_configs")
        job["static_configs"] = [{"targets": [f"127.0.0.1:{scraped_port}"]}]
        self._folder = folder
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        command = [
            tool("prometheus", "prometheus"),
            f"--config.file={self._folder}/prometheus.yml",
            f"--storage.tsdb.path={self._folder}/data",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=error",
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _get(self, path: str, **query: str) -> Any:
        address = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=60) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return the instant vector of an expression, now or at a time in unix seconds.

        Raises HTTPError if the expression is wrong.
        """
        time_of = {} if at is None else {"time": f"{at:.3f}"}
        found: list[dict[str, Any]] = self._get("query", query=expression, **time_of)["result"]
        return found

    def rules(self) -> dict[str, str]:
        """Return the health of every loaded rule, by name: ``ok``, ``err`` or ``unknown``."""
        return {
            rule["name"]: rule["health"] for group in self._get("rules")["groups"] for rule in group["rules"]
        }

    def wait_for(self, expression: str, least: float, timeout_s: float = 60.0) -> None:
        """Wait until the value of an expression is at least ``least``. Raises AssertionError on a timeout."""
        deadline, found = time.monotonic() + timeout_s, "nothing"
        while time.monotonic() < deadline:
            try:
                vector = self.query(expression)
            except OSError:
                vector = []
            if vector and float(found := vector[0]["value"][1]) >= least:
                return
            time.sleep(0.2)
        raise AssertionError(f"{expression} is {found} after {timeout_s} s, not {least}")
