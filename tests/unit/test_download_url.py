"""URLs of models must be https, or http on this machine, also after redirects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.model_zoo.download_url import check_url, is_loopback, origin_of, redirect_allowed


@pytest.mark.parametrize(
    "url",
    [
        "https://host/x",
        "https://host:8443/x?a=b",
        "http://127.0.0.1:9/x",
        "http://[::1]/x",
        "http://localhost/x",
    ],
)
def test_https_and_this_machine_are_allowed(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://host/x",
        "http://127.0.0.1.host/x",
        "ftp://host/x",
        "file:///etc/passwd",
        "https://user@host/x",
        "https://:secret@host/x",
        "https:///x",
        "https://[::1/x",
        "https://host:port/x",
        "https://host/a b",
        "https://hö.st/",
        "//host/x",
        "",
        None,
        "https://host/" + "x" * 2000,
    ],
)
def test_anything_else_is_refused(url: object) -> None:
    with pytest.raises(ValueError, match="https:// address without user and password"):
        check_url(url)


@pytest.mark.parametrize(
    ("here", "there", "allowed"),
    [
        ("https://a/", "https://b/", True),
        ("https://a/", "http://b/", False),
        # A remote server must not redirect to services on this machine either.
        ("https://a/", "http://127.0.0.1/", False),
        ("http://127.0.0.1/", "http://127.0.0.1:8/", True),
        ("http://127.0.0.1/", "https://b/", True),
        ("http://127.0.0.1/", "http://b/", False),
        ("https://a/", "", False),
    ],
)
def test_a_redirect_never_leads_from_https_to_http(here: str, there: str, allowed: bool) -> None:
    assert redirect_allowed(here, there) is allowed


def test_messages_show_only_the_host() -> None:
    assert origin_of("https://store.host:8443/key?sig=dummy") == "https://store.host:8443"
    assert origin_of("http://[::1]:80/x") == "http://[::1]:80"
    assert origin_of("https://[") == "an address that cannot be parsed"


def test_loopback_addresses_are_recognised() -> None:
    assert [is_loopback(host) for host in ("127.8.9.1", "::1", "localhost")] == [True] * 3
    assert [is_loopback(host) for host in ("10.0.0.1", "localhost.host", "")] == [False] * 3


@given(st.text(max_size=40))
def test_any_text_is_either_allowed_or_refused(text: str) -> None:
    origin_of(text)
    try:
        check_url(text)
    except ValueError:
        return
    assert text.startswith(("http://", "https://", "HTTP", "Http"))
