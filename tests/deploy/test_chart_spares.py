"""Tests of placeholders that keep room for new replicas, and of the volume of engines that replicas share."""

from __future__ import annotations

import pytest

from tests.deploy.chart import Chart, Manifest, Refused

ENGINES = {"persistence": {"engines": {"enabled": True}}}
TENSORRT = {"gpu": {"enabled": True, "device": "tensorrt"}}


def test_a_placeholder_holds_what_a_replica_needs(chart: Chart) -> None:
    manifests = chart.render(None, "tensorrt")
    spares = manifests.one("Deployment", "-spares")
    assert spares["spec"]["replicas"] == 2
    pod, replica = spares["spec"]["template"]["spec"], manifests.pod
    (container,) = pod["containers"]
    assert container["resources"] == manifests.container["resources"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    for field in ("nodeSelector", "tolerations", "securityContext", "topologySpreadConstraints"):
        assert pod[field] == replica[field]
    # The node then has the image of the service, and room is made at once.
    assert container["image"] == manifests.container["image"]
    assert pod["terminationGracePeriodSeconds"] == 0
    assert "env" not in container


def test_a_placeholder_gives_way_and_displaces_nobody(chart: Chart) -> None:
    manifests = chart.render(None, "tensorrt")
    priority = manifests.one("PriorityClass")
    pod = manifests.one("Deployment", "-spares")["spec"]["template"]["spec"]
    assert (
        pod["priorityClassName"] == priority["metadata"]["name"] == "vision-test-real-time-vision-api-spares"
    )
    assert -10 <= priority["value"] < 0, "Cluster Autoscaler adds no nodes for pods below -10"
    assert priority["preemptionPolicy"] == "Never"
    assert priority["globalDefault"] is False
    other = chart.render({"warmSpares": {"count": 1}}, "hpa", namespace="other").one("PriorityClass")
    assert other["metadata"]["name"] != priority["metadata"]["name"], "such names have no namespace"
    named = chart.render(None, "host-network")
    assert named.of("PriorityClass") == []
    spares = named.one("Deployment", "-spares")["spec"]["template"]["spec"]
    assert spares["priorityClassName"] == "placeholders"


def test_a_placeholder_keeps_no_room_beside_a_replica_that_has_the_ports_of_its_node(chart: Chart) -> None:
    def port(values: Manifest) -> Manifest:
        spares = chart.render(values | {"warmSpares": {"count": 1}}).one("Deployment", "-spares")
        (found,) = spares["spec"]["template"]["spec"]["containers"][0].get("ports", [{}])
        return dict(found)

    assert port({}) == {}
    assert port({"hostNetwork": True}) == {"containerPort": 8000, "hostPort": 8000, "protocol": "TCP"}
    media = port({"webrtc": {"hostPorts": True, "udpPortRange": "50000-50009"}})
    assert media == {"containerPort": 50000, "hostPort": 50000, "protocol": "UDP"}


def test_a_placeholder_is_no_replica(chart: Chart) -> None:
    manifests = chart.render({"warmSpares": {"count": 1}}, "hpa")
    labels = manifests.one("Deployment", "-spares")["spec"]["template"]["metadata"]["labels"]
    selectors = [service["spec"]["selector"] for service in manifests.of("Service")]
    selectors += [manifests.workload["spec"]["selector"]["matchLabels"]]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in manifests.of("PodDisruptionBudget")]
    for selector in selectors:
        assert not selector.items() <= labels.items()
    policies = [each["spec"] for each in manifests.of("NetworkPolicy")]
    (own,) = [each for each in policies if each["podSelector"]["matchLabels"].items() <= labels.items()]
    assert own["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(own), "it reaches nobody, and nobody reaches it"
    assert chart.render(None, "hpa").of("PriorityClass") == []


def test_replicas_share_a_volume_for_engines(chart: Chart) -> None:
    manifests = chart.render(None, "tensorrt")
    assert manifests.environment["ENGINE_CACHE_DIR"] == "/engines"
    assert {"name": "engines", "mountPath": "/engines"} in manifests.container["volumeMounts"]
    claim = manifests.one("PersistentVolumeClaim", "-engines")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["spec"]["storageClassName"] == "shared"
    own = chart.render(TENSORRT).environment["ENGINE_CACHE_DIR"]
    assert own == "/var/lib/real-time-vision-api/engines"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            ENGINES,
            "persistence.engines.enabled is true, and gpu.enabled=false with gpu.device=cuda builds no",
        ),
        (ENGINES | {"gpu": {"enabled": True}}, "gpu.enabled=true with gpu.device=cuda builds no engines"),
        (
            TENSORRT
            | {"replicaCount": 2}
            | {"persistence": {"engines": {"enabled": True, "accessModes": ["ReadWriteOnce"]}}},
            "persistence.engines.accessModes is ReadWriteOnce, and several replicas",
        ),
        ({"warmSpares": {"priority": 1}}, "warmSpares.priority: Must be less than or equal to -1"),
        (
            {"warmSpares": {"count": 1, "priorityClassName": "high"}, "priorityClassName": "high"},
            "warmSpares.priorityClassName and priorityClassName are both high",
        ),
    ],
)
def test_contradictions_are_refused(chart: Chart, values: Manifest, said: str) -> None:
    with pytest.raises(Refused) as caught:
        chart.render(values)
    assert said in str(caught.value)
