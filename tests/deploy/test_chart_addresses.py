"""Tests that the chart's addresses hold in clusters with IPv6, and its paths below a prefix."""

from __future__ import annotations

from typing import Any

import pytest

from streamer.config.network_settings import parse_ice_servers
from streamer.config.settings import Settings
from tests.deploy.chart import Chart
from tests.deploy.test_chart_network import ingress_paths, mesh_paths, route_paths
from tests.deploy.test_chart_policy import egress

PREFIX = "/apps/vision"


@pytest.mark.parametrize(
    ("name", "paths_of"), [("keda", ingress_paths), ("gateway", route_paths), ("istio", mesh_paths)]
)
def test_every_route_is_below_the_prefix(chart: Chart, name: str, paths_of: Any) -> None:
    plain = paths_of(chart.render(None, name))
    manifests = chart.render({"pathPrefix": PREFIX}, name)
    below = paths_of(manifests)
    # The prefix itself is a route too: the service redirects it to the page, at the prefix with a slash.
    assert sorted(below) == sorted([("Exact", PREFIX), *((kind, PREFIX + path) for kind, path in plain)])
    assert Settings(root_path=manifests.environment["ROOT_PATH"]).root_path == PREFIX
    assert "ROOT_PATH" not in chart.render(None, name).environment


def test_probes_and_scrapes_reach_pods_without_the_prefix(chart: Chart) -> None:
    manifests = chart.render({"pathPrefix": PREFIX}, "keda")
    probes = [manifests.container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness")]
    assert probes == ["/health", "/livez"]
    assert manifests.one("ServiceMonitor")["spec"]["endpoints"][0]["path"] == "/metrics"
    annotations = manifests.one("Ingress")["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/session-cookie-path"] == PREFIX


def test_all_services_have_the_families_that_are_asked_for(chart: Chart) -> None:
    manifests = chart.render(None, "ipv6")
    services = manifests.of("Service")
    assert len(services) == 3
    for service in services:
        assert service["spec"]["ipFamilies"] == ["IPv6"]
        assert service["spec"]["ipFamilyPolicy"] == "SingleStack"
    for service in chart.render().of("Service"):
        assert not {"ipFamilies", "ipFamilyPolicy"} & set(service["spec"]), "the cluster decides"


def test_ipv6_addresses_are_in_brackets_where_urls_need_them(chart: Chart) -> None:
    manifests = chart.render(None, "ipv6")
    urls = parse_ice_servers(manifests.environment["ICE_SERVERS"])
    assert urls == tuple(f"turn:[2001:db8::7]:3478?transport={kind}" for kind in ("udp", "tcp"))
    bracketed = chart.render({"coturn": {"host": "[2001:db8::7]"}}, "ipv6").environment["ICE_SERVERS"]
    assert bracketed == manifests.environment["ICE_SERVERS"]
    *_, (peers, ports) = [rule for rule in egress(manifests) if ("TCP", 9000) in rule[1]]
    assert (peers, ports) == ([{"ipBlock": {"cidr": "2001:db8:5::/48"}}], [("TCP", 9000)])


def test_a_load_balancer_is_as_it_is_asked_for(chart: Chart) -> None:
    fields = {
        "type": "LoadBalancer",
        "loadBalancerClass": "example.org/nlb",
        "loadBalancerIP": "192.0.2.7",
        "loadBalancerSourceRanges": ["198.51.100.0/24"],
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30001,
    }
    values = {"service": fields | {"nodePort": 30080}, "coturn": {"service": fields | {"nodePort": 30478}}}
    manifests = chart.render(values, "coturn")
    for suffix, port in (("", 30080), ("-coturn", 30478)):
        spec = manifests.one("Service", suffix)["spec"]
        assert fields.items() <= spec.items()
        assert {each["nodePort"] for each in spec["ports"]} == {port}
    assert "loadBalancerClass" not in manifests.one("Service", "-replicas")["spec"]
    plain = chart.render(None, "coturn")
    assert set(plain.one("Service")["spec"]) == {"type", "selector", "ports"}
    assert plain.one("Service", "-coturn")["spec"]["externalTrafficPolicy"] == "Local"
    inside = chart.render({"coturn": {"service": {"type": "ClusterIP"}}}, "coturn")
    assert "externalTrafficPolicy" not in inside.one("Service", "-coturn")["spec"]


DEPLOYMENT = {"persistence": {"spool": {"enabled": False}}}


def test_media_ports_can_be_those_of_the_node(chart: Chart) -> None:
    webrtc = {"hostPorts": True, "udpPortRange": "50000-50009"}
    manifests = chart.render(DEPLOYMENT | {"webrtc": webrtc, "replicaCount": 3})
    media = [port for port in manifests.container["ports"] if port["protocol"] == "UDP"]
    assert [port["hostPort"] for port in media] == list(range(50000, 50010))
    assert all(port["hostPort"] == port["containerPort"] for port in media)
    assert all("hostPort" not in port for port in manifests.container["ports"] if port not in media)
    assert manifests.environment["PUBLIC_IP"] == {"fieldRef": {"fieldPath": "status.hostIP"}}
    fixed = chart.render({"webrtc": webrtc | {"publicIP": "192.0.2.7"}})
    assert fixed.environment["PUBLIC_IP"] == "192.0.2.7", "where nodes have another address outside"
    rolling = manifests.workload["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxSurge"], rolling["maxUnavailable"]) == (0, 1), "a new pod would wait for the ports"


def test_pods_can_be_in_the_network_of_their_node(chart: Chart) -> None:
    manifests = chart.render(DEPLOYMENT | {"hostNetwork": True})
    assert manifests.pod["hostNetwork"] is True
    assert manifests.pod["dnsPolicy"] == "ClusterFirstWithHostNet", "replicas find each other by name"
    rolling = manifests.workload["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxSurge"], rolling["maxUnavailable"]) == (0, 1)
    assert not {"hostNetwork", "dnsPolicy"} & set(chart.render().pod)
