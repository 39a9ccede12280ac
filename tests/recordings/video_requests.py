"""Lists the recorded requests to the WebRTC and WHIP routes: offers, candidates, states, ends of sessions."""

from __future__ import annotations

from typing import Any

from tests.recordings.requests import EVIL, PAGE, Body, Request, as_json, text_body

_COMMON = f"""\
a=ice-ufrag:abcd
a=ice-pwd:abcdefghijklmnopqrstuv
a=fingerprint:sha-256 {":".join(["AB"] * 32)}
a=setup:actpass
"""
_VIDEO = f"""\
v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
a=mid:0
a=sendonly
a=rtcp-mux
{_COMMON}a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
"""
_CHANNELS = f"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=mid:1\n{_COMMON}a=sctp-port:5000\n"
SDP = _VIDEO.replace("\n", "\r\n")
SDP_WITH_CHANNELS = (
    (_VIDEO + _CHANNELS).replace("t=0 0\n", "t=0 0\na=group:BUNDLE 0 1\n").replace("\n", "\r\n")
)
SDP_OF_VP9 = SDP.replace("VP8", "VP9")
_UNKNOWN = "0-aaaaaaaaaaaaaaaaaaaaaaaa"
#: A loopback ICE candidate: the service accepts it but never sends to it.
_CANDIDATE = "1 1 udp 2130706431 127.0.0.1 40000 typ host"
_FRAGMENT_TYPE = "application/trickle-ice-sdpfrag"
_FRAGMENT = f"a=ice-ufrag:abcd\r\na=candidate:{_CANDIDATE}\r\n"
_PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}


def _offer(name: str = "offer", sdp: str = SDP_WITH_CHANNELS, **fields: Any) -> Body:
    return as_json(name, {"type": "offer", "sdp": sdp} | fields)


def _sdp(name: str = "offer", sdp: str = SDP) -> Body:
    return text_body(name, sdp, "application/sdp")


def _fragment(text: str = _FRAGMENT, content_type: str = _FRAGMENT_TYPE) -> Body:
    return text_body("fragment", text, content_type)


def _of_unknown_sessions(kind: str) -> list[Request]:
    """Return one request per method, with and without a key, to a session that does not exist."""
    path = f"/v1/{kind}/{_UNKNOWN}"
    return [
        Request(f"{kind}: unknown session, state", "GET", path, "stream"),
        Request(f"{kind}: unknown session, candidates", "PATCH", path, "stream", as_json("{}", {})),
        Request(f"{kind}: unknown session, end", "DELETE", path, "stream"),
        Request(f"{kind}: unknown session, results", "GET", f"{path}/results", "stream"),
        Request(f"{kind}: session, wrong method", "POST", path, "stream"),
        Request(f"{kind}: session, no key", "GET", path),
        Request(f"{kind}: candidates, no key", "PATCH", path, "", as_json("{}", {})),
        Request(f"{kind}: end, no key", "DELETE", path),
        Request(f"{kind}: results, no key", "GET", f"{path}/results"),
        Request(f"{kind}: session options", "OPTIONS", path, "stream"),
        Request(f"{kind}: session preflight", "OPTIONS", path, headers=_PREFLIGHT),
        Request(f"{kind}: results preflight", "OPTIONS", f"{path}/results", headers=_PREFLIGHT),
    ]


_WEBRTC = [
    Request("webrtc: without a version, describe", "GET", "/webrtc", "stream"),
    Request("webrtc: without a version, no key", "POST", "/webrtc", "", _offer()),
    Request("webrtc: without a version, nonsense", "POST", "/webrtc", "stream", _offer("nonsense", "v=1")),
    Request("webrtc: without a version, preflight", "OPTIONS", "/webrtc", headers=_PREFLIGHT),
    Request("webrtc: describe", "GET", "/v1/webrtc", "stream"),
    Request("webrtc: describe, unknown version", "GET", "/v3/webrtc", "stream"),
    Request("webrtc: describe, no key", "GET", "/v1/webrtc"),
    Request("webrtc: options", "OPTIONS", "/v1/webrtc", "stream"),
    Request("webrtc: options, no key", "OPTIONS", "/v1/webrtc"),
    Request("webrtc: preflight", "OPTIONS", "/v1/webrtc", headers=_PREFLIGHT),
    Request("webrtc: no key", "POST", "/v1/webrtc", "", _offer()),
    Request("webrtc: other scope", "POST", "/v1/webrtc", "predict", _offer()),
    Request("webrtc: over quota", "POST", "/v1/webrtc", "poor", _offer()),
    Request("webrtc: foreign page", "POST", "/v1/webrtc", "stream", _offer(), {"Origin": EVIL}),
    Request("webrtc: unknown version", "POST", "/v3/webrtc", "stream", _offer()),
    Request("webrtc: wrong method", "PUT", "/v1/webrtc", "stream"),
    Request("webrtc: wrong type of body", "POST", "/v1/webrtc", "stream", _sdp()),
    Request("webrtc: not JSON", "POST", "/v1/webrtc", "stream", text_body("half", "{", "application/json")),
    Request("webrtc: a list", "POST", "/v1/webrtc", "stream", as_json("a list", [1])),
    Request("webrtc: no offer", "POST", "/v1/webrtc", "stream", as_json("an answer", {"type": "answer"})),
    Request("webrtc: no sdp", "POST", "/v1/webrtc", "stream", as_json("without sdp", {"type": "offer"})),
    Request("webrtc: nonsense", "POST", "/v1/webrtc", "stream", _offer("nonsense", "v=1")),
    Request("webrtc: VP9", "POST", "/v1/webrtc", "stream", _offer("offer of VP9", SDP_OF_VP9)),
    Request(
        "webrtc: too large", "POST", "/v1/webrtc", "stream", _offer("200 KB", "v=0\r\n" + "a=x\r\n" * 40_000)
    ),
    Request(
        "webrtc: wrong threshold",
        "POST",
        "/v1/webrtc",
        "stream",
        _offer("threshold 7", params={"conf_threshold": 7}),
    ),
    Request(
        "webrtc: two streams", "POST", "/v1/webrtc", "stream", _offer("two", streams=[{"id": 0}, {"id": 1}])
    ),
    Request("webrtc: nothing to annotate", "POST", "/v1/webrtc", "stream", _offer("annotate", annotate=True)),
    Request("webrtc: annotate is a word", "POST", "/v1/webrtc", "stream", _offer("annotate", annotate="yes")),
    Request("webrtc: offer", "POST", "/v1/webrtc", "stream", _offer("offer, unknown field", treshold=1)),
    Request("webrtc: state", "GET", "/v1/webrtc/{webrtc}", "stream"),
    Request("webrtc: state, another key", "GET", "/v1/webrtc/{webrtc}", "all"),
    Request("webrtc: state, another kind", "GET", "/v1/whip/{webrtc}", "stream"),
    Request(
        "webrtc: candidates",
        "PATCH",
        "/v1/webrtc/{webrtc}",
        "stream",
        as_json(
            "candidates", {"candidates": [{"candidate": f"candidate:{_CANDIDATE}", "sdpMid": "0"}, None]}
        ),
    ),
    Request("webrtc: no candidates", "PATCH", "/v1/webrtc/{webrtc}", "stream", as_json("{}", {})),
    Request(
        "webrtc: malformed candidate",
        "PATCH",
        "/v1/webrtc/{webrtc}",
        "stream",
        as_json("nonsense", {"candidate": "nonsense"}),
    ),
    Request("webrtc: candidates, wrong type", "PATCH", "/v1/webrtc/{webrtc}", "stream", _fragment()),
    Request("webrtc: results", "GET", "/v1/webrtc/{webrtc}/results", "stream"),
    Request("webrtc: end, another key", "DELETE", "/v1/webrtc/{webrtc}", "all"),
    Request("webrtc: end", "DELETE", "/v1/webrtc/{webrtc}", "stream"),
    Request("webrtc: state after the end", "GET", "/v1/webrtc/{webrtc}", "stream"),
    Request("webrtc: candidates after the end", "PATCH", "/v1/webrtc/{webrtc}", "stream", as_json("{}", {})),
    Request("webrtc: results after the end", "GET", "/v1/webrtc/{webrtc}/results", "stream"),
    Request("webrtc: end again", "DELETE", "/v1/webrtc/{webrtc}", "stream"),
    *_of_unknown_sessions("webrtc"),
]
_ETAG = {"If-Match": "{etag}"}
_WHIP = [
    Request("whip: options", "OPTIONS", "/v1/whip", "stream"),
    Request("whip: options, no key", "OPTIONS", "/v1/whip"),
    Request("whip: preflight", "OPTIONS", "/v1/whip", headers=_PREFLIGHT),
    Request("whip: wrong method", "GET", "/v1/whip", "stream"),
    Request("whip: no key", "POST", "/v1/whip", "", _sdp()),
    Request("whip: over quota", "POST", "/v1/whip", "poor", _sdp()),
    Request("whip: unknown version", "POST", "/v3/whip", "stream", _sdp()),
    Request("whip: wrong type of body", "POST", "/v1/whip", "stream", text_body("text", "v=0", "text/plain")),
    Request("whip: VP9", "POST", "/v1/whip", "stream", _sdp("offer of VP9", SDP_OF_VP9)),
    Request("whip: too large", "POST", "/v1/whip", "stream", _sdp("100 KB", "v=0\r\n" + "a=x\r\n" * 20_000)),
    Request("whip: wrong threshold", "POST", "/v1/whip?conf_threshold=9", "stream", _sdp()),
    Request("whip: unknown parameter", "POST", "/v1/whip?unknown=9", "stream", _sdp()),
    Request("whip: offer", "POST", "/v2/whip?conf_threshold=0.5&name=gate", "stream", _sdp()),
    Request("whip: state", "GET", "/v2/whip/{whip}", "stream"),
    Request("whip: state, another version", "GET", "/v1/whip/{whip}", "stream"),
    Request("whip: candidates", "PATCH", "/v2/whip/{whip}", "stream", _fragment(), _ETAG),
    Request("whip: no tag", "PATCH", "/v2/whip/{whip}", "stream", _fragment()),
    Request("whip: wrong tag", "PATCH", "/v2/whip/{whip}", "stream", _fragment(), {"If-Match": '"x"'}),
    Request("whip: wrong type", "PATCH", "/v2/whip/{whip}", "stream", _fragment("x", "text/plain"), _ETAG),
    Request("whip: nonsense", "PATCH", "/v2/whip/{whip}", "stream", _fragment("nonsense"), _ETAG),
    Request(
        "whip: bad candidate", "PATCH", "/v2/whip/{whip}", "stream", _fragment("a=candidate:x\r\n"), _ETAG
    ),
    Request("whip: restart", "PATCH", "/v2/whip/{whip}", "stream", _fragment("a=ice-ufrag:other\r\n"), _ETAG),
    Request("whip: results", "GET", "/v2/whip/{whip}/results", "stream"),
    Request("whip: end", "DELETE", "/v2/whip/{whip}", "stream"),
    Request("whip: state after the end", "GET", "/v2/whip/{whip}", "stream"),
    Request("whip: end again", "DELETE", "/v2/whip/{whip}", "stream"),
    *_of_unknown_sessions("whip"),
]

REQUESTS = [*_WEBRTC, *_WHIP]
