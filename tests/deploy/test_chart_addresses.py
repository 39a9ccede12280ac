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
