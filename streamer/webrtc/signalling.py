"""Holds what the routes of WebRTC and WHIP share: access to sessions, request bodies, addresses, answers."""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import hdrs, web

from streamer.config.replica_addresses import HOP_HEADER
from streamer.http.body import BodyReader, hold_body, media_type
from streamer.http.caller import identity_of
from streamer.http.origins import OriginPolicy
from streamer.http.path_prefix import absolute_url
from streamer.http.problem_details import Problem
from streamer.replicas.session_router import SessionRouter
from streamer.webrtc.candidate import MAX_CANDIDATES, BadCandidate, usable, without_related
from streamer.webrtc.end_reason import EndReason
from streamer.webrtc.peers import Peers
from streamer.webrtc.results import serve_results
from streamer.webrtc.sdp_offer import BadOffer, Offer, check_offer
from streamer.webrtc.session_state import SessionState

if TYPE_CHECKING:
    from streamer.webrtc.peer_session import PeerSession


class SessionAddress(Protocol):
    """Says what identifies a session beside its id: the rest of its address, and its owner."""

    @property
    def version(self) -> str:
        """Model version."""

    @property
    def transport(self) -> str:
        """`webrtc` or `whip`."""

    @property
    def owner(self) -> str:
        """`Identity.owner` of the client that created it."""


class Signalling:
    """Does what both protocols have in common."""

    def __init__(self, peers: Peers, origin_policy: OriginPolicy, router: SessionRouter) -> None:
        self.peers = peers
        self.origin_policy = origin_policy
        self.router = router
        self.settings = peers.settings

    def read_offer(self, sdp: str) -> Offer:
        """Check an offer. Raises Problem 400, 413 or 422."""
        try:
            return check_offer(sdp, allow_private=self.settings.webrtc_private_candidates)
        except BadOffer as error:
            raise Problem(error.status, error.code, str(error)) from error

    def links(self) -> list[str]:
        """Return `Link` headers of the ICE servers."""
        return self.peers.ice_servers.links(secrets.token_hex(4), time.time())

    def session_url(self, request: web.Request, session: PeerSession) -> str:
        """Return the absolute URL of a session."""
        return absolute_url(request, f"/{session.version}/{session.transport}/{session.id}")

    def find(self, request: web.Request) -> PeerSession:
        """Return the session of a request. Raises Problem 410 when it has ended, 404 when it is unknown."""
        session = self.peers.get(request.match_info["session"])
        if session is not None and _is_addressed(request, session):
            return session
        reason = self._describe_ended(request)["reason"]["text"]
        raise Problem(410, "session_ended", f"The session has ended: {reason}.")

    def describe(self, request: web.Request) -> SessionState:
        """Return the state of a session that runs or has ended recently. Raises Problem 404 for any other."""
        session = self.peers.get(request.match_info["session"])
        if session is not None and _is_addressed(request, session):
            return session.describe()
        return self._describe_ended(request)

    def end(self, request: web.Request) -> None:
        """End a session unless it has ended recently. Raises Problem 404 when it is unknown."""
        session = self.peers.get(request.match_info["session"])
        if session is not None and _is_addressed(request, session):
            session.end(EndReason.CLOSED)
        else:
            self._describe_ended(request)

    def _describe_ended(self, request: web.Request) -> SessionState:
        """Return the last state of an ended session. Raises Problem 404."""
        ended = self.peers.get_ended(request.match_info["session"])
        if ended is None or not _is_addressed(request, ended):
            raise Problem.not_found("There is no such session here; it may have ended a while ago.")
        return ended.description

    async def add_candidates(self, session: PeerSession, candidates: list[str]) -> None:
        """Add those candidates of a client that we may send to. Raises Problem 400 for a malformed one."""
        for candidate in candidates:
            try:
                good = usable(candidate, allow_private=self.settings.webrtc_private_candidates)
            except BadCandidate as error:
                raise Problem.bad_request(f"{error}.", "malformed_candidate") from error
            if good and session.candidates_used < MAX_CANDIDATES:
                session.candidates_used += 1
                await session.add_candidate(without_related(candidate))

    async def pass_on(self, request: web.Request, offer: object, *, refused: bool) -> web.Response | None:
        """Return the answer of another replica to an offer; None if the session belongs here.

        An offer is passed on while this replica moves streams away, or if it has ``refused`` the offer.
        """
        rebalancer = self.peers.rebalancer
        if rebalancer is None or HOP_HEADER in request.headers:
            return None
        name = rebalancer.place() if refused else rebalancer.place_while_moving()
        if name is None:
            return None
        answer = await self.router.post_elsewhere(name, request, json.dumps(offer).encode())
        if answer is None:
            rebalancer.refused(name)
        return answer

    async def results(self, request: web.Request) -> web.StreamResponse:
        """Serve ``GET …/{session}/results``: a WebSocket for an upgrade, server-sent events otherwise."""
        forwarded = await self.router.forward(request)
        if forwarded is not None:
            return forwarded
        return await serve_results(request, self.find(request))


def _is_addressed(request: web.Request, session: SessionAddress) -> bool:
    """Return whether the request names the session by its full address and comes from its owner."""
    address = (request.match_info["version"], request.match_info["kind"])
    mine = session.owner == identity_of(request).owner
    return mine and (session.version, session.transport) == address


async def read_text(request: web.Request, content_type: str, limit_bytes: int, limit_s: float) -> str:
    """Return the body as text. Raises Problem 408, 413, 415 or 503, or 400 when it is not UTF-8."""
    if media_type(request) != content_type:
        raise Problem.unsupported_media(
            f"Content-Type is {request.headers.get(hdrs.CONTENT_TYPE, '')[:80]!r}; allowed is {content_type}."
        )
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
        raise Problem.unsupported_media("Content-Encoding is not taken here.")
    with hold_body(request) as holding:
        body = await BodyReader(request, holding, most_bytes=limit_bytes, limit_s=limit_s).read_all()
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Problem.bad_request(f"The body is not UTF-8: {error}.") from error


async def read_json(request: web.Request, limit_bytes: int, limit_s: float) -> Any:
    """Return the body as JSON. Raises Problem as :func:`read_text`, or 400."""
    text = await read_text(request, "application/json", limit_bytes, limit_s)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem.bad_request(f"The body is not JSON: {str(error)[:120]}.") from error
