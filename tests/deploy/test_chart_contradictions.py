"""Tests that the chart refuses values that contradict each other, and takes their neighbours that fit."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.chart import Chart, Refused

SEVERAL = {"replicaCount": 2}
OCI_MODEL = {"uri": f"oci://registry.example.org/models/parcels@sha256:{'1' * 64}"}
ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"settings": {"WEBRTC_SESSIONS_MAX": 102}},
            "settings.WEBRTC_SESSIONS_MAX is 102 for each of 1 workers, and webrtc.udpPortRange "
            "(50000-50100) has 101 ports",
        ),
        (
            {"settings": {"WEBRTC_SESSIONS_MAX": 30, "WORKERS": 4}},
            "at most 25 sessions per worker, or a range of at least 120 ports",
        ),
        (
            {"settings": {"WORKERS": 3}, "webrtc": {"udpPortRange": "50000-50001"}},
            "allowed are at most 2 workers",
        ),
        (
            {"webrtc": {"udpPortRange": "50100-50000"}},
            "webrtc.udpPortRange is 50100-50000, which is reversed",
        ),
        (
            {"webrtc": {"udpPortRange": "50000-70000"}},
            "webrtc.udpPortRange is 50000-70000: allowed are ports",
        ),
        ({"webrtc": {"udpPortRange": "1000-2000"}}, "webrtc.udpPortRange is 1000-2000: allowed are ports"),
        (
            {"coturn": {"relayPortRange": "49999-49152"}},
            "coturn.relayPortRange is 49999-49152, which is reversed",
        ),
        (
            {"webrtc": {"publicIP": "192.0.2.1"}} | SEVERAL,
            "webrtc.publicIP is 192.0.2.1 and there may be several",
        ),
        (
            {"webrtc": {"publicIP": "192.0.2.1"}, "autoscaling": {"enabled": True}},
            "webrtc.publicIP is 192.0.2.1 and there may be several",
        ),
        ({"webrtc": {"publicIP": "300.0.2.1"}}, "webrtc.publicIP: Does not match pattern"),
        ({"gpu": {"enabled": True, "cuda": 11}}, "gpu.cuda: gpu.cuda must be one of the following: 12, 13"),
        (
            {"gpu": {"enabled": True, "cuda": 12}, "image": {"tag": "mine"}},
            "gpu.cuda is 12 and image.tag names an image, which decides about CUDA",
        ),
        (
            {"gpu": {"enabled": True, "cuda": 12}, "image": {"digest": f"sha256:{'1' * 64}"}},
            "gpu.cuda is 12 and image.digest names an image",
        ),
        (
            {"settings": {"DRIFT_ENGINE": "evidently"}, "sampling": {"enabled": False}},
            "settings.DRIFT_ENGINE is evidently and sampling.enabled is false",
        ),
        (
            {"settings": {"DRIFT_ENGINE": "evidently", "DRIFT": False}},
            "settings.DRIFT_ENGINE is evidently and settings.DRIFT is false",
        ),
        (
            {"pathPrefix": "/vision", "settings": {"ROOT_PATH": "/other"}},
            "pathPrefix is /vision and settings.ROOT_PATH is /other",
        ),
        ({"pathPrefix": "/vision/"}, "pathPrefix: Does not match pattern"),
        ({"pathPrefix": "/a/../b"}, "pathPrefix: Does not match pattern"),
        (
            {"service": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6", "IPv4"]}},
            "service.ipFamilyPolicy is SingleStack and service.ipFamilies has IPv6 and IPv4",
        ),
        (
            {"service": {"ipFamilies": ["IPv6", "IPv4"]}},
            "service.ipFamilyPolicy is empty, which means SingleStack",
        ),
        (
            {"service": {"ipFamilies": ["IPv6"]}, "listenAddress": "0.0.0.0"},  # noqa: S104
            "listenAddress is 0.0.0.0, which has no IPv6",
        ),
        (
            {
                "service": {"ipFamilies": ["IPv6"]},
                "coturn": {"enabled": True, "host": "turn.example", "podCIDRs": ["10.244.0.0/16"]},
                "webrtc": {"turn": {"existingSecret": "turn"}},
            },
            "coturn.podCIDRs is 10.244.0.0/16 and service.ipFamilies is IPv6 alone",
        ),
        (
            {"commonLabels": {"app.kubernetes.io/name": "mine"}},
            "commonLabels has app.kubernetes.io/name (mine), which the chart sets itself",
        ),
        (
            {"extraContainers": [{"name": "service", "image": "x"}]},
            "extraContainers has service, the name of the chart's container",
        ),
        ({"dnsPolicy": "None"}, "dnsPolicy is None and dnsConfig.nameservers is empty"),
        (
            {"service": {"loadBalancerClass": "mine"}},
            "service.loadBalancerClass is mine and service.type is ClusterIP: allowed only with type",
        ),
        (
            {"coturn": {"service": {"type": "NodePort", "loadBalancerSourceRanges": ["10.0.0.0/8"]}}},
            "coturn.service.loadBalancerSourceRanges is [10.0.0.0/8] and coturn.service.type is NodePort",
        ),
        (
            {"service": {"type": "LoadBalancer", "healthCheckNodePort": 30001}},
            'healthCheckNodePort is 30001 and service.externalTrafficPolicy is ""',
        ),
        ({"service": {"nodePort": 30002}}, "service.nodePort is 30002 and service.type is ClusterIP"),
        (
            {"service": {"externalTrafficPolicy": "Local"}},
            "service.externalTrafficPolicy is Local and service.type",
        ),
        (
            {"hostNetwork": True, "webrtc": {"hostPorts": True}},
            "hostNetwork and webrtc.hostPorts are both true",
        ),
        (
            {
                "hostNetwork": True,
                "stunner": {"enabled": True, "host": "a.example"},
                "webrtc": {"turn": {"secret": "x"}},
            },
            "hostNetwork is true, so clients get the addresses of nodes, and stunner.enabled is true",
        ),
        (
            {"webrtc": {"hostPorts": True, "enabled": False}},
            "webrtc.hostPorts is true and webrtc.enabled is false",
        ),
        (
            {"webrtc": {"hostPorts": True, "udpPortRange": "50000-51000"}},
            "webrtc.udpPortRange has 1001 ports",
        ),
        (
            {"hostNetwork": True, "dnsPolicy": "ClusterFirst"},
            "dnsPolicy is ClusterFirst and hostNetwork is true",
        ),
        (
            {"settings": {"JWT_JWKS": "https://issuer.example.org/keys"}, "networkPolicy": {"jwksCIDRs": []}},
            "networkPolicy.jwksCIDRs is empty, and settings.JWT_JWKS names a server outside the cluster",
        ),
        (
            {"sampling": {"store": "s3"}, "networkPolicy": {"s3CIDRs": []}},
            "networkPolicy.s3CIDRs is empty, and samples go to a bucket outside the cluster",
        ),
        (
            {"models": {"fetch": {"v1": OCI_MODEL}}, "networkPolicy": {"modelCIDRs": []}},
            "networkPolicy.modelCIDRs is empty, and models.fetch.v1.uri names a server outside the cluster",
        ),
        (
            {"settings": {"IMAGE_URL_HOSTS": "images.example.org"}, "networkPolicy": {"imageUrlCIDRs": []}},
            "networkPolicy.imageUrlCIDRs is empty, and settings.IMAGE_URL_HOSTS names servers",
        ),
        (
            {"webrtc": {"iceServers": ["turn:turn.example.org:3478"]}, "networkPolicy": {"turnCIDRs": []}},
            "networkPolicy.turnCIDRs is empty, and webrtc.iceServers names servers",
        ),
        (
            {"persistence": {"spool": {"enabled": False}}, "models": {"fetch": {"v1": OCI_MODEL}}},
            "resources.limits.ephemeral-storage is 6Gi, and tmpSize (256Mi) and persistence.spool.size (4Gi) "
            "and persistence.models.size (5Gi) may take",
        ),
        ({"monitoring": {"metricsPort": 8000}}, "monitoring.metricsPort and containerPort are both 8000"),
        (
            {"monitoring": {"metricsPort": 9000}, "service": {"port": 9000}},
            "monitoring.metricsPort and service.port are both 9000",
        ),
        (
            {"monitoring": {"serviceMonitor": {"interval": "1m", "scrapeTimeout": "1m1s"}}},
            "scrapeTimeout is 1m1s, longer than monitoring.serviceMonitor.interval, 1m",
        ),
        (
            {"persistence": {"models": {"enabled": True, "accessModes": ["ReadWriteOnce"]}}} | SEVERAL,
            "persistence.models.accessModes is ReadWriteOnce, and several replicas",
        ),
        (
            {"settings": {"DRIFT_ROLLING_DAYS": 14, "REFERENCE_DATA_PATH": "/data/reference.json"}} | SEVERAL,
            "DRIFT_ROLLING_DAYS is 14, there may be several replicas, and REFERENCE_DATA_PATH is "
            "/data/reference.json, outside of persistence.spool.mountPath (/var/lib/real-time-vision-api)",
        ),
        (
            {
                "settings": {"REFERENCE_DATA_PATH": "/var/lib/real-time-vision-api/../reference.json"},
                "extraEnv": [{"name": "DRIFT_ROLLING_DAYS", "value": "7"}],
                "autoscaling": {"enabled": True},
            },
            "replicas that share one reference would each replace it by their own days",
        ),
        (
            {"persistence": {"data": {"enabled": True, "accessModes": ["ReadOnlyMany"]}}} | SEVERAL,
            "persistence.data.accessModes is ReadOnlyMany, and several replicas on different nodes "
            "mount the volume: "
            "allowed is ReadWriteMany",
        ),
        (
            {
                "persistence": {
                    "data": {"enabled": True, "accessModes": ["ReadWriteOncePod"]},
                    "spool": {"enabled": False},
                }
            },
            "persistence.data.accessModes is ReadWriteOncePod, and an update starts the new pod before",
        ),
        (
            {"persistence": {"data": {"enabled": True, "mountPath": "/models"}, "models": {"enabled": True}}},
            "persistence.data.mountPath is /models, and so is the folder of persistence.models.mountPath",
        ),
        (
            {
                "persistence": {"models": {"enabled": True}},
                "extraVolumeMounts": [{"name": "mine", "mountPath": "/models/"}],
            },
            "extraVolumeMounts (mine) is /models/, and so is the folder of persistence.models.mountPath",
        ),
        (
            {"extraVolumes": [{"name": "spool", "emptyDir": {}}]},
            "extraVolumes has spool, a name that the chart uses",
        ),
        (
            {"podDisruptionBudget": {"maxUnavailable": 0}},
            "podDisruptionBudget.maxUnavailable is 0, so that no node",
        ),
        (
            {"podDisruptionBudget": {"maxUnavailable": "0%"}},
            "podDisruptionBudget.maxUnavailable is 0%, so that no node",
        ),
        (
            {"updateStrategy": {"type": "Recreate"}},
            "updateStrategy.type is Recreate, and with persistence.spool.enabled=true",
        ),
        (
            {"updateStrategy": ROLLING},
            "updateStrategy.rollingUpdate.maxUnavailable is 0 and no new pod is started first",
        ),
        (
            {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}},
            "updateStrategy.rollingUpdate.maxSurge is 1, and with persistence.spool.enabled=true",
        ),
        (
            {"podLabels": {"app.kubernetes.io/component": "mine"}},
            "podLabels has app.kubernetes.io/component (mine), which the chart sets itself",
        ),
        ({"podAnnotations": {"checksum/secret": "x"}}, "podAnnotations has checksum/secret (x)"),
        (
            {"monitoring": {"serviceMonitor": {"labels": {"app.kubernetes.io/instance": "mine"}}}},
            "monitoring.serviceMonitor.labels has app.kubernetes.io/instance (mine)",
        ),
        (
            {"istio": {"enabled": True, "split": {"v1": 90, "v2": 10}}, "versions": {"split": 0.1}},
            "istio.split.v2 is 10 and versions.split is 0.1",
        ),
        (
            {"models": {"v1": "/own.onnx"}, "versions": {"split": 0.1}},
            "versions.split sends clients to v2, and only v1 has a model",
        ),
        (
            {"gpu": {"enabled": True, "count": 2, "resourceName": "nvidia.com/mig-1g.10gb"}},
            "gpu.count is 2 and gpu.resourceName is nvidia.com/mig-1g.10gb",
        ),
        (
            {"models": {"v1": "/own.onnx"}, "versions": {"shadow": 0.1}},
            "versions.shadow lets v2 run frames of v1, and only v1 has a model",
        ),
        (
            {"resources": {"limits": {"nvidia.com/gpu": 1}}},
            "resources.limits has nvidia.com/gpu (1) and gpu.enabled is false",
        ),
        (
            {"gpu": {"enabled": True}, "resources": {"requests": {"nvidia.com/gpu": 2}}},
            "resources.requests has nvidia.com/gpu (2), which the chart sets from gpu.resourceName",
        ),
        (
            {"gpu": {"enabled": True, "nodeSelector": {"pool": "gpu"}}, "nodeSelector": {"pool": "cpu"}},
            "gpu.nodeSelector.pool is gpu and nodeSelector.pool is cpu",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(
    chart: Chart, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refused) as caught:
        chart.render(values)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"settings": {"WEBRTC_SESSIONS_MAX": 101}},
        {
            "settings": {"WEBRTC_SESSIONS_MAX": 500},
            "webrtc": {"enabled": True, "udpPortRange": "50000-50499"},
        },
        {"webrtc": {"udpPortRange": "50000-50000"}},
        {"webrtc": {"publicIP": "2001:db8::1"}},
        {"gpu": {"enabled": True, "cuda": 12}},
        {"gpu": {"enabled": True}, "image": {"tag": "mine"}},
        {"settings": {"DRIFT_ENGINE": "evidently", "DRIFT": True}},
        {"settings": {"DRIFT_ENGINE": "builtin"}, "sampling": {"enabled": False}},
        {"persistence": {"models": {"enabled": True, "accessModes": ["ReadOnlyMany"]}}} | SEVERAL,
        {"persistence": {"models": {"enabled": True, "accessModes": ["ReadWriteOnce"]}}},
        {"podDisruptionBudget": {"maxUnavailable": "10%"}} | SEVERAL,
        {"settings": {"DRIFT_ROLLING_DAYS": 14}} | SEVERAL,
        {"settings": {"DRIFT_ROLLING_DAYS": 14, "REFERENCE_DATA_PATH": "/data/reference.json"}},
        {"settings": {"DRIFT_ROLLING_DAYS": 0, "REFERENCE_DATA_PATH": "/data/reference.json"}} | SEVERAL,
        {
            "settings": {
                "DRIFT_ROLLING_DAYS": 14,
                "REFERENCE_DATA_PATH": "/var/lib/real-time-vision-api/own/reference.json",
            }
        }
        | SEVERAL,
        {"podDisruptionBudget": {"enabled": False, "maxUnavailable": 0}} | SEVERAL,
        {
            "persistence": {"spool": {"enabled": False}},
            "updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        },
        {"resources": {"limits": {"nvidia.com/gpu": 1}}, "settings": {"DEVICE": "auto"}},
        {"sampling": {"store": "s3"}, "s3": {"endpointUrl": "http://minio.storage.svc:9000"}}
        | {"networkPolicy": {"s3CIDRs": []}},
        {"monitoring": {"metricsPort": 80}, "service": {"type": "LoadBalancer"}},
    ],
)
def test_values_that_fit_each_other_are_taken(chart: Chart, values: dict[str, Any]) -> None:
    assert chart.render(values).workload


@pytest.mark.parametrize(
    ("workers", "ports", "sessions"),
    [(1, "50000-50100", None), (1, "50000-50050", "51"), (4, "50000-50100", "25")],
)
def test_workers_have_no_more_sessions_than_ports(
    chart: Chart, workers: int, ports: str, sessions: str | None
) -> None:
    values = {"settings": {"WORKERS": workers}, "webrtc": {"udpPortRange": ports}}
    assert chart.render(values).environment.get("WEBRTC_SESSIONS_MAX") == sessions
