"""The WebRTC and WHIP routes in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from streamer.protocol.client_messages import Params, StreamOffer
from streamer.server.openapi.parts import problems, schema_of

_REFUSALS = {
    401: "A key is missing or wrong.",
    403: "The key has no scope `stream`, or pages of this origin may not open streams.",
    429: "Too many wrong keys came from this address.",
}
_OFFER_REFUSALS = _REFUSALS | {
    400: "Malformed SDP, or a wrong parameter; names what is wrong.",
    404: "No such model version.",
    408: "The body did not arrive in time.",
    413: "The SDP is too large.",
    415: "Another content type.",
    429: "The client is over its quota or its share, or too many wrong keys came from its address.",
    422: "An offer that cannot be answered: no codec that is taken (VP8, H.264), no video, not bundled.",
    503: "Warming up, shutting down, too many sessions, or no UDP port is left.",
}
_SESSION_REFUSALS = _REFUSALS | {
    404: "No such session.",
    410: "The session has ended; says why. Or its replica is gone.",
    503: "The worker of this session is being restarted.",
    504: "The worker or replica of this session does not answer.",
}


def video_paths(version: str) -> dict[str, Any]:
    """Return the paths of one model version."""
    session = [{"name": "session", "in": "path", "required": True, "schema": {"type": "string"}}]
    paths: dict[str, Any] = {
        f"/{version}/webrtc": {"get": _describe(version), "post": _json_offer(version)},
        f"/{version}/whip": {"post": _whip_offer(version)},
    }
    for kind, fragment in (("webrtc", "application/json"), ("whip", "application/trickle-ice-sdpfrag")):
        paths[f"/{version}/{kind}/{{session}}"] = {
            "parameters": session,
            "get": _operation(
                f"{kind}_state_{version}",
                "State of a session, and for a minute after its end: why it ended",
                {"200": _json("State."), **problems(_SESSION_REFUSALS)},
            ),
            "patch": _operation(
                f"{kind}_trickle_{version}",
                "Candidates that came after the offer",
                {"204": {"description": "Taken."}, **problems(_patch_refusals(kind))},
                requestBody={"required": True, "content": {fragment: {"schema": {}}}},
            ),
            "delete": _operation(
                f"{kind}_end_{version}",
                "End a session; again is fine",
                {
                    ("204" if kind == "webrtc" else "200"): {"description": "Ended."},
                    **problems(_SESSION_REFUSALS),
                },
            ),
        }
        paths[f"/{version}/{kind}/{{session}}/results"] = {
            "parameters": session,
            "get": _operation(
                f"{kind}_results_{version}",
                "Results as server-sent events, or on a WebSocket (upgrade)",
                {
                    "200": {
                        "description": "Messages of detect.v1; events are named by their `type`.",
                        "content": {"text/event-stream": {"schema": {"type": "string"}}},
                    },
                    **problems(_SESSION_REFUSALS),
                },
            ),
        }
    return paths


def _patch_refusals(kind: str) -> dict[int, str]:
    own = {412: "If-Match is not the session's ETag.", 428: "If-Match is missing."} if kind == "whip" else {}
    restart = {422: "An ICE restart; post a new offer."} if kind == "whip" else {}
    return _SESSION_REFUSALS | {400: "No candidate.", 415: "Another content type."} | own | restart


def _operation(
    name: str, summary: str, responses: dict[str, Any], description: str = "", **more: Any
) -> dict[str, Any]:
    operation = {"operationId": name, "tags": ["video"], "summary": summary, "responses": responses} | more
    return operation | ({"description": description} if description else {})


def _json(words: str) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": {"type": "object"}}}}


def _describe(version: str) -> dict[str, Any]:
    return _operation(
        f"webrtc_describe_{version}",
        "What a client needs before its offer: ICE servers with credentials, codecs, limits",
        {
            "200": _json("`ice_servers`, `codecs`, `limits`."),
            **problems(_REFUSALS | {404: _OFFER_REFUSALS[404]}),
        },
    )


def _json_offer(version: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["type", "sdp"],
        "properties": {
            "type": {"const": "offer"},
            "sdp": {"type": "string"},
            "params": schema_of(Params) | {"description": "As in `hello` of detect.v1."},
            "streams": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1,
                "items": schema_of(StreamOffer),
                "description": "One, as in `hello`: `name` and `collect` count.",
            },
            "annotate": {"type": "boolean", "description": "Send the video back with boxes (sendrecv)."},
        },
    }
    return _operation(
        f"webrtc_offer_{version}",
        "Send video over WebRTC; results on the client's data channels",
        {
            "201": _json("The answer: `type`, `sdp`, `session`, `url`, `results`."),
            **problems(_OFFER_REFUSALS),
        },
        "The client makes the data channels `results` and `control`. See docs/webrtc.md.",
        requestBody={"required": True, "content": {"application/json": {"schema": schema}}},
    )


def _whip_offer(version: str) -> dict[str, Any]:
    sdp = {"application/sdp": {"schema": {"type": "string"}}}
    return _operation(
        f"whip_offer_{version}",
        "Send video by WHIP (RFC 9725)",
        {
            "201": {
                "description": "The answer; `Location` is the session, `Link` names ICE servers and results.",
                "content": sdp,
            },
            **problems(_OFFER_REFUSALS),
        },
        "Parameters as of predict in the query. Results come from the `Link` with rel=results.",
        requestBody={"required": True, "content": sdp},
    )
