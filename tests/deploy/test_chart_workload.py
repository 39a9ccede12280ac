"""Tests that the chart's pods fit the service: its settings, probes, drain, files and rights."""

from __future__ import annotations

import re
from typing import Any

import pytest

from streamer.config.settings import Settings, load_settings
from streamer.supervisor.supervisor import KILL_AFTER_S
from tests.deploy.chart import RELEASE, VALUE_SETS, Chart

FULL_NAME = f"{RELEASE}-real-time-vision-api"
#: Variables that libraries read; they are not settings of the service.
LIBRARY_VARIABLES = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CA_BUNDLE",
    "SSL_CERT_FILE",
}
DEFAULTS = {name.upper(): field.default for name, field in Settings.model_fields.items()}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_variables_are_settings_of_the_service_with_values_that_it_takes(
    chart: Chart, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = chart.render(None, name).environment
    assert set(environment) - LIBRARY_VARIABLES <= set(DEFAULTS)
    for variable, value in environment.items():
        # Skip models, whose files lie on a volume, and references, which only the kubelet resolves.
        if isinstance(value, str) and not variable.startswith("MODEL_V"):
            monkeypatch.setenv(variable, value)
    monkeypatch.setenv("REPLICA_ADDRESS", "10.244.0.7")
    settings = Settings()
    every = "::" if name in ("ipv6", "load-balancer") else "0.0.0.0"  # noqa: S104 - that is what a pod wants
    assert (settings.host, settings.port) == (every, 8000)


@pytest.mark.parametrize("name", VALUE_SETS)
def test_pods_are_restricted_and_have_no_token(chart: Chart, name: str) -> None:
    manifests = chart.render(None, name)
    for account in manifests.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for pod in manifests.pod_specifications():
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        if name != "openshift":  # which chooses the users itself
            assert pod["securityContext"]["runAsUser"] > 10000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        # Only the sets that show these values have them.
        assert {"hostNetwork", "hostPID", "hostIPC"} & set(pod) <= (
            {"hostNetwork"} if name == "host-network" else set()
        )
        for container in pod["containers"] + pod.get("initContainers", []):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"]["drop"] == ["ALL"]
            # The Pod Security Standard lets a restricted pod add only this capability.
            added = ["NET_BIND_SERVICE"] if container["name"] == "coturn" else []
            assert security["capabilities"].get("add", []) == added
            assert ("hostPort" in str(container.get("ports"))) is (
                (name, container["name"]) in {("host-ports", "service"), ("host-network", "spare")}
            )
            assert container["resources"]["limits"]["memory"]
            # The frame ring is a sealed memfd: it counts as memory of the pod and needs no volume.
            mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            assert "/dev/shm" not in mounts  # noqa: S108
            assert len(mounts) == len(set(mounts))
        assert all("hostPath" not in volume for volume in pod.get("volumes", []))


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_mount_has_its_volume(chart: Chart, name: str) -> None:
    manifests = chart.render(None, name)
    volumes = {volume["name"] for volume in manifests.pod["volumes"]}
    templates = manifests.workload["spec"].get("volumeClaimTemplates", [])
    volumes |= {template["metadata"]["name"] for template in templates}
    assert {mount["name"] for mount in manifests.container["volumeMounts"]} <= volumes
    made = {claim["metadata"]["name"] for claim in manifests.of("PersistentVolumeClaim")}
    for volume in manifests.pod["volumes"]:
        claim = volume.get("persistentVolumeClaim", {}).get("claimName", "")
        assert not claim.startswith(FULL_NAME) or claim in made


def test_the_grace_period_is_longer_than_the_drain_of_the_service(chart: Chart) -> None:
    manifests = chart.render()
    shown = {name: float(manifests.environment[name]) for name in DEFAULTS if name.endswith("DRAIN_S")}
    shown |= {name: float(manifests.environment[name]) for name in ("DRAIN_DELAY_S", "DRAIN_TIMEOUT_S")}
    assert shown == {name: DEFAULTS[name] for name in shown}, "the chart's defaults are the service's"
    lifecycle = manifests.container["lifecycle"]["preStop"]
    # The supervisor first waits for the workers, then for the sampling process, which delivers its samples.
    # It gives each of the two KILL_AFTER_S more before it kills.
    window_s = lifecycle["sleep"]["seconds"] + sum(shown.values()) + 2 * KILL_AFTER_S
    assert manifests.pod["terminationGracePeriodSeconds"] > window_s
    old = chart.render(kubernetes="1.28").container["lifecycle"]["preStop"]
    assert old == {"exec": {"command": ["sleep", "5"]}}, "the kubelet of 1.28 cannot sleep itself"


def test_probes_ask_the_right_questions(chart: Chart) -> None:
    container = chart.render({"settings": {"MODEL_START_TIMEOUT_S": 1200}}).container
    paths = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in paths.items()} == {
        "startup": "/health",
        "liveness": "/livez",
        "readiness": "/health",
    }
    assert {probe["port"] for probe in paths.values()} == {"http"}
    startup = container["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] > 1200, "the service gives up first"
    readiness = container["readinessProbe"]
    seen_s = readiness["periodSeconds"] * readiness["failureThreshold"]
    assert seen_s <= 5 + DEFAULTS["DRAIN_DELAY_S"], (
        "and balancers see that it drains before it closes its port"
    )


def test_a_replica_with_a_spool_of_its_own_is_part_of_a_stateful_set(chart: Chart) -> None:
    manifests = chart.render({"replicaCount": 3})
    workload = manifests.workload
    assert (workload["kind"], workload["spec"]["replicas"]) == ("StatefulSet", 3)
    (template,) = workload["spec"]["volumeClaimTemplates"]
    assert template["spec"]["accessModes"] == ["ReadWriteOnce"]
    retention = workload["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert set(retention.values()) == {"Retain"}, "samples that wait for the bucket outlive their replica"
    headless = manifests.one("Service", "-replicas")
    assert workload["spec"]["serviceName"] == headless["metadata"]["name"]
    mount = next(m for m in manifests.container["volumeMounts"] if m["name"] == "spool")
    assert manifests.environment["SAMPLES_DIR"].startswith(mount["mountPath"] + "/")
    size_gib = int(re.fullmatch(r"(\d+)Gi", template["spec"]["resources"]["requests"]["storage"])[1])  # type: ignore[index]
    assert size_gib * 2**30 > DEFAULTS["SAMPLES_MAX_BYTES"] * 1.1


@pytest.mark.parametrize(("gpu", "surge"), [(False, (1, 0)), (True, (0, 1))])
def test_without_a_spool_it_is_a_deployment_that_never_waits_for_its_own_gpu(
    chart: Chart, gpu: bool, surge: tuple[int, int]
) -> None:
    values = {"persistence": {"spool": {"enabled": False}}, "gpu": {"enabled": gpu}}
    manifests = chart.render(values)
    rolling = manifests.one("Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxSurge"], rolling["maxUnavailable"]) == surge
    spool = next(volume for volume in manifests.pod["volumes"] if volume["name"] == "spool")
    assert "emptyDir" in spool


def test_replicas_know_each_other_by_the_headless_service(chart: Chart) -> None:
    manifests = chart.render({"replicaCount": 3, "containerPort": 8080})
    environment = manifests.environment
    assert environment["REPLICA_ADDRESS"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    settings = Settings(replica_address="10.244.0.7", replica_peers=environment["REPLICA_PEERS"], port=8080)
    (peers,) = settings.peer_addresses
    headless = manifests.one("Service", "-replicas")
    assert (peers.host, peers.port) == (headless["metadata"]["name"], headless["spec"]["ports"][0]["port"])
    assert settings.own_address is not None
    assert settings.own_address.port == manifests.container["ports"][0]["containerPort"]


def test_a_gpu_is_asked_for_and_never_given_up_silently(chart: Chart) -> None:
    manifests = chart.render(None, "gpu-node")
    resources = manifests.container["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == 1
    assert manifests.environment["DEVICE"] == "cuda"
    assert manifests.pod["runtimeClassName"] == "nvidia"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in manifests.pod[
        "tolerations"
    ]
    assert manifests.container["image"].endswith("-gpu")
    assert "INFERENCE_LANES" not in manifests.environment
    mount = next(m for m in manifests.container["volumeMounts"] if m["name"] == "spool")
    assert manifests.environment["ENGINE_CACHE_DIR"].startswith(mount["mountPath"] + "/")
    plain = chart.render()
    assert not any(name.startswith("nvidia") for name in plain.container["resources"]["limits"])
    assert plain.environment["DEVICE"] == "cpu"
    assert "tolerations" not in plain.pod
    lanes = plain.environment["INFERENCE_LANES"]["resourceFieldRef"]
    assert lanes == {"containerName": "service", "resource": "requests.cpu", "divisor": "1"}


def test_models_of_ones_own_lie_on_a_volume(chart: Chart) -> None:
    manifests = chart.render(None, "gpu-node")
    assert manifests.environment["MODEL_V1_PATH"] == "/models/parcels.onnx"
    mount = next(m for m in manifests.container["volumeMounts"] if m["name"] == "models")
    assert (mount["mountPath"], mount["readOnly"]) == ("/models", True)
    absolute = chart.render({"models": {"v2": "/opt/detector.onnx"}}).environment
    assert absolute["MODEL_V2_PATH"] == "/opt/detector.onnx"


def secret_ref(name: str, key: str) -> dict[str, Any]:
    return {"secretKeyRef": {"name": name, "key": key}}


def test_secrets_of_ones_own_are_referred_to_and_no_other_is_made(chart: Chart) -> None:
    manifests = chart.render(None, "s3-store", "coturn", "keda")
    environment = manifests.environment
    assert environment["AWS_ACCESS_KEY_ID"] == secret_ref("minio-writer", "access-key")
    assert environment["AWS_SECRET_ACCESS_KEY"] == secret_ref("minio-writer", "secret-key")
    assert environment["API_KEYS"] == secret_ref("detect-keys", "api-keys")
    assert environment["TURN_SECRET"] == secret_ref("turn", "turn-secret")
    assert manifests.of("Secret") == []


def test_secrets_by_value_stand_in_a_secret_alone(chart: Chart) -> None:
    values = {"auth": {"apiKeys": ["dummy-key-1", "dummy-key-2"]}}
    manifests = chart.render(values, "extras")
    made = manifests.one("Secret")
    assert made["stringData"] == {
        "api-keys": "dummy-key-1,dummy-key-2",
        "AWS_ACCESS_KEY_ID": "dummy-access-key",
        "AWS_SECRET_ACCESS_KEY": "dummy-secret-key",
        "turn-secret": "dummy-secret",
    }
    for variable in ("API_KEYS", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "TURN_SECRET"):
        reference = manifests.environment[variable]["secretKeyRef"]
        assert reference["name"] == made["metadata"]["name"]
        assert reference["key"] in made["stringData"]
    assert not any("dummy" in str(m) for m in manifests.all if m["kind"] != "Secret")
    checksum = manifests.workload["spec"]["template"]["metadata"]["annotations"]["checksum/secret"]
    other = chart.render({"auth": {"apiKeys": ["dummy-key-3"]}}, "extras").workload["spec"]["template"]
    assert other["metadata"]["annotations"]["checksum/secret"] != checksum, "a new key restarts the pods"


@pytest.mark.parametrize(
    ("gpu", "device"),
    [
        ({}, "cuda"),
        ({"count": 3}, "cuda:0,cuda:1,cuda:2"),
        ({"count": 2, "device": "tensorrt"}, "tensorrt:0,tensorrt:1"),
    ],
)
def test_each_gpu_of_a_replica_is_a_device(chart: Chart, gpu: dict[str, Any], device: str) -> None:
    manifests = chart.render({"gpu": {"enabled": True, **gpu}, "auth": {"allowAnonymous": True}})
    assert manifests.environment["DEVICE"] == device
    assert manifests.container["resources"]["limits"]["nvidia.com/gpu"] == gpu.get("count", 1)
    assert load_settings(device=device).device == device


def test_the_choice_of_models_is_on_the_volume_of_the_replica(chart: Chart) -> None:
    manifests = chart.render()
    assert manifests.environment["VERSIONS_STATE_FILE"] == "/var/lib/real-time-vision-api/versions.json"
    own = chart.render({"settings": {"VERSIONS_STATE_FILE": "/elsewhere/versions.json"}})
    assert own.environment["VERSIONS_STATE_FILE"] == "/elsewhere/versions.json"


def test_keys_of_administrators_stand_in_a_secret(chart: Chart) -> None:
    own = chart.render({"auth": {"allowAnonymous": True, "adminKeys": ["dummy-key-1", "dummy-key-2"]}})
    made = own.one("Secret")
    assert made["stringData"]["admin-api-keys"] == "dummy-key-1,dummy-key-2"
    assert own.environment["ADMIN_API_KEYS"] == secret_ref(made["metadata"]["name"], "admin-api-keys")
    existing: dict[str, Any] = {"allowAnonymous": True, "adminKeys": ["dummy-key-1"]}
    existing |= {"adminExistingSecret": "ops", "adminExistingSecretKey": "all"}
    named = chart.render({"auth": existing})
    assert named.environment["ADMIN_API_KEYS"] == secret_ref("ops", "all")
    assert named.of("Secret") == []
    assert "ADMIN_API_KEYS" not in chart.render().environment


def test_settings_reach_the_service_as_they_were_written(chart: Chart) -> None:
    values: dict[str, Any] = {
        "settings": {
            "SAMPLES_MAX_BYTES": 4294967296,
            "STREAM_MAX_AGE_MS": 0.5,
            "SAMPLES_COMPARE": True,
            "SAMPLES_DENY": "entrance,office",
            "LOG_FORMAT": "text",
        },
        "persistence": {"spool": {"size": "6Gi"}},
    }
    environment = chart.render(values).environment
    assert {name: environment[name] for name in values["settings"]} == {
        "SAMPLES_MAX_BYTES": "4294967296",
        "STREAM_MAX_AGE_MS": "0.5",
        "SAMPLES_COMPARE": "true",
        "SAMPLES_DENY": "entrance,office",
        "LOG_FORMAT": "text",
    }


def test_what_is_added_arrives(chart: Chart) -> None:
    manifests = chart.render(None, "extras")
    pod, container = manifests.pod, manifests.container
    assert manifests.environment["AWS_CA_BUNDLE"] == "/etc/store-ca/ca.crt"
    assert container["envFrom"] == [{"configMapRef": {"name": "more-settings"}}]
    assert {"name": "store-ca", "configMap": {"name": "store-ca"}} in pod["volumes"]
    assert pod["imagePullSecrets"] == [{"name": "regcred"}]
    assert pod["priorityClassName"] == "high"
    assert pod["nodeSelector"] == {"pool": "detect"}
    assert pod["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "DoNotSchedule"
    assert pod["serviceAccountName"] == "default"
    assert manifests.workload["metadata"]["name"] == "detect"
    assert manifests.workload["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert manifests.workload["spec"]["template"]["metadata"]["labels"]["team"] == "vision"


def test_replicas_spread_over_nodes_and_zones(chart: Chart) -> None:
    manifests = chart.render()
    constraints = manifests.pod["topologySpreadConstraints"]
    assert [c["topologyKey"] for c in constraints] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    selector = manifests.workload["spec"]["selector"]["matchLabels"]
    assert all(c["labelSelector"]["matchLabels"] == selector for c in constraints)
