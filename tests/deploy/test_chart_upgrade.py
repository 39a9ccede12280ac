"""Tests upgrades of a live release, with a real helm and a cluster that only stores objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import NAMESPACE, RELEASE, Chart, Manifest
from tests.deploy.fake_cluster import FakeCluster, running_cluster

NAME = f"{RELEASE}-real-time-vision-api"
SCALED = {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 9}}


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with running_cluster() as cluster:
        yield cluster


def upgrade(chart: Chart, cluster: FakeCluster, folder: Path, values: Manifest) -> None:
    """Install or upgrade the release with these values."""
    given = folder / "values.yaml"
    given.write_text(yaml.safe_dump({"auth": {"allowAnonymous": True}} | values))
    options = ["-n", NAMESPACE, "-f", str(given), "--kube-apiserver", cluster.url]
    command = ["upgrade", "--install", RELEASE, str(chart.folder), "--disable-openapi-validation"]
    done = chart.run(*command, *options)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("spool", [True, False])
def test_enabling_autoscaling_keeps_the_replicas_that_there_are(
    chart: Chart, cluster: FakeCluster, tmp_path: Path, spool: bool
) -> None:
    volumes = {"persistence": {"spool": {"enabled": spool}}}
    plural = "statefulsets" if spool else "deployments"
    upgrade(chart, cluster, tmp_path, volumes | {"replicaCount": 5})
    assert cluster.named(plural, NAME)["spec"]["replicas"] == 5
    upgrade(chart, cluster, tmp_path, volumes | SCALED)
    assert cluster.named("horizontalpodautoscalers", NAME)
    assert cluster.named(plural, NAME)["spec"]["replicas"] == 5
    # The autoscaler has changed the number; a later upgrade keeps what it finds.
    cluster.named(plural, NAME)["spec"]["replicas"] = 7
    upgrade(chart, cluster, tmp_path, volumes | SCALED | {"settings": {"WORKERS": 2}})
    assert cluster.named(plural, NAME)["spec"]["replicas"] == 7


def test_a_workload_of_the_other_kind_starts_with_the_replicas_of_the_one_that_it_replaces(
    chart: Chart, cluster: FakeCluster, tmp_path: Path
) -> None:
    upgrade(chart, cluster, tmp_path, {"replicaCount": 4})
    upgrade(chart, cluster, tmp_path, SCALED | {"persistence": {"spool": {"enabled": False}}})
    assert cluster.named("deployments", NAME)["spec"]["replicas"] == 4


def test_a_new_release_leaves_the_number_to_the_autoscaler(
    chart: Chart, cluster: FakeCluster, tmp_path: Path
) -> None:
    upgrade(chart, cluster, tmp_path, SCALED)
    assert "replicas" not in cluster.named("statefulsets", NAME)["spec"]


def test_a_changed_secret_restarts_the_pods_with_the_next_upgrade(
    chart: Chart, cluster: FakeCluster, tmp_path: Path
) -> None:
    path = f"/api/v1/namespaces/{NAMESPACE}/secrets/detect-keys"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "detect-keys", "resourceVersion": "41"},
    }
    cluster.objects[path] = secret
    values = {"auth": {"existingSecret": "detect-keys"}}

    def checksum() -> str:
        upgrade(chart, cluster, tmp_path, values)
        template = cluster.named("statefulsets", NAME)["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/existing-secrets"])

    first = checksum()
    assert checksum() == first, "an upgrade alone restarts nobody"
    cluster.objects[path] = secret | {"metadata": {"name": "detect-keys", "resourceVersion": "42"}}
    assert checksum() != first
