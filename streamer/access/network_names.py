"""Parses networks, host names and origins in settings and headers. Pure."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

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
