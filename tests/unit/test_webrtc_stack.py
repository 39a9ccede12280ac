"""Checks the private names of aiortc and aioice that `streamer/webrtc/aiortc_adapter.py` relies on.

When one of these tests fails after an upgrade, read the new source of the name in the test. Change
`aiortc_adapter.py`, `ice_agent.py` or `rtp_receiver.py` and nothing else. Then run this file and
`tests/integration/test_webrtc_*.py`, with the junk datagrams among them. Until then keep `aiortc` and
`aioice` in constraints.txt as they are.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from typing import Any

import pytest
from aioice import ice, stun, turn
from aiortc import (
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpReceiver,
    rtcdtlstransport,
    rtcpeerconnection,
    rtcrtptransceiver,
)
from aiortc.codecs import CODECS
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from aiortc.rtp import pack_header_extensions

from streamer.imaging.turning import Turning
from streamer.webrtc import ice_agent
from streamer.webrtc.aiortc_adapter import NoFreePort, Peer, UdpSettings, register_profiles
from streamer.webrtc.rtp_receiver import ORIENTATION_URI, OrientedExtensions, Receiver
from streamer.webrtc.sdp_offer import check_offer
from tests.helpers.ports import free_port, free_ports

ADVICE = "see the top of tests/unit/test_webrtc_stack.py"


def test_the_versions_are_those_that_were_read() -> None:
    assert version("aiortc").split(".")[:2] == ["1", "16"], ADVICE
    assert version("aioice").split(".")[:2] == ["0", "13"], ADVICE


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (
            RTCPeerConnection,
            [
                "_RTCPeerConnection__createDtlsTransport",
                "_RTCPeerConnection__createSctpTransport",
                "_RTCPeerConnection__createTransceiver",
            ],
        ),
        (
            RTCRtpReceiver,
            ["_handle_rtp_packet", "_handle_rtcp_packet", "_handle_disconnect", "_set_rtcp_ssrc"],
        ),
        (
            rtcdtlstransport.RTCDtlsTransport,
            ["_register_rtp_receiver", "_unregister_rtp_receiver", "_send_rtp", "_set_role"],
        ),
        (
            ice.Connection,
            ["get_component_candidates", "respond_error", "data_received", "check_incoming"],
        ),
        (ice.StunProtocol, ["datagram_received"]),
        (ice, ["server_reflexive_candidate", "CandidatePair"]),
        (turn, ["UDP_SOCKET_BUFFER_SIZE"]),
    ],
)
def test_what_is_overridden_or_called_exists(owner: Any, names: list[str]) -> None:
    assert [name for name in names if not hasattr(owner, name)] == [], ADVICE


def test_what_is_overridden_is_called_as_it_was() -> None:
    source = inspect.getsource(rtcpeerconnection)
    for call in (
        'self.__createTransceiver(\n                        direction="recvonly", kind=media.kind',
        "self.__createDtlsTransport()",
        "transceiver.receiver._set_rtcp_ssrc(transceiver.sender._ssrc)",
    ):
        assert call in source, ADVICE
    assert "self.__receiver = receiver" in inspect.getsource(rtcrtptransceiver), ADVICE
    assert "self.receiver.data_received(data, self.local_candidate.component)" in inspect.getsource(
        ice.StunProtocol.datagram_received
    ), ADVICE
    assert "await self.gather_candidates()" not in inspect.getsource(ice.Connection.gather_candidates)
    assert "self.get_component_candidates(component=component, addresses=addresses)" in inspect.getsource(
        ice.Connection.gather_candidates
    ), ADVICE


def test_main_and_high_are_registered_once() -> None:
    register_profiles()
    before = len(CODECS["video"])
    register_profiles()
    assert len(CODECS["video"]) == before
    profiles = {codec.parameters.get("profile-level-id") for codec in CODECS["video"]}
    assert {"42001f", "42e01f", "4d001f", "640c1f", "64001f"} <= profiles


class NoSink:
    """Accepts packets and discards them."""

    def received(self, *_: object) -> None:
        return

    def ended(self) -> None:
        return


async def offer_of_a_browser() -> tuple[RTCPeerConnection, Any]:
    client = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    client.addTransceiver("video", "sendonly")
    client.createDataChannel("results")
    await client.setLocalDescription(await client.createOffer())
    return client, check_offer(client.localDescription.sdp, allow_private=False)


async def test_an_answer_comes_from_our_own_agent_sockets_and_receiver() -> None:
    client, offer = await offer_of_a_browser()
    peer = Peer(UdpSettings(), NoSink())
    answer = await peer.answer(offer)
    assert "a=recvonly" in answer
    assert "a=setup:passive" in answer
    assert isinstance(peer.video_receiver(), Receiver)
    transport = peer.getTransceivers()[0].receiver.transport.transport
    assert type(transport._connection) is ice_agent.IceAgent
    assert all(type(protocol) is ice_agent._MediaSocket for protocol in transport._connection._protocols)
    assert transport._connection.stun_server is None
    await peer.close_within(2.0)
    await client.close()


async def test_the_orientation_of_the_camera_is_negotiated_and_read() -> None:
    """The answer repeats the extension's number of the offer, and packets have the orientation under it."""
    register_profiles()
    client, offer = await offer_of_a_browser()
    offer = replace(
        offer, sdp=re.sub(rf"a=extmap:\d+ {ORIENTATION_URI}", f"a=extmap:7 {ORIENTATION_URI}", offer.sdp)
    )
    peer = Peer(UdpSettings(), NoSink())
    assert f"a=extmap:7 {ORIENTATION_URI}" in await peer.answer(offer)
    extensions = peer.getTransceivers()[0].receiver.transport._rtp_header_extensions_map
    assert isinstance(extensions, OrientedExtensions), ADVICE
    extensions.configure(
        RTCRtpParameters(headerExtensions=[RTCRtpHeaderExtensionParameters(id=7, uri=ORIENTATION_URI)])
    )
    # The highest bit, for the back camera, changes nothing.
    for value, flip, turns in product((0, 8), (0, 4), range(4)):
        packed = pack_header_extensions([(7, bytes([value | flip | turns]))])
        turning = Turning(mirrored=bool(flip), turns=turns)
        assert extensions.get(*packed).turning == turning  # type: ignore[attr-defined]
    assert not hasattr(extensions.get(*pack_header_extensions([(6, b"\x01")])), "turning")
    assert not hasattr(extensions.get(*pack_header_extensions([(7, b"\x01\x01")])), "turning")
    await peer.close_within(2.0)
    await client.close()


async def test_a_stun_server_that_does_not_answer_delays_the_answer_only_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_up: list[object] = []

    async def ask(_protocol: object, server: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.append(server)

    monkeypatch.setattr(ice, "server_reflexive_candidate", ask)
    client, offer = await offer_of_a_browser()
    peer = Peer(UdpSettings(stun_servers=("stun:127.0.0.1:9",)), NoSink())
    assert "a=candidate" in await peer.answer(offer)
    assert set(given_up) == {("127.0.0.1", 9)}
    await peer.close_within(2.0)
    await client.close()


async def test_the_public_address_is_announced_alone_and_ports_come_from_the_range() -> None:
    client, offer = await offer_of_a_browser()
    first, last = free_ports(2, socket.SOCK_DGRAM)
    plan = UdpSettings(ports=(first, last), public_ip="203.0.113.7")
    peers = [Peer(plan, NoSink()) for _ in range(3)]
    announced = []
    for peer in peers[:2]:
        answer = await peer.answer(offer)
        candidates = {line for line in answer.splitlines() if line.startswith("a=candidate")}
        assert [line.split()[4] for line in candidates] == ["203.0.113.7"]
        announced += [int(line.split()[5]) for line in candidates]
    assert sorted(announced) == [first, last]
    with pytest.raises(NoFreePort, match=f"{first} to {last}"):
        await peers[2].answer(offer)
    for peer in peers:
        await peer.close_within(2.0)
    await client.close()


async def test_sockets_opened_before_the_ports_ran_out_are_closed_too() -> None:
    agent = ice.Connection(ice_controlling=False)
    agent.__class__ = ice_agent.IceAgent
    port = free_port(socket.SOCK_DGRAM)
    plan = UdpSettings(ports=(port, port))
    agent.plan = plan  # type: ignore[attr-defined]
    with pytest.raises(NoFreePort):
        # With the same address twice, the second socket finds the only port taken.
        await agent.get_component_candidates(1, ["127.0.0.1", "127.0.0.1"])
    await agent.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", port))


class FakeProtocol:
    """Keeps the STUN messages that are sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send_stun(self, message: Any, address: Any) -> None:
        self.sent.append((message, address))


async def test_who_does_not_know_the_password_gets_no_answer() -> None:
    agent = ice.Connection(ice_controlling=False)
    agent.__class__ = ice_agent.IceAgent
    protocol: Any = FakeProtocol()
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    agent.request_received(request, ("198.51.100.1", 5000), protocol)
    request.attributes["USERNAME"] = "some:body"
    request.add_message_integrity(b"wrong")
    agent.request_received(request, ("198.51.100.1", 5000), protocol)
    assert protocol.sent == []


async def test_an_authenticated_address_is_accepted_also_when_another_pair_was_nominated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine with two addresses has two pairs; the client may choose the one that our agent gave up."""
    # The library's own handling is switched off, so that no candidate pair results from the request.
    monkeypatch.setattr(ice.Connection, "check_incoming", lambda *_: None)
    agent: Any = ice.Connection(ice_controlling=False)
    agent.__class__ = ice_agent.IceAgent
    agent.authenticated = set()
    ours, other = FakeProtocol(), FakeProtocol()
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    assert not agent.accepts(ours, ("198.51.100.1", 5000))
    agent.check_incoming(request, ("198.51.100.1", 5000), ours)
    assert agent.accepts(ours, ("198.51.100.1", 5000))
    for protocol, address in ((ours, ("198.51.100.1", 5001)), (other, ("198.51.100.1", 5000))):
        assert not agent.accepts(protocol, address)
    for port in range(1000):
        agent.check_incoming(request, ("198.51.100.2", port), ours)
    assert len(agent.authenticated) == ice_agent._MAX_AUTHENTICATED
