"""Checks host, origin and key of every request against the route table, in a middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from streamer.access.failed_keys import TooManyWrongKeys
from streamer.access.identity import Identity, audit, audit_refusal
from streamer.http.authentication import Authenticator, bearer_token
from streamer.http.caller import IDENTITY, arrived_from_sibling, is_local, require
from streamer.http.origins import OriginPolicy, cors_headers, is_preflight, preflight_headers, vary_by_origin
from streamer.http.problem_details import Problem, request_id
from streamer.http.route_policy import Entry, Policy, policy_of_request
from streamer.http.tickets import SHOWED_TICKET, is_ticket, offered_ticket

#: Query parameters in which clients commonly send keys, which then leak into logs and browser history.
_KEY_PARAMETERS = {
    *("access_token", "api-key", "api_key", "apikey", "auth", "authorization", "bearer", "jwt", "key"),
    *("password", "secret", "ticket", "token"),
}


#: Status in the audit log of a request that was cancelled without an answer, because its client went away.
_UNANSWERED = 0
#: At most this many values of one query are compared with the keys. Nobody sends more by mistake, and each
#: comparison takes time.
_VALUES_COMPARED = 64


class Guard:
    """Applies the route table to every request: host, origin, key and scope."""

    def __init__(
        self,
        authenticator: Authenticator,
        origin_policy: OriginPolicy,
        is_replica: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        """``is_replica`` returns whether an IP address is that of a replica of this release."""
        self._authenticator = authenticator
        self._origin_policy = origin_policy
        self._is_replica = is_replica
        #: Cache of policies by method and route; a lookup in the route table takes twice as many calls.
        self._policies: dict[tuple[str, web.AbstractRoute], Policy | None] = {}

    def add_to(self, app: web.Application) -> None:
        """Check every request of ``app``, and add CORS headers to its answers."""
        app.middlewares.append(self._middleware())
        app.on_response_prepare.append(self._add_cors_headers)

    def _middleware(self) -> Middleware:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                policy = self._policy(request)
            except LookupError:  # the handler answers 404 or 405, which reveal nothing internal
                self._check_host(request)
                return self._answer_preflight(request) or await handler(request)
            if policy is None:
                raise Problem.forbidden(
                    "This address has no entry in the table of access; nobody may use it."
                )
            if policy.entry is not Entry.PROBE:
                self._check_host(request)
            if request.query_string:
                self._check_query(request)
            if policy.entry in (Entry.PROBE, Entry.OPEN):
                return await handler(request)
            if policy.entry is Entry.REPLICA:
                await self._check_replica(request)
                return await handler(request)
            if policy.guards_origin:
                self._check_origin(request)
            if policy.is_audited:
                return await self._answer_audited(request, handler, policy)
            await self._identify(request, policy)
            return await handler(request)

        return guard

    def _policy(self, request: web.Request) -> Policy | None:
        """Return the policy of a request's route. Raises LookupError if the router found no route."""
        match = request.match_info
        if match.http_exception is not None:  # aiohttp made this route for the one request: do not cache it
            raise LookupError(request.path)
        route = request.method, match.route
        if route not in self._policies:
            self._policies[route] = policy_of_request(request)
        return self._policies[route]

    async def _answer_audited(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
        policy: Policy,
    ) -> web.StreamResponse:
        """Answer a request that needs an administrator, and write its outcome to the audit log."""
        try:
            await self._identify(request, policy)
        except Problem as refusal:
            _audit(request, refusal.status)
            raise
        status = _UNANSWERED
        try:
            response = await handler(request)
            status = response.status
        except (Problem, web.HTTPException) as refusal:
            status = refusal.status
            raise
        except Exception:
            status = 500
            raise
        finally:
            # Audit every end of the handler: even if it failed, it may have done what was requested.
            _audit(request, status)
        return response

    async def _identify(self, request: web.Request, policy: Policy) -> None:
        """Store the client's identity in the request. Raises Problem 401, 403 or 429 if it is refused."""
        token = bearer_token(request) or offered_ticket(request)
        identity = request[IDENTITY] = self._authenticator.anonymous(request)
        if token is not None and self._authenticator.expects_key(policy.scope):
            known = await self._look_up(token, identity.name, policy)
            if known is not None:
                identity = request[IDENTITY] = known
                request[SHOWED_TICKET] = is_ticket(token)
            elif policy.entry is not Entry.REDUCED:
                raise Problem.unauthorized(
                    "The ticket is used up or too old; take another one."
                    if is_ticket(token)
                    else "The key is not one of the API keys of this server."
                )
        late = policy.entry is Entry.SOCKET and token is None
        if policy.entry in (Entry.KEY, Entry.ADMIN, Entry.SOCKET) and policy.scope is not None and not late:
            require(identity, policy.scope)
        if policy.entry is Entry.ADMIN and identity.anonymous:
            self._check_local(request)

    def _check_local(self, request: web.Request) -> None:
        """Refuse a client without a key unless it is a program on this machine.

        Clients of a service without keys have all scopes, but reaching the service must not be enough to
        change what it serves.
        """
        if not is_local(request) or self._authenticator.addresses.arrived_from_proxy(request):
            raise Problem.forbidden(
                "No keys of administrators are set, so only programs on the machine of the server may use "
                "this address, directly and not through a proxy. Set ADMIN_API_KEYS, and send one of its "
                "keys as a bearer token."
            )

    async def _look_up(self, token: str, address: str, policy: Policy) -> Identity | None:
        """Return the identity of a key or ticket. Raises Problem 429 after too many wrong keys."""
        try:
            return await self._authenticator.identify(token, address, tickets=policy.tickets)
        except TooManyWrongKeys as error:
            if policy.entry is Entry.REDUCED:
                return None
            raise Problem.too_many_requests(str(error), error.retry_after_s) from error

    def _check_host(self, request: web.Request) -> None:
        host = request.headers.get(hdrs.HOST)
        # If another worker forwarded the request, that worker has checked the host.
        if not self._origin_policy.allows_host(host) and not arrived_from_sibling(request):
            raise Problem(
                403,
                "host_not_allowed",
                f"This server is not known as {(host or '')[:200]!r}. It answers under IP addresses, names "
                "without a dot such as localhost, and the names in ALLOWED_HOSTS.",
            )

    async def _check_replica(self, request: web.Request) -> None:
        """Refuse a request that does not come directly from a replica of this release."""
        # The address of the connection counts, not one in a header, which a client could set.
        if self._is_replica is None or not await self._is_replica(request.remote or ""):
            raise Problem.forbidden("This address is for the other replicas of this release (REPLICA_PEERS).")

    def _check_origin(self, request: web.Request) -> None:
        if not self._origin_policy.allows_origin(request):
            page = request.headers.get(hdrs.ORIGIN, "another site")[:200]
            raise Problem.forbidden(
                f"Pages of {page} may not use this server. Allowed are its own pages and those of "
                "ALLOWED_ORIGINS."
            )

    def _check_query(self, request: web.Request) -> None:
        """Refuse keys in the URL, because URLs are logged, kept in browser history and sent as referrers."""
        compared: set[str] = set()
        for name, value in request.query.items():
            is_key = name.lower() in _KEY_PARAMETERS
            if not is_key and value not in compared and len(compared) < _VALUES_COMPARED:
                compared.add(value)
                is_key = self._authenticator.is_key(value)
            if is_key:
                raise Problem.bad_request(
                    f"The query has the parameter {name[:40]!r}. Keys are not taken from the address: send "
                    "`Authorization: Bearer <key>`, or a ticket of `POST /tickets` from a browser.",
                    "key_in_query",
                    field=name[:40],
                )

    def _answer_preflight(self, request: web.Request) -> web.StreamResponse | None:
        """Return the answer to a preflight request to a path that has no handler for OPTIONS, else None."""
        error = request.match_info.http_exception
        if not is_preflight(request) or not isinstance(error, web.HTTPMethodNotAllowed):
            return None
        methods = ", ".join(sorted(error.allowed_methods))
        return web.Response(status=204, headers=preflight_headers(request, self._origin_policy, methods))

    async def _add_cors_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers that let pages of allowed origins read the answer, refusals included."""
        try:
            policy = self._policy(request)
        except LookupError:
            policy = None
        if policy is not None and policy.entry is Entry.OPEN:
            return
        vary_by_origin(response)
        if hdrs.ORIGIN in request.headers:
            for name, value in cors_headers(request, self._origin_policy).items():
                response.headers.setdefault(name, value)


def _audit(request: web.Request, status: int) -> None:
    """Write an administrator's action, or its refusal, to the audit log."""
    resource = request.match_info.route.resource
    action = f"{request.method} {resource.canonical if resource is not None else request.path}"
    who, identifier = request[IDENTITY].name, request_id(request)
    if status in (401, 403):
        audit_refusal(action, who, status, identifier)
    else:
        audit(action, key=who, status=status, request_id=identifier)
