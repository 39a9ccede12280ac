"""The address of the client behind a request, as far as proxies that we trust report it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from aiohttp import web

from streamer.access.network_names import IpAddress, IpNetwork

#: Hops of `X-Forwarded-For` that are looked at, from the nearest one on.
_MAX_HOPS = 16
#: Hops whose text is not parsed again.
_HOPS_KNOWN = 4096
#: Addresses whose names are not made again; making one takes 20 calls.
_NAMES_KNOWN = 4096
#: Bits of an IPv6 address that name a customer's network; hosts choose the rest freely.
_IPV6_CUSTOMER_BITS = 64


def arrived_from_sibling(request: web.Request) -> bool:
    """Whether another worker of this replica passed the request on, over its private Unix socket."""
    transport = request.transport
    return transport is not None and isinstance(transport.get_extra_info("sockname"), str)


def forwarded_for(request: web.Request) -> str:
    """Return the `X-Forwarded-For` with which a request is passed on to another process of ours."""
    return ", ".join([*request.headers.getall("X-Forwarded-For", []), *filter(None, [request.remote])])


class ClientAddresses:
    """Names clients by address. Only hops in the ``trusted`` networks are believed about who came to them."""

    def __init__(self, trusted: Iterable[IpNetwork]) -> None:
        self._trusted = tuple(trusted)
        self._known = lru_cache(maxsize=_NAMES_KNOWN)(self._name_peer)

    def name(self, request: web.Request) -> str:
        """Return `addr:<address>`; IPv6 addresses are grouped by /64."""
        return self._known(request.remote or "") or _name(self._find(request))

    def _name_peer(self, remote: str) -> str:
        """Return the name of who has connected; empty where its headers decide who the client is."""
        address = _parse(remote)
        return "" if address is None or self._is_trusted(address) else _name(address)

    def _find(self, request: web.Request) -> IpAddress | None:
        """Walk from the nearest hop outwards; the first one that is not trusted is the client."""
        address = _parse(request.remote or "")
        if address is None and not arrived_from_sibling(request):
            return None
        if address is not None and not self._is_trusted(address):
            return address
        hops = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        for hop in reversed(hops[-_MAX_HOPS:]):
            found = _parse(hop)
            if found is None:  # what stands further out was written by somebody we know even less
                break
            address = found
            if not self._is_trusted(found):
                break
        return address

    def _is_trusted(self, address: IpAddress) -> bool:
        return any(address.version == network.version and address in network for network in self._trusted)


def _name(address: IpAddress | None) -> str:
    if address is None:
        return "addr:unknown"
    if isinstance(address, ipaddress.IPv6Address):
        return f"addr:{ipaddress.ip_network((int(address), _IPV6_CUSTOMER_BITS), strict=False)}"
    return f"addr:{address}"


@lru_cache(maxsize=_HOPS_KNOWN)
def _parse(hop: str) -> IpAddress | None:
    """Read one hop: an address, perhaps with a port, as proxies write it."""
    text = hop.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
