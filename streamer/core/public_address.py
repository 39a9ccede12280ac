"""Decides which addresses belong to hosts on the public internet. Pure.

Clients name addresses in two places: ICE candidates (`streamer.webrtc.candidate`) and URLs of images
(`streamer.predict.image_url`). Without a check they could use the service to reach its own network.
"""

from __future__ import annotations

import ipaddress

#: Networks of companies, homes and carriers.
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
#: Metadata services of clouds, which hand out credentials of a machine. They are always refused.
_METADATA = tuple(ipaddress.ip_address(host) for host in ("100.100.100.200", "fd00:ec2::254", "192.0.0.192"))
#: IPv4 networks without public hosts (RFC 6890 and the registry that it created). They include link-local
#: addresses, which most metadata services use.
_SPECIAL_V4 = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
        *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        # The last one is the platform service of Azure, an address that no other network uses.
        *("224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
    )
)
#: Global unicast, the only IPv6 network with addresses of public hosts.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
#: Parts of that network for other purposes. Teredo and 6to4 addresses contain an IPv4 address to which a
#: relay forwards.
_SPECIAL_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address, *, allow_private: bool = False) -> bool:
    """Whether ``address`` is a host on the public internet, or in a private network if those are allowed.

    IPv6 addresses that contain an IPv4 address (compatible, NAT64, 6to4, Teredo, ISATAP) are never public,
    because they would bypass the check of the IPv4 address. An IPv4-mapped address is checked as its IPv4
    address.
    """
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if allow_private and any(address in network for network in _PRIVATE):
        return address not in _METADATA
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    if address.scope_id is not None or address not in _GLOBAL_V6 or _is_isatap(address):
        return False
    return not any(address in network for network in _SPECIAL_V6)


def _is_isatap(address: ipaddress.IPv6Address) -> bool:
    """Whether the address ends in `0:5efe` or `200:5efe` and an IPv4 address (ISATAP, RFC 5214)."""
    return int(address) >> 32 & 0xFDFFFFFF == 0x00005EFE
