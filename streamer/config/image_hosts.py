"""Reads `IMAGE_URL_HOSTS`, the list of hosts from which the service fetches images."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from streamer.access.access_settings import parse_hosts

_BRACKETS = re.compile(r"\[([0-9a-f:.]+)\](?::(.*))?")
_ALLOWED = (
    "allowed are comma-separated host names with an optional port, such as images.example.com,"
    "*.cdn.example.com:8443, and * for any host with a public address"
)


@dataclass(frozen=True, slots=True)
class HostRule:
    """One entry: a host name, `*.name` or `*`, and a port; None is the default port of the scheme."""

    name: str
    port: int | None

    def allows(self, host: str, port: int, *, is_default: bool) -> bool:
        """Whether the entry allows a host and port; ``is_default``: the port is the scheme's default."""
        if not (is_default if self.port is None else port == self.port):
            return False
        host = host.lower().removesuffix(".")
        return self.name in ("*", host) or (self.name.startswith("*.") and host.endswith(self.name[1:]))


def parse_image_hosts(text: str) -> tuple[HostRule, ...]:
    """Return the rules of a comma-separated list. Raises ValueError that says what is allowed."""
    rules = []
    for part in filter(None, (part.strip().lower() for part in text.split(","))):
        host, port = _split(part)
        if port is not None and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise ValueError(f"{part!r} has no valid port; {_ALLOWED}")
        rules.append(HostRule(host, int(port) if port is not None else None))
    return tuple(rules)


def _split(part: str) -> tuple[str, str | None]:
    """Return the host and port of an entry; an IPv6 address with a port must be in brackets."""
    match = _BRACKETS.fullmatch(part)
    try:
        if match is not None:
            return str(ipaddress.IPv6Address(match[1])), match[2]
        if part.count(":") > 1:
            return str(ipaddress.IPv6Address(part)), None
        host, colon, port = part.partition(":")
        (host,) = parse_hosts(host)
    except ValueError:
        raise ValueError(f"{part!r} is not a host; {_ALLOWED}") from None
    return host, port if colon else None
