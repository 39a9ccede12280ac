"""Settings of who may reach the service: addresses, keys, names and pages. `settings` has all others."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

from streamer.http.identity import Quotas
from streamer.http.key_file import BadKeyFile, parse_keys, read_key_file
from streamer.http.networks import IpNetwork, parse_networks
from streamer.http.site_names import parse_hosts, parse_origins


class CannotAdmit(Exception):
    """Who may use the service is not settled; the text says what to set."""


class AccessSettings(BaseSettings):
    """Base of `Settings`, so that they stand first in README's table."""

    host: str = Field(
        "127.0.0.1", description="Address to listen on; `0.0.0.0` for all (container images do)."
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one and logs it.")
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="TCP port of `/metrics`, which is then not on `PORT`; 0: on `PORT`, and without names of "
        "streams for whoever has no admin key.",
    )
    api_keys: str = Field(
        "",
        description="Comma-separated keys; when set, predict and stream routes want one as a bearer token.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="File of keys, JSON or TOML: named, hashed, with scopes, quotas and expiry (`streamer "
        "keys new`); read again when it changes. Beside `API_KEYS`.",
    )
    allow_anonymous: bool = Field(
        False,
        description="Whether clients may use the service without a key where it listens on other than "
        "loopback addresses; without keys and without this it does not start there.",
    )
    allowed_hosts: str = Field(
        "",
        description="Comma-separated host names under which clients may address the service, as "
        "`vision.example.com` or `*.example.com`, besides IP addresses and names without a dot; `*`: any.",
    )
    allowed_origins: str = Field(
        "",
        description="Comma-separated origins whose pages may use the service, as `https://app.example.com`, "
        "besides its own; `*`: any.",
    )
    trusted_proxies: str = Field(
        "",
        description="Comma-separated networks of proxies whose `X-Forwarded-For` names the client's address; "
        "unset: none, and a client is whoever connects.",
    )
    anonymous_requests_per_s: float = Field(
        0,
        ge=0,
        le=1e6,
        description="POSTs a second of one client without a key, which is an address; 0: no limit. As all "
        "quotas per second it is counted in each worker, and two seconds' worth may come at once.",
    )
    anonymous_bytes_per_s: float = Field(
        0, ge=0, le=1e12, description="Bytes of images a second of one client without a key; 0: no limit."
    )
    anonymous_streams: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="WebSocket connections at a time of one client without a key, per worker; 0: no limit.",
    )
    anonymous_sessions: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="WebRTC and WHIP sessions at a time of one client without a key, per worker; 0: three "
        "quarters of `WEBRTC_SESSIONS_MAX`.",
    )

    @property
    def anonymous_quotas(self) -> Quotas:
        """What one client without a key may ask for."""
        return Quotas(
            requests_per_s=self.anonymous_requests_per_s or None,
            streams=self.anonymous_streams or None,
            sessions=self.anonymous_sessions or None,
            bytes_per_s=self.anonymous_bytes_per_s or None,
        )

    @field_validator("metrics_port")
    @classmethod
    def _is_another_port(cls, port: int, info: ValidationInfo) -> int:
        if port and port == info.data.get("port"):
            raise ValueError("allowed is another port than PORT")
        return port

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
    def wants_keys(self) -> bool:
        """Whether clients must show who they are."""
        return bool(self.keys) or self.api_keys_file is not None

    @property
    def listens_on_loopback(self) -> bool:
        """Whether only this machine reaches `HOST`. Asks the name server where that is a name."""
        try:
            found = {entry[4][0] for entry in socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)}
        except OSError:  # the start will say so
            return False
        return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)

    @property
    def keys(self) -> tuple[str, ...]:
        """The API keys in their order, each once; empty means that none is asked for."""
        return tuple(dict.fromkeys(key.strip() for key in self.api_keys.split(",") if key.strip()))

    @property
    def hosts(self) -> frozenset[str]:
        """Names under which clients may address the service."""
        return parse_hosts(self.allowed_hosts) | {self.host.lower()}

    @property
    def origins(self) -> frozenset[str]:
        """Origins of other sites' pages that may use the service."""
        return parse_origins(self.allowed_origins)

    @property
    def proxy_networks(self) -> tuple[IpNetwork, ...]:
        """Networks whose hops are believed about the client's address."""
        return parse_networks(self.trusted_proxies)


def check_access(settings: AccessSettings) -> None:
    """Raise CannotAdmit for a key file that cannot be used, and where strangers could use the service.

    Only at the start: a file that is broken later leaves the keys as they were.
    """
    if settings.api_keys_file is not None:
        try:
            parse_keys(read_key_file(settings.api_keys_file))
        except BadKeyFile as error:
            raise CannotAdmit(f"API_KEYS_FILE={str(settings.api_keys_file)!r}: {error}") from error
    if settings.wants_keys or settings.allow_anonymous or settings.listens_on_loopback:
        return
    raise CannotAdmit(
        f"HOST={settings.host!r}: without keys the service listens on loopback addresses only. Set API_KEYS "
        "or API_KEYS_FILE, or ALLOW_ANONYMOUS=1 where everybody who reaches this address may use the "
        "service, or HOST=127.0.0.1"
    )
