"""Tests WebRTC through TURN: coturn runs with the chart's configuration, and clients learn its address."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aioice import stun, turn

from streamer.config.network_settings import IceServers, parse_ice_servers
from tests.deploy.chart import Chart, Manifests, Refused
from tests.helpers.ports import free_port
from tests.integration.test_client_network import make_certificate

SECRET = "dummy-secret"  # noqa: S105

#: Values of `coturn.tls` with a port of the nodes.
NODE_PORT = {"enabled": True, "existingSecret": "certificate", "nodePort": 30443}


@contextlib.contextmanager
def running(manifests: Manifests, folder: Path, tls_port: int = 0) -> Iterator[int]:
    """Run coturn as its pod does, but on free ports of loopback; yield the port without TLS.

    ``folder`` has the files of the certificate, if there is a ``tls_port``.
    """
    if shutil.which("turnserver") is None:
        pytest.skip("needs turnserver, which is not here: apt-get install coturn")
    (container,) = manifests.one("Deployment", "-coturn")["spec"]["template"]["spec"]["containers"]
    port = free_port()
    configuration = folder / "turnserver.conf"
    text = manifests.one("ConfigMap", "-coturn")["data"]["turnserver.conf"]
    assert f"listening-port={container['ports'][0]['containerPort']}\n" in text
    local = {"listening-port=3478": f"listening-port={port}", "/tmp/": f"{folder}/"}  # noqa: S108
    if tls_port:
        local |= {"listening-port=5349": f"listening-port={tls_port}", "/etc/turn-tls/": f"{folder}/"}
    for inside, here in local.items():
        assert inside in text
        text = text.replace(inside, here)
    configuration.write_text(text + "\nlistening-ip=127.0.0.1\nrelay-ip=127.0.0.1\n")
    command = [
        part.replace("/tmp/", f"{folder}/own-").replace("/etc/turn/turnserver.conf", str(configuration))  # noqa: S108
        for part in (*container["command"], *container["args"])
    ]
    environment = {"PATH": os.environ["PATH"], "TURN_SECRET": SECRET}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 60
        while not all(listens(each) for each in (port, tls_port) if each):
            assert server.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "coturn does not listen"
            time.sleep(0.05)
        for shown in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{server.pid}/{shown}").read_bytes()
        assert (folder / "own-turnserver.conf").stat().st_mode & 0o777 == 0o600
        yield port
    finally:
        # With TLS a second process of the session reminds coturn of new certificates.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.asynccontextmanager
async def allocation(port: int, secret: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Any]:
    """Hold an allocation on the TURN server, made with credentials like those that the service issues."""
    servers = IceServers((f"turn:127.0.0.1:{port}",), secret)
    (given,) = servers.describe("client", time.time())
    transport, _ = await turn.create_turn_endpoint(
        asyncio.DatagramProtocol,
        ("127.0.0.1", port),
        given["username"],
        given["credential"],
        ssl=tls or False,
        transport="tcp" if tls else "udp",
    )
    try:
        yield transport
    finally:
        transport.close()
        await asyncio.sleep(0.1)


async def may_reach(transport: Any, address: str, channel: int) -> bool:
    """Return whether the server forwards to this peer; it must answer 403 if it does not."""
    client = transport._TurnTransport__inner_protocol
    try:
        await client.channel_bind(channel, (address, 50000))
    except stun.TransactionFailed as failure:
        assert failure.response.attributes["ERROR-CODE"][0] == 403
        return False
    return True


async def test_coturn_forwards_to_pods_and_to_nothing_else(chart: Chart, tmp_path: Path) -> None:
    values = {"coturn": {"podCIDRs": ["10.244.0.0/16", "172.20.64.0/19", "198.51.100.8-198.51.100.9"]}}
    manifests = chart.render(values, "coturn")
    peers = {
        "10.244.0.1": True,
        "10.244.255.254": True,
        "10.245.0.1": False,
        "172.20.95.1": True,
        "172.20.96.1": False,
        "172.20.63.1": False,
        "198.51.100.9": True,
        "198.51.100.10": False,
        "169.254.169.254": False,
        "127.0.0.1": False,
        "192.168.1.1": False,
        "203.0.113.1": False,
    }
    with running(manifests, tmp_path) as port:
        async with allocation(port, SECRET) as transport:
            relay = transport.get_extra_info("sockname")
            reached = {
                peer: await may_reach(transport, peer, 0x4000 + number) for number, peer in enumerate(peers)
            }
        with pytest.raises(stun.TransactionFailed):
            async with allocation(port, "another-secret"):
                pass
    assert reached == peers
    assert 49152 <= relay[1] <= 49999


TLS = {"coturn": {"tls": {"enabled": True, "existingSecret": "turn-tls"}}}


async def test_coturn_serves_tls_and_reads_a_renewed_certificate(chart: Chart, tmp_path: Path) -> None:
    manifests = chart.render(TLS, "coturn")
    spec = manifests.one("Deployment", "-coturn")["spec"]["template"]["spec"]
    (script,) = spec["containers"][0]["args"]
    assert "kill -USR2" in script

    def renew() -> str:
        certificate, key = make_certificate(tmp_path)
        certificate.replace(tmp_path / "tls.crt")
        key.replace(tmp_path / "tls.key")
        return (tmp_path / "tls.crt").read_text().strip()

    def served() -> str:
        return ssl.get_server_certificate(("127.0.0.1", tls_port)).strip()

    tls_port, first = free_port(), renew()
    with running(manifests, tmp_path, tls_port):
        context = ssl.create_default_context(cadata=first)
        context.check_hostname = False
        async with allocation(tls_port, SECRET, context) as transport:
            assert await may_reach(transport, "10.244.0.1", 0x4000)
        assert served() == first
        second = renew()
        assert second != first
        os.kill(int((tmp_path / "turnserver.pid").read_text()), signal.SIGUSR2)
        deadline = time.monotonic() + 60
        while served() != second:
            assert time.monotonic() < deadline, "coturn still has the old certificate"
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "network",
    [
        *("10.0.0.0/8", "10.244.0.0/16", "10.96.16.0/20", "172.20.0.0/14", "192.0.2.5/32", "10.1.2.200/29"),
        *(
            "fd00:10:244::/56",
            "2001:db8::/33",
            "FD00:1:2:3:4:5:6:abc8/125",
            "::1/128",
            "fd00::/8",
            "fe00:9::f:0/112",
        ),
    ],
)
def test_networks_become_ranges(chart: Chart, network: str) -> None:
    manifests = chart.render({"coturn": {"podCIDRs": [network]}}, "coturn")
    found = ipaddress.ip_network(network)
    text = manifests.one("ConfigMap", "-coturn")["data"]["turnserver.conf"]
    (allowed,) = [line for line in text.splitlines() if line.startswith("allowed-peer-ip=")]
    first, last = allowed.partition("=")[2].split("-")
    assert (ipaddress.ip_address(first), ipaddress.ip_address(last)) == (found[0], found[-1])


def test_clients_are_told_the_servers_there_are(chart: Chart) -> None:
    told = chart.render(None, "coturn").environment["ICE_SERVERS"]
    assert parse_ice_servers(told) == (
        "stun:stun.example.org:3478",
        "turn:turn.example.org:3478?transport=udp",
        "turn:turn.example.org:3478?transport=tcp",
    )
    told = chart.render(TLS, "coturn").environment["ICE_SERVERS"]
    assert parse_ice_servers(told)[-1] == "turns:turn.example.org:443?transport=tcp"
    told = chart.render(None, "stunner").environment["ICE_SERVERS"]
    assert parse_ice_servers(told) == ("turn:media.example.org:3478?transport=udp",)
    assert "ICE_SERVERS" not in chart.render().environment
    off = chart.render({"webrtc": {"enabled": False}}).environment
    assert off["WEBRTC_SESSIONS_MAX"] == "0"
    assert not {"ICE_SERVERS", "UDP_PORT_RANGE", "TURN_SECRET"} & set(off)


def test_coturn_shares_the_secret_of_the_service(chart: Chart) -> None:
    manifests = chart.render({"webrtc": {"turn": {"existingSecretKey": "shared"}}}, "coturn")
    (container,) = manifests.one("Deployment", "-coturn")["spec"]["template"]["spec"]["containers"]
    (variable,) = container["env"]
    assert variable["valueFrom"] == manifests.environment["TURN_SECRET"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "turn", "key": "shared"}
    service = manifests.one("Service", "-coturn")["spec"]
    names = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["ports"]} == names
    assert {(port["port"], port["protocol"]) for port in service["ports"]} == {(3478, "UDP"), (3478, "TCP")}


def test_tls_has_a_port_of_its_own_and_the_files_of_its_secret(chart: Chart) -> None:
    manifests = chart.render(TLS, "coturn")
    ports = manifests.one("Service", "-coturn")["spec"]["ports"]
    assert ports[-1] == {"name": "turn-tls", "port": 443, "targetPort": "turn-tls", "protocol": "TCP"}
    (clients, _) = manifests.one("NetworkPolicy", "-coturn")["spec"]["ingress"]
    assert {"protocol": "TCP", "port": "turn-tls"} in clients["ports"]
    pod = manifests.one("Deployment", "-coturn")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {"name": "turn-tls", "containerPort": 5349, "protocol": "TCP"} in container["ports"]
    (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert secret == {"secretName": "turn-tls", "defaultMode": 0o440}
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"], "else it is unreadable"
    plain = chart.render(None, "coturn")
    assert "tls" not in str(plain.one("Service", "-coturn"))
    assert "\nno-tls\n" in plain.one("ConfigMap", "-coturn")["data"]["turnserver.conf"]


@pytest.mark.parametrize(
    ("coturn", "said"),
    [
        ({"tls": {"enabled": True}}, "coturn.tls.existingSecret is empty"),
        ({"tls": {"enabled": True, "existingSecret": "t", "port": 3478}}, "are both 3478"),
    ],
)
def test_tls_that_cannot_work_is_refused(chart: Chart, coturn: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        chart.text({"coturn": coturn}, "coturn")


def test_servers_are_scheduled_and_drained_as_told(chart: Chart) -> None:
    scheduling = {
        "nodeSelector": {"pool": "edge"},
        "tolerations": [{"key": "edge", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
    }
    values = {"imagePullSecrets": [{"name": "regcred"}], "coturn": scheduling | {"drainSeconds": 90}}
    pod = chart.render(values, "coturn").one("Deployment", "-coturn")["spec"]["template"]["spec"]
    assert {name: pod[name] for name in scheduling} == scheduling
    assert pod["imagePullSecrets"] == [{"name": "regcred"}]
    assert pod["containers"][0]["lifecycle"]["preStop"] == {"exec": {"command": ["sleep", "90"]}}
    assert pod["terminationGracePeriodSeconds"] == 100
    at_once = chart.render({"coturn": {"drainSeconds": 0}}, "coturn").one("Deployment", "-coturn")
    assert "lifecycle" not in at_once["spec"]["template"]["spec"]["containers"][0]


def test_several_servers_are_disrupted_one_at_a_time(chart: Chart) -> None:
    def budgets(coturn: dict[str, Any]) -> list[Any]:
        rendered = chart.render({"coturn": coturn}, "coturn")
        return [b for b in rendered.of("PodDisruptionBudget") if b["metadata"]["name"].endswith("-coturn")]

    assert budgets({}) == [], "one server must not keep a node from being drained"
    (budget,) = budgets({"replicaCount": 3})
    deployment = chart.render(None, "coturn").one("Deployment", "-coturn")
    assert budget["spec"] == {"maxUnavailable": 1, "selector": deployment["spec"]["selector"]}


def test_media_comes_from_turn_servers_alone_where_nothing_else_is_allowed(chart: Chart) -> None:
    manifests = chart.render(None, "coturn")
    _, media = manifests.one("NetworkPolicy")["spec"]["ingress"]
    pods = manifests.one("Deployment", "-coturn")["spec"]["template"]["metadata"]["labels"]
    assert media["from"] == [{"podSelector": {"matchLabels": pods}}]
    assert media["ports"] == [{"protocol": "UDP", "port": 50000, "endPort": 50050}]
    policy = manifests.one("NetworkPolicy", "-coturn")["spec"]
    (out,) = policy["egress"]
    assert out["to"] == [
        {"podSelector": {"matchLabels": manifests.workload["spec"]["selector"]["matchLabels"]}}
    ]
    assert out["ports"] == media["ports"], "whatever its users ask for"
    egress = manifests.one("NetworkPolicy")["spec"]["egress"]
    assert media["from"] in [rule["to"] for rule in egress]


def test_stunner_is_wired_to_the_replicas(chart: Chart) -> None:
    manifests = chart.render({"stunner": {"namespace": "stunner-system"}}, "stunner")
    gateway, route = manifests.one("Gateway"), manifests.one("UDPRoute")
    (listener,) = gateway["spec"]["listeners"]
    assert (listener["protocol"], listener["port"]) == ("TURN-UDP", 3478)
    assert route["spec"]["parentRefs"] == [{"name": gateway["metadata"]["name"]}]
    (backend,) = route["spec"]["rules"][0]["backendRefs"]
    assert backend["name"] == manifests.one("Service", "-replicas")["metadata"]["name"]
    _, media = manifests.one("NetworkPolicy")["spec"]["ingress"]
    labels = {"kubernetes.io/metadata.name": "stunner-system"}
    assert {"namespaceSelector": {"matchLabels": labels}} in media["from"]


def test_turn_servers_have_a_scheduler_dns_and_a_node_port_for_tls(chart: Chart) -> None:
    manifests = chart.render(
        {"coturn": {"dnsPolicy": "Default", "service": {"type": "NodePort"}, "tls": NODE_PORT}}, "coturn"
    )
    pod = manifests.one("Deployment", "-coturn")["spec"]["template"]["spec"]
    assert (pod["schedulerName"], pod["dnsPolicy"]) == ("bin-packing", "Default")
    assert pod["dnsConfig"] == {"options": [{"name": "ndots", "value": "1"}]}
    ports = {port["name"]: port for port in manifests.one("Service", "-coturn")["spec"]["ports"]}
    assert ports["turn-tls"]["nodePort"] == 30443
    assert "nodePort" not in ports["turn-tcp"]


@pytest.mark.parametrize(
    ("coturn", "said"),
    [
        ({"tls": {"nodePort": 30443}}, "coturn.tls.nodePort is 30443 and coturn.tls.enabled is false"),
        (
            {"tls": NODE_PORT, "service": {"type": "ClusterIP"}},
            "coturn.service.type is ClusterIP: allowed with NodePort",
        ),
        ({"tls": NODE_PORT, "service": {"nodePort": 30443}}, "are both 30443, and both take TCP"),
    ],
)
def test_a_node_port_for_tls_must_fit(chart: Chart, coturn: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        chart.render({"coturn": coturn}, "coturn")
