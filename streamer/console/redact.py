"""Takes credentials out of text before a person or a log sees it: addresses, tokens, query secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote, urlsplit

MASK = "***"
#: ``scheme://user:secret@``; passwords may hold unescaped ``@`` and ``:``, hence greedy up to the last ``@``
#: before the path.
_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s?#'\"]*@")
#: The same when the password holds ``/``, ``?`` or ``#`` unescaped: up to the last ``@`` of the word.
_WILD_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s'\"@]*:[^\s'\"]*@(?=[\w.\[-])")
_TELLTALE = (
    r"[\w.-]*(?:token|secret|passw(?:or)?d|pwd|passphrase|api[_-]?key|auth|signature|credential|session)[\w.-]*"
    r"|pass|key|sig|jwt|code"
)
_QUERY = re.compile(rf"(?P<name>[?&;](?:{_TELLTALE})=)[^&;\s'\"#]*", re.IGNORECASE)
_BEARER = re.compile(r"\b(?P<name>bearer|basic)\s+[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE)
#: Shorter ones would blank ordinary words.
_SHORTEST_SECRET = 4


def redact(text: object, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` without userinfo of addresses, secret query values, bearer tokens and ``secrets``.

    ``text`` may be an exception; libraries like to put the whole address into theirs.
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
    """Return password and secret query values of an address, to blank them wherever they turn up."""
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
