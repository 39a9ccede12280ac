"""Tests how clients reach a replica: services, ingresses with affinity and public paths."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import SharedStatus
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.settings import Settings, load_settings
from streamer.http.version_split import VERSION_HEADER
from streamer.server.app import make_app
from streamer.server.resources import Resources
from tests.deploy.chart import NAMESPACE, VALUE_SETS, Chart, Manifests

#: Paths that no ingress exposes. Prometheus, the kubelet and operators request them from the pods directly.
PRIVATE = {
    "/metrics",
    "/livez",
    "/drift/report",
    "/reference/update",
    "/versions/pictures/0-1",
    "/versions/promote",
    "/versions/rollback",
    "/versions/shadow",
    "/versions/split",
    "/versions/v1/load",
    "/tickets/0-abc",
    "/replicas/load",
}
DEFAULTS = Settings()
COOKIE = "rtva-replica"


@pytest.fixture(scope="module")
def served_paths(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return every path in the service's router, with example values in place of its parameters."""
    # The application refers to the shared status for as long as it exists, so that is not closed here.
    with contextlib.closing(SharedDocument()) as page:
        resources = Resources(
            number=0,
            settings=load_settings(),
            metrics=WorkerMetrics(),
            shared_status=SharedStatus(),
            drift_page=page,
            engine_document=page,
            sampling_address="",
            metrics_dir=tmp_path_factory.mktemp("metrics"),
        )
        app, _ = make_app(resources)
    patterns = {resource.canonical for resource in app.router.resources()}
    known = {"version": "v1", "session": "0-abc", "kind": "whip", "picture": "0-1"}
    return {pattern.format_map(known) for pattern in patterns}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_selectors_find_the_pods_and_ports_their_names(chart: Chart, name: str) -> None:
    manifests = chart.render(None, name)
    labels = manifests.workload["spec"]["template"]["metadata"]["labels"]
    selector = manifests.workload["spec"]["selector"]["matchLabels"]
    assert selector.items() <= labels.items()
    assert "helm.sh/chart" not in labels, "a new version of the chart alone restarts nobody"
    ports = {port["name"]: port["containerPort"] for port in manifests.container["ports"]}
    assert str(ports["http"]) == manifests.environment["PORT"]
    services = [service for service in manifests.of("Service") if "coturn" not in service["metadata"]["name"]]
    assert len(services) == 2
    for service in services:
        assert service["spec"]["selector"] == selector
        assert {port["targetPort"] for port in service["spec"]["ports"]} == {"http"}
    headless = manifests.one("Service", "-replicas")
    assert headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["publishNotReadyAddresses"] is True, "a replica that drains still owns sessions"
    if manifests.of("Deployment"):
        for deployment in manifests.of("Deployment"):
            other = deployment["spec"]["template"]["metadata"]["labels"]
            assert deployment["metadata"]["name"] == manifests.workload["metadata"]["name"] or not (
                selector.items() <= other.items()
            ), "coturn's pods are not the service's"


def ingress_paths(manifests: Manifests) -> list[tuple[str, str]]:
    return [
        (path["pathType"], path["path"])
        for rule in manifests.one("Ingress")["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]


def route_paths(manifests: Manifests) -> list[tuple[str, str]]:
    (rule,) = manifests.one("HTTPRoute")["spec"]["rules"]
    return [(m["path"]["type"].removeprefix("Path"), m["path"]["value"]) for m in rule["matches"]]


def mesh_paths(manifests: Manifests) -> list[tuple[str, str]]:
    matches = [m["uri"] for rule in manifests.one("VirtualService")["spec"]["http"] for m in rule["match"]]
    return [(kind.capitalize(), path) for uri in matches for kind, path in uri.items()]


@pytest.mark.parametrize(
    ("name", "paths_of"), [("keda", ingress_paths), ("gateway", route_paths), ("istio", mesh_paths)]
)
def test_everything_is_public_but_what_is_for_who_runs_it(
    chart: Chart, served_paths: set[str], name: str, paths_of: Any
) -> None:
    rules = paths_of(chart.render(None, name))

    def reached(path: str) -> bool:
        return any(
            path == rule or (kind == "Prefix" and path.startswith(f"{rule.rstrip('/')}/"))
            for kind, rule in rules
        )

    assert {"/", "/docs", "/data/sample.mp4", "/v1/whip/0-abc/results"} <= served_paths
    assert {path for path in served_paths if not reached(path)} == PRIVATE


def test_ingress_nginx_keeps_clients_on_their_replica(chart: Chart) -> None:
    manifests = chart.render({"settings": {"REQUEST_MAX_BYTES": 67108865}}, "keda")
    ingress = manifests.one("Ingress")
    prefix = "nginx.ingress.kubernetes.io/"
    annotations = {
        key.removeprefix(prefix): value for key, value in ingress["metadata"]["annotations"].items()
    }
    assert annotations["affinity"] == "cookie"
    assert annotations["affinity-mode"] == "persistent"
    assert annotations["session-cookie-name"] == COOKIE
    assert annotations["session-cookie-change-on-failure"] == "true"
    assert int(annotations["proxy-read-timeout"]) > DEFAULTS.stream_heartbeat_s, "pings are seen in time"
    assert annotations["proxy-buffering"] == "off"
    assert annotations["proxy-body-size"] == "65m", "as large as the service takes, rounded up"
    assert annotations["proxy-next-upstream"] == "error timeout non_idempotent", "never on 503"
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["spec"]["tls"] == [{"hosts": ["detect.example.org"], "secretName": "detect-tls"}]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "haproxy",
            {
                "haproxy.org/cookie-persistence": COOKIE,
                "haproxy.org/check-http": "/health",
                "haproxy.org/timeout-tunnel": "1h",
            },
        ),
        (
            "haproxy-ingress",
            {
                "haproxy-ingress.github.io/affinity": "cookie",
                "haproxy-ingress.github.io/session-cookie-name": COOKIE,
                "haproxy-ingress.github.io/timeout-tunnel": "1h",
                "haproxy-ingress.github.io/timeout-server": "10m",
            },
        ),
    ],
)
def test_haproxy_keeps_clients_on_their_replica(chart: Chart, name: str, expected: dict[str, str]) -> None:
    annotations = chart.render(None, name).one("Ingress")["metadata"]["annotations"]
    assert expected.items() <= annotations.items()
    assert not any(key.startswith("nginx") for key in annotations)


def test_without_a_controller_only_your_annotations_are_written(chart: Chart) -> None:
    values = {"ingress": {"enabled": True, "controller": "none", "annotations": {"a/b": "c"}}}
    ingress = chart.render(values).one("Ingress")
    assert ingress["metadata"]["annotations"] == {"a/b": "c"}
    assert "host" not in ingress["spec"]["rules"][0]


def test_a_gateway_keeps_clients_on_their_replica(chart: Chart) -> None:
    manifests = chart.render(None, "gateway")
    route = manifests.one("HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert rule["sessionPersistence"]["type"] == "Cookie"
    assert rule["sessionPersistence"]["sessionName"] == COOKIE
    assert rule["timeouts"] == {"request": "0s"}, "a stream has no time limit"
    service = manifests.one("Service")
    (backend,) = rule["backendRefs"]
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"] == service["spec"]["ports"][0]["port"]
    # The field is in the experimental channel: a gateway with the standard CRDs refuses or drops it.
    standard = chart.render({"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}})
    assert "sessionPersistence" not in standard.one("HTTPRoute")["spec"]["rules"][0]


def test_istio_splits_routes_without_a_version_by_weight(chart: Chart) -> None:
    manifests = chart.render(None, "istio")
    split, rest = manifests.one("VirtualService")["spec"]["http"]
    paths = [f"/{name}" for name in ("predict", "stream", "webrtc", "whip")]
    assert split["match"] == [{"uri": {"exact": path}} for path in paths]
    shares = {}
    for route in split["route"]:
        (header,) = route["headers"]["request"]["set"].items()
        assert header[0] == VERSION_HEADER.lower()
        shares[header[1]] = route["weight"]
    assert shares == {"v1": 90, "v2": 10}
    assert split["timeout"] == rest["timeout"] == "0s"
    for route in (split, rest):
        assert "503" not in route["retries"]["retryOn"], "a saturated release is not asked twice"
    rule = manifests.one("DestinationRule")["spec"]
    host = f"{manifests.one('Service')['metadata']['name']}.{NAMESPACE}.svc.cluster.local"
    assert rule["host"] == split["route"][0]["destination"]["host"] == host
    assert rule["trafficPolicy"]["loadBalancer"]["consistentHash"]["httpCookie"]["name"] == COOKIE


def test_without_a_share_istio_leaves_the_choice_to_the_service(chart: Chart) -> None:
    """A rule with the weights 100 and 0 would name v1 in every request, which overrides the service."""
    values = {"istio": {"enabled": True}, "versions": {"split": 0.25, "shadow": 0.5}}
    manifests = chart.render(values)
    (rule,) = manifests.one("VirtualService")["spec"]["http"]
    assert "headers" not in rule["route"][0]
    assert {"uri": {"exact": "/webrtc"}} in rule["match"]
    assert manifests.environment["SPLIT_V2"] == "0.25"
    assert manifests.environment["SHADOW_V2"] == "0.5"
    assert not {"SPLIT_V2", "SHADOW_V2"} & chart.render().environment.keys()
