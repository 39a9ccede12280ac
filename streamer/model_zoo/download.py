"""Describes one model file to download: a known model, or an address of HTTPS, S3 or an OCI registry."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from inference.core.errors import ModelRefused
from inference.models.manifest import parse_manifest, read_manifest
from streamer.client.options import Tls
from streamer.core.backoff import Backoff
from streamer.model_zoo import oci_reference, s3_origin
from streamer.model_zoo.download_url import BadRequest, Interrupted, PullFailed, check_url
from streamer.model_zoo.oci_login import RegistryLogin
from streamer.model_zoo.oci_registry import Layer, OciOrigin, OciRegistry
from streamer.model_zoo.origin import HttpOrigin, Origin, without_query
from streamer.model_zoo.registry import RegistryEntry, check_name
from streamer.model_zoo.transfer import open_session

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
#: Field of a manifest that is always the checksum of the downloaded file.
_SHA256 = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """Describes one file: where it comes from, what it must be, and what its manifest says."""

    name: str
    origin: Origin
    #: Hex digest of the file; None if unknown.
    sha256: str | None = None
    #: Who states `sha256`, for a message.
    sha256_from: str = "the registry"
    #: Whether the caller or the registry has stated which file it is; a tag may name another one tomorrow.
    is_pinned: bool = True
    #: Size of the file in bytes; None if unknown.
    size: int | None = None
    licence: str = "not stated"
    #: The manifest of the installed file, without its checksum.
    manifest: Mapping[str, Any] = field(default_factory=dict)
    #: End of a sentence that says where the publisher describes the file; may be empty.
    see: str = ""
    #: Why the file cannot be verified, and what to do.
    unverified: str = ""

    @property
    def file_name(self) -> str:
        """Name of the installed file."""
        return f"{self.name}.onnx"

    @classmethod
    def of_entry(cls, entry: RegistryEntry) -> Download:
        """Return the file of a known model."""
        labels = {"labels": list(entry.labels)} if entry.labels else {}
        stated = {"licence": entry.licence, "source": entry.source}
        return cls(
            name=entry.name,
            origin=HttpOrigin(entry.url, is_known_model=True),
            sha256=entry.sha256,
            size=entry.size,
            licence=entry.licence,
            manifest=labels | dict(entry.manifest) | stated,
            see=f". See {entry.source}",
            unverified="the registry has no checksum of this file, so the download cannot be verified. "
            f"See {entry.source}; then pass the checksum with --sha256, or accept the file with --trust",
        )


def is_uri(text: str) -> bool:
    """Return whether this is an address and not the name of a known model."""
    return _SCHEME.match(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class UriOptions:
    """Holds what the caller states about a file at an address."""

    #: Name of the installed file, without ``.onnx``; None for the name that the address states.
    name: str | None = None
    #: Hex digest that the file must have; None if the caller does not know it.
    sha256: str | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    #: Whether to use http for a registry.
    plain_http: bool = False
    tls: Tls = field(default_factory=Tls)
    stall_s: float = 30.0
    #: Attempts to reach a registry.
    tries: int = 5


async def of_uri(uri: str, folder: Path, options: UriOptions, backoff: Backoff | None = None) -> Download:
    """Return the file at an address. A registry is asked which file the artifact has.

    A registry is not asked for an artifact that is installed in ``folder`` already, if ``options`` or the
    reference says which one it is, so a restart needs no registry. Raises BadRequest, PullFailed or
    WrongFile.
    """
    scheme = uri.partition("://")[0].lower()
    if scheme == "s3":
        return _described(uri, s3_origin.S3Origin.of(uri), options, uri)
    if scheme == "oci":
        reference = oci_reference.parse_reference(uri)
        layer, origin = _installed_layer(reference, folder, options) or await _find_layer(
            reference, options, backoff or Backoff()
        )
        return _described_layer(reference, layer, origin, options)
    if scheme not in ("http", "https"):
        raise BadRequest(f"{uri!r}: expected a name, or an address with https://, s3:// or oci://")
    try:
        check_url(uri)
    except ValueError as error:
        raise BadRequest(f"{without_query(uri)!r}: expected {error}") from None
    path = unquote(urlsplit(uri).path)
    return _described(path, HttpOrigin(uri, is_known_model=False), options, without_query(uri))


def parse_manifest_option(text: str) -> Mapping[str, Any]:
    """Return the manifest of the option ``--manifest``: a JSON object. Raises BadRequest."""
    try:
        parse_manifest(text.encode(), "--manifest")
        values = json.loads(text)
    except ModelRefused as error:
        raise BadRequest(f"--manifest: expected {error.expected}; found {error.found}") from None
    except ValueError as error:
        raise BadRequest(f"--manifest: expected a JSON object; found {error}") from None
    if _SHA256 in values:
        raise BadRequest("--manifest: expected an object without `sha256`, which --sha256 gives")
    return dict(values)


def _described(path: str, origin: Origin, options: UriOptions, source: str) -> Download:
    return Download(
        name=_name(options.name, PurePosixPath(path).name),
        origin=origin,
        licence=str(options.manifest.get("licence", "not stated")),
        manifest={"source": source} | dict(options.manifest),
        unverified="no checksum is known, so the download cannot be verified: pass that of the file with "
        "--sha256, or accept whatever the address has with --trust",
    )


def _described_layer(
    reference: oci_reference.OciReference, layer: Layer, origin: OciOrigin, options: UriOptions
) -> Download:
    """Return the file of an artifact; a tag alone does not say which file the caller wants."""
    pinned = f"{reference.name}@{layer.artifact}"
    title = layer.title or f"{reference.repository.rpartition('/')[2]}.onnx"
    return Download(
        name=_name(options.name, PurePosixPath(title).name),
        origin=origin,
        sha256=layer.sha256,
        sha256_from="the artifact",
        is_pinned=bool(reference.digest),
        size=layer.size,
        licence=str(options.manifest.get("licence", "not stated")),
        manifest={"source": pinned} | dict(options.manifest),
        see=f". See {pinned}",
        unverified=f"the tag {reference.tag} may name another file tomorrow. Now it is {pinned}: pull this, "
        f"or pass --sha256 {layer.sha256}, or accept whatever the tag names with --trust",
    )


def _installed_layer(
    reference: oci_reference.OciReference, folder: Path, options: UriOptions
) -> tuple[Layer, OciOrigin] | None:
    """Return the layer that is installed under the name in ``options``, if it is the wanted one."""
    path = folder / f"{options.name}.onnx"
    if options.name is None or not path.exists():
        return None
    sha256 = options.sha256
    if sha256 is None and reference.digest:
        try:
            installed = read_manifest(path)
        except ModelRefused:
            return None
        sha256 = installed.sha256 if installed.source == f"{reference.name}@{reference.digest}" else None
    if sha256 is None:
        return None
    layer = Layer(sha256, None, path.name, reference.digest)
    base_url = reference.base_url(plain_http=options.plain_http)
    login = RegistryLogin(reference, base_url, options.stall_s)
    return layer, OciOrigin(reference, sha256, login, base_url)


async def _find_layer(
    reference: oci_reference.OciReference, options: UriOptions, backoff: Backoff
) -> tuple[Layer, OciOrigin]:
    """Ask the registry, again after failures that may pass. Raises PullFailed or WrongFile."""
    async with open_session(options.tls, options.stall_s, netrc=False) as session:
        for attempt in range(1, options.tries + 1):
            registry = OciRegistry(
                session, reference, plain_http=options.plain_http, timeout_s=options.stall_s
            )
            try:
                return await registry.find()
            except Interrupted as error:
                if attempt == options.tries:
                    raise PullFailed(f"{reference}: {error}; given up after {attempt} attempts") from error
                await asyncio.sleep(backoff.next_s(error.retry_after_s))
    raise AssertionError("there is at least one attempt")


def _name(given: str | None, file_name: str) -> str:
    """Return the name of the model. Raises BadRequest if the address does not give one that is allowed."""
    name = given if given is not None else file_name.lower().removesuffix(".onnx")
    try:
        return check_name(name)
    except ValueError as error:
        found = f"--name: expected {error}; found {name!r}"
        if given is None:
            found = f"--name is needed: expected {error}; the address has {file_name!r}"
        raise BadRequest(found) from None
