"""Finds the address and identity of the client that sent a request, and hides names of streams from it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from aiohttp import web

from streamer.access.access_settings import IpAddress, IpNetwork
from streamer.access.identity import Identity, Scope
from streamer.drift.status_document import DriftStatusDocument
from streamer.http.problem_details import Problem

#: At most this many hops of `X-Forwarded-For` are evaluated, starting with the nearest one.
_MAX_HOPS = 16
#: Size of the cache of parsed hops.
_HOPS_KNOWN = 4096
#: Size of the cache of client names; making a name takes 20 calls.
_NAMES_KNOWN = 4096
#: Bits of an IPv6 address that identify a customer's network; hosts choose the rest freely.
_IPV6_CUSTOMER_BITS = 64


def arrived_from_sibling(request: web.Request) -> bool:
    """Return whether another worker of this replica forwarded the request over the private Unix socket."""
    transport = request.transport
    return transport is not None and isinstance(transport.get_extra_info("sockname"), str)


#: Headers by which a proxy on this machine shows that the client may be elsewhere.
_PROXY_HEADERS = (
    *("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix"),
    *("X-Forwarded-Port", "X-Real-IP"),
)


def is_local(request: web.Request) -> bool:
    """Return whether a program on this machine sent the request, and no proxy that names itself passed it."""
    address = _parse(request.remote or "")
    return (
        address is not None
        and address.is_loopback
        and not any(name in request.headers for name in _PROXY_HEADERS)
    )


def forwarded_for(request: web.Request) -> str:
    """Return the `X-Forwarded-For` header for forwarding a request to another worker or replica."""
    return ", ".join([*request.headers.getall("X-Forwarded-For", []), *filter(None, [request.remote])])


class ClientAddresses:
    """Names clients by address. Only hops in ``trusted`` networks may report the address before them."""

    def __init__(self, trusted: Iterable[IpNetwork]) -> None:
        self._trusted = tuple(trusted)
        self._known = lru_cache(maxsize=_NAMES_KNOWN)(self._name_peer)

    def name(self, request: web.Request) -> str:
        """Return `addr:<address>`; IPv6 addresses are grouped by /64."""
        return self._known(request.remote or "") or _name(self._find(request))

    def _name_peer(self, remote: str) -> str:
        """Return the name of the connected peer; empty if only the headers can name the client."""
        address = _parse(remote)
        return "" if address is None or self._is_trusted(address) else _name(address)

    def _find(self, request: web.Request) -> IpAddress | None:
        """Return the client's address: the nearest hop that is not trusted, or else the last readable one."""
        address = _parse(request.remote or "")
        if address is None and not arrived_from_sibling(request):
            return None
        if address is not None and not self._is_trusted(address):
            return address
        hops = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        for hop in reversed(hops[-_MAX_HOPS:]):
            found = _parse(hop)
            if found is None:  # this unreadable hop reported the hops further out, so ignore them, too
                break
            address = found
            if not self._is_trusted(found):
                break
        return address

    def arrived_from_proxy(self, request: web.Request) -> bool:
        """Return whether the connected peer is a trusted proxy, or another worker that forwards a request."""
        address = _parse(request.remote or "")
        return arrived_from_sibling(request) if address is None else self._is_trusted(address)

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
    """Parse one hop: an address with or without a port, as proxies write it."""
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


IDENTITY = web.RequestKey("identity", Identity)


def identity_of(request: web.Request) -> Identity:
    """Return the identity of the client; the guard sets it for every request that it lets through."""
    return request[IDENTITY]


def require(identity: Identity, scope: Scope) -> None:
    """Raise Problem 401 for a client without a key, 403 if its key does not grant ``scope``."""
    if identity.may(scope):
        return
    if identity.anonymous:
        raise Problem.unauthorized("This server wants one of its API keys as a bearer token.")
    granted = ", ".join(sorted(identity.scopes)) or "nothing"
    raise Problem(
        403,
        "missing_scope",
        f"This key is for {granted}; this address needs the scope {scope.value}.",
        needed=scope.value,
    )


#: Lines of Prometheus text whose labels name a group of streams (`data_drift_…`) or a class of a model.
_NAMED_SAMPLE = re.compile(rb"^[^#\s{]+\{(?:[^\n]*,)?(?:group|label)=\"[^\n]*\n", re.MULTILINE)


def hide_in_metrics(text: bytes) -> bytes:
    """Return Prometheus text without the series that name streams and classes."""
    return _NAMED_SAMPLE.sub(b"", text)


def hide_in_drift_status(body: DriftStatusDocument) -> DriftStatusDocument:
    """Return the body of `/drift/status` without the names and figures of groups of streams."""
    reduced = body.copy()
    if "groups" in body:
        reduced["groups"] = {}
    reference = body.get("reference")
    if reference is not None:
        reduced["reference"] = {**reference, "groups": {}}
    return reduced
