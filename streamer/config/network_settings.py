"""Settings of addresses, connections and WebRTC, with the ICE servers that clients use.

Credentials follow draft-uberti-behave-turn-rest: the user name is the expiry time, the password its MAC.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, NotRequired

from pydantic import Field, ValidationInfo, field_validator
from typing_extensions import TypedDict

from streamer.access.access_settings import AccessSettings
from streamer.config.replica_addresses import Address, parse_own, parse_peers

_URL = re.compile(
    r"(?:stun|stuns|turn|turns):(?:[A-Za-z0-9.-]+|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(?::\d{1,5})?"
    r"(?:\?transport=(?:udp|tcp))?"
)


def parse_ice_servers(text: str) -> tuple[str, ...]:
    """Return the URLs of a comma-separated list. Raises ValueError, which names the invalid one."""
    urls = tuple(url.strip() for url in text.split(",") if url.strip())
    for url in urls:
        if "@" in url:
            raise ValueError(
                f"the ICE server {url.rpartition('@')[2]!r} has a user; the service makes credentials "
                "from TURN_SECRET, and allowed are stun:HOST[:PORT] and turn:HOST[:PORT][?transport=udp|tcp]"
            )
        if not _is_ice_url(url):
            raise ValueError(
                f"{url!r} is not an ICE server; allowed are stun:HOST[:PORT] and "
                "turn:HOST[:PORT][?transport=udp|tcp] (or stuns, turns), separated by commas"
            )
    return urls


def _is_ice_url(url: str) -> bool:
    found = _URL.fullmatch(url)
    if found is None or (url.startswith("stun") and "?" in url):
        return False
    if found["ipv6"] is not None:
        try:
            ipaddress.IPv6Address(found["ipv6"])
        except ValueError:
            return False
    return True


class IceServer(TypedDict):
    """One entry of `iceServers` of an `RTCPeerConnection`."""

    urls: Annotated[list[str], Field(description="Addresses of STUN servers, or of TURN servers.")]
    username: NotRequired[Annotated[str, Field(description="User name for the TURN servers; it expires.")]]
    credential: NotRequired[Annotated[str, Field(description="Password for the TURN servers.")]]


@dataclass(frozen=True, slots=True)
class IceServers:
    """ICE servers for clients, and for the service itself."""

    urls: tuple[str, ...] = ()
    #: Secret shared with the TURN servers. If empty, clients get no TURN servers: they could not use them.
    turn_secret: str = ""
    turn_ttl_s: int = 3600

    @property
    def stun_urls(self) -> tuple[str, ...]:
        """STUN servers that the service asks for its own address; it needs no TURN relay itself.

        Those at IPv6 addresses are for clients: aiortc cannot read them, and IPv6 has no address translation.
        """
        return tuple(url for url in self.urls if url.startswith("stun:") and "[" not in url)

    def describe(self, user: str, now_s: float) -> list[IceServer]:
        """Return the servers as `RTCPeerConnection` takes them; ``now_s`` is Unix time."""
        stun = [url for url in self.urls if url.startswith("stun")]
        turn = [url for url in self.urls if url.startswith("turn")]
        servers: list[IceServer] = [{"urls": stun}] if stun else []
        if turn and self.turn_secret:
            name = f"{int(now_s) + self.turn_ttl_s}:{user}"
            servers.append({"urls": turn, "username": name, "credential": self._password(name)})
        return servers

    def links(self, user: str, now_s: float) -> list[str]:
        """Return them as values of `Link` headers (RFC 9725 section 4.6)."""
        links = []
        for server in self.describe(user, now_s):
            credentials = ""
            if "username" in server:
                credentials = (
                    f'; username="{server["username"]}"; credential="{server["credential"]}"; '
                    'credential-type="password"'
                )
            links += [f'<{url}>; rel="ice-server"{credentials}' for url in server["urls"]]
        return links

    def _password(self, name: str) -> str:
        digest = hmac.new(self.turn_secret.encode(), name.encode(), hashlib.sha1).digest()
        return base64.b64encode(digest).decode()


_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]{1,100}){1,10}")
#: Paths of routes, and the beginnings of such paths; a test compares them with the table of routes.
_ROUTE_OR_PARENT = re.compile(
    r"/(predict|stream|webrtc|whip|health|livez|metrics|tickets(/[^/]+)?|replicas(/load)?"
    r"|versions(/(split|shadow|promote|rollback|pictures(/[^/]+)?|v[0-9]+(/load)?))?"
    r"|drift(/(status|report))?|reference(/update)?|favicon\.ico|openapi\.json|docs|docs-init\.js|redoc|static|data(/sample\.mp4)?"
    r"|v[0-9]+(/(predict|stream|webrtc|whip)(/.*)?)?)"
)


def normal_prefix(text: str) -> str:
    """Return a path without a slash at its end; empty for `/`. Raises ValueError with what is allowed."""
    prefix = text.strip().rstrip("/")
    if prefix and (_PREFIX.fullmatch(prefix) is None or {".", ".."} & set(prefix.split("/"))):
        raise ValueError(f"{text[:100]!r} is not a path; allowed are paths such as /vision or /apps/vision")
    return prefix


class NetworkSettings(AccessSettings):
    """How WebRTC clients, other replicas and connections reach the service, besides `AccessSettings`."""

    root_path: str = Field(
        "",
        description="Path under which a proxy shows the service, such as `/vision`, whether or not the proxy "
        "removes it from the paths of requests. `X-Forwarded-Prefix` of a proxy in `TRUSTED_PROXIES` takes "
        "precedence.",
    )
    ice_servers: str = Field(
        "",
        description="Comma-separated STUN and TURN servers (`stun:host:3478`, "
        "`turn:host:3478?transport=udp`), which clients get. For WebRTC the service "
        "contacts no other server.",
    )
    turn_secret: str = Field(
        "",
        description="Secret shared with the TURN servers; the service derives short-lived credentials for "
        "clients from it.",
    )
    turn_ttl_s: float = Field(3600, ge=60, le=86_400, description="How long TURN credentials are valid.")
    otel_exporter_otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Address of an OpenTelemetry collector that takes OTLP over HTTP, such as "
        "`http://collector:4318`; workers send it spans of requests and frames. Needs the extra `otel`.",
    )
    otel_exporter_otlp_traces_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="The complete address for spans, if it is not that with `/v1/traces`.",
    )
    otel_exporter_otlp_headers: str = Field(
        "", description="Comma-separated `NAME=VALUE` headers for the collector, such as its key."
    )
    otel_exporter_otlp_traces_headers: str = Field(
        "", description="The same for spans alone; wins over `OTEL_EXPORTER_OTLP_HEADERS`."
    )
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
    rebalance: bool = Field(
        True,
        description="Whether a replica that has more load than it can serve asks streams to move to replicas "
        "of `REPLICA_PEERS` that have room.",
    )
    rebalance_per_minute: float = Field(
        20,
        gt=0,
        le=100,
        description="Largest share of its streams that a replica asks to move in a minute, in percent; one "
        "stream may always move.",
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

    @field_validator("root_path")
    @classmethod
    def _is_path(cls, text: str) -> str:
        prefix = normal_prefix(text)
        if _ROUTE_OR_PARENT.fullmatch(prefix):
            raise ValueError(
                f"{prefix} is a path of the service itself, which could not tell its own requests from "
                "those of the proxy; choose another one, such as /vision"
            )
        return prefix

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
