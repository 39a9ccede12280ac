"""Tests whom the network policies let in and out, and that the notes say whom they shut out."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from tests.deploy.chart import VALUE_SETS, Chart, Manifests

METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "100.100.100.200",
    "168.63.129.16",
    "fd00:ec2::254",
]


def allows(peers: list[dict[str, Any]], address: str) -> bool:
    """Return whether a network among the peers contains this address."""
    wanted = ipaddress.ip_address(address)
    for block in (peer["ipBlock"] for peer in peers if "ipBlock" in peer):
        excepted = [ipaddress.ip_network(network) for network in block.get("except", [])]
        if wanted in ipaddress.ip_network(block["cidr"]) and not any(wanted in n for n in excepted):
            return True
    return False


@pytest.mark.parametrize("name", VALUE_SETS)
def test_no_pod_reaches_the_metadata_of_the_cloud(chart: Chart, name: str) -> None:
    policies = chart.render(None, name).of("NetworkPolicy")
    assert policies
    for policy in policies:
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy["spec"].get("egress", []):
            assert rule.get("to"), "a rule without peers lets everything out"
            assert not any(allows(rule["to"], address) for address in METADATA)
            for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer):
                network = ipaddress.ip_network(block["cidr"])
                for excepted in block.get("except", []):
                    part = ipaddress.ip_network(excepted)
                    assert part.version == network.version
                    assert part.subnet_of(network), "Kubernetes wants exceptions inside"  # type: ignore[arg-type]


def egress(manifests: Manifests) -> list[tuple[list[Any], list[tuple[str, Any]]]]:
    return [
        (rule["to"], [(port["protocol"], port["port"]) for port in rule.get("ports", [])])
        for rule in manifests.one("NetworkPolicy")["spec"]["egress"]
    ]


def test_a_replica_reaches_dns_and_other_replicas_unless_it_needs_more(chart: Chart) -> None:
    manifests = chart.render()
    dns, replicas = egress(manifests)
    # OpenShift's DNS servers listen on 5353, and policies see the ports of pods.
    assert dns[1] == [("UDP", 53), ("TCP", 53), ("UDP", 5353), ("TCP", 5353)]
    assert namespaces(dns[0]) == {"kube-system", "openshift-dns"}
    assert (
        replicas[0][0]["podSelector"]["matchLabels"] == manifests.workload["spec"]["selector"]["matchLabels"]
    )


def test_the_bucket_is_reached_where_it_is(chart: Chart) -> None:
    *_, (peers, ports) = egress(chart.render(None, "aws-role"))
    assert allows(peers, "52.218.1.1")
    assert ports == [("TCP", 443)]
    *_, (peers, ports) = egress(chart.render({"s3": {"endpointUrl": "http://198.51.100.7:9000"}}))
    assert ports == [("TCP", 9000)]
    *_, (peers, ports) = egress(chart.render({"s3": {"endpointUrl": "http://store.example.org"}}))
    assert ports == [("TCP", 80)]
    *_, (peers, ports) = egress(chart.render(None, "s3-store"))
    assert peers == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "storage"}}}]
    assert ports == [], "the port of the store's pods is not that of its Service"
    for store in ({"enabled": False}, {"store": "folder"}):
        assert len(egress(chart.render({"sampling": store} | {"s3": {"endpointUrl": "http://x"}}))) == 2


def test_the_issuer_of_tokens_is_reached_where_it_is(chart: Chart) -> None:
    tokens = {"JWT_ISSUER": "https://issuer.example", "JWT_AUDIENCE": "vision"}
    before = len(egress(chart.render()))
    for address, port in (("https://issuer.example/keys", 443), ("https://issuer.example:8443/keys", 8443)):
        *_, (peers, ports) = egress(chart.render({"settings": tokens | {"JWT_JWKS": address}}))
        assert ports == [("TCP", port)]
        assert allows(peers, "198.51.100.7")
        assert not any(allows(peers, metadata) for metadata in METADATA)
    inside = "https://issuer.identity.svc.cluster.local/keys"
    *_, (peers, ports) = egress(chart.render({"settings": tokens | {"JWT_JWKS": inside}}))
    assert peers == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "identity"}}}]
    assert ports == []
    assert len(egress(chart.render({"settings": tokens | {"JWT_JWKS": "/etc/keys.json"}}))) == before


def test_images_at_urls_are_reached_only_if_hosts_are_allowed(chart: Chart) -> None:
    before = len(egress(chart.render()))
    rules = egress(chart.render({"settings": {"IMAGE_URL_HOSTS": "images.example.com"}}))
    assert len(rules) == before + 1
    *_, (peers, ports) = rules
    assert ports == [("TCP", 80), ("TCP", 443)]
    assert allows(peers, "198.51.100.7")
    assert not any(allows(peers, metadata) for metadata in METADATA)


def namespaces(peers: list[dict[str, Any]]) -> set[str]:
    """Return the namespaces that the peers name."""
    return {
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for peer in peers
        if "namespaceSelector" in peer
    }


def ingress_rules(manifests: Manifests) -> list[dict[str, Any]]:
    return list(manifests.one("NetworkPolicy")["spec"]["ingress"])


def test_ingress_controllers_prometheus_and_replicas_may_ask(chart: Chart) -> None:
    http, media = ingress_rules(chart.render())
    assert http["ports"] == [{"protocol": "TCP", "port": "http"}]
    expected = {
        "ingress-nginx",
        "haproxy-controller",
        "envoy-gateway-system",
        "openshift-ingress",
        "monitoring",
    }
    assert expected <= namespaces(http["from"])
    assert not any("ipBlock" in peer for peer in http["from"])
    assert media["ports"] == [{"protocol": "UDP", "port": 50000, "endPort": 50100}]
    assert len(ingress_rules(chart.render({"webrtc": {"enabled": False}}))) == 1


def http_peers(chart: Chart, policy: dict[str, Any]) -> list[dict[str, Any]]:
    return list(ingress_rules(chart.render({"networkPolicy": policy}))[0]["from"])


def test_clients_in_the_namespace_may_ask_unless_that_is_not_wanted(chart: Chart) -> None:
    assert {"podSelector": {}} in http_peers(chart, {})
    strict = http_peers(chart, {"clientsInNamespace": False})
    selectors = [peer["podSelector"]["matchLabels"] for peer in strict if "podSelector" in peer]
    tester = chart.render().one("Pod")["metadata"]["labels"]
    assert len(selectors) == 2
    assert selectors[0].items() <= tester.items(), "`helm test` asks the Service"
    own = chart.render().workload["spec"]["selector"]["matchLabels"]
    assert selectors[1] == own, "replicas forward requests to each other"


def test_clients_in_named_namespaces_may_ask(chart: Chart) -> None:
    peers = http_peers(chart, {"clientNamespaces": ["robots", "ingress-nginx"]})
    assert "robots" in namespaces(peers)
    assert str(peers).count("ingress-nginx") == 1


def test_nodes_and_clients_outside_may_ask_by_their_networks(chart: Chart) -> None:
    peers = http_peers(
        chart, {"nodeCIDRs": ["10.0.0.0/16"], "clientCIDRs": ["203.0.113.0/24", "2001:db8::/32"]}
    )
    assert all(allows(peers, address) for address in ("10.0.3.4", "203.0.113.9", "2001:db8::1"))
    assert not allows(peers, "198.51.100.7")


def test_a_mesh_has_its_control_plane_or_its_tunnels(chart: Chart) -> None:
    plain = chart.render()
    assert "15008" not in str(plain.one("NetworkPolicy"))
    sidecars = chart.render({"networkPolicy": {"mesh": {"controlPlaneNamespace": "istio-system"}}})
    added = [rule for rule in egress(sidecars) if rule not in egress(plain)]
    assert [(namespaces(peers), ports) for peers, ports in added] == [({"istio-system"}, [])]

    values = {"networkPolicy": {"mesh": {"ambient": True}}, "monitoring": {"metricsPort": 9100}}
    ambient = chart.render(values)
    tunnel = {"protocol": "TCP", "port": 15008}
    requests, probes, scrapes, _ = ingress_rules(ambient)
    assert tunnel in requests["ports"]
    assert tunnel in scrapes["ports"]
    assert probes["from"] == [{"ipBlock": {"cidr": "169.254.7.127/32"}}]
    assert ("TCP", 15008) in egress(ambient)[1][1]


NOBODY = {"ingressNamespaces": [], "clientsInNamespace": False}
#: Values, and what the notes say about clients that cannot connect.
SHUT_OUT: list[tuple[dict[str, Any], str]] = [
    ({"service": {"type": "LoadBalancer"}}, "service.type is LoadBalancer, and no address"),
    ({"ingress": {"enabled": True}, "networkPolicy": NOBODY}, "no ingress controller may connect"),
    (
        {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}]}},
        "names a Gateway in namespace gateways",
    ),
    (
        {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}, "networkPolicy": NOBODY},
        "names a Gateway in namespace vision",
    ),
    ({"istio": {"enabled": True, "gateways": ["edge/public"]}}, "nobody in namespace edge may connect"),
    ({"istio": {"enabled": True}}, "only from this namespace"),
    ({"istio": {"enabled": True, "gateways": ["istio-system/public"]}}, "sidecars may not reach"),
    (
        {"monitoring": {"serviceMonitor": {"enabled": True}}, "networkPolicy": {"prometheusNamespaces": []}},
        "no Prometheus may scrape",
    ),
    ({"networkPolicy": {"mediaCIDRs": []}}, "no media may arrive"),
]
#: The same with values that let the clients in.
LET_IN: list[dict[str, Any]] = [
    {},
    {"service": {"type": "LoadBalancer"}, "networkPolicy": {"clientCIDRs": ["0.0.0.0/0"]}},
    {"service": {"type": "NodePort"}, "networkPolicy": {"enabled": False}},
    {"ingress": {"enabled": True}, "networkPolicy": NOBODY | {"nodeCIDRs": ["10.0.0.0/16"]}},
    {
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}]},
        "networkPolicy": {"ingressNamespaces": ["gateways"]},
    },
    {
        "istio": {"enabled": True},
        "networkPolicy": {
            "clientNamespaces": ["robots"],
            "mesh": {"controlPlaneNamespace": "istio-system"},
        },
    },
    {"istio": {"enabled": True, "gateways": ["mine"]}, "networkPolicy": {"mesh": {"ambient": True}}},
]


@pytest.fixture(scope="module")
def noted(chart: Chart, tmp_path_factory: pytest.TempPathFactory) -> Chart:
    """Return a copy of the chart that renders the sentences of the notes without a cluster."""
    changed = chart.copied(tmp_path_factory.mktemp("noted"))
    shown = 'text: {{ include "rtv.shutOut" . | trim | quote }}'
    manifest = f"{{apiVersion: v1, kind: Notes, metadata: {{name: notes}}, {shown}}}\n"
    (changed.folder / "templates" / "notes-shown.yaml").write_text(manifest)
    return changed


@pytest.mark.parametrize(
    ("values", "said"), SHUT_OUT, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_notes_say_whom_the_policy_shuts_out(noted: Chart, values: dict[str, Any], said: str) -> None:
    text = noted.render(values).one("Notes")["text"]
    assert said in text
    assert "networkPolicy." in text


@pytest.mark.parametrize("values", LET_IN, ids=str)
def test_the_notes_are_silent_if_everybody_can_connect(noted: Chart, values: dict[str, Any]) -> None:
    assert noted.render(values).one("Notes")["text"] == ""
