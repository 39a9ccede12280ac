"""Decides which ICE candidates of clients we may send to, and reads those that follow the offer. Pure.

A client that offers an address makes us send STUN requests to it; without limits it could use us as a port
scanner. Leaving a candidate out costs little: a client that reaches us reveals its address by the STUN
requests that it sends.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from streamer.core.public_address import is_public

#: Most candidates of one session that are used; browsers have three to eight.
MAX_CANDIDATES = 16
#: Candidates with lower ports are not used, because services use these ports, and media do not.
_LEAST_PORT = 1024
#: Fields: foundation, component, transport, priority, address, port, type, then pairs (RFC 8839, 5.1).
_CANDIDATE = re.compile(
    r"[A-Za-z0-9+/]{1,32} (\d{1,5}) (\S{1,8}) \d{1,10} (\S{1,255}) (\d{1,5})"
    r" typ (host|srflx|prflx|relay)(?: raddr \S{1,255})?(?: rport \d{1,5})?"
    r"(?: (?!raddr |rport )\S{1,64} \S{1,255}){0,16} ?",
)
_RELATED = re.compile(r" raddr \S+| rport \d+")
MAX_FRAGMENT_BYTES = 16 << 10


class BadCandidate(ValueError):
    """The text is not an ICE candidate."""


def usable(candidate: str, *, allow_private: bool) -> bool:
    """Return whether we may send to this candidate, written as in SDP after `candidate:`.

    It must be for UDP and the first component, and have a numeric address that `is_public` accepts: to
    resolve names such as `….local` we would have to query the network. Raises BadCandidate when it is
    malformed.
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
    return is_public(address, allow_private=allow_private)


def without_related(candidate: str) -> str:
    """Return a checked candidate without its related address, which we neither check nor send to."""
    return _RELATED.sub("", candidate)


class CandidateInit(TypedDict, total=False):
    """An ICE candidate as browsers write it in JSON; only `candidate` is read."""

    candidate: Annotated[
        str | None,
        Field(description="The candidate, as in SDP after `a=`; empty after the last one."),
    ]


@with_config(
    ConfigDict(json_schema_extra={"anyOf": [{"required": ["candidate"]}, {"required": ["candidates"]}]})
)
class TrickledCandidates(TypedDict, total=False):
    """ICE candidates that a client has found after its offer: one, or a list of them."""

    candidate: Annotated[str | CandidateInit | None, Field(description="One candidate.")]
    candidates: Annotated[list[str | CandidateInit | None], Field(description="Several candidates.")]


class BadFragment(ValueError):
    """The fragment or list of candidates is malformed."""


class IceRestartRequested(ValueError):
    """The fragment has other ICE credentials than the session: it asks for an ICE restart."""


def read_fragment(text: str, ufrag: str) -> list[str]:
    """Return the candidates of an `application/trickle-ice-sdpfrag` body (RFC 8840), without `a=candidate:`.

    ``ufrag`` is the ICE user name fragment of the client's offer. Raises BadFragment or IceRestartRequested.
    """
    candidates = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if line.startswith("a=candidate:"):
            candidates.append(line.removeprefix("a=candidate:"))
        elif line.startswith("a=ice-ufrag:") and line.removeprefix("a=ice-ufrag:").strip() != ufrag:
            raise IceRestartRequested("the fragment's ice-ufrag is not the one of the offer")
        elif line and (len(line) < 2 or line[1] != "="):
            raise BadFragment(f"a line is {line[:40]!r}; lines are 'x=value'")
    return candidates


def read_candidates(body: object) -> list[str]:
    """Return the candidates of ``{"candidate": …}`` or ``{"candidates": […]}``, without `candidate:`.

    An empty candidate, which ends the list, is skipped. Raises BadFragment naming the field.
    """
    if not isinstance(body, dict) or not body.keys() & TrickledCandidates.__annotations__.keys():
        raise BadFragment("expected a map with `candidate` or `candidates`")
    entries: Any = body.get("candidates", [body.get("candidate")])
    if not isinstance(entries, list):
        raise BadFragment(f"field `candidates` is a {type(entries).__name__}; expected a list")
    found = []
    for index, entry in enumerate(entries):
        value = entry.get("candidate") if isinstance(entry, dict) else entry
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise BadFragment(f"field `candidates[{index}]` holds no text: {value!r:.60}")
        found.append(value.removeprefix("a=").removeprefix("candidate:"))
    return found
