"""``streamer models pull oci://…`` from a small registry that has faults on demand."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from streamer.model_zoo.download_url import CannotWrite, WrongFile
from tests.helpers.model_pulls import BODY, SHA256, Report, get_uri
from tests.helpers.release_server import Fault, ForwardProxy, Server
from tests.helpers.stores.registry import (
    NEEDS_REGISTRY,
)

pytestmark = [
    pytest.mark.usefixtures("no_logins"),
    NEEDS_REGISTRY,
]


class FaultyRegistry:
    """Serves one artifact, whose file comes from a blob store at another address (`store`)."""

    def __init__(self, layout: Path, store: Server) -> None:
        self._blobs = layout / "blobs" / "sha256"
        self.store = store
        #: Number of blob requests after which each token expires; None: never.
        self.token_uses: int | None = None
        #: Bytes that replace the manifest.
        self.manifest: bytes | None = None
        self.tokens = 0
        self._uses = 0
        application = web.Application()
        application.router.add_get("/token", self._token)
        application.router.add_get("/v2/models/parcels/{kind}/{name}", self._answer)
        self._server = TestServer(application)

    async def __aenter__(self) -> FaultyRegistry:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    def uri(self, name: str) -> str:
        return f"oci://127.0.0.1:{self._server.port}/models/parcels{name}"

    async def _token(self, _: web.Request) -> web.Response:
        self.tokens, self._uses = self.tokens + 1, 0
        return web.json_response({"access_token": f"dummy-{self.tokens}"})

    async def _answer(self, request: web.Request) -> web.Response:
        kind, name = request.match_info["kind"], request.match_info["name"]
        known = request.headers.get("Authorization") == f"Bearer dummy-{self.tokens}" and self.tokens > 0
        if kind == "blobs" and self.token_uses is not None:
            self._uses += 1
            known = known and self._uses <= self.token_uses
        if not known:
            realm = f'Bearer realm="{self._server.make_url("/token")}",service="x"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        if kind == "blobs":
            return web.Response(status=307, headers={"Location": f"{self.store.url}?sig=dummy"})
        body = (
            self.manifest
            if self.manifest is not None
            else (self._blobs / name.partition(":")[2]).read_bytes()
        )
        return web.Response(body=body, content_type="application/vnd.oci.image.manifest.v1+json")


@pytest.fixture
async def faulty(layout: tuple[Path, str]) -> AsyncIterator[FaultyRegistry]:
    async with Server(BODY) as store, FaultyRegistry(layout[0], store) as running:
        yield running


async def test_a_blob_store_gets_no_token_and_is_resumed(
    faulty: FaultyRegistry, layout: tuple[Path, str], tmp_path: Path
) -> None:
    faulty.store.faults = [Fault(cut_after=100_000)]
    assert (await get_uri(faulty.uri(f"@{layout[1]}"), tmp_path)).sha256 == SHA256
    assert [seen.headers.get("range") for seen in faulty.store.seen] == [None, "bytes=100000-"]
    assert [seen.headers.get("authorization") for seen in faulty.store.seen] == [None, None]
    assert faulty.store.seen[0].target.endswith("?sig=dummy")
    assert faulty.tokens == 1


async def test_a_token_that_expires_during_a_download_is_renewed(
    faulty: FaultyRegistry, layout: tuple[Path, str], tmp_path: Path
) -> None:
    faulty.token_uses = 1
    faulty.store.faults = [Fault(cut_after=100_000), Fault(cut_after=50_000)]
    report = Report()
    assert (await get_uri(faulty.uri(f"@{layout[1]}"), tmp_path, report=report)).sha256 == SHA256
    assert faulty.tokens == 3
    assert any("wants a new token" in line for line in report.lines)
    note = (tmp_path / "parcels.json").read_text()
    assert "dummy" not in note


async def test_other_bytes_than_the_digest_names_are_never_installed(
    faulty: FaultyRegistry, layout: tuple[Path, str], tmp_path: Path
) -> None:
    pinned = faulty.uri(f"@{layout[1]}")
    (tmp_path / "parcels.onnx").write_bytes(b"previous")
    with pytest.raises(CannotWrite, match="another file of this name exists"):
        await get_uri(pinned, tmp_path)
    faulty.store.body = bytes(len(BODY))
    with pytest.raises(WrongFile, match=f"expected sha256 {SHA256}; found .*nothing was installed"):
        await get_uri(pinned, tmp_path, force=True)
    faulty.store.body = BODY + b"more"
    with pytest.raises(WrongFile, match=f"expected {len(BODY)} bytes; found {len(BODY) + 4} bytes"):
        await get_uri(pinned, tmp_path, force=True)
    assert (tmp_path / "parcels.onnx").read_bytes() == b"previous"
    faulty.manifest = b'{"schemaVersion": 2, "layers": []}'
    with pytest.raises(WrongFile, match=f"expected a manifest with the digest {layout[1]}; found sha256:"):
        await get_uri(pinned, tmp_path, force=True)


@pytest.mark.parametrize(
    ("manifest", "found"),
    [
        (
            {"manifests": [{"digest": f"sha256:{'1' * 64}"}, {"digest": f"sha256:{'2' * 64}"}]},
            "an index of 2",
        ),
        ({"layers": [{"digest": "sha512:00", "size": 5}]}, "expected a layer with a sha256 digest"),
        ({"layers": [{"digest": f"sha256:{'1' * 64}", "size": 1 << 40}]}, "expected a layer of 1 to"),
        ([], "found no JSON object"),
    ],
)
async def test_a_manifest_that_is_no_model_is_refused(
    faulty: FaultyRegistry, tmp_path: Path, manifest: object, found: str
) -> None:
    faulty.manifest = json.dumps(manifest).encode()
    with pytest.raises(WrongFile, match=found):
        await get_uri(faulty.uri(":1"), tmp_path, trust=True)


async def test_registries_are_reached_through_the_proxy_and_netrc_does_not_disturb(
    faulty: FaultyRegistry, layout: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password dummy\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//user:dummy@"))
        assert (await get_uri(faulty.uri(f"@{layout[1]}"), tmp_path)).sha256 == SHA256
        asked = {line.split("/")[2] for line in proxy.asked}
        assert len(asked) == 2, "the registry and the blob store"
        assert set(proxy.logins) == {"Basic " + base64.b64encode(b"user:dummy").decode()}
    assert faulty.store.seen[0].headers.get("authorization") is None
