"""Tests WebRTC through TURN: coturn runs with the chart's configuration, and clients learn its address."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aioice import stun, turn

from streamer.config.network_settings import IceServers, parse_ice_servers
from tests.deploy.chart import Chart, Manifests
from tests.helpers.ports import free_port

SECRET = "dummy-secret"  # noqa: S105


@contextlib.contextmanager
def running(manifests: Manifests, folder: Path) -> Iterator[int]:
    """Run coturn as its pod does, but on a free port of loopback; yield the port."""
    if shutil.which("turnserver") is None:
        pytest.skip("needs turnserver, which is not here: apt-get install coturn")
    (container,) = manifests.one("Deployment", "-coturn")["spec"]["template"]["spec"]["containers"]
    port = free_port()
    configuration = folder / "turnserver.conf"
    text = manifests.one("ConfigMap", "-coturn")["data"]["turnserver.conf"]
    assert f"listening-port={container['ports'][0]['containerPort']}\n" in text
    for inside, here in ((f"listening-port={3478}", f"listening-port={port}"), ("/tmp/", f"{folder}/")):  # noqa: S108
        assert inside in text
        text = text.replace(inside, here)
    configuration.write_text(text + "\nlistening-ip=127.0.0.1\nrelay-ip=127.0.0.1\n")
    command = [
        part.replace("/tmp/", f"{folder}/own-").replace("/etc/turn/turnserver.conf", str(configuration))  # noqa: S108
        for part in (*container["command"], *container["args"])
    ]
    environment = {"PATH": os.environ["PATH"], "TURN_SECRET": SECRET}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
    try:
        deadline = time.monotonic() + 20
        while not listens(port):
            assert server.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "coturn does not listen"
            time.sleep(0.05)
        for shown in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{server.pid}/{shown}").read_bytes()
        assert (folder / "own-turnserver.conf").stat().st_mode & 0o777 == 0o600
        yield port
    finally:
        server.kill()
        server.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.asynccontextmanager
async def allocation(port: int, secret: str) -> AsyncIterator[Any]:
    """Hold an allocation on the TURN server, made with credentials like those that the service issues."""
    servers = IceServers((f"turn:127.0.0.1:{port}",), secret)
    (given,) = servers.describe("client", time.time())
    transport, _ = await turn.create_turn_endpoint(
        asyncio.DatagramProtocol, ("127.0.0.1", port), given["username"], given["credential"]
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
