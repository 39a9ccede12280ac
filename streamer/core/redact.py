"""Removes credentials from text before it is shown or logged: in addresses, tokens and queries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote, urlsplit

MASK = "***"
#: Matches ``scheme://user:secret@``. Passwords may contain unescaped ``@`` and ``:``, so it matches up to the
#: last ``@`` before the path.
_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s?#'\"]*@")
#: Does the same for passwords with unescaped ``/``, ``?`` or ``#``: it matches up to the last ``@`` before a
#: space. The digest in the address of an OCI artifact is no host.
_WILD_USERINFO = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s'\"@]*:[^\s'\"]*@(?!sha256:[0-9a-f]{64}\b)(?=[\w.\[-])"
)
_SENSITIVE = (
    r"[\w.-]*(?:token|secret|passw(?:or)?d|pwd|passphrase|api[_-]?key|auth|signature|credential|session)[\w.-]*"
    r"|pass|key|sig|jwt|code"
)
_QUERY = re.compile(rf"(?P<name>[?&;](?:{_SENSITIVE})=)[^&;\s'\"#]*", re.IGNORECASE)
_BEARER = re.compile(r"\b(?P<name>bearer|basic)\s+[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE)
#: Shorter secrets are not masked, because that would mask ordinary words.
_SHORTEST_SECRET = 4


def redact(text: object, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` without userinfo of addresses, secret query values, bearer tokens and ``secrets``.

    ``text`` may be an exception, because the messages of libraries often contain the whole address.
    """
    shown = str(text)
    for secret in sorted({s for s in secrets if len(s) >= _SHORTEST_SECRET}, key=len, reverse=True):
        for form in {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), unquote(secret)}:
            shown = shown.replace(form, MASK)
    shown = _WILD_USERINFO.sub(rf"\g<scheme>{MASK}@", shown)
    shown = _USERINFO.sub(rf"\g<scheme>{MASK}@", shown)
    shown = _QUERY.sub(rf"\g<name>{MASK}", shown)
    return _BEARER.sub(rf"\g<name> {MASK}", shown)


def secrets_of(address: str) -> tuple[str, ...]:
    """Return the password and secret query values of an address, so that they can be masked elsewhere."""
    found: list[str] = []
    try:
        parts = urlsplit(address)
        if parts.password:
            found.append(parts.password)
    except ValueError:
        return ()
    for match in _QUERY.finditer(address):
        value = match.group(0).partition("=")[2]
        if value:
            found.append(value)
    return tuple(found)
