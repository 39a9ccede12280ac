"""Finds a model file in an OCI registry, and downloads it as the layer of an artifact.

An artifact is a manifest and its layers, each named by the sha256 of its bytes. So a reference with a digest
names the very bytes of the file, whoever serves them; a tag does not.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDictProxy
from yarl import URL

from streamer.model_zoo.download_url import Interrupted, PullFailed, WrongFile, origin_of
from streamer.model_zoo.oci_login import RegistryLogin
from streamer.model_zoo.oci_reference import DIGEST, OciReference
from streamer.model_zoo.origin import FileRequest
from streamer.model_zoo.registry import MAX_MODEL_BYTES
from streamer.model_zoo.transfer import classify_error, proxy_options

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
#: Limit of a manifest that the OCI distribution specification recommends to registries, bytes.
_MAX_MANIFEST_BYTES = 4 << 20
_TITLE = "org.opencontainers.image.title"
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Layer:
    """Describes the layer that is the model file."""

    #: Hex digest of the file.
    sha256: str
    #: Size in bytes; None if unknown.
    size: int | None
    #: Name of the file; empty if the artifact does not state it.
    title: str
    #: Digest of the artifact's manifest, ``sha256:…``.
    artifact: str


class OciOrigin:
    """One layer of an artifact."""

    uses_netrc = False

    def __init__(self, reference: OciReference, sha256: str, login: RegistryLogin, base_url: str) -> None:
        self._reference = reference
        self._login = login
        self._url = f"{base_url}/blobs/sha256:{sha256}"
        self.identity = f"{reference.name}@sha256:{sha256}"

    async def request(self, session: aiohttp.ClientSession) -> FileRequest:
        """Return the address of the layer, with the registry's token."""
        await self._login.renew(session)
        return FileRequest(self._url, self._login.headers)

    def rejection(self, status: int, headers: CIMultiDictProxy[str], body: str) -> Exception | str:
        """Return Interrupted for a missing or expired token, which the next attempt gets; else a hint."""
        if status == 401 and self._login.expire(headers.getall(hdrs.WWW_AUTHENTICATE, [])):
            return Interrupted(f"{self._reference.registry} wants a new token")
        return _hint(status, self._login, body)


class OciRegistry:
    """Reads manifests of one repository."""

    def __init__(
        self, session: aiohttp.ClientSession, reference: OciReference, *, plain_http: bool, timeout_s: float
    ) -> None:
        self._session = session
        self._reference = reference
        self._base_url = reference.base_url(plain_http=plain_http)
        self._timeout_s = timeout_s
        self._login = RegistryLogin(reference, self._base_url, timeout_s)

    async def find(self) -> tuple[Layer, OciOrigin]:
        """Return the layer that is the model file, and how to download it.

        Raises Interrupted, PullFailed, or WrongFile if the artifact has no such layer or is another one.
        """
        reference = self._reference
        digest, manifest = await self._manifest(reference.digest or reference.tag)
        if manifest.get("mediaType") in INDEX_TYPES or "manifests" in manifest:
            digest, manifest = await self._only_manifest(manifest)
        layer = _model_layer(manifest, str(reference), digest)
        return layer, OciOrigin(reference, layer.sha256, self._login, self._base_url)

    async def _only_manifest(self, index: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        """Return the manifest of an index that has one."""
        digests = [str(each.get("digest")) for each in _objects(index.get("manifests"))]
        if len(digests) != 1 or not DIGEST.fullmatch(digests[0]):
            raise WrongFile(
                f"{self._reference}: expected the artifact of one model; found an index of {len(digests)}: "
                f"name one by its digest: {', '.join(digests[:5]) or 'none'}"
            )
        return await self._manifest(digests[0])

    async def _manifest(self, name: str) -> tuple[str, Mapping[str, Any]]:
        """Return digest and content of a manifest by its tag or digest."""
        body = await self._get(f"{self._base_url}/manifests/{name}")
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        if DIGEST.fullmatch(name) and digest != name:
            raise WrongFile(
                f"{self._reference}: expected a manifest with the digest {name}; found {digest}. The "
                "registry, or something before it, sends another artifact; nothing was installed"
            )
        try:
            manifest = json.loads(body)
        except ValueError:
            manifest = None
        if not isinstance(manifest, dict):
            raise WrongFile(f"{self._reference}: expected the manifest of an artifact; found no JSON object")
        return digest, manifest

    async def _get(self, url: str) -> bytes:
        """Return a manifest's bytes. Logs in when the registry asks for it, once."""
        headers: dict[str, str] = {hdrs.ACCEPT: ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))}
        try:
            async with asyncio.timeout(self._timeout_s):
                for _ in range(2):
                    async with self._session.get(
                        URL(url, encoded=True),
                        headers=headers | dict(self._login.headers),
                        allow_redirects=False,
                        **proxy_options(self._session, url),
                    ) as response:
                        body = await _read(response)
                        if response.status == 200:
                            return body
                        challenges = response.headers.getall(hdrs.WWW_AUTHENTICATE, [])
                        if response.status != 401 or not await self._login.answer(self._session, challenges):
                            raise self._failure(response, body)
        except TimeoutError as error:
            raise Interrupted(f"{origin_of(url)} does not answer") from error
        except aiohttp.ClientError as error:
            raise classify_error(error, 0) from error
        raise PullFailed(f"{self._reference}: {origin_of(url)} asks for a login again and again")

    def _failure(self, response: aiohttp.ClientResponse, body: bytes) -> Exception:
        what = f"{origin_of(str(response.url))} answers {response.status} {response.reason}"
        if response.status in _TRANSIENT:
            return Interrupted(what)
        hint = _hint(response.status, self._login, body.decode(errors="replace"))
        return PullFailed(f"{self._reference}: {what}{'; ' if hint else ''}{hint}")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body. Raises PullFailed if it is larger than any manifest."""
    body = b""
    async for data in response.content.iter_any():
        body += data
        if len(body) > _MAX_MANIFEST_BYTES:
            raise PullFailed(
                f"{origin_of(str(response.url))}: expected a manifest of at most {_MAX_MANIFEST_BYTES} "
                "bytes; found more"
            )
    return body


def _model_layer(manifest: Mapping[str, Any], reference: str, artifact: str) -> Layer:
    """Return the layer that is a model: the only one whose title ends in ``.onnx``, else the only one."""
    layers = _objects(manifest.get("layers"))
    titled = [(layer, str(_annotations(layer).get(_TITLE, ""))) for layer in layers]
    models = [each for each in titled if each[1].lower().endswith(".onnx")]
    found = models or (titled if len(titled) == 1 and not titled[0][1] else [])
    if len(found) != 1:
        titles = ", ".join(title or "without a title" for _, title in titled[:10]) or "none"
        raise WrongFile(
            f"{reference}: expected an artifact with one file that ends in .onnx; found {len(titled)} files: "
            f"{titles}. `oras push REGISTRY/REPOSITORY:TAG model.onnx` makes such an artifact"
        )
    layer, title = found[0]
    digest, size = layer.get("digest"), layer.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise WrongFile(f"{reference}: expected a layer with a sha256 digest; found {str(digest)[:80]!r}")
    if not isinstance(size, int) or not 0 < size <= MAX_MODEL_BYTES:
        raise WrongFile(f"{reference}: expected a layer of 1 to {MAX_MODEL_BYTES} bytes; found {size!r:.40}")
    return Layer(digest.removeprefix("sha256:"), size, title, artifact)


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _annotations(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    value = layer.get("annotations")
    return value if isinstance(value, dict) else {}


def _hint(status: int, login: RegistryLogin, body: str) -> str:
    """Return what to do about a status, or the reason that the registry states."""
    if status in (401, 403):
        return login.explain()
    if status == 404:
        return "the repository, tag or digest does not exist, or this login must not see it"
    if status in (301, 302, 303, 307, 308):
        return "redirects of manifests are not followed; name the registry to which it redirects"
    try:
        errors = _objects(json.loads(body)["errors"])
        return str(errors[0].get("message", ""))[:200] if errors else ""
    except (ValueError, KeyError, TypeError):
        return ""
