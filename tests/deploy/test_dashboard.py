"""Tests that every query of the dashboard returns data when a real Prometheus scrapes a loaded service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from tests.deploy.prometheus import Prometheus
from tests.deploy.rules import ALERTS, DASHBOARD, ROOT, alert_rules, tool
from tests.helpers.media import images
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for
from tests.helpers.webrtc_client import WebrtcClient
from tests.helpers.wire_client import WireClient

#: Number of scrapes after which every rate can be computed.
SCRAPES = 8
STREAM_FPS = 8
#: Grafana's variables, with everything selected. Docker Compose gives no namespace.
VARIABLES = {"$__rate_interval": "15s", "$namespace": ".*", "$job": ".*", "$instance": ".*"}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Return pairs of (panel and legend, expression with Grafana's variables filled in)."""
    found = []
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            found.append((f"{panel['title']}: {target['legendFormat']}", expression))
    return found


async def post_and_stream(service: Service, done: asyncio.Event) -> None:
    """Send frames on a WebSocket stream and POST to both versions until ``done`` is set."""
    image = images(1)[0]
    async with aiohttp.ClientSession() as session, WireClient(f"{service.ws_url}/v1/stream") as stream:
        await stream.hello()
        seq = 0
        while not done.is_set():
            seq += 1
            await stream.send_frame(seq, image)
            for version in ("v1", "v2"):
                async with session.post(f"{service.http_url}/{version}/predict", data=image) as answer:
                    assert answer.status == 200
            await stream.until_outcomes([seq])
            await asyncio.sleep(1 / STREAM_FPS)


async def call(service: Service, done: asyncio.Event) -> None:
    """Open one WebRTC session after another until ``done`` is set, so that a rate of connections exists."""
    while not done.is_set():
        async with WebrtcClient(f"{service.http_url}/v1/webrtc"):
            await asyncio.sleep(2)


class Scraped(NamedTuple):
    """A service, the Prometheus that scrapes it, and when the load of the service ended, in unix seconds."""

    service: Service
    server: Prometheus
    loaded_at: float


async def load(service: Service, server: Prometheus) -> float:
    """Load the service until Prometheus has scraped it often enough and has seen new WebRTC connections.

    Returns when the load ended, in unix seconds.
    """
    done = asyncio.Event()
    connections = "object_detection_webrtc_connect_seconds_count"
    enough = f"count_over_time({connections}[5m]) and rate({connections}[5m]) > 0"
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(post_and_stream(service, done))
        tasks.create_task(call(service, done))
        await asyncio.to_thread(server.wait_for, enough, SCRAPES, timeout_s=120)
        loaded_at = time.time()
        done.set()
    return loaded_at


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    tool("prometheus", "prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        Service({"UNCERTAINTY_THRESHOLD": "0"}, bundled=True) as service,
        Prometheus(folder, service.port, ALERTS) as server,
    ):
        yield Scraped(service, server, asyncio.run(load(service, server)))


def test_every_query_of_every_panel_returns_data(scraped: Scraped) -> None:
    # A part of the sampling process measures drift, and a build may lack this part.
    drift = "data_drift_active" in scraped.service.get("/metrics")[1].decode()
    empty = []
    for name, expression in queries():
        if "data_drift" in expression and not drift:
            continue
        values = [float(sample["value"][1]) for sample in scraped.server.query(expression, scraped.loaded_at)]
        if not any(math.isfinite(value) for value in values):
            empty.append(f"{name}: {expression} gives {values}")
    assert empty == []


def test_the_load_is_seen(scraped: Scraped) -> None:
    for version, transport in (("v1", "http"), ("v2", "http"), ("v1", "websocket"), ("v1", "webrtc")):
        name = f'object_detection_frames_inferred_total{{version="{version}",transport="{transport}"}}'
        assert float(scraped.server.query(name)[0]["value"][1]) > 0, name


def test_every_rule_can_be_evaluated_and_none_fires_on_a_healthy_service(
    scraped: Scraped,
) -> None:
    wait_for(lambda: "unknown" not in scraped.server.rules().values(), "every rule is evaluated")
    assert scraped.server.rules() == dict.fromkeys(alert_rules(), "ok")
    assert scraped.server.query('ALERTS{alertstate="firing"}') == []


def test_the_metrics_are_as_prometheus_wants_them(scraped: Scraped) -> None:
    done = subprocess.run(
        [tool("promtool", "prometheus"), "check", "metrics"],
        input=scraped.service.get("/metrics")[1],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def names(expression: str) -> set[str]:
    """Return the metrics in an expression."""
    return set(re.findall(r"\b(?:object_detection|active_learning|sampler|data_drift)_\w+", expression))


def test_rules_and_panels_ask_for_metrics_that_exist_before_anything_happens() -> None:
    asked = set().union(*(names(expression) for _, expression in queries()))
    asked |= set().union(*(names(rule["expr"]) for rule in alert_rules().values()))
    # The series of batches exist only after a load, and those of drift only where the build measures drift.
    asked = {name for name in asked if not name.startswith("data_drift")}
    asked.discard("object_detection_batches_total")
    with Service({}) as fresh:

        def missing() -> set[str]:
            text = fresh.get("/metrics")[1].decode()
            return asked - set(re.findall(r"^(\w+)(?:\{| )", text, re.MULTILINE))

        # The sampling process exposes its metrics a moment after the service is ready.
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not missing())
        assert missing() == set()


def test_panels_have_titles_descriptions_and_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    assert len(ids) == len(set(ids))


def test_panels_name_only_alerts_that_exist_and_every_alert_is_on_some_panel() -> None:
    named = {name for panel in panels() for name in re.findall(r"\bVision\w+", panel["description"])}
    assert named == set(alert_rules())


def test_promtool_accepts_the_configuration_of_compose(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "prometheus.yml").read_text()
    assert "/etc/prometheus/alerts.yaml" in text
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace("/etc/prometheus/alerts.yaml", str(ALERTS)))
    done = subprocess.run(
        [tool("promtool", "prometheus"), "check", "config", config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
