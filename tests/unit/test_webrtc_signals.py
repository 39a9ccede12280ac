"""Tests the small pure parts of WebRTC signalling: servers, credentials, candidates, addresses, feedback."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from streamer.accounting.metrics import WEBRTC_END_REASONS
from streamer.config.network_settings import IceServers, parse_ice_servers
from streamer.config.settings import SettingsError, load_settings
from streamer.http.origins import OriginPolicy, cors_headers, preflight_headers
from streamer.http.path_prefix import absolute_url
from streamer.webrtc.candidate import BadFragment, IceRestartRequested, read_candidates, read_fragment
from streamer.webrtc.end_reason import EndReason, explain
from streamer.webrtc.video_feed import AGAIN_S, KeyFrameRequests


def test_servers_are_told_with_credentials_that_end() -> None:
    servers = IceServers(("stun:a", "turn:b?transport=tcp", "turns:c:443"), "dummy", 600)
    stun, turn = servers.describe("me", 1000.7)
    assert stun == {"urls": ["stun:a"]}
    assert (turn["urls"], turn["username"]) == (["turn:b?transport=tcp", "turns:c:443"], "1600:me")
    expected = hmac.new(b"dummy", b"1600:me", hashlib.sha1).digest()
    assert turn["credential"] == base64.b64encode(expected).decode()
    assert len(servers.links("me", 0)) == 3
    assert servers.stun_urls == ("stun:a",)


def test_turn_without_a_secret_is_not_told() -> None:
    assert IceServers(("turn:b",)).describe("me", 0) == []
    assert IceServers().describe("me", 0) == []


@pytest.mark.parametrize(
    "text",
    [
        *("http://a", "stun", "stun:", "stun:a?transport=udp", "turn:a b", "stun:a;turn:b"),
        *(
            "turn:2001:db8::7",
            "turn:[2001:db8::7",
            "turn:[1.2.3.4]",
            "turn:[::1::]",
            "stun:[::1]?transport=udp",
        ),
    ],
)
def test_what_is_no_ice_server_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not an ICE server; allowed are stun:HOST"):
        parse_ice_servers(text)


def test_servers_at_ipv6_addresses_are_for_clients() -> None:
    urls = parse_ice_servers("stun:[2001:db8::7]:3478, turn:[2001:db8::7]?transport=udp,stun:a")
    assert urls == ("stun:[2001:db8::7]:3478", "turn:[2001:db8::7]?transport=udp", "stun:a")
    assert IceServers(urls).stun_urls == ("stun:a",), "aiortc cannot read the address in brackets"
    assert IceServers(urls).describe("me", 0) == [{"urls": ["stun:[2001:db8::7]:3478", "stun:a"]}]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ice_servers", "http://x", "ICE_SERVERS='http://x': 'http://x' is not an ICE server"),
        ("udp_port_range", "50000", "allowed is FIRST-LAST"),
        ("udp_port_range", "80-90", "ports from 1024"),
        ("udp_port_range", "50000-40000", "ports from 1024"),
        ("public_ip", "example.org", "IPv4 or IPv6"),
        ("webrtc_sessions_max", -1, "WEBRTC_SESSIONS_MAX"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: object, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings(**{name: value})


def test_settings_are_read() -> None:
    settings = load_settings(
        udp_port_range="50000-50010", public_ip="2001:DB8::1", ice_servers="stun:a, turn:b"
    )
    assert settings.udp_ports == (50000, 50010)
    assert settings.public_ip == "2001:db8::1"
    assert settings.ice_urls == ("stun:a", "turn:b")


def test_fragments_hold_candidates_and_no_restart() -> None:
    lines = ("ice-ufrag:u", "ice-pwd:p", "mid:0", "candidate:one", "end-of-candidates")
    text = "".join(f"a={line}\r\n" for line in lines)
    assert read_fragment(text, "u") == ["one"]
    with pytest.raises(IceRestartRequested):
        read_fragment(text, "v")
    with pytest.raises(BadFragment):
        read_fragment("nonsense", "u")


def test_candidates_of_browsers_are_read_in_every_form() -> None:
    assert read_candidates({"candidate": {"candidate": "candidate:a", "sdpMid": "0"}}) == ["a"]
    assert read_candidates(
        {"candidates": [{"candidate": "a"}, "a=candidate:b", {"candidate": ""}, None]}
    ) == [
        "a",
        "b",
    ]
    assert read_candidates({"candidate": None}) == []
    wrongs: list[object] = [[], {}, {"candidates": 5}, {"candidates": [5]}, {"candidate": {"candidate": 5}}]
    for wrong in wrongs:
        with pytest.raises(BadFragment):
            read_candidates(wrong)


@given(st.text(max_size=100))
def test_no_fragment_does_any_other_harm(text: str) -> None:
    try:
        read_fragment(text, "u")
    except (BadFragment, IceRestartRequested):
        return


def test_addresses_are_absolute_and_headers_that_make_no_sense_are_ignored() -> None:
    app = web.Application()

    def url(**headers: str) -> str:
        given_headers = {"Host": "here:8000"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return absolute_url(make_mocked_request("POST", "/", headers=given_headers, app=app), "/v1/whip/x")

    assert url() == "http://here:8000/v1/whip/x"
    assert url(X_Forwarded_Proto="https", X_Forwarded_Host="a.b") == "https://a.b/v1/whip/x"
    assert url(X_Forwarded_Host="a.b, c.d") == "http://a.b/v1/whip/x"
    assert url(X_Forwarded_Proto="ftp", X_Forwarded_Host='a"b', X_Forwarded_Prefix="/p") == url()


def test_only_pages_of_allowed_origins_are_told_that_they_may() -> None:
    origin_policy = OriginPolicy(origins=["https://good.example"])
    good = make_mocked_request("POST", "/", headers={"Origin": "https://good.example", "Host": "h"})
    bad = make_mocked_request("POST", "/", headers={"Origin": "https://bad.example", "Host": "h"})
    program = make_mocked_request("POST", "/", headers={"Host": "h"})
    assert cors_headers(good, origin_policy)["Access-Control-Allow-Origin"] == "https://good.example"
    assert preflight_headers(good, origin_policy, "POST")["Access-Control-Allow-Methods"] == "POST"
    assert (
        cors_headers(bad, origin_policy)
        == preflight_headers(bad, origin_policy, "POST")
        == cors_headers(program, origin_policy)
        == {}
    )


def test_key_frames_are_asked_for_until_one_comes_but_not_too_often() -> None:
    requests = KeyFrameRequests()
    assert not requests.retry_due(0.0)
    assert requests.on_loss(1.0)
    assert not requests.on_loss(1.0 + AGAIN_S / 2)
    assert requests.retry_due(1.0 + AGAIN_S)
    requests.on_decoded()
    assert not requests.retry_due(9.0)


def test_every_ending_has_a_label_and_a_sentence() -> None:
    assert tuple(EndReason) == WEBRTC_END_REASONS
    for ending in EndReason:
        assert "{" not in explain(ending)
