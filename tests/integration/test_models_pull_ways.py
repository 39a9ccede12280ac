"""Redirects and proxies on the way of ``streamer models pull`` to a file."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from streamer.client.options import Tls
from streamer.model_zoo.download_url import PullFailed
from tests.helpers.model_pulls import BODY, QUICK, entry_of, get
from tests.helpers.release_server import Fault, ForwardProxy, Server
from tests.integration.test_client_network import make_certificate


async def test_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    async with Server() as front:
        signed = f"{server.url}?sig=a%7Eb%2F"
        front.faults = [
            Fault(status=301, headers={"Location": "/moved"}),
            Fault(status=302, headers={"Location": signed}),
        ]
        assert (await get(replace(entry_of(server), url=front.url), tmp_path)).path.read_bytes() == BODY
        assert [seen.target for seen in front.seen] == ["/release/model.onnx", "/moved"]
        assert server.seen[0].target.endswith("?sig=a%7Eb%2F")


@pytest.mark.parametrize(
    ("location", "found"),
    [
        (
            "http://example.invalid/x?token=dummy",
            r"redirects to http://example\.invalid, which is not followed",
        ),
        ("ftp://127.0.0.1/x", "is not followed"),
        ("/again", "redirects more than 10 times"),
        ("https://[", "an address that cannot be parsed, which is not followed"),
        ("http://127.0.0.1:port/", "is not followed"),
        ("", "is not followed"),
    ],
)
async def test_a_redirect_to_a_forbidden_url_is_refused(
    server: Server, tmp_path: Path, location: str, found: str
) -> None:
    server.faults = [Fault(status=302, headers={"Location": location} if location else {})] * 11
    with pytest.raises(PullFailed, match=found) as refused:
        await get(entry_of(server), tmp_path)
    assert "dummy" not in str(refused.value)


async def test_a_redirect_from_https_to_http_is_refused(server: Server, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    trusting = replace(QUICK, tls=Tls(ca_file=str(certificate)))
    async with Server(BODY, tls=context) as secure:
        with pytest.raises(PullFailed, match=r"127\.0\.0\.1: the certificate is not trusted.*--ca-file"):
            await get(entry_of(secure), tmp_path / "models")
        secure.faults = [Fault(status=302, headers={"Location": server.url})]
        with pytest.raises(PullFailed, match="which is not followed"):
            await get(entry_of(secure), tmp_path / "models", trusting)
        assert server.seen == []
        assert (await get(entry_of(secure), tmp_path / "models", trusting)).path.read_bytes() == BODY


async def test_the_proxy_of_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        await get(entry_of(server), tmp_path / "one")
        assert proxy.asked == [f"GET {server.url} HTTP/1.1"]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        await get(entry_of(server), tmp_path / "two")
        assert len(proxy.asked) == 1
        assert len(server.seen) == 2


async def test_https_goes_through_the_proxy_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with Server(BODY, tls=context) as secure, ForwardProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        options = replace(QUICK, tls=Tls(ca_file=str(certificate)))
        assert (await get(entry_of(secure), tmp_path / "models", options)).path.read_bytes() == BODY
        assert proxy.asked == [f"CONNECT 127.0.0.1:{secure.port} HTTP/1.1"]


async def test_an_unreachable_server_is_reported_with_host_and_reason(server: Server, tmp_path: Path) -> None:
    gone = replace(entry_of(server), url="http://127.0.0.1:1/x.onnx")
    with pytest.raises(PullFailed, match=r"127\.0\.0\.1:1 cannot be reached: Connection refused"):
        await get(gone, tmp_path)
