"""Tests that allowed hosts and origins are accepted, and names that only resemble them are refused."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from streamer.access.access_settings import parse_hosts, parse_networks, parse_origins
from streamer.http.caller import ClientAddresses
from streamer.http.origins import OriginPolicy

POLICY = OriginPolicy(
    parse_hosts("vision.example.com,*.inner.example"), parse_origins("https://app.example.com")
)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (None, True),
        ("localhost", True),
        ("localhost:8000", True),
        ("LOCALHOST.:8000", True),
        ("demo.localhost:8000", True),
        ("127.0.0.1:8000", True),
        ("10.244.3.7:8000", True),
        ("[::1]:8000", True),
        ("[fe80::1%25eth0]:8000", True),
        ("[evil%25.example]", False),
        ("[fd00::5]", True),
        ("app:8000", True),
        ("detect-7f9c", True),
        ("vision.example.com", True),
        ("vision.example.com:8443", True),
        ("a.inner.example", True),
        ("a.b.inner.example", True),
        ("inner.example", False),
        ("ainner.example", False),
        ("evil.example", False),
        ("vision.example.com.evil.example", False),
        ("evilvision.example.com", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1.nip.io:8000", False),
        ("user@localhost", False),
        ("localhost:80:90", False),
        ("[::1", False),
        ("", False),
        (".", False),
        ("com.", True),
        ("evil.example.", False),
        ("localhost/", False),
    ],
)
def test_the_service_answers_under_its_own_names_only(host: str | None, *, allowed: bool) -> None:
    assert POLICY.allows_host(host) is allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://127.0.0.1:8000", True),
        ("https://app.example.com", True),
        ("https://127.0.0.1:8000", False),
        ("http://127.0.0.1", False),
        ("http://127.0.0.1:8001", False),
        ("http://localhost:8000", False),
        ("http://app.example.com", False),
        ("https://app.example.com:8443", False),
        ("https://app.example.com:443", True),
        ("https://APP.example.com", False),
        ("https://app.example.com.", False),
        ("https://app.example.com/", False),
        ("https://app.example.com.evil.example", False),
        ("https://evil-app.example.com", False),
        ("https://x.app.example.com", False),
        ("https://app.example.com@evil.example", False),
        ("https://evil.example/https://app.example.com", False),
        ("null", False),
        ("", False),
        ("file://", False),
        ("http://[", False),
        ("chrome-extension://abcdef", False),
        ("https://app.example.com, https://evil.example", False),
    ],
)
def test_only_exact_origins_are_let_in(origin: str, *, allowed: bool) -> None:
    request = make_mocked_request("POST", "/", headers={"Origin": origin, "Host": "127.0.0.1:8000"})
    assert POLICY.allows_origin(request) is allowed


def test_of_two_origins_none_counts() -> None:
    headers = CIMultiDict([("Host", "127.0.0.1:8000"), ("Origin", "https://app.example.com")])
    assert POLICY.allows_origin(make_mocked_request("POST", "/", headers=headers))
    headers.add("Origin", "https://evil.example")
    assert not POLICY.allows_origin(make_mocked_request("POST", "/", headers=headers))


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"X-Forwarded-Proto": "https"}, True),
        ({"X-Forwarded-Proto": "https, http"}, True),
        ({"X-Forwarded-Proto": "http"}, False),
        ({}, False),
        ({"Host": "10.1.1.1:8000", "X-Forwarded-Proto": "https"}, False),
        (
            {
                "Host": "10.1.1.1:8000",
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "vision.example.com",
            },
            True,
        ),
    ],
)
def test_behind_a_proxy_with_tls_the_page_knows_its_own_server(
    headers: dict[str, str], *, allowed: bool
) -> None:
    origin = {"Origin": "https://vision.example.com", "Host": "vision.example.com"}
    assert POLICY.allows_origin(make_mocked_request("POST", "/", headers=origin | headers)) is allowed


def test_a_host_that_is_not_ours_is_not_believed_from_a_proxy_either() -> None:
    headers = {"Origin": "http://evil.example", "Host": "10.1.1.1", "X-Forwarded-Host": "evil.example"}
    assert not POLICY.allows_origin(make_mocked_request("POST", "/", headers=headers))


@pytest.mark.parametrize(
    ("method", "site", "mode", "target", "allowed"),
    [
        ("GET", "cross-site", "no-cors", "image", False),
        ("GET", "same-site", "no-cors", "script", False),
        ("GET", "cross-site", "navigate", "iframe", False),
        ("POST", "cross-site", "navigate", "document", False),
        ("GET", "cross-site", "navigate", "document", True),
        ("GET", "same-origin", "cors", "empty", True),
        ("GET", "none", "navigate", "document", True),
    ],
)
def test_requests_without_an_origin_are_told_apart_by_what_the_browser_says(
    method: str, site: str, mode: str, target: str, *, allowed: bool
) -> None:
    headers = {"Host": "localhost", "Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": target}
    assert POLICY.allows_origin(make_mocked_request(method, "/", headers=headers)) is allowed


def test_any_page_may_call_where_that_is_set_but_null_is_no_page() -> None:
    anybody = OriginPolicy(origins=parse_origins("*"))
    for origin, allowed in (("https://any.example", True), ("null", False)):
        request = make_mocked_request("POST", "/", headers={"Origin": origin, "Host": "x"})
        assert anybody.allows_origin(request) is allowed


@pytest.mark.parametrize("text", ["https://a.example", "a b", "a..b", "*.", "a/b", "-"])
def test_what_is_no_host_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allowed are comma-separated names"):
        parse_hosts(text)


@pytest.mark.parametrize("text", ["app.example.com", "https://a.example/path", "ftp://a.example", "null"])
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allowed are scheme, host and port"):
        parse_origins(text)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", "198.51.100.1", "addr:203.0.113.9"),
        ("10.0.0.2", "198.51.100.1", "addr:198.51.100.1"),
        ("10.0.0.2", "192.0.2.66, 198.51.100.1", "addr:198.51.100.1"),
        ("10.0.0.2", "198.51.100.1, 10.0.0.3", "addr:198.51.100.1"),
        ("10.0.0.2", "198.51.100.1:4711", "addr:198.51.100.1"),
        ("10.0.0.2", "[2001:db8:1:2:3:4:5:6]:4711", "addr:2001:db8:1:2::/64"),
        ("10.0.0.2", "192.0.2.66, unknown", "addr:10.0.0.2"),
        ("10.0.0.2", "", "addr:10.0.0.2"),
        ("2001:db8::1", "", "addr:2001:db8::/64"),
        ("::ffff:203.0.113.9", "", "addr:203.0.113.9"),
    ],
)
def test_only_hops_behind_trusted_proxies_are_believed(peer: str, forwarded: str, expected: str) -> None:
    request = make_mocked_request("GET", "/", headers={"X-Forwarded-For": forwarded}).clone(remote=peer)
    assert ClientAddresses(parse_networks("10.0.0.0/8")).name(request) == expected
