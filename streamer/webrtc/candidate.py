"""Which addresses of a client we send to at all: ICE candidates, judged before anything is sent. Pure.

Who offers an address makes us send STUN requests to it; without limits that is a port scanner for hire.
A candidate that is left out costs little: a client that reaches us shows its address by its own check.
"""

from __future__ import annotations

import ipaddress
import re

#: Candidates of one session that are used; browsers have three to eight.
MAX_CANDIDATES = 16
#: Lower ports belong to services, not to media.
_LEAST_PORT = 1024
#: foundation, component, transport, priority, address, port, type, then pairs (RFC 8839 section 5.1).
_CANDIDATE = re.compile(
    r"[A-Za-z0-9+/]{1,32} (\d{1,5}) (\S{1,8}) \d{1,10} (\S{1,255}) (\d{1,5})"
    r" typ (host|srflx|prflx|relay)(?: raddr \S{1,255})?(?: rport \d{1,5})?"
    r"(?: (?!raddr |rport )\S{1,64} \S{1,255}){0,16} ?",
)
#: Networks of companies, homes and carriers; what is neither these nor global is loopback and the like.
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)


class BadCandidate(ValueError):
    """The text is no ICE candidate."""


def usable(candidate: str, *, allow_private: bool) -> bool:
    """Whether to send to this candidate, written as in SDP after `candidate:`.

    Only UDP, the first component, and addresses as numbers: names as `….local` would make us ask the
    network for them. Raises BadCandidate when it is malformed.
    """
    match = _CANDIDATE.fullmatch(candidate)
    if match is None:
        raise BadCandidate(f"{candidate[:80]!r} is no ICE candidate (RFC 8839 section 5.1)")
    component, transport, host, port, kind = match.groups()
    if component != "1" or transport.lower() != "udp" or kind == "prflx":
        return False
    if not _LEAST_PORT <= int(port) <= 65535:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return _is_sendable(address, allow_private=allow_private)


def _is_sendable(address: ipaddress.IPv4Address | ipaddress.IPv6Address, *, allow_private: bool) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_multicast:
        return False
    return address.is_global or (allow_private and any(address in network for network in _PRIVATE))
