"""Captures where a service sends packets, in a network namespace that has no route to other networks."""

from __future__ import annotations

import asyncio

import pytest

from tests.helpers.network_namespace import PacketCapture, in_own_network
from tests.helpers.service import PATIENT, Service
from tests.helpers.webrtc_client import WebrtcClient

KEY = "dummy-key"
STUN = ("10.99.0.50", 3478)
#: An address to which the service may send packets when a client with a key offers it.
PUBLIC = ("8.8.4.4", 40_000)
#: Addresses to which the service must never send: a private address, loopback, multicast, a cloud metadata
#: service, a port of a well-known service, and host names.
FORBIDDEN = (
    ("10.99.0.7", 40_000),
    ("127.0.0.1", 40_000),
    ("239.1.1.1", 40_000),
    ("169.254.169.254", 40_000),
    ("8.8.8.8", 53),
    # The service looks up no names, so the name server receives no packet either.
    ("camera.local", 40_000),
    ("probe.example", 40_000),
)


def with_candidates(sdp: str, *addresses: tuple[str, int]) -> str:
    """Return the offer with a host candidate added for each address."""
    lines = "".join(
        f"a=candidate:{n} 1 udp 2130706431 {host} {port} typ host\r\n"
        for n, (host, port) in enumerate(addresses)
    )
    return sdp.replace("a=mid:0\r\n", f"a=mid:0\r\n{lines}", 1)


async def offer(url: str, key: str, *addresses: tuple[str, int]) -> tuple[int, int]:
    """Offer addresses, give the service time to try them, and return the status and how many it left out."""
    client = WebrtcClient(url, key=key)
    try:
        body = {"type": "offer", "sdp": with_candidates(await client.offer(), *addresses)}
        async with client.http.post(url, json=body) as response:
            answer = await response.json()
        await asyncio.sleep(1.5)
        return response.status, answer.get("candidates_left_out", 0)
    finally:
        await client.close()


async def use(url: str) -> None:
    """Send video as an ordinary client does, and read its results."""
    async with WebrtcClient(url, key=KEY) as client:
        await client.wait_for("result", 3)


@pytest.fixture(autouse=True)
def _libraries_as_users_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that switch off the telemetry of libraries, so that the capture would show it."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)


@pytest.mark.parametrize("servers", [(), (STUN,)], ids=["no servers", "a STUN server"])
def test_packets_go_only_where_settings_or_a_client_with_a_key_lead(
    servers: tuple[tuple[str, int], ...],
) -> None:
    settings = PATIENT | {
        "API_KEYS": KEY,
        "ICE_SERVERS": ",".join(f"stun:{host}:{port}" for host, port in servers),
    }

    def act(capture: PacketCapture) -> None:
        with Service(settings) as service:
            url = f"{service.http_url}/v1/webrtc"
            asyncio.run(use(url))
            assert capture.destinations(set(servers)) == set(servers)
            assert asyncio.run(offer(url, "", PUBLIC)) == (401, 0)
            assert capture.destinations() == set()
            status, left_out = asyncio.run(offer(url, KEY, *FORBIDDEN))
            # The service also leaves out the client's own candidate, which has a private address.
            assert (status, left_out >= len(FORBIDDEN)) == (201, True)
            assert capture.destinations(set(servers)) == set(servers)
            # This shows that the capture works: it records packets to allowed addresses.
            assert asyncio.run(offer(url, KEY, PUBLIC))[0] == 201
            expected = {*servers, PUBLIC}
            assert capture.destinations(expected) == expected

    in_own_network(act)


def test_a_setting_lets_private_addresses_in() -> None:
    settings = PATIENT | {
        "WEBRTC_PRIVATE_CANDIDATES": "true",
    }

    def act(capture: PacketCapture) -> None:
        with Service(settings) as service:
            assert asyncio.run(offer(f"{service.http_url}/v1/webrtc", "", *FORBIDDEN))[0] == 201
            expected = {FORBIDDEN[0]}
            assert capture.destinations(expected) == expected

    in_own_network(act)
