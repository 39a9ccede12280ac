"""Serves ``/v1/webrtc``, where offer and answer are JSON, and adds WebRTC to an application."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field, ValidationError
from typing_extensions import TypedDict

from streamer.config.network_settings import IceServer
from streamer.config.replica_addresses import HOP_HEADER
from streamer.http.caller import identity_of
from streamer.http.origins import OriginPolicy, preflight_headers
from streamer.http.problem_details import Problem
from streamer.http.version_split import version_of
from streamer.protocol.client_messages import Hello, Part, parse_message
from streamer.protocol.message_values import check_values
from streamer.protocol.server_messages import SessionDescription
from streamer.protocol.wire import ProtocolError
from streamer.replicas.session_router import SessionRouter
from streamer.scheduling.errors import Saturated
from streamer.streams.session_control import CONTROL_MAX_VALUES
from streamer.webrtc.candidate import MAX_CANDIDATES, MAX_FRAGMENT_BYTES, BadFragment, read_candidates
from streamer.webrtc.peers import Peers
from streamer.webrtc.sdp_offer import CODECS_TAKEN, MAX_SDP_BYTES, SessionOptions
from streamer.webrtc.signalling import Signalling, read_json
from streamer.webrtc.whip import WhipRoutes

METHODS = "GET, POST, PATCH, DELETE, OPTIONS"


#: Allowed values of the fields of `OfferHead`, as errors name them.
_ALLOWED = {"type": "offer", "sdp": "the offer's SDP as text", "annotate": "true or false"}
#: Fields of `hello` that an offer does not have: its key is in a header, and no session is resumed.
NOT_IN_OFFERS = ("token", "resume")
#: A session sends one video.
MAX_VIDEO_STREAMS = 1


class OfferHead(Part):
    """The fields of an offer beside those that it has in common with `hello` of detect.v1."""

    type: Literal["offer"] = Field(description="As in `RTCSessionDescription`.")
    sdp: str = Field(min_length=1, description="The offer's SDP, as in `RTCSessionDescription`.")
    annotate: bool = Field(
        False,
        description="Whether to send the video back with boxes drawn; the offer must be `sendrecv`.",
    )


class VideoLimits(TypedDict):
    """Limits of a session."""

    sdp_bytes: Annotated[int, Field(description="Most bytes of an offer's SDP.")]
    candidates: Annotated[int, Field(description="Number of a client's ICE candidates that are used.")]
    connect_s: Annotated[float, Field(description="Seconds in which the session must be connected.")]
    media_s: Annotated[float, Field(description="Seconds without video after which the session ends.")]


class VideoDescription(TypedDict):
    """What a client needs before it makes an offer."""

    ice_servers: Annotated[
        list[IceServer], Field(description="STUN and TURN servers for `RTCPeerConnection`, with credentials.")
    ]
    codecs: Annotated[str, Field(description="The video codecs that are accepted, in words.")]
    limits: VideoLimits


class OfferAnswer(SessionDescription):
    """The answer to an offer, and where the new session is found."""

    type: Annotated[Literal["answer"], Field(description="As in `RTCSessionDescription`.")]
    sdp: Annotated[str, Field(description="The answer's SDP, as in `RTCSessionDescription`.")]
    url: Annotated[str, Field(description="URL of the session.")]
    results: Annotated[str, Field(description="URL from which results can be read.")]
    ice_servers: Annotated[
        list[IceServer], Field(description="STUN and TURN servers for `RTCPeerConnection`, with credentials.")
    ]
    candidates_left_out: Annotated[
        int, Field(description="Number of ICE candidates of the offer to which the server does not send.")
    ]
    ignored: Annotated[
        list[str], Field(description="Fields of the request that are not known and were ignored.")
    ]


class JsonRoutes:
    """Handlers of the JSON protocol."""

    def __init__(self, signalling: Signalling) -> None:
        self._signalling = signalling

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        base, chosen = "/{version:v[0-9]+}/{kind:webrtc}", "/{kind:webrtc}"
        for path, method, handler in (
            (chosen, "GET", self.describe),
            (chosen, "POST", self.offer),
            (chosen, "OPTIONS", self.options),
            (base, "GET", self.describe),
            (base, "POST", self.offer),
            (base, "OPTIONS", self.options),
            (base + "/{session}", "GET", self.state),
            (base + "/{session}", "PATCH", self.trickle),
            (base + "/{session}", "DELETE", self.delete),
            (base + "/{session}", "OPTIONS", self.options),
            (base + "/{session}/results", "GET", self._signalling.results),
            (base + "/{session}/results", "OPTIONS", self.options),
        ):
            app.router.add_route(method, path, handler)

    async def options(self, request: web.Request) -> web.Response:
        """Answer a preflight request."""
        return web.Response(
            status=204,
            headers={"Allow": METHODS} | preflight_headers(request, self._signalling.origin_policy, METHODS),
        )

    async def describe(self, request: web.Request) -> web.Response:
        """Return what a client needs before its offer: ICE servers, codecs, limits."""
        signalling = self._signalling
        signalling.peers.dispatcher.served(version_of(request))
        settings = signalling.settings
        description: VideoDescription = {
            "ice_servers": self._ice_servers(),
            "codecs": CODECS_TAKEN,
            "limits": {
                "sdp_bytes": MAX_SDP_BYTES,
                "candidates": MAX_CANDIDATES,
                "connect_s": settings.webrtc_connect_timeout_s,
                "media_s": settings.webrtc_media_timeout_s,
            },
        }
        return _json(description)

    async def offer(self, request: web.Request) -> web.Response:
        """Answer an offer: ``{"type": "offer", "sdp": …, "params": {…}, "streams": […], "annotate": …}``."""
        signalling = self._signalling
        version = version_of(request)
        signalling.peers.dispatcher.served(version)
        # Twice the limit, because JSON escapes every line end.
        body = await read_json(request, 2 * MAX_SDP_BYTES, signalling.settings.body_timeout_s)
        head, hello = _read(body)
        offer = signalling.read_offer(head.sdp)
        (stream,) = hello.streams
        options = SessionOptions(hello.params, head.annotate, stream.name, hello.collect and stream.collect)
        if head.annotate and not offer.wants_video:
            raise Problem.invalid_parameter("annotate", "true", "true where the offer's video is sendrecv")
        passed_on = await signalling.pass_on(request, body, refused=False)
        if passed_on is not None:
            return passed_on
        try:
            session, answer = await signalling.peers.create(
                version, offer, "webrtc", options, identity_of(request)
            )
        except ProtocolError as error:
            raise _bad_field(error) from error
        except Saturated:
            passed_on = await signalling.pass_on(request, body, refused=True)
            if passed_on is None:
                raise
            return passed_on
        if HOP_HEADER in request.headers:
            session.moved_at = time.monotonic()
        url = signalling.session_url(request, session)
        answered: OfferAnswer = {
            "type": "answer",
            "sdp": answer,
            "url": url,
            "results": f"{url}/results",
            "ice_servers": self._ice_servers(),
            "candidates_left_out": offer.candidates_left_out,
            "ignored": hello.unknown_fields(),
            **session.describe_session(),
        }
        return _json(answered, status=201, headers={"Location": url, "ETag": session.etag})

    async def state(self, request: web.Request) -> web.StreamResponse:
        """Return the state of the connection and, for a minute after its end, why it ended."""
        signalling = self._signalling
        forwarded = await signalling.router.forward(request)
        if forwarded is not None:
            return forwarded
        return _json(signalling.describe(request))

    async def trickle(self, request: web.Request) -> web.StreamResponse:
        """Add candidates that arrive after the offer."""
        signalling = self._signalling
        forwarded = await signalling.router.forward(request)
        if forwarded is not None:
            return forwarded
        session = signalling.find(request)
        body = await read_json(request, MAX_FRAGMENT_BYTES, signalling.settings.body_timeout_s)
        try:
            candidates = read_candidates(body)
        except BadFragment as error:
            raise Problem.bad_request(f"{error}.", "malformed_candidate") from error
        await signalling.add_candidates(session, candidates)
        return web.Response(status=204)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """End a session. Repeated requests succeed for a minute."""
        signalling = self._signalling
        forwarded = await signalling.router.forward(request)
        if forwarded is not None:
            return forwarded
        signalling.end(request)
        return web.Response(status=204)

    def _ice_servers(self) -> list[IceServer]:
        return self._signalling.peers.ice_servers.describe(secrets.token_hex(4), time.time())


def _read(body: object) -> tuple[OfferHead, Hello]:
    """Return the two parts of an offer. Raises Problem, which names the wrong field."""
    if not isinstance(body, dict):
        raise Problem.bad_request(
            f"The body is a {type(body).__name__}; expected a map with `type` and `sdp`."
        )
    try:
        head = OfferHead.model_validate({name: body[name] for name in _ALLOWED if name in body})
    except ValidationError as error:
        name = str(error.errors(include_url=False)[0]["loc"][0])
        raise Problem.invalid_parameter(name, str(body.get(name)), _ALLOWED[name]) from error
    others = ("sdp", "annotate", *NOT_IN_OFFERS)
    rest = {name: value for name, value in body.items() if name not in others}
    try:
        check_values(rest, CONTROL_MAX_VALUES)
        hello = parse_message({**rest, "type": "hello"})
    except ProtocolError as error:
        raise _bad_field(error) from error
    if not isinstance(hello, Hello):
        raise TypeError("parsed as hello, and is none")
    if len(hello.streams) > MAX_VIDEO_STREAMS:
        raise Problem.invalid_parameter("streams", f"{len(hello.streams)} streams", "one: that of the video")
    return head, hello


def _bad_field(error: ProtocolError) -> Problem:
    return Problem.bad_request(f"{error}.", "invalid_parameter", field=error.field)


def _json(
    body: Mapping[str, object], status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.json_response(body, status=status, headers={"Cache-Control": "no-store"} | (headers or {}))


@dataclass(frozen=True, slots=True)
class Webrtc:
    """Starts and closes WebRTC in one worker."""

    peers: Peers

    async def lifetime(self, _app: web.Application) -> AsyncIterator[None]:
        """Start the sessions when the application starts, and close them when it ends."""
        await self.peers.start()
        yield
        await self.peers.close()


def add_webrtc(
    app: web.Application, peers: Peers, origin_policy: OriginPolicy, router: SessionRouter
) -> Webrtc:
    """Add the routes of WebRTC and WHIP to ``app``; return what to start and close with it."""
    signalling = Signalling(peers, origin_policy, router)
    JsonRoutes(signalling).add_to(app)
    WhipRoutes(signalling).add_to(app)
    return Webrtc(peers)
