"""Tests that Kubernetes, the CRDs and a security scanner accept every manifest of every value set."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import chart_tools
from tests.deploy.chart import CHART, VALUE_SETS, Chart
from tests.deploy.crd_models import find_faults, is_modelled

#: The first run downloads half a gigabyte of validators.
pytestmark = pytest.mark.timeout(chart_tools.LARGE_FETCH_S + 700)
#: Oldest minor version of Kubernetes that Chart.yaml allows, and a number that means "newest known version".
OLDEST, NEWEST = 25, 999
#: Custom resources for which no model is available; a test compares them with STUNner's documentation.
UNMODELLED = {"UDPRoute"}


def version_classes() -> list[tuple[int, int]]:
    """Return ranges of minor versions within which the templates render the same."""
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    switches = {int(minor) for minor in re.findall(r'semverCompare ">=1\.(\d+)\.0-0"', text)}
    assert text.count("Capabilities") == len(re.findall(r"semverCompare .* \.Capabilities", text))
    edges = [OLDEST, *sorted(switches), NEWEST]
    return list(itertools.pairwise(edges))


@pytest.fixture(scope="module")
def rendered(chart: Chart) -> list[tuple[str, int, int, dict[str, Any]]]:
    """Return each distinct manifest as (name of its value set, first version, end version, manifest)."""
    distinct: dict[tuple[int, str], tuple[str, int, int, dict[str, Any]]] = {}
    for first, end in version_classes():
        for name in VALUE_SETS:
            for manifest in chart.render(None, name, kubernetes=f"1.{first}.0").all:
                distinct.setdefault((first, json.dumps(manifest)), (name, first, end, manifest))
    return list(distinct.values())


def schema_faults(cases: list[Any]) -> tuple[str, int]:
    """Return the output of kubernetes-validate and its exit code."""
    python = chart_tools.validators() / "python"
    done = subprocess.run(
        [str(python), str(Path(__file__).with_name("kubernetes_schemas.py"))],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.stdout, done.returncode


def test_manifests_are_valid_for_kubernetes_from_the_oldest_to_the_newest_version(
    rendered: list[tuple[str, int, int, dict[str, Any]]],
) -> None:
    kube_version = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    assert kube_version == f">=1.{OLDEST}.0-0"
    said, code = schema_faults(rendered)
    assert code == 0, said
    used = [int(minor) for minor in said.splitlines()[-1].removeprefix("versions: ").split()]
    assert used == list(range(OLDEST, 38)), "the validators are pinned: they know 1.25 to 1.37"


def test_the_check_of_schemas_finds_faults(rendered: list[tuple[str, int, int, dict[str, Any]]]) -> None:
    name, _, _, workload = next(case for case in rendered if case[3]["kind"] == "StatefulSet")
    wrong = json.loads(json.dumps(workload))
    wrong["spec"]["template"]["spec"]["securityContext"]["runAsNonRot"] = True
    unknown = {"apiVersion": "apps/v1", "kind": "Statefulset2", "metadata": {"name": "x"}}
    said, code = schema_faults([(name, 31, 32, wrong), (name, 31, 32, unknown)])
    assert code == 1
    assert "runAsNonRot" in said
    assert "no schema" in said


def test_custom_resources_are_valid_for_their_crds(chart: Chart) -> None:
    custom = []
    for name in VALUE_SETS:
        for manifest in chart.render(None, name).all:
            group = manifest["apiVersion"].split("/")[0]
            if is_modelled(manifest):
                custom.append(manifest)
            elif "." in group.removesuffix(".k8s.io"):
                assert manifest["kind"] in UNMODELLED
    kinds = {manifest["kind"] for manifest in custom}
    assert kinds == {
        "HTTPRoute",
        "Gateway",
        "ScaledObject",
        "ServiceMonitor",
        "PrometheusRule",
        "VirtualService",
        "DestinationRule",
    }
    wrong = json.loads(json.dumps(next(m for m in custom if m["kind"] == "HTTPRoute")))
    wrong["spec"]["rules"][0]["sessionPersistence"]["cookieName"] = "x"
    faults = find_faults(chart_tools.crd_models(), [*custom, wrong])
    assert len(faults) == 1, faults
    assert "cookieName" in faults[0], "and an unknown field is found"


def scan(folder: Path, cache: Path) -> list[dict[str, Any]]:
    """Return the findings of trivy in rendered manifests, of severity HIGH and CRITICAL."""
    quiet = ["--skip-check-update", "--skip-version-check", "--disable-telemetry", "--quiet"]
    severities = ["--severity", "HIGH,CRITICAL", "--format", "json"]
    done = subprocess.run(
        [str(chart_tools.validators() / "trivy"), "config", *quiet, *severities, str(folder)],
        capture_output=True,
        text=True,
        timeout=150,
        check=True,
        env=os.environ | {"TRIVY_CACHE_DIR": str(cache)},
    )
    results = json.loads(done.stdout).get("Results", [])
    assert results, "trivy has looked at nothing"
    return [fault | {"file": r["Target"]} for r in results for fault in r.get("Misconfigurations") or []]


def test_a_scanner_finds_nothing_of_high_severity(chart: Chart, tmp_path: Path) -> None:
    for name in VALUE_SETS:
        (tmp_path / f"{name}.yaml").write_text(chart.text(None, name))
    writable = chart.text().replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")
    (tmp_path / "wrong.yaml").write_text(writable)
    # If you add an exception, write its reason beside it.
    excepted = {
        ("host-network.yaml", "KSV-0009"),  # the set shows `hostNetwork`, which is off by default
        ("host-network.yaml", "KSV-0024"),  # a placeholder takes the port that a replica takes at its node
        ("host-ports.yaml", "KSV-0024"),  # the set shows `webrtc.hostPorts`, which is off by default
    }
    faults = [(fault["file"], fault["ID"]) for fault in scan(tmp_path, tmp_path / "cache")]
    assert set(faults) == {("wrong.yaml", "KSV-0014")} | excepted, "and it would find a writable root"
