"""Serves ``/v1/whip``: ingest by WHIP (RFC 9725) from OBS, GStreamer, ffmpeg and pages without our script."""

from __future__ import annotations

from aiohttp import hdrs, web

from streamer.access.identity import Scope
from streamer.http.caller import identity_of, require
from streamer.http.origins import is_preflight, preflight_headers
from streamer.http.problem_details import Problem
from streamer.http.version_split import version_of
from streamer.predict.parameters import read_collect, read_name, read_parameters
from streamer.protocol.client_messages import Params
from streamer.webrtc.candidate import MAX_FRAGMENT_BYTES, BadFragment, IceRestartRequested, read_fragment
from streamer.webrtc.sdp_offer import MAX_SDP_BYTES, SessionOptions
from streamer.webrtc.signalling import Signalling, read_text

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
ENDPOINT_METHODS = "POST, OPTIONS"
SESSION_METHODS = "GET, PATCH, DELETE, OPTIONS"


class WhipRoutes:
    """Handlers of the WHIP endpoint and of its sessions."""

    def __init__(self, signalling: Signalling) -> None:
        self._signalling = signalling

    def add_to(self, app: web.Application) -> None:
        """Add the routes. Other methods get 405, as the RFC requires."""
        base, chosen = "/{version:v[0-9]+}/{kind:whip}", "/{kind:whip}"
        for path, method, handler in (
            (chosen, "POST", self.offer),
            (chosen, "OPTIONS", self.endpoint_options),
            (base, "POST", self.offer),
            (base, "OPTIONS", self.endpoint_options),
            (base + "/{session}", "GET", self.state),
            (base + "/{session}", "PATCH", self.trickle),
            (base + "/{session}", "DELETE", self.delete),
            (base + "/{session}", "OPTIONS", self.session_options),
            (base + "/{session}/results", "GET", self._signalling.results),
            (base + "/{session}/results", "OPTIONS", self.session_options),
        ):
            app.router.add_route(method, path, handler)

    async def endpoint_options(self, request: web.Request) -> web.Response:
        """Return the accepted content type and the ICE servers (RFC 9725 sections 4.2 and 4.6)."""
        signalling = self._signalling
        response = web.Response(
            status=204,
            headers={"Allow": ENDPOINT_METHODS, "Accept-Post": SDP}
            | preflight_headers(request, signalling.origin_policy, ENDPOINT_METHODS),
        )
        if not is_preflight(request):  # only clients that may stream get TURN credentials
            require(identity_of(request), Scope.STREAM)
            for link in signalling.links():
                response.headers.add(hdrs.LINK, link)
        return response

    async def session_options(self, request: web.Request) -> web.Response:
        """Answer a preflight request of a session's address."""
        return web.Response(
            status=204,
            headers={"Allow": SESSION_METHODS, "Accept-Patch": FRAGMENT}
            | preflight_headers(request, self._signalling.origin_policy, SESSION_METHODS),
        )

    async def offer(self, request: web.Request) -> web.Response:
        """Answer an offer with 201 and the session's URL. The query may set parameters of ``/predict``."""
        signalling = self._signalling
        version = version_of(request)
        model = signalling.peers.dispatcher.model(version)
        query = tuple(request.query.items())
        name, collect = read_name(query), read_collect(query)
        asked = tuple(pair for pair in query if pair[0] != "name")
        wanted = read_parameters(asked, model.labels, model.default_params)
        params = Params(
            conf_threshold=wanted.conf_threshold,
            iou_threshold=wanted.iou_threshold,
            max_detections=wanted.max_detections,
            classes=list(wanted.class_ids) or None,
            agnostic_nms=wanted.agnostic_nms,
        )
        sdp = await read_text(request, SDP, MAX_SDP_BYTES, signalling.settings.body_timeout_s)
        offer = signalling.read_offer(sdp)
        options = SessionOptions(params, name=name, collect=collect)
        session, answer = await signalling.peers.create(version, offer, "whip", options, identity_of(request))
        session.ufrag = _ufrag(sdp)
        url = signalling.session_url(request, session)
        response = web.Response(
            status=201,
            body=answer.encode(),
            content_type=SDP,
            headers={
                "Location": url,
                "ETag": session.etag,
                "Accept-Patch": FRAGMENT,
                "Cache-Control": "no-store",
            },
        )
        for link in signalling.links():
            response.headers.add(hdrs.LINK, link)
        response.headers.add(hdrs.LINK, f'<{url}/results>; rel="results"; type="text/event-stream"')
        return response

    async def state(self, request: web.Request) -> web.StreamResponse:
        """Return the state of the connection and, for a minute after its end, why it ended."""
        signalling = self._signalling
        forwarded = await signalling.router.forward(request)
        if forwarded is not None:
            return forwarded
        return web.json_response(signalling.describe(request), headers={"Cache-Control": "no-store"})

    async def trickle(self, request: web.Request) -> web.StreamResponse:
        """Add candidates that arrive after the offer (RFC 9725 section 4.3)."""
        signalling = self._signalling
        forwarded = await signalling.router.forward(request)
        if forwarded is not None:
            return forwarded
        session = signalling.find(request)
        text = await read_text(request, FRAGMENT, MAX_FRAGMENT_BYTES, signalling.settings.body_timeout_s)
        expected = request.headers.get(hdrs.IF_MATCH)
        if expected is None:
            raise Problem(428, "precondition_required", "PATCH wants If-Match with the session's ETag.")
        if expected not in (session.etag, "*"):
            raise Problem(
                412, "precondition_failed", f"If-Match is {expected[:80]}; the ETag is another one."
            )
        try:
            candidates = read_fragment(text, session.ufrag)
        except BadFragment as error:
            raise Problem.bad_request(f"The fragment is malformed: {error}.") from error
        except IceRestartRequested as error:
            raise Problem(
                422, "no_ice_restart", "ICE is not restarted here; DELETE this session and POST a new offer."
            ) from error
        await signalling.add_candidates(session, candidates)
        return web.Response(status=204)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """End a session. Repeated requests succeed for a minute."""
        signalling = self._signalling
        forwarded = await signalling.router.forward(request)
        if forwarded is not None:
            return forwarded
        signalling.end(request)
        return web.Response(status=200)


def _ufrag(sdp: str) -> str:
    """Return the first ice-ufrag of a checked offer."""
    lines = (line.strip() for line in sdp.split("\n"))
    return next((line[len("a=ice-ufrag:") :] for line in lines if line.startswith("a=ice-ufrag:")), "")
