"""Tests what the chart gives to Prometheus and Grafana, also if both serve several releases."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import chart_tools
from tests.deploy.alert_cases import CASES
from tests.deploy.chart import Chart
from tests.deploy.crd_models import find_faults
from tests.deploy.rules import ROOT, alert_rules, promtool, run_rule_tests, tool

#: Matchers of every selector in the alerts of the release that ``chart.render(None, "keda")`` renders.
OWN_SERIES = 'namespace="vision",pod=~"test-real-time-vision-api-[0-9]+"'
#: Names of metrics in an expression, and what follows them.
SELECTOR = r"\b((?:object_detection|active_learning|sampler|data_drift)_\w+)(\{[^}]*\})?"


@dataclass(frozen=True)
class Release:
    """Names one release and its workload's kind, and gives its rules and its series."""

    namespace: str
    name: str
    spool: bool = True

    @property
    def labels(self) -> str:
        """The labels that a scrape of one of its pods adds."""
        chart = "real-time-vision-api"
        fullname = self.name if chart in self.name else f"{self.name}-{chart}"
        pod = f"{fullname}-0" if self.spool else f"{fullname}-5d8f9c7b44-x2x9q"
        return f'namespace="{self.namespace}",pod="{pod}",job="{fullname}",instance="{pod}"'

    def series(self, values: dict[str, str]) -> list[dict[str, str]]:
        """Return series for promtool, of names with or without labels."""
        return [
            {"series": f"{name.rstrip('}')}{',' if '{' in name else '{'}{self.labels}}}", "values": text}
            for name, text in values.items()
        ]

    def rules(self, chart: Chart, folder: Path) -> str:
        """Write the alert rules of this release into a file and return its path."""
        values = {"persistence": {"spool": {"enabled": self.spool}}}
        rendered = chart.render(values, "keda", release=self.name, namespace=self.namespace)
        path = folder / f"{self.namespace}-{self.name}.yml"
        path.write_text(yaml.safe_dump(rendered.one("PrometheusRule")["spec"]))
        return str(path)

    def firing(self, alert: str) -> dict[str, Any]:
        """Return the sample that says that an alert of this release is firing."""
        where = f'namespace="{self.namespace}",release="{self.name}"'
        return {"labels": f'{{alertname="{alert}",{where}}}', "value": 1}


def all_firing(minute: int, expected: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a test for promtool that exactly these alerts are firing."""
    query = 'count by (alertname, namespace, release) (ALERTS{alertstate="firing"})'
    return {"expr": query, "eval_time": f"{minute}m", "exp_samples": expected}


_FRAMES = 'transport="websocket",version="v1"'


def situation(*, frames: str = "0x30", dropped: str = "0x30", refused: str = "0x30") -> dict[str, str]:
    return {
        "object_detection_inference_ready": "1x30",
        f"object_detection_frames_received_total{{{_FRAMES}}}": frames,
        f'object_detection_frames_dropped_total{{{_FRAMES},reason="superseded"}}': dropped,
        'object_detection_refused_total{class="live",reason="saturated"}': refused,
    }


#: Situations of one release: its series, and the alerts that must fire after 25 minutes.
SITUATIONS: dict[str, tuple[dict[str, str], list[str]]] = {
    "busy": (situation(frames="0+600x30", dropped="0+150x30"), ["VisionFramesDropped"]),
    "not scraped": ({"object_detection_inference_ready": "1x3 stale"}, ["VisionNoReadyReplica"]),
    "refuses streams": (situation(refused="0+30x30"), ["VisionSaturated"]),
    "idle": (situation(), []),
}
FIRST = Release("vision", "detect")
#: Other releases: the name of the first one with a suffix, the same name elsewhere, and a StatefulSet's pod
#: whose name begins like those of a Deployment.
PAIRS = (
    (FIRST, Release("vision", "detect-two")),
    (FIRST, Release("quality", "detect")),
    (Release("vision", "detect", spool=False), Release("vision", "detect-real-time-vision-api-two")),
)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[1].namespace}-{pair[1].name}")
def test_an_alert_fires_for_the_release_that_has_the_trouble(
    chart: Chart, tmp_path: Path, pair: tuple[Release, Release]
) -> None:
    tests = []
    for here, (own, alerts) in SITUATIONS.items():
        for there, (others, other_alerts) in SITUATIONS.items():
            expected = [pair[0].firing(alert) for alert in alerts]
            expected += [pair[1].firing(alert) for alert in other_alerts]
            tests.append(
                {
                    "name": f"{here}, and {there}",
                    "interval": "1m",
                    "input_series": pair[0].series(own) + pair[1].series(others),
                    "promql_expr_test": [all_firing(25, expected)],
                }
            )
    run_rule_tests(tmp_path, [release.rules(chart, tmp_path) for release in pair], tests)


def test_no_alert_sees_the_faults_of_another_release(chart: Chart, tmp_path: Path) -> None:
    other = Release("vision", "detect-two")
    healthy = FIRST.series({"object_detection_inference_ready": "1x40"})
    tests = [
        {
            "interval": "1m",
            "input_series": healthy + other.series({"object_detection_inference_ready": "1x40"} | case.fires),
            "promql_expr_test": [
                {
                    "expr": f'count by (alertname, namespace, release) (ALERTS{{alertname="{case.alert}",'
                    'alertstate="firing"})',
                    "eval_time": f"{case.at}m",
                    "exp_samples": [other.firing(case.alert)],
                }
            ],
        }
        for case in CASES
    ]
    run_rule_tests(tmp_path, [release.rules(chart, tmp_path) for release in (FIRST, other)], tests)


def test_every_selector_of_an_alert_is_for_this_release(chart: Chart, tmp_path: Path) -> None:
    spec = chart.render(None, "keda").one("PrometheusRule")["spec"]
    rules = {rule["alert"]: rule for group in spec["groups"] for rule in group["rules"]}
    assert list(rules) == list(alert_rules())
    for name, rule in rules.items():
        plain = alert_rules()[name]
        found = re.findall(SELECTOR, rule["expr"])
        assert len(found) == len(re.findall(SELECTOR, plain["expr"])) > 0
        assert all(matchers.startswith("{" + OWN_SERIES) for _, matchers in found), name
        assert rule["expr"].replace(OWN_SERIES, 'job!=""') == plain["expr"]
        assert rule["labels"] == plain["labels"] | {"namespace": "vision", "release": "test"}
        summary = f"vision/test: {plain['annotations']['summary']}"
        assert rule["annotations"] == plain["annotations"] | {"summary": summary}
        assert rule.get("for") == plain.get("for")
    assert [group["name"] for group in spec["groups"]] == [
        f"vision.test-real-time-vision-api.{part}" for part in ("serving", "frames", "samples")
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(spec))
    promtool("check", "rules", str(tmp_path / "rules.yml"))


def test_runbooks_are_links_where_their_address_is_known(chart: Chart) -> None:
    def runbooks(values: dict[str, Any]) -> set[str]:
        spec = chart.render(values, "keda").one("PrometheusRule")["spec"]
        return {rule["annotations"]["runbook_url"] for group in spec["groups"] for rule in group["rules"]}

    plain = runbooks({})
    assert plain
    base = "https://git.example.org/vision/blob/main"
    linked = runbooks({"monitoring": {"prometheusRule": {"runbookBase": f"{base}/"}}})
    assert linked == {f"{base}/{path}" for path in plain}


def dashboard(
    chart: Chart, release: Release, values: dict[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the name of the dashboard's file and its content."""
    rendered = chart.render(values, "keda", release=release.name, namespace=release.namespace)
    ((name, text),) = rendered.one("ConfigMap", "-dashboard")["data"].items()
    return name, json.loads(text)


def test_dashboards_of_several_releases_live_in_one_grafana(chart: Chart) -> None:
    long = Release("vision", "a-name-that-is-longer-than-those-of-most-releases")
    releases = [FIRST, Release("vision", "detect-two"), Release("quality", "detect"), long]
    found = [dashboard(chart, release) for release in releases]
    for unique in (
        {name for name, _ in found},
        {content["uid"] for _, content in found},
        {content["title"] for _, content in found},
    ):
        assert len(unique) == len(releases)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,40}", content["uid"]) for _, content in found)
    assert dashboard(chart, FIRST)[1]["uid"] == found[0][1]["uid"]


def test_a_dashboard_opens_with_its_own_release(chart: Chart) -> None:
    def selected(values: dict[str, Any] | None = None) -> dict[str, list[str]]:
        variables = dashboard(chart, FIRST, values)[1]["templating"]["list"]
        return {v["name"]: v["current"]["value"] for v in variables if "current" in v}

    everything = ["$__all"]
    name = "detect-real-time-vision-api"
    assert selected() == {"namespace": ["vision"], "job": [name], "instance": everything}
    # Other scrape configurations give other names to jobs.
    other = selected({"monitoring": {"serviceMonitor": {"enabled": False}}})
    assert other == {"namespace": ["vision"], "job": everything, "instance": everything}


def test_the_dashboard_has_the_panels_of_the_file(chart: Chart) -> None:
    rendered = chart.render(None, "keda").one("ConfigMap", "-dashboard")
    plain = json.loads((chart.folder / "files" / "dashboard.json").read_text())
    (text,) = rendered["data"].values()
    assert json.loads(text)["panels"] == plain["panels"]
    assert rendered["metadata"]["labels"]["grafana_dashboard"] == "1"
    scope = '{namespace=~"$namespace",job=~"$job",instance=~"$instance"'
    for panel in plain["panels"]:
        for target in panel.get("targets", []):
            found = re.findall(SELECTOR, target["expr"])
            assert found
            assert all(matchers.startswith(scope) for _, matchers in found), target["expr"]


def test_braces_in_rules_and_dashboard_are_left_to_prometheus_and_grafana(
    chart: Chart, tmp_path: Path
) -> None:
    words = "{{ $labels.pod }} waits {{ $value | humanizeDuration }}"
    rule = {"alert": "A", "expr": "up", "labels": {}, "annotations": {"summary": words, "runbook_url": "r"}}
    alerts = yaml.safe_dump({"groups": [{"name": "g", "rules": [rule]}]})
    changed = chart.copied(tmp_path)
    (changed.folder / "files" / "alerts.yaml").write_text(alerts)
    content = {"title": "T", "legend": "{{pod}}", "templating": {"list": []}}
    (changed.folder / "files" / "dashboard.json").write_text(json.dumps(content))
    manifests = changed.render(None, "keda")
    annotations = manifests.one("PrometheusRule")["spec"]["groups"][0]["rules"][0]["annotations"]
    assert annotations["summary"] == f"vision/test: {words}"
    assert '"{{pod}}"' in str(manifests.one("ConfigMap", "-dashboard")["data"])


def test_the_adapter_keeps_the_rules_of_others_and_has_ours_once(chart: Chart, tmp_path: Path) -> None:
    """Run the program of jq in README, first on an adapter without any rules."""
    jq = tool("jq", "jq")
    rendered = [chart.render(None, "hpa", release=name) for name in ("detect", "other")]
    first, second = (manifests.one("ConfigMap", "-adapter-rules")["data"] for manifests in rendered)
    assert first == second
    ours = json.loads(first["values.json"])
    assert ours == yaml.safe_load(first["values.yaml"])
    (program,) = re.findall(r"jq -s '([^']*)'", (chart.folder / "README.md").read_text())

    def merged(adapter: Any) -> Any:
        (tmp_path / "adapter.json").write_text(json.dumps(adapter))
        (tmp_path / "rules.json").write_text(first["values.json"])
        files = [str(tmp_path / name) for name in ("adapter.json", "rules.json")]
        return json.loads(subprocess.check_output([jq, "-s", program, *files], timeout=60))

    assert merged(None) == ours
    theirs = [{"seriesQuery": "queue_length", "name": {"as": "queue_length"}}, {"seriesQuery": "unnamed"}]
    before = {"prometheus": {"url": "http://p"}, "rules": {"default": False, "custom": theirs}}
    after = before | {"rules": {"default": False, "custom": theirs + ours["rules"]["custom"]}}
    assert merged(before) == after
    assert merged(after) == after


TURN: dict[str, Any] = {
    "coturn": {
        "enabled": True,
        "host": "turn.example.org",
        "podCIDRs": ["10.244.0.0/16"],
        "metricsPort": 9641,
    },
    "webrtc": {"turn": {"existingSecret": "turn"}},
}


def test_coturn_is_scraped_by_prometheus_alone(chart: Chart) -> None:
    manifests = chart.render(TURN, "keda")
    monitor = manifests.one("PodMonitor")
    template = manifests.one("Deployment", "-coturn")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports[endpoint["port"]] == 9641
    configuration = manifests.one("ConfigMap", "-coturn")["data"]["turnserver.conf"]
    assert "\nprometheus\nprometheus-port=9641\n" in configuration
    _, scrapes, _ = manifests.one("NetworkPolicy", "-coturn")["spec"]["ingress"]
    assert [peer["namespaceSelector"]["matchLabels"] for peer in scrapes["from"]] == [
        {"kubernetes.io/metadata.name": "monitoring"}
    ]
    assert scrapes["ports"] == [{"protocol": "TCP", "port": "metrics"}]
    assert "metrics" not in {port["name"] for port in manifests.one("Service", "-coturn")["spec"]["ports"]}
    assert find_faults(chart_tools.crd_models(), [monitor, manifests.one("PrometheusRule")]) == []
    assert chart.render(TURN | {"coturn": TURN["coturn"] | {"metricsPort": 0}}, "keda").of("PodMonitor") == []


def test_turn_servers_of_which_none_is_scraped_are_an_alert_of_their_release(
    chart: Chart, tmp_path: Path
) -> None:
    rendered = chart.render(TURN, "keda", release="detect")
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump(rendered.one("PrometheusRule")["spec"]))

    def up(release: str, pod: str, values: str) -> dict[str, str]:
        name = f"{release}-real-time-vision-api-coturn-5d8f9c7b44-{pod}"
        return {"series": f'up{{namespace="vision",pod="{name}"}}', "values": values}

    other = up("detect-two", "aaaaa", "1x30")
    situations = {
        "one of two is scraped": ([up("detect", "aaaaa", "0x30"), up("detect", "bbbbb", "1x30")], 0),
        "none is scraped": ([up("detect", "aaaaa", "0x30"), up("detect", "bbbbb", "0x30")], 1),
        "there is none": ([], 1),
    }
    query = (
        'count by (alertname, namespace, release) (ALERTS{alertname="VisionTurnDown",alertstate="firing"})'
    )
    tests = [
        {
            "name": name,
            "interval": "1m",
            "input_series": [*series, other],
            "promql_expr_test": [
                {"expr": query, "eval_time": "9m", "exp_samples": [FIRST.firing("VisionTurnDown")] * fires}
            ],
        }
        for name, (series, fires) in situations.items()
    ]
    run_rule_tests(tmp_path, [str(rules)], tests)
    (rule,) = rendered.one("PrometheusRule")["spec"]["groups"][-1]["rules"]
    page, _, section = rule["annotations"]["runbook_url"].partition("#")
    assert f"\n## {rule['alert']}\n" in (ROOT / page).read_text()
    assert section == rule["alert"].lower()
