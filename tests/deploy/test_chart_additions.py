"""Tests what users add to the chart's pods and resources, and images from a registry of their own."""

from __future__ import annotations

import pytest

from tests.deploy.chart import Chart

MIRROR = "mirror.example.org:5000/vision"


def test_labels_and_annotations_reach_all_resources(chart: Chart) -> None:
    manifests = chart.render(None, "additions")
    own = [
        manifest
        for manifest in manifests.all
        if not manifest["metadata"]["name"].endswith(("-notes", "-text"))
    ]
    assert len({manifest["kind"] for manifest in own}) >= 10
    for manifest in own:
        expected = "44" if manifest["kind"] == "ServiceMonitor" else "42"  # its own label takes precedence
        assert manifest["metadata"]["labels"]["cost-center"] == expected, manifest["kind"]
        assert manifest["metadata"]["annotations"]["example.org/contact"] == "vision-team", manifest["kind"]
    assert (
        manifests.one("PersistentVolumeClaim")["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    )
    for workload in manifests.of("StatefulSet") + manifests.of("Deployment"):
        pod = workload["spec"]["template"]["metadata"]
        assert "example.org/contact" not in pod["annotations"]
        assert "cost-center" not in workload["spec"]["selector"]["matchLabels"], "a selector cannot change"
    labels = manifests.workload["spec"]["template"]["metadata"]["labels"]
    assert labels["cost-center"] == "43", "podLabels take precedence"
    coturn = manifests.one("Deployment", "-coturn")["spec"]["template"]["metadata"]["labels"]
    assert coturn["cost-center"] == "42"


def test_your_annotations_of_a_resource_take_precedence_over_common_ones(chart: Chart) -> None:
    values = {"commonAnnotations": {"a": "common", "b": "common"}, "service": {"annotations": {"a": "mine"}}}
    service = chart.render(values).one("Service")
    assert service["metadata"]["annotations"] == {"a": "mine", "b": "common"}
    assert "annotations" not in chart.render().one("Service")["metadata"]


def test_containers_run_before_and_beside_the_service(chart: Chart) -> None:
    manifests = chart.render(None, "additions")
    (fetch,) = manifests.pod["initContainers"]
    assert (fetch["name"], fetch["image"]) == ("fetch", manifests.container["image"]), (
        "templates are rendered"
    )
    assert [container["name"] for container in manifests.pod["containers"]] == ["service", "shipper"]


def test_objects_of_ones_own_are_rendered(chart: Chart) -> None:
    manifests = chart.render(None, "additions")
    assert manifests.one("ConfigMap", "-notes")["data"] == {"release": "test"}
    assert manifests.one("ConfigMap", "-text")["metadata"]["name"] == "test-real-time-vision-api-text"


def test_pods_have_the_scheduler_names_and_times_that_are_asked_for(chart: Chart) -> None:
    manifests = chart.render({"dnsPolicy": "Default"}, "additions")
    assert manifests.pod["schedulerName"] == "bin-packing"
    assert manifests.pod["dnsPolicy"] == "Default"
    assert manifests.pod["dnsConfig"] == {"options": [{"name": "ndots", "value": "1"}]}
    assert manifests.container["startupProbe"]["timeoutSeconds"] == 10
    plain = chart.render()
    assert not {"schedulerName", "dnsPolicy", "dnsConfig", "initContainers"} & set(plain.pod)
    probes = [
        plain.container[f"{name}Probe"]["timeoutSeconds"] for name in ("startup", "liveness", "readiness")
    ]
    assert probes == [3, 5, 2]


@pytest.mark.parametrize(
    ("repository", "tag", "expected"),
    [
        ("real-time-vision-api", "1", f"{MIRROR}/real-time-vision-api:1"),
        ("ghcr.io/me/detect", "1", f"{MIRROR}/me/detect:1"),
        ("localhost:5000/detect", "1", f"{MIRROR}/detect:1"),
        ("me/detect", "1", f"{MIRROR}/me/detect:1"),
    ],
)
def test_all_images_come_from_the_registry(chart: Chart, repository: str, tag: str, expected: str) -> None:
    manifests = chart.render({"image": {"repository": repository, "tag": tag}}, "additions")
    assert manifests.container["image"] == expected
    pods = list(manifests.pod_specifications())
    assert len(pods) == 3
    for pod in pods:
        assert pod["imagePullSecrets"] == [{"name": "mirror"}]
        for container in pod["containers"]:
            assert container["image"].startswith(f"{MIRROR}/")
    digest = "sha256:" + "0" * 64
    pinned = chart.render({"image": {"repository": "ghcr.io/me/detect", "digest": digest}}, "additions")
    assert pinned.container["image"] == f"{MIRROR}/me/detect@{digest}"


def test_a_monitor_has_the_rules_for_labels_that_are_asked_for(chart: Chart) -> None:
    (endpoint,) = chart.render(None, "additions").one("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["relabelings"] == [
        {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}
    ]
    assert endpoint["metricRelabelings"][0]["action"] == "drop"
    (plain,) = chart.render(None, "keda").one("ServiceMonitor")["spec"]["endpoints"]
    assert not {"relabelings", "metricRelabelings"} & set(plain)


def test_the_pod_of_helm_test_may_connect_and_gets_no_requests(chart: Chart) -> None:
    manifests = chart.render({"networkPolicy": {"clientsInNamespace": False}})
    pod = manifests.one("Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    selector = manifests.workload["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= pod["metadata"]["labels"].items()
    peers = manifests.one("NetworkPolicy")["spec"]["ingress"][0]["from"]
    allowed = [peer["podSelector"]["matchLabels"] for peer in peers if "podSelector" in peer]
    assert any(labels.items() <= pod["metadata"]["labels"].items() for labels in allowed)
    (container,) = pod["spec"]["containers"]
    assert container["image"] == manifests.container["image"]
    tokens = {"auth": {"keysFileSecret": "named-keys"}}
    environment = {
        entry["name"]: entry for entry in chart.render(tokens).one("Pod")["spec"]["containers"][0]["env"]
    }
    assert environment["DETECT"]["value"] == "", "it has no key with which it could ask for a detection"
