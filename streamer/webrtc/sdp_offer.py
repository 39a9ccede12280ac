"""Checks an SDP offer before aiortc parses it, and says why an offer is refused. Pure.

It works on the lines of the SDP (RFC 8866). An accepted offer is passed on without its candidates. These are
kept separately, because all sections share one transport.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from streamer.protocol.client_messages import Params
from streamer.webrtc.candidate import MAX_CANDIDATES, BadCandidate, usable, without_related

MAX_SDP_BYTES = 64 << 10
MAX_LINES = 2000
#: Most lines of one section, without candidates; browsers write 60 to 200. Some code here and in aiortc takes
#: time that grows with the square of their number.
MAX_SECTION_LINES = 400
#: Most bytes of these lines, because aiortc takes 80 ms to parse thousands of parameters. Browsers send some
#: 6 KB for video.
MAX_SECTION_BYTES = 16 << 10
#: Most payload types of one section, because they are numbers of seven bits.
MAX_PAYLOADS = 128
#: Most candidates that are checked; at most `MAX_CANDIDATES` of them are used.
_MAX_CHECKED = 100
#: Allowed kinds of sections, at most one of each: video, audio (never decoded) and data channels.
KINDS = ("video", "audio", "application")
CODECS_TAKEN = "VP8, H.264 (baseline, main, high; 8 bits, 4:2:0)"
_AUDIO_TAKEN = {"opus", "g722", "pcmu", "pcma"}
#: Static payload types need no rtpmap (RFC 3551).
_STATIC_AUDIO = {"0", "8", "9"}
#: profile_idc of baseline, main and high. Extended (58) and 4:4:4 (f4) are not accepted.
_H264_PROFILES = ("42", "4d", "64")
_NO_ADDRESS = "c=IN IP4 0.0.0.0"
_FINGERPRINT = re.compile(r"sha-(256|384|512) ([0-9a-f]{2}:){31,63}[0-9a-f]{2}", re.IGNORECASE)
_ICE_TEXT = re.compile(r"[A-Za-z0-9+/]{4,256}")
_ICE_PASSWORD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_MID = re.compile(r"[\x21-\x7e]{1,32}")


class BadOffer(ValueError):
    """The offer is refused. ``code`` is for programs, ``status`` is the HTTP status."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Offer:
    """A checked offer."""

    #: The SDP without candidates; its bundle group names the sections in their order.
    sdp: str
    #: Candidates that may be sent to, written as after `candidate:`.
    candidates: tuple[str, ...]
    #: Number of candidates that are not used: private, not UDP, host names, or beyond the limit.
    candidates_left_out: int
    #: H.264 parameters by payload type, as offered but without parameter sets (sprop).
    formats: dict[int, dict[str, str]]
    #: Whether the client insists on being the DTLS server.
    peer_is_dtls_server: bool
    #: Whether the client also accepts video.
    wants_video: bool


@dataclass(slots=True)
class _Section:
    kind: str
    port: str
    payloads: list[str]
    lines: list[str] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """Return the values of an attribute in this section."""
        return [line[len(name) + 3 :] for line in self.lines if line.startswith(f"a={name}:")]

    def has(self, name: str) -> bool:
        return f"a={name}" in self.lines

    def first(self, name: str) -> str:
        return next(iter(self.values(name)), "")


def check_offer(text: str, *, allow_private: bool) -> Offer:
    """Check an offer; return it in the form that aiortc gets. Raises BadOffer."""
    head, sections = _split(text)
    _check_sections(sections)
    for section in sections:
        _check_transport(head, section)
    _check_bundle(head, sections)
    video = next(section for section in sections if section.kind == "video")
    wants_video = _check_video(head, video)
    audio = next((section for section in sections if section.kind == "audio"), None)
    if audio is not None:
        _check_audio(audio)
    candidates, left_out = _candidates(sections, allow_private=allow_private)
    setup = video.first("setup") or head.first("setup")
    return Offer(
        sdp=_rebuild(head, sections),
        candidates=candidates,
        candidates_left_out=left_out,
        formats=_formats(video),
        peer_is_dtls_server=setup == "passive",
        wants_video=wants_video,
    )


def _malformed(text: str) -> BadOffer:
    return BadOffer(400, "malformed_sdp", text)


def _unprocessable(code: str, text: str) -> BadOffer:
    return BadOffer(422, code, text)


def _split(text: str) -> tuple[_Section, list[_Section]]:
    size = len(text.encode(errors="replace"))
    if size > MAX_SDP_BYTES:
        raise BadOffer(413, "sdp_too_large", f"The SDP has {size} bytes; allowed are {MAX_SDP_BYTES}.")
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    if len(lines) > MAX_LINES:
        raise BadOffer(413, "sdp_too_large", f"The SDP has {len(lines)} lines; allowed are {MAX_LINES}.")
    if lines[0] != "v=0":
        raise _malformed(f"The SDP begins with {lines[0][:40]!r}; it must begin with 'v=0'.")
    head = _Section("", "", [])
    sections: list[_Section] = []
    for number, line in enumerate(lines, 1):
        if len(line) < 3 or line[1] != "=" or not line[0].isalpha() or not line.isprintable():
            raise _malformed(f"Line {number} of the SDP is {line[:40]!r}; lines are 'x=value'.")
        if line.startswith("m="):
            parts = line[2:].split()
            if len(parts) < 4 or not parts[1].isdigit():
                raise _malformed(
                    f"Line {number} of the SDP is {line[:60]!r}; expected 'm=kind port proto formats'."
                )
            sections.append(_Section(parts[0], parts[1], parts[3:]))
        (sections[-1] if sections else head).lines.append(line)
    for section in (head, *sections):
        _check_length(section)
    return head, sections


def _check_length(section: _Section) -> None:
    where = f"the {section.kind[:40]} section" if section.kind else "its head"
    lines = sum(not line.startswith("a=candidate:") for line in section.lines)
    if lines > MAX_SECTION_LINES:
        raise BadOffer(
            413, "sdp_too_large", f"The SDP has {lines} lines in {where}; allowed are {MAX_SECTION_LINES}."
        )
    size = sum(len(line) for line in section.lines if not line.startswith("a=candidate:"))
    if size > MAX_SECTION_BYTES:
        raise BadOffer(
            413, "sdp_too_large", f"The SDP has {size} bytes in {where}; allowed are {MAX_SECTION_BYTES}."
        )
    if len(section.payloads) > MAX_PAYLOADS:
        raise BadOffer(
            413,
            "sdp_too_large",
            f"The SDP has {len(section.payloads)} formats in {where}; allowed are {MAX_PAYLOADS}.",
        )


def _check_sections(sections: list[_Section]) -> None:
    kinds = [section.kind for section in sections]
    unknown = next((kind for kind in kinds if kind not in KINDS), None)
    if unknown is not None:
        raise _unprocessable(
            "unsupported_media", f"A section is {unknown[:40]!r}; allowed are {', '.join(KINDS)}."
        )
    if "video" not in kinds:
        raise _unprocessable(
            "no_video", "The offer has no video section, and video is what is examined here."
        )
    for kind in KINDS:
        if kinds.count(kind) > 1:
            raise _unprocessable(
                "too_many_sections",
                f"The offer has {kinds.count(kind)} {kind} sections; one of each kind is taken. "
                "Open one session for each camera.",
            )


def _check_transport(head: _Section, section: _Section) -> None:
    where = f"the {section.kind} section"
    fingerprints = section.values("fingerprint") or head.values("fingerprint")
    if not any(_FINGERPRINT.fullmatch(value.strip()) for value in fingerprints):
        raise _malformed(f"There is no usable a=fingerprint for {where}: sha-256, sha-384 or sha-512.")
    if not _ICE_TEXT.fullmatch(section.first("ice-ufrag") or head.first("ice-ufrag")):
        raise _malformed(f"There is no usable a=ice-ufrag for {where}.")
    if not _ICE_PASSWORD.fullmatch(section.first("ice-pwd") or head.first("ice-pwd")):
        raise _malformed(f"There is no usable a=ice-pwd for {where}.")
    if section.kind != "application" and not section.has("rtcp-mux"):
        raise _unprocessable(
            "no_rtcp_mux", f"There is no a=rtcp-mux in {where}; RTP and RTCP share a port here."
        )
    if not _MID.fullmatch(section.first("mid")):
        raise _malformed(f"There is no usable a=mid in {where}.")


def _check_bundle(head: _Section, sections: list[_Section]) -> None:
    if len(sections) == 1:
        return
    mids = [section.first("mid") for section in sections]
    if len(set(mids)) != len(mids):
        raise _malformed(f"Sections share an a=mid: {', '.join(mids)[:100]}.")
    bundles = [value.split()[1:] for value in head.values("group") if value.split()[:1] == ["BUNDLE"]]
    if len(bundles) != 1 or set(bundles[0]) != set(mids):
        raise _unprocessable(
            "no_bundle",
            f"The sections ({', '.join(mids)[:100]}) are not bundled on one transport; "
            "offer a=group:BUNDLE with all of them (bundlePolicy max-bundle).",
        )


def _check_video(head: _Section, video: _Section) -> bool:
    """Check the video section; return whether the client also accepts video."""
    direction = next(
        (name for name in ("sendonly", "recvonly", "inactive", "sendrecv") if video.has(name)),
        next((name for name in ("sendonly", "recvonly", "inactive") if head.has(name)), "sendrecv"),
    )
    if direction in ("recvonly", "inactive") or (video.port == "0" and not video.has("bundle-only")):
        raise _unprocessable(
            "no_video",
            f"The video section is {direction} and sends nothing; it must be sendonly or sendrecv.",
        )
    offered = _codecs(video)
    formats = _formats(video)
    for payload, name in offered.items():
        if name == "VP8" or (name == "H264" and _is_taken(formats.get(int(payload), {}))):
            return direction == "sendrecv"
    names = sorted({name for name in offered.values() if name not in ("RTX", "RED", "ULPFEC", "FLEXFEC-03")})
    raise _unprocessable(
        "unsupported_codec",
        f"The offer has {', '.join(names)[:100] or 'no codec'}; taken are {CODECS_TAKEN}.",
    )


def _check_audio(audio: _Section) -> None:
    offered = {name.lower() for name in _codecs(audio).values()}
    if not offered & _AUDIO_TAKEN and not set(audio.payloads) & _STATIC_AUDIO:
        raise _unprocessable(
            "unsupported_codec",
            f"The audio section has {', '.join(sorted(offered))[:100]}; accepted, and not listened to, are "
            "opus, G722, PCMU and PCMA. Or leave the audio out.",
        )


def _codecs(section: _Section) -> dict[str, str]:
    """Return the codec name, in upper case, of each payload type."""
    found = {}
    for value in section.values("rtpmap"):
        payload, _, rest = value.partition(" ")
        if payload in section.payloads and payload.isdigit():
            found[payload] = rest.partition("/")[0].strip().upper()
    return found


def _formats(video: _Section) -> dict[int, dict[str, str]]:
    """Return the parameters of each H.264 payload type."""
    codecs = _codecs(video)
    formats: dict[int, dict[str, str]] = {}
    for value in video.values("fmtp"):
        payload, _, rest = value.partition(" ")
        if codecs.get(payload) == "H264":
            pairs = (part.strip().partition("=") for part in rest.split(";") if "=" in part)
            formats[int(payload)] = {name: found for name, _, found in pairs if not name.startswith("sprop")}
    return formats


def _is_taken(parameters: dict[str, str]) -> bool:
    profile = parameters.get("profile-level-id", "42e01f").lower()
    return profile[:2] in _H264_PROFILES and parameters.get("packetization-mode", "0") in ("0", "1")


def _candidates(sections: list[_Section], *, allow_private: bool) -> tuple[tuple[str, ...], int]:
    """Return the candidates to use, and the number of the others."""
    kept: dict[str, None] = {}
    left_out = checked = 0
    for section in sections:
        for candidate in section.values("candidate"):
            checked += 1
            if checked > _MAX_CHECKED:
                left_out += 1
                continue
            try:
                good = usable(candidate, allow_private=allow_private)
            except BadCandidate as error:
                raise _malformed(f"A candidate is malformed: {error}.") from error
            candidate = without_related(candidate)
            if candidate in kept:
                continue
            if good and len(kept) < MAX_CANDIDATES:
                kept[candidate] = None
            else:
                left_out += 1
    return tuple(kept), left_out


def _rebuild(head: _Section, sections: list[_Section]) -> str:
    """Return the SDP without candidates and without end-of-candidates, because more may follow."""
    bundle = "a=group:BUNDLE " + " ".join(section.first("mid") for section in sections)
    lines = [line for line in head.lines if not line.startswith("a=group:BUNDLE")]
    lines.append(bundle)
    for section in sections:
        lines += section.lines
    dropped = ("a=candidate:", "a=end-of-candidates", "a=remote-candidates:", "a=rtcp:")
    # Only ICE decides where media is sent, so addresses in other lines are removed.
    kept = (_NO_ADDRESS if line.startswith("c=") else line for line in lines if not line.startswith(dropped))
    return "".join(f"{line}\r\n" for line in kept)


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Holds the options that a client sets for its session with its offer."""

    params: Params
    #: Whether to send the video back with boxes.
    annotate: bool = False
    #: Name of the stream in samples; empty if it has none.
    name: str = ""
    #: Whether frames may be kept as samples.
    collect: bool = True
