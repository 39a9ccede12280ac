"""Parses addresses of model files in OCI registries: ``oci://REGISTRY/REPOSITORY:TAG@sha256:DIGEST``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from streamer.model_zoo.download_url import BadRequest, is_loopback

SCHEME = "oci://"
#: The grammar of the OCI distribution specification.
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: Name of Docker Hub in references, and the host of its API.
_DOCKER_HUB, _DOCKER_HUB_API = "docker.io", "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class OciReference:
    """Names an artifact in a registry. At least one of ``tag`` and ``digest`` is there."""

    #: Host, with the port if there is one.
    registry: str
    repository: str
    tag: str = ""
    #: ``sha256:…`` of the artifact's manifest; it takes precedence over the tag.
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"

    @property
    def name(self) -> str:
        """The reference without tag and digest."""
        return f"{SCHEME}{self.registry}/{self.repository}"

    @property
    def host(self) -> str:
        """Host of the registry's API, with the port if there is one."""
        return _DOCKER_HUB_API if self.registry == _DOCKER_HUB else self.registry

    def base_url(self, *, plain_http: bool) -> str:
        """Return the address of the repository in the registry's API; of this machine's own hosts by http."""
        hostname = urlsplit(f"//{self.host}").hostname or ""
        scheme = "http" if plain_http or is_loopback(hostname) else "https"
        return f"{scheme}://{self.host}/v2/{self.repository}"


def parse_reference(text: str) -> OciReference:
    """Parse a reference. Raises BadRequest with what was found and what is allowed."""
    wanted = (
        f"expected {SCHEME}REGISTRY/REPOSITORY:TAG or …@sha256:DIGEST, such as "
        f"{SCHEME}registry.example.org/models/parcels:1.0; found {text!r}"
    )
    rest, _, digest = text.removeprefix(SCHEME).partition("@")
    registry, _, path = rest.partition("/")
    repository, _, tag = path.partition(":")
    if digest and not DIGEST.fullmatch(digest):
        raise BadRequest(f"{wanted}: the digest is `sha256:` and 64 digits from 0 to f")
    try:
        parts = urlsplit(f"//{registry}")
        _ = parts.port  # raises ValueError if the port is not valid
    except ValueError:
        raise BadRequest(wanted) from None
    if not parts.hostname or parts.username or parts.password is not None or not registry.isascii():
        raise BadRequest(f"{wanted}: credentials belong into Docker's config.json")
    if not _REPOSITORY.fullmatch(repository) or (tag and not _TAG.fullmatch(tag)):
        raise BadRequest(wanted)
    if not tag and not digest:
        raise BadRequest(f"{wanted}: without a tag and a digest")
    if registry == _DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return OciReference(registry, repository, tag, digest)
