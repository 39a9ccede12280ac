"""Parses networks in settings. Pure."""

from __future__ import annotations

import ipaddress

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


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
