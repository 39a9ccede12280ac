"""``streamer models pull oci://…`` from registries that want a login, a token or TLS."""

from __future__ import annotations

import asyncio
import base64
import datetime
import socket
from pathlib import Path

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from streamer.client.options import Tls
from streamer.model_zoo.download import UriOptions
from streamer.model_zoo.download_url import PullFailed
from tests.helpers.model_pulls import SHA256, get_uri
from tests.helpers.stores.registry import (
    NEEDS_REGISTRY,
    PASSWORD,
    USER,
    Registry,
    docker_config,
    htpasswd,
)
from tests.integration.test_client_network import make_certificate

pytestmark = [
    pytest.mark.usefixtures("no_logins"),
    NEEDS_REGISTRY,
]


async def test_a_login_comes_from_the_configuration_of_docker(
    layout: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Registry(tmp_path / "registry", auth=htpasswd(tmp_path / "auth")) as private:
        private.push(layout[0], "models/parcels:1.0", login=f"{USER}:{PASSWORD}")
        uri = f"oci://{private.address}/models/parcels@{layout[1]}"
        with pytest.raises(
            PullFailed, match=r"401 Unauthorized; .* wants a login in .* DOCKER_CONFIG is unset"
        ):
            await get_uri(uri, tmp_path / "models")
        wrong = docker_config(tmp_path / "wrong", private.address, password="other")  # noqa: S106 - a dummy
        monkeypatch.setenv("DOCKER_CONFIG", str(wrong))
        with pytest.raises(PullFailed, match=rf"the login in {wrong}/config.json for .* is wrong") as refused:
            await get_uri(uri, tmp_path / "models")
        assert "other" not in str(refused.value)
        monkeypatch.setenv("DOCKER_CONFIG", str(docker_config(tmp_path / "docker", private.address)))
        assert (await get_uri(uri, tmp_path / "models")).sha256 == SHA256
        (tmp_path / "wrong" / "config.json").write_text('{"credsStore": "desktop"}')
        monkeypatch.setenv("DOCKER_CONFIG", str(wrong))
        with pytest.raises(PullFailed, match="keeps logins in a program"):
            await get_uri(uri, tmp_path / "others")


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
            assert (await get_uri(public, tmp_path / "public")).sha256 == SHA256
            assert tokens.asked == [("repository:public/parcels:pull", "")]
            secret = f"oci://{private.address}/private/parcels@{layout[1]}"
            with pytest.raises(PullFailed, match=r"wants a login in Docker's config\.json"):
                await get_uri(secret, tmp_path / "private")
            tokens.asked.clear()
            monkeypatch.setenv("DOCKER_CONFIG", str(docker_config(tmp_path / "docker", private.address)))
            assert (await get_uri(secret, tmp_path / "private")).sha256 == SHA256
            assert tokens.asked == [("repository:private/parcels:pull", USER)]
            wrong = docker_config(tmp_path / "wrong", private.address, password="other")  # noqa: S106 - a dummy
            monkeypatch.setenv("DOCKER_CONFIG", str(wrong))
            with pytest.raises(
                PullFailed, match=r"gives tokens for .* answers 401 .*; the login in .* is wrong"
            ):
                await get_uri(secret, tmp_path / "others")


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
            await get_uri(uri, tmp_path / "models")
        trusting = UriOptions(tls=Tls(ca_file=str(certificate[0])))
        assert (await get_uri(uri, tmp_path / "models", trusting)).sha256 == SHA256
