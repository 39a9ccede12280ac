"""Settings of access: addresses, keys, host names and origins. The other groups are in `streamer.config`."""

from __future__ import annotations

import ipaddress
import re
import socket
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

from streamer.access.identity import Quotas
from streamer.access.key_ring import BadKeyFile, parse_keys, read_key_file

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*")
_ORIGIN = re.compile(r"https?://[a-z0-9_.:\[\]-]{1,255}")


def parse_networks(text: str) -> tuple[IpNetwork, ...]:
    """Read comma-separated networks or addresses. Raises ValueError that says what is allowed."""
    networks = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ipaddress.ip_network(part))
        except ValueError:
            raise ValueError(
                f"{part!r} is not a network; allowed are comma-separated networks and addresses, "
                "such as 10.244.0.0/16,fd00::/8"
            ) from None
    return tuple(networks)


def parse_hosts(text: str) -> frozenset[str]:
    """Read comma-separated host names, `*.name` or `*`. Raises ValueError that says what is allowed."""
    hosts = set()
    for host in filter(None, (part.strip().lower() for part in text.split(","))):
        name = host if host == "*" else host.removesuffix(".")
        if host != "*" and _HOST_NAME.fullmatch(name) is None:
            raise ValueError(
                f"{host!r} is not a host name; allowed are comma-separated names without scheme and port, "
                "such as vision.example.com,*.internal.example, or * for any"
            )
        hosts.add(name)
    return frozenset(hosts)


def parse_origins(text: str) -> frozenset[str]:
    """Read comma-separated origins, or `*`. Raises ValueError that says what is allowed."""
    origins = frozenset(part.strip().lower().rstrip("/") for part in text.split(",") if part.strip())
    found = set()
    for origin in origins:
        normal = "*" if origin == "*" else normal_origin(origin)
        if normal is None:
            raise ValueError(
                f"{origin!r} is not an origin; allowed are scheme, host and port, such as "
                "https://app.example.com or http://localhost:3000, and * for any"
            )
        found.add(normal)
    return frozenset(found)


def normal_origin(origin: str) -> str | None:
    """Return the origin without a default port; None if no browser would send it."""
    if _ORIGIN.fullmatch(origin) is None:
        return None
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or origin.endswith(":"):
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port is None or port == _DEFAULT_PORTS[parts.scheme]:
        return f"{parts.scheme}://{host}"
    return f"{parts.scheme}://{host}:{port}"


#: Only algorithms with public keys: with a shared secret, everyone who verifies tokens could also create
#: them.
JWT_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)


#: The service logs a warning about shorter keys, because people have probably chosen them.
LEAST_KEY_CHARS = 16


class AccessNotConfigured(Exception):
    """The settings leave open who may use the service; the text says what to set."""


class AccessSettings(BaseSettings):
    """Addresses of the service, and who may use it. First group of `Settings`, and of the table."""

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on; `0.0.0.0` for all of IPv4 (container images do), `::` for all of "
        "IPv4 and IPv6.",
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one and logs it.")
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="TCP port of `/metrics` if it is not to be served on `PORT`. 0: on `PORT`, and without "
        "names of streams for requests without an admin key.",
    )
    api_keys: str = Field(
        "",
        description="Comma-separated keys, each valid for everything. When set, all routes except pages, "
        "probes, metrics, `/versions` and `/drift/status` require a key as a bearer token.",
    )
    admin_api_keys: str = Field(
        "",
        description="Comma-separated keys of administrators, valid for the scope `admin` alone. When set, "
        "keys of `API_KEYS` and clients without a key no longer have that scope.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="JSON or TOML file of keys with names, hashes, scopes, quotas and expiry (`streamer keys "
        "new` creates them). The service reads it again when it changes. May be combined with "
        "`API_KEYS`.",
    )
    jwt_jwks: str = Field(
        "",
        description="An `https` address or a file with the public keys that sign JSON Web Tokens, which are "
        "then accepted beside API keys. Needs the extra `jwt`.",
    )
    jwt_issuer: str = Field("", max_length=500, description="The `iss` that tokens must have.")
    jwt_audience: str = Field("", max_length=500, description="The `aud` that tokens must have.")
    jwt_algorithms: str = Field(
        "RS256,ES256",
        description="Comma-separated signature algorithms to accept, all with public keys: RS, PS and ES "
        "with 256, 384 or 512, and EdDSA.",
    )
    jwt_scope_claim: str = Field(
        "scope",
        pattern=r"^[A-Za-z0-9_.:/-]{1,100}$",
        description="The claim of a token that contains its scopes, separated by spaces or as a list.",
    )
    allow_anonymous: bool = Field(
        False,
        description="Whether clients without a key are allowed when the service listens on an address other "
        "than loopback. Without keys and without this setting the service does not start there.",
    )
    allowed_hosts: str = Field(
        "",
        description="Comma-separated host names under which clients may address the service, such as "
        "`vision.example.com` or `*.example.com`, besides IP addresses and names without a dot; "
        "`*`: any.",
    )
    allowed_origins: str = Field(
        "",
        description="Comma-separated origins, such as `https://app.example.com`, whose pages may use the "
        "service besides its own; `*`: any.",
    )
    trusted_proxies: str = Field(
        "",
        description="Comma-separated networks of proxies whose `X-Forwarded-For` is trusted for the address "
        "of the client, and whose `X-Forwarded-Prefix` for the path of the service. Unset: none; the address "
        "is that of the connection.",
    )
    anonymous_requests_per_s: float = Field(
        0,
        ge=0,
        le=1e6,
        description="POSTs per second of one client without a key (one address); 0: no limit. Each worker "
        "counts quotas per second by itself, and allows bursts of two seconds' worth.",
    )
    anonymous_bytes_per_s: float = Field(
        0, ge=0, le=1e12, description="Bytes of images per second of one client without a key; 0: no limit."
    )
    anonymous_streams: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Simultaneous WebSocket connections of one client without a key, per worker; "
        "0: no limit.",
    )
    anonymous_sessions: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Simultaneous WebRTC and WHIP sessions of one client without a key, per worker; 0: three "
        "quarters of `WEBRTC_SESSIONS_MAX`.",
    )

    @property
    def anonymous_quotas(self) -> Quotas:
        """Quotas of one client without a key."""
        return Quotas(
            requests_per_s=self.anonymous_requests_per_s or None,
            streams=self.anonymous_streams or None,
            sessions=self.anonymous_sessions or None,
            bytes_per_s=self.anonymous_bytes_per_s or None,
        )

    @field_validator("host")
    @classmethod
    def _without_brackets(cls, text: str) -> str:
        # In URLs, IPv6 addresses are in brackets, so some people write the brackets here, too.
        return text[1:-1] if text.startswith("[") and text.endswith("]") and ":" in text else text

    @field_validator("metrics_port")
    @classmethod
    def _is_another_port(cls, port: int, info: ValidationInfo) -> int:
        if port and port == info.data.get("port"):
            raise ValueError("allowed are ports other than PORT")
        return port

    @field_validator("jwt_jwks")
    @classmethod
    def _is_key_set(cls, text: str) -> str:
        address = urlsplit(text)
        loopback = address.hostname in ("127.0.0.1", "::1", "localhost")
        if address.scheme == "http" and not loopback:
            raise ValueError("allowed are https addresses, http ones of this machine, and files")
        return text

    @field_validator("jwt_algorithms")
    @classmethod
    def _are_algorithms(cls, text: str) -> str:
        unknown = [name for name in _split(text) if name not in JWT_ALGORITHMS]
        if unknown or not _split(text):
            raise ValueError(f"allowed are {', '.join(JWT_ALGORITHMS)}")
        return text

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, text: str) -> str:
        parse_hosts(text)
        return text

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, text: str) -> str:
        parse_origins(text)
        return text

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        parse_networks(text)
        return text

    @property
    def requires_keys(self) -> bool:
        """Whether clients need a key or a token."""
        return bool(self.keys or self.jwt_jwks) or self.api_keys_file is not None

    @property
    def listens_on_loopback(self) -> bool:
        """Whether `HOST` is a loopback address. Resolves it if it is a name."""
        try:
            found = {entry[4][0] for entry in socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)}
        except OSError:  # the attempt to listen will fail with a clear message
            return False
        return all(_is_loopback(str(address).partition("%")[0]) for address in found)

    @property
    def keys(self) -> tuple[str, ...]:
        """The API keys in their order, without duplicates."""
        return _split(self.api_keys)

    @property
    def admin_keys(self) -> tuple[str, ...]:
        """The keys of administrators in their order, without duplicates."""
        return _split(self.admin_api_keys)

    @property
    def guessable_keys(self) -> int:
        """Number of keys in the settings that are short enough to be guessed."""
        return sum(len(key) < LEAST_KEY_CHARS for key in (*self.keys, *self.admin_keys))

    @property
    def token_algorithms(self) -> tuple[str, ...]:
        """Accepted signature algorithms of tokens."""
        return _split(self.jwt_algorithms)

    @property
    def hosts(self) -> frozenset[str]:
        """Host names under which clients may address the service."""
        return parse_hosts(self.allowed_hosts) | {self.host.lower()}

    @property
    def origins(self) -> frozenset[str]:
        """Origins of other sites whose pages may use the service."""
        return parse_origins(self.allowed_origins)

    @property
    def proxy_networks(self) -> tuple[IpNetwork, ...]:
        """Networks of proxies whose `X-Forwarded-For` is trusted."""
        return parse_networks(self.trusted_proxies)


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _split(text: str) -> tuple[str, ...]:
    """Return the comma-separated parts in their order, without duplicates."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _check_tokens(settings: AccessSettings) -> None:
    if not settings.jwt_jwks:
        return
    for name in ("jwt_issuer", "jwt_audience"):
        if not getattr(settings, name):
            raise AccessNotConfigured(
                f"{name.upper()} is empty: JWT_JWKS requires it, to accept no other tokens"
            )
    if find_spec("jwt") is None:
        raise AccessNotConfigured("JWT_JWKS needs the extra: pip install 'real-time-vision-api[jwt]'")
    if not settings.jwt_jwks.startswith(("https://", "http://")) and not Path(settings.jwt_jwks).is_file():
        raise AccessNotConfigured(f"JWT_JWKS={settings.jwt_jwks!r}: no such file")


def check_access(settings: AccessSettings) -> None:
    """Raise AccessNotConfigured if the key file is invalid, or if everyone could use the service by accident.

    Called only at the start: if the file becomes invalid later, the keys stay as they were.
    """
    if settings.api_keys_file is not None:
        try:
            parse_keys(read_key_file(settings.api_keys_file))
        except BadKeyFile as error:
            raise AccessNotConfigured(f"API_KEYS_FILE={str(settings.api_keys_file)!r}: {error}") from error
    _check_tokens(settings)
    for name, text in (("API_KEYS", settings.api_keys), ("ADMIN_API_KEYS", settings.admin_api_keys)):
        if text and not _split(text):
            raise AccessNotConfigured(f"{name} is set and holds no key: unset it, or separate keys by commas")
    if settings.requires_keys or settings.allow_anonymous or settings.listens_on_loopback:
        return
    raise AccessNotConfigured(
        f"HOST={settings.host!r}: without keys the service listens on loopback addresses only. Set API_KEYS "
        "or API_KEYS_FILE, or ALLOW_ANONYMOUS=1 if every client that reaches this address may use the "
        "service, or HOST=127.0.0.1"
    )
