"""``streamer models pull oci://…`` against the registry of the distribution project; skopeo pushes into it.

Faults that a real registry does not have on demand come from a small one of our own.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import json
import os
import random
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from inference.models.manifest import Manifest, read_manifest
from streamer.client.options import Tls
from streamer.core.backoff import Backoff
from streamer.model_zoo.download import UriOptions, of_uri
from streamer.model_zoo.download_url import CannotWrite, NotTrusted, PullFailed, WrongFile
from streamer.model_zoo.pull import PullResult, pull
from tests.helpers.stores.registry import (
    PASSWORD,
    PROGRAMS,
    USER,
    Registry,
    docker_config,
    htpasswd,
    make_layout,
    missing,
)
from tests.integration.release_server import Fault, ForwardProxy, Server
from tests.integration.test_client_network import make_certificate
from tests.integration.test_models_pull import QUICK, Report, finish, start

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"needs {', '.join(missing())} (as root: apt-get install {' '.join(PROGRAMS)})"
)

BODY = random.Random(2).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give each test no proxies, and no logins but its own."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the layout of an artifact with one model and notes, and its digest."""
    folder = tmp_path_factory.mktemp("layout")
    return folder, make_layout(folder, {"Parcels.onnx": BODY, "notes.txt": b"hello"})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, layout: tuple[Path, str]) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        running.push(layout[0], "models/parcels:1.0")
        yield running


async def get(
    uri: str,
    folder: Path,
    options: UriOptions | None = None,
    *,
    trust: bool = False,
    force: bool = False,
    report: Report | None = None,
) -> PullResult:
    """Pull an address, as the command does."""
    no_wait = Backoff(uniform=lambda low, high: 0.0)
    options = replace(options or UriOptions(), stall_s=10.0, tries=2)
    download = await of_uri(uri, folder, options, no_wait)
    wanted = replace(QUICK, trust=trust, force=force, sha256=options.sha256, tls=options.tls)
    return await pull(download, folder, report or Report(), wanted, no_wait)


async def test_the_command_pulls_what_skopeo_has_pushed(
    registry: Registry, layout: tuple[Path, str], tmp_path: Path
) -> None:
    uri = f"oci://{registry.address}/models/parcels@{layout[1]}"
    manifest = '{"labels": ["parcel"], "licence": "MIT"}'
    arguments = ("pull", uri, "--to", str(tmp_path / "models"), "--manifest", manifest)
    code, out, error = await finish(await start(*arguments))
    assert (code, out) == (0, f"{tmp_path / 'models' / 'parcels.onnx'}\n"), error
    assert "parcels: sha256 is as expected" in error
    assert (tmp_path / "models" / "parcels.onnx").read_bytes() == BODY
    assert read_manifest(tmp_path / "models" / "parcels.onnx") == Manifest(
        labels=("parcel",), licence="MIT", source=uri, sha256=SHA256
    )
    code, _, error = await finish(await start(*arguments))
    assert (code, "is installed already, its sha256 is as expected" in error) == (0, True)


async def test_two_pulls_of_an_artifact_share_one_download(
    registry: Registry, layout: tuple[Path, str], tmp_path: Path
) -> None:
    uri = f"oci://{registry.address}/models/parcels@{layout[1]}"
    arguments = ("pull", uri, "--to", str(tmp_path / "cache"), "--name", "parcels")
    outcomes = await asyncio.gather(*[finish(each) for each in [await start(*arguments) for _ in range(3)]])
    assert [outcome[:2] for outcome in outcomes] == [(0, f"{tmp_path / 'cache' / 'parcels.onnx'}\n")] * 3
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["parcels.json", "parcels.onnx"]


async def test_a_tag_alone_is_refused_and_its_digest_is_named(
    registry: Registry, layout: tuple[Path, str], tmp_path: Path
) -> None:
    tag = f"oci://{registry.address}/models/parcels:1.0"
    pinned = f"oci://{registry.address}/models/parcels@{layout[1]}"
    with pytest.raises(NotTrusted, match=rf"the tag 1\.0 may name another file.*{pinned}.*--sha256 {SHA256}"):
        await get(tag, tmp_path)
    assert (await get(tag, tmp_path / "one", trust=True)).sha256 == SHA256
    assert (await get(tag, tmp_path / "two", UriOptions(sha256=SHA256))).sha256 == SHA256
    with pytest.raises(NotTrusted, match=r"the artifact says .*; one of them belongs to another file"):
        await get(pinned, tmp_path / "three", UriOptions(sha256="0" * 64))
    assert read_manifest(tmp_path / "one" / "parcels.onnx").source == pinned


async def test_what_does_not_exist_is_named(registry: Registry, tmp_path: Path) -> None:
    for name in ("models/parcels:2.0", "models/other:1.0", f"models/parcels@sha256:{'0' * 64}"):
        with pytest.raises(
            PullFailed, match=r"answers 404 Not Found; the repository, tag or digest does not"
        ):
            await get(f"oci://{registry.address}/{name}", tmp_path)


async def test_an_artifact_must_have_one_model(registry: Registry, tmp_path: Path) -> None:
    for name, files, found in (
        ("two", {"a.onnx": b"a", "b.onnx": b"b"}, "found 2 files: a.onnx, b.onnx"),
        ("none", {"notes.txt": b"a"}, "found 1 files: notes.txt"),
    ):
        make_layout(tmp_path / name, files)
        registry.push(tmp_path / name, f"models/{name}:1")
        with pytest.raises(
            WrongFile, match=rf"expected an artifact with one file that ends in \.onnx; {found}"
        ):
            await get(f"oci://{registry.address}/models/{name}:1", tmp_path / "models", trust=True)
    make_layout(tmp_path / "bare", {"": BODY})  # one layer without a title
    registry.push(tmp_path / "bare", "models/bare:1")
    pulled = await get(f"oci://{registry.address}/models/bare:1", tmp_path / "models", trust=True)
    assert (pulled.path.name, pulled.sha256) == ("bare.onnx", SHA256)


async def test_an_installed_artifact_needs_no_registry(layout: tuple[Path, str], tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as short_lived:
        short_lived.push(layout[0], "models/parcels:1.0")
        base = f"oci://{short_lived.address}/models/parcels"
        named = UriOptions(name="parcels")
        await get(f"{base}@{layout[1]}", tmp_path / "models", named)
    assert (await get(f"{base}@{layout[1]}", tmp_path / "models", named)).was_installed
    assert (await get(f"{base}:1.0", tmp_path / "models", replace(named, sha256=SHA256))).was_installed
    with pytest.raises(PullFailed, match="cannot be reached: Connection refused; given up after 2 attempts"):
        await get(f"{base}:1.0", tmp_path / "models", named)
    other = f"{base}@sha256:{'0' * 64}"
    with pytest.raises(PullFailed, match="cannot be reached"):
        await get(other, tmp_path / "models", named)


# -- logins ------------------------------------------------------------------------------------------


async def test_a_login_comes_from_the_configuration_of_docker(
    layout: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Registry(tmp_path / "registry", auth=htpasswd(tmp_path / "auth")) as private:
        private.push(layout[0], "models/parcels:1.0", login=f"{USER}:{PASSWORD}")
        uri = f"oci://{private.address}/models/parcels@{layout[1]}"
        with pytest.raises(
            PullFailed, match=r"401 Unauthorized; .* wants a login in .* DOCKER_CONFIG is unset"
        ):
            await get(uri, tmp_path / "models")
        wrong = docker_config(tmp_path / "wrong", private.address, password="other")  # noqa: S106 - a dummy
        monkeypatch.setenv("DOCKER_CONFIG", str(wrong))
        with pytest.raises(PullFailed, match=rf"the login in {wrong}/config.json for .* is wrong") as refused:
            await get(uri, tmp_path / "models")
        assert "other" not in str(refused.value)
        monkeypatch.setenv("DOCKER_CONFIG", str(docker_config(tmp_path / "docker", private.address)))
        assert (await get(uri, tmp_path / "models")).sha256 == SHA256
        (tmp_path / "wrong" / "config.json").write_text('{"credsStore": "desktop"}')
        monkeypatch.setenv("DOCKER_CONFIG", str(wrong))
        with pytest.raises(PullFailed, match="keeps logins in a program"):
            await get(uri, tmp_path / "others")


class TokenServer:
    """Gives tokens for a registry, to anybody for repositories below ``public/``, else to `USER`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, key = make_certificate(folder)
        self._key = serialization.load_pem_private_key(key.read_bytes(), None)
        self.asked: list[tuple[str, str]] = []
        self._server = TestServer(self._application())

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/token", self._answer)
        return application

    async def __aenter__(self) -> TokenServer:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def auth(self) -> dict[str, object]:
        """The section ``auth`` of a registry that takes these tokens."""
        realm = str(self._server.make_url("/token"))
        bundle = {"rootcertbundle": str(self.certificate), "issuer": "test", "service": "registry"}
        return {"token": bundle | {"realm": realm}}

    async def _answer(self, request: web.Request) -> web.Response:
        scope = request.query.get("scope", "")
        _, name, actions = scope.split(":")
        given = base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        user = given.partition(":")[0]
        self.asked.append((scope, user))
        if given not in ("", f"{USER}:{PASSWORD}"):
            return web.json_response({"errors": []}, status=401)
        allowed = actions.split(",") if user or name.startswith("public/") else []
        access = [{"type": "repository", "name": name, "actions": allowed}]
        now = datetime.datetime.now(datetime.UTC)
        claims = {
            "iss": "test",
            "aud": request.query["service"],
            "sub": user,
            "exp": now + datetime.timedelta(minutes=5),
            "nbf": now - datetime.timedelta(minutes=1),
            "iat": now,
            "jti": "1",
            "access": access,
        }
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        der = certificate.public_bytes(serialization.Encoding.DER)
        chain = {"x5c": [base64.b64encode(der).decode()]}
        return web.json_response({"token": jwt.encode(claims, self._key, "ES256", headers=chain)})


async def test_tokens_come_from_the_service_that_the_registry_names(
    layout: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with TokenServer(tmp_path / "tokens") as tokens:
        with Registry(tmp_path / "registry", auth=tokens.auth) as private:
            for name in ("public/parcels:1", "private/parcels:1"):
                await asyncio.to_thread(private.push, layout[0], name, login=f"{USER}:{PASSWORD}")
            tokens.asked.clear()
            public = f"oci://{private.address}/public/parcels@{layout[1]}"
            assert (await get(public, tmp_path / "public")).sha256 == SHA256
            assert tokens.asked == [("repository:public/parcels:pull", "")]
            secret = f"oci://{private.address}/private/parcels@{layout[1]}"
            with pytest.raises(PullFailed, match=r"wants a login in Docker's config\.json"):
                await get(secret, tmp_path / "private")
            tokens.asked.clear()
            monkeypatch.setenv("DOCKER_CONFIG", str(docker_config(tmp_path / "docker", private.address)))
            assert (await get(secret, tmp_path / "private")).sha256 == SHA256
            assert tokens.asked == [("repository:private/parcels:pull", USER)]
            wrong = docker_config(tmp_path / "wrong", private.address, password="other")  # noqa: S106 - a dummy
            monkeypatch.setenv("DOCKER_CONFIG", str(wrong))
            with pytest.raises(
                PullFailed, match=r"gives tokens for .* answers 401 .*; the login in .* is wrong"
            ):
                await get(secret, tmp_path / "others")


async def test_a_registry_with_tls_is_verified(layout: tuple[Path, str], tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; tells the address of this machine
        address = probe.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this machine has no address beside loopback, at which registries are used by http")
    certificate = make_certificate(tmp_path, address)
    with Registry(tmp_path / "registry", tls=certificate, host=address) as secure:
        secure.push(layout[0], "models/parcels:1.0")
        uri = f"oci://{secure.address}/models/parcels@{layout[1]}"
        with pytest.raises(PullFailed, match="the certificate is not trusted"):
            await get(uri, tmp_path / "models")
        trusting = UriOptions(tls=Tls(ca_file=str(certificate[0])))
        assert (await get(uri, tmp_path / "models", trusting)).sha256 == SHA256


# -- faults ------------------------------------------------------------------------------------------


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
    assert (await get(faulty.uri(f"@{layout[1]}"), tmp_path)).sha256 == SHA256
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
    assert (await get(faulty.uri(f"@{layout[1]}"), tmp_path, report=report)).sha256 == SHA256
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
        await get(pinned, tmp_path)
    faulty.store.body = bytes(len(BODY))
    with pytest.raises(WrongFile, match=f"expected sha256 {SHA256}; found .*nothing was installed"):
        await get(pinned, tmp_path, force=True)
    faulty.store.body = BODY + b"more"
    with pytest.raises(WrongFile, match=f"expected {len(BODY)} bytes; found {len(BODY) + 4} bytes"):
        await get(pinned, tmp_path, force=True)
    assert (tmp_path / "parcels.onnx").read_bytes() == b"previous"
    faulty.manifest = b'{"schemaVersion": 2, "layers": []}'
    with pytest.raises(WrongFile, match=f"expected a manifest with the digest {layout[1]}; found sha256:"):
        await get(pinned, tmp_path, force=True)


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
        await get(faulty.uri(":1"), tmp_path, trust=True)


async def test_registries_are_reached_through_the_proxy_and_netrc_does_not_disturb(
    faulty: FaultyRegistry, layout: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password dummy\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//user:dummy@"))
        assert (await get(faulty.uri(f"@{layout[1]}"), tmp_path)).sha256 == SHA256
        asked = {line.split("/")[2] for line in proxy.asked}
        assert len(asked) == 2, "the registry and the blob store"
        assert set(proxy.logins) == {"Basic " + base64.b64encode(b"user:dummy").decode()}
    assert faulty.store.seen[0].headers.get("authorization") is None
