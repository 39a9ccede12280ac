"""What the routes of WebRTC and WHIP share: who may, which session, and the answers they have in common."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from streamer.http.caller import identity_of
from streamer.http.problem_details import Problem
from streamer.http.sites import Sites
from streamer.replicas.session_router import SessionRouter
from streamer.webrtc.absolute_url import absolute_url
from streamer.webrtc.candidate import MAX_CANDIDATES, BadCandidate, usable, without_related
from streamer.webrtc.end_reason import Ending
from streamer.webrtc.peers import Peers
from streamer.webrtc.results import serve_results
from streamer.webrtc.sdp_offer import BadOffer, Offer, check_offer

if TYPE_CHECKING:
    from streamer.webrtc.peer_session import PeerSession


class Addressed(Protocol):
    """What a session's address says of it, beside its id, and whose it is."""

    @property
    def version(self) -> str:
        """Model version."""

    @property
    def transport(self) -> str:
        """`webrtc` or `whip`."""

    @property
    def owner(self) -> str:
        """`Identity.owner` of the client that made it."""


class Signalling:
    """The parts of both protocols that are the same."""

    def __init__(self, peers: Peers, sites: Sites, router: SessionRouter) -> None:
        self.peers = peers
        self.sites = sites
        self.router = router
        self.settings = peers.settings

    async def elsewhere(self, request: web.Request) -> web.StreamResponse | None:
        """Return the answer of the process that has the session of the address; None: it is here."""
        return await self.router.forward(request)

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
        """Return the absolute address of a session."""
        return absolute_url(request, f"/{session.version}/{session.transport}/{session.id}")

    def find(self, request: web.Request) -> PeerSession:
        """Return the session of the address. Raises Problem 410 when it has ended, 404 when it is unknown."""
        session = self.peers.get(request.match_info["session"])
        if session is not None and _is_meant(request, session):
            return session
        reason = self._recall(request)["reason"]["text"]
        raise Problem(410, "session_ended", f"The session has ended: {reason}.")

    def describe(self, request: web.Request) -> dict[str, Any]:
        """Return the state of a session, also of one that ended a moment ago. Raises Problem 404."""
        session = self.peers.get(request.match_info["session"])
        if session is not None and _is_meant(request, session):
            return session.describe()
        return self._recall(request)

    def end(self, request: web.Request) -> None:
        """End a session; one that ended a moment ago is fine. Raises Problem 404."""
        session = self.peers.get(request.match_info["session"])
        if session is not None and _is_meant(request, session):
            session.end(Ending.CLOSED)
        else:
            self._recall(request)

    def _recall(self, request: web.Request) -> dict[str, Any]:
        """Return the last state of an ended session. Raises Problem 404."""
        remembered = self.peers.recall(request.match_info["session"])
        if remembered is None or not _is_meant(request, remembered):
            raise Problem.not_found("There is no such session here; it may have ended a while ago.")
        return remembered.description

    async def add_candidates(self, session: PeerSession, candidates: list[str]) -> None:
        """Add candidates that came later, as far as they may be sent to. Raises Problem 400."""
        for candidate in candidates:
            try:
                good = usable(candidate, allow_private=self.settings.webrtc_private_candidates)
            except BadCandidate as error:
                raise Problem.bad_request(f"{error}.", "malformed_candidate") from error
            if good and session.candidates_used < MAX_CANDIDATES:
                session.candidates_used += 1
                await session.add_candidate(without_related(candidate))

    async def results(self, request: web.Request) -> web.StreamResponse:
        """``GET …/{session}/results``: server-sent events, or a WebSocket where an upgrade is asked for."""
        elsewhere = await self.elsewhere(request)
        if elsewhere is not None:
            return elsewhere
        return await serve_results(request, self.find(request))


def _is_meant(request: web.Request, session: Addressed) -> bool:
    """Whether the address is that session's own, and the client the one that made it."""
    address = (request.match_info["version"], request.match_info["kind"])
    mine = session.owner == identity_of(request).owner
    return mine and (session.version, session.transport) == address
