"""Describes the WebRTC and WHIP routes in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from streamer.protocol.client_messages import ClientInfo, Hello, Params, StreamOffer
from streamer.server.openapi.components import (
    Components,
    answer,
    field_schema,
    operation,
    schema_of,
    version_header,
)
from streamer.server.openapi.predict import SPLIT_PARAMETERS, query_parameters
from streamer.webrtc.candidate import TrickledCandidates
from streamer.webrtc.routes import (
    MAX_VIDEO_STREAMS,
    NOT_IN_OFFERS,
    OfferAnswer,
    OfferHead,
    VideoDescription,
)
from streamer.webrtc.session_state import SessionState
from streamer.webrtc.whip import FRAGMENT, SDP

_ENDPOINT = "/{version}/{kind}"
#: The endpoint for which the service chooses the version; its sessions have addresses with the version.
_CHOSEN_ENDPOINT = "/{kind}"
_SESSION = "/{version}/{kind}/{session}"
_UNKNOWN_VERSION = {404: "There is no such model version."}
_OFFER_REFUSALS = _UNKNOWN_VERSION | {
    400: "The SDP is malformed, or a parameter is unknown or out of range; `field` names it.",
    408: "The body did not arrive in time.",
    413: "The SDP is too large.",
    415: "The request has another content type than the one below, or a `Content-Encoding`.",
    422: "The offer cannot be answered: it has no video or no codec that the service accepts (VP8 or H.264), "
    "or its media are not bundled.",
    429: "The client has reached its quota, or its share of the service while others are served.",
    503: "The service is warming up or shutting down, it has too many sessions, or no UDP port is left.",
}
_SESSION_REFUSALS = {
    404: "There is no such session.",
    503: "The worker of this session is being restarted.",
    504: "The worker or the replica of this session does not answer.",
}
_STATE_REFUSALS = _SESSION_REFUSALS | {410: "The replica of this session is gone, and the session with it."}
_RESULT_REFUSALS = _SESSION_REFUSALS | {
    410: "The session has ended, or its replica is gone; `detail` says why.",
    503: "The worker of this session is being restarted, or too many clients read its results.",
}
_TRICKLE_REFUSALS = _SESSION_REFUSALS | {
    400: "The body has no candidates, or malformed ones.",
    408: "The body did not arrive in time.",
    410: "The session has ended, or its replica is gone; `detail` says why.",
    413: "The body is too large.",
    415: "The request has another content type than the one below, or a `Content-Encoding`.",
}
_WHIP_TRICKLE_REFUSALS = _TRICKLE_REFUSALS | {
    412: "`If-Match` is not the `ETag` of the session.",
    422: "The fragment asks for an ICE restart, which the service does not do; post a new offer.",
    428: "`If-Match` is missing.",
}
_SESSION_PARAMETER = {
    "name": "session",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The id of the session, as in the URL that the answer to the offer names.",
}
_IF_MATCH_PARAMETER = {
    "name": "If-Match",
    "in": "header",
    # It is not `required` here, because the service answers requests without it, too, with 428.
    "required": False,
    "schema": {"type": "string"},
    "description": "The `ETag` of the session, or `*`.",
}
_OFFER_WORDS = (
    "The client makes the data channels `results` and `control` and gets its results there. docs/webrtc.md "
    "describes them."
)
_WHIP_WORDS = (
    "The body is the SDP of the offer. The client reads its results from the `Link` with `rel=results` of "
    "the answer."
)


def video_paths(components: Components, version: str | None) -> dict[str, Any]:
    """Return the paths of one model version, or with None those for which the service chooses it."""
    prefix = f"/{version}" if version else ""
    paths: dict[str, Any] = {
        f"{prefix}/webrtc": {
            "get": _describe(components, version),
            "post": _json_offer(components, version),
        },
        f"{prefix}/whip": {"post": _whip_offer(components, version)},
    }
    if version is None:
        return paths
    for kind in ("webrtc", "whip"):
        path = f"/{version}/{kind}/{{session}}"
        paths[path] = {
            "parameters": [_SESSION_PARAMETER],
            "get": _state(components, kind, version),
            "patch": _trickle(components, kind, version),
            "delete": _end(components, kind, version),
        }
        paths[f"{path}/results"] = {
            "parameters": [_SESSION_PARAMETER],
            "get": _results(components, kind, version),
        }
    return paths


def _describe(components: Components, version: str | None) -> dict[str, Any]:
    return operation(
        f"webrtc_describe_{version or 'any'}",
        "video",
        "What a client needs before its offer: ICE servers with credentials, codecs, limits",
        {
            "200": answer(
                "ICE servers, codecs and limits.", components.json(VideoDescription), versioned=True
            ),
            **components.refusals("GET", _endpoint(version), _UNKNOWN_VERSION),
        },
        parameters=[] if version else SPLIT_PARAMETERS,
    )


def _endpoint(version: str | None) -> str:
    return _ENDPOINT if version else _CHOSEN_ENDPOINT


def _json_offer(components: Components, version: str | None) -> dict[str, Any]:
    head = schema_of(OfferHead)
    common = {
        name: field_schema(Hello, name)
        for name in Hello.model_fields
        if name not in (*head["properties"], *NOT_IN_OFFERS)
    }
    common["client"] = schema_of(ClientInfo) | {"description": "What sends the offer, for the log."}
    common["params"] = schema_of(Params) | {"description": "The parameters of the detections."}
    common["streams"] = {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_VIDEO_STREAMS,
        "items": schema_of(StreamOffer),
        "description": "The stream of the video, of which only `name` and `collect` have an effect.",
    }
    schema = head | {"properties": head["properties"] | common}
    headers = {"Location": "The URL of the session.", "ETag": "The version of the session's network path."}
    return operation(
        f"webrtc_offer_{version or 'any'}",
        "video",
        "Send video over WebRTC and get the results on data channels",
        {
            "201": answer(
                "The answer to the offer.", components.json(OfferAnswer), versioned=True, **headers
            ),
            **components.refusals("POST", _endpoint(version), _OFFER_REFUSALS),
        },
        description=_OFFER_WORDS,
        parameters=[] if version else SPLIT_PARAMETERS,
        requestBody={"required": True, "content": {"application/json": {"schema": schema}}},
    )


def _whip_offer(components: Components, version: str | None) -> dict[str, Any]:
    sdp = {SDP: {"schema": {"type": "string"}}}
    headers = {
        "Location": "The URL of the session.",
        "ETag": "The version of the session's network path, for `If-Match`.",
        "Link": "The ICE servers (`rel=ice-server`) and the results (`rel=results`).",
        "Accept-Patch": "The content type of candidates that are sent later.",
    }
    name = field_schema(StreamOffer, "name")
    return operation(
        f"whip_offer_{version or 'any'}",
        "video",
        "Send video by WHIP (RFC 9725)",
        {
            "201": answer("The SDP of the answer.", sdp, versioned=True, **headers),
            **components.refusals("POST", _endpoint(version), _OFFER_REFUSALS),
        },
        description=_WHIP_WORDS,
        parameters=[
            *query_parameters(),
            {
                "name": "name",
                "in": "query",
                "required": False,
                "schema": name,
                "description": name["description"],
            },
            *([] if version else SPLIT_PARAMETERS),
        ],
        requestBody={"required": True, "content": sdp},
    )


def _state(components: Components, kind: str, version: str) -> dict[str, Any]:
    return operation(
        f"{kind}_state_{version}",
        "video",
        "The state of a session and, for a minute after its end, why it ended",
        {
            "200": answer("The state of the session.", components.json(SessionState), versioned=True),
            **components.refusals("GET", _SESSION, _STATE_REFUSALS),
        },
    )


def _trickle(components: Components, kind: str, version: str) -> dict[str, Any]:
    whip = kind == "whip"
    fragment = {FRAGMENT: {"schema": {"type": "string"}}}
    refusals = _WHIP_TRICKLE_REFUSALS if whip else _TRICKLE_REFUSALS
    return operation(
        f"{kind}_trickle_{version}",
        "video",
        "Send ICE candidates that were found after the offer",
        {
            "204": answer("The service has accepted the candidates.", versioned=True),
            **components.refusals("PATCH", _SESSION, refusals),
        },
        parameters=[_IF_MATCH_PARAMETER] if whip else [],
        requestBody={
            "required": True,
            "content": fragment if whip else components.json(TrickledCandidates),
        },
    )


def _end(components: Components, kind: str, version: str) -> dict[str, Any]:
    return operation(
        f"{kind}_end_{version}",
        "video",
        "End a session; for a minute, repeated requests succeed too",
        {
            ("200" if kind == "whip" else "204"): answer("The session has ended.", versioned=True),
            **components.refusals("DELETE", _SESSION, _STATE_REFUSALS),
        },
    )


def _results(components: Components, kind: str, version: str) -> dict[str, Any]:
    return operation(
        f"{kind}_results_{version}",
        "video",
        "The results as server-sent events or, after an upgrade, on a WebSocket",
        {
            "101": {
                "description": "Switching Protocols. The WebSocket is open; the server sends messages.",
                "headers": version_header(),
            },
            "200": {
                "description": "Messages of detect.v1; events have the name of their `type`.",
                "headers": version_header(),
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **components.refusals("GET", f"{_SESSION}/results", _RESULT_REFUSALS),
        },
    )
