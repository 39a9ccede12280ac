"""Settings of WebRTC, of other replicas and of connections."""

from __future__ import annotations

import ipaddress

from pydantic import Field, ValidationInfo, field_validator

from streamer.access.access_settings import AccessSettings
from streamer.config.ice_servers import parse_ice_servers
from streamer.config.replica_addresses import Address, parse_own, parse_peers


class NetworkSettings(AccessSettings):
    """How WebRTC clients, other replicas and connections reach the service, besides `AccessSettings`."""

    ice_servers: str = Field(
        "",
        description="Comma-separated STUN and TURN servers (`stun:host:3478`, "
        "`turn:host:3478?transport=udp`), which clients get. The service contacts no other "
        "server.",
    )
    turn_secret: str = Field(
        "",
        description="Secret shared with the TURN servers; the service derives short-lived credentials for "
        "clients from it.",
    )
    turn_ttl_s: float = Field(3600, ge=60, le=86_400, description="How long TURN credentials are valid.")
    udp_port_range: str = Field(
        "", description="UDP ports of WebRTC media, such as `50000-50100`; each session uses one. Unset: any."
    )
    public_ip: str = Field(
        "",
        description="Address that WebRTC clients are given in place of the service's own, for example behind "
        "a port mapping.",
    )
    webrtc_sessions_max: int = Field(
        64, ge=0, le=10_000, description="WebRTC and WHIP sessions per worker; beyond it: 503."
    )
    webrtc_connect_timeout_s: float = Field(
        10, gt=0, description="Time from an offer until its WebRTC connection must be established."
    )
    webrtc_media_timeout_s: float = Field(
        15, gt=0, description="Time without video after which a WebRTC session ends."
    )
    webrtc_private_candidates: bool = Field(
        False,
        description="Whether to send to private addresses that WebRTC clients offer before these have sent "
        "anything. Needed only if a firewall blocks all unsolicited incoming packets.",
    )
    replica_address: str = Field(
        "",
        description="This replica's own address among `REPLICA_PEERS`, as `IP` or `IP:PORT`; the port is "
        "`PORT` unless given.",
    )
    replica_peers: str = Field(
        "",
        description="Comma-separated addresses of the replicas of this release, which forward requests about "
        "their sessions to each other. One DNS name may stand for all of them. Unset: the "
        "replica is alone.",
    )
    connections_max: int = Field(
        0,
        ge=0,
        description="Open connections per worker; 0: what its file descriptors allow, at most 80 % of them. "
        "Beyond it, silent and idle connections are closed; probes are still answered.",
    )
    connections_per_address: int = Field(
        0,
        ge=0,
        description="Open connections of one client address per worker; 0: three quarters of "
        "`CONNECTIONS_MAX`, because a proxy in front is one address.",
    )

    @field_validator("ice_servers")
    @classmethod
    def _are_ice_servers(cls, text: str) -> str:
        parse_ice_servers(text)
        return text

    @field_validator("udp_port_range")
    @classmethod
    def _is_port_range(cls, text: str) -> str:
        _parse_ports(text)
        return text

    @field_validator("public_ip")
    @classmethod
    def _is_address(cls, text: str) -> str:
        try:
            return str(ipaddress.ip_address(text)) if text else ""
        except ValueError:
            raise ValueError("allowed is an IPv4 or IPv6 address") from None

    @field_validator("replica_address")
    @classmethod
    def _is_own_address(cls, text: str) -> str:
        parse_own(text, 1)
        return text

    @field_validator("replica_peers")
    @classmethod
    def _are_peers(cls, text: str, info: ValidationInfo) -> str:
        if parse_peers(text, 1) and not info.data.get("replica_address"):
            raise ValueError("allowed only with REPLICA_ADDRESS, at which the others reach this replica")
        return text

    @property
    def own_address(self) -> Address | None:
        """Address at which the other replicas reach this one; None if it is alone."""
        return parse_own(self.replica_address, self.port)

    @property
    def peer_addresses(self) -> tuple[Address, ...]:
        """Addresses of the replicas of this release; a host name may stand for several."""
        return parse_peers(self.replica_peers, self.port)

    @property
    def ice_urls(self) -> tuple[str, ...]:
        """The STUN and TURN servers."""
        return parse_ice_servers(self.ice_servers)

    @property
    def udp_ports(self) -> tuple[int, int] | None:
        """First and last UDP port of media; None for any port."""
        return _parse_ports(self.udp_port_range)


def _parse_ports(text: str) -> tuple[int, int] | None:
    """Return first and last port of `50000-50100`; None when empty. Raises ValueError."""
    if not text:
        return None
    first, dash, last = text.partition("-")
    if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit() and dash):
        raise ValueError("allowed is FIRST-LAST, such as 50000-50100")
    ports = int(first), int(last)
    if not 1024 <= ports[0] <= ports[1] <= 65535:
        raise ValueError("allowed are ports from 1024 to 65535, the first not above the last")
    return ports
