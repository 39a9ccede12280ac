"""Logs in at OCI registries, anonymously or with Docker's config.json: by Basic or by a token."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlencode

import aiohttp
from aiohttp import hdrs
from yarl import URL

from streamer.model_zoo.docker_config import DockerConfig, Login, read_config
from streamer.model_zoo.download_url import (
    Interrupted,
    PullFailed,
    check_url,
    origin_of,
)
from streamer.model_zoo.oci_reference import OciReference
from streamer.model_zoo.transfer import classify_error, proxy_options

_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_CLIENT = "real-time-vision-api"


class RegistryLogin:
    """Answers the challenge of a registry, and keeps the header that it wants."""

    def __init__(self, reference: OciReference, base_url: str, timeout_s: float) -> None:
        self._reference = reference
        #: Passwords and tokens are sent only where nobody on the way can read them.
        self._is_private = base_url.startswith("https:") or _is_allowed(base_url)
        self._timeout_s = timeout_s
        self._config: DockerConfig | None = None
        #: Whether a login of the file was used.
        self._used = False
        #: The last challenges, to which an expired token is the answer again; empty before the first.
        self._challenges: tuple[str, ...] = ()
        self._expired = False
        #: Headers that the registry wants; empty before it has asked.
        self.headers: Mapping[str, str] = {}

    async def answer(self, session: aiohttp.ClientSession, challenges: Iterable[str]) -> bool:
        """Set `headers` for the challenges of a 401; return False if there is no (other) answer.

        Raises Interrupted, PullFailed or BadRequest.
        """
        if self.headers:
            return False
        self._config = self._config or read_config()
        login = self._config.find(self._reference.registry, self._reference.repository)
        if login is not None and not self._is_private:
            raise PullFailed(
                f"{self._reference.registry} asks for a login over http, where others could read it: let it "
                "serve https, or let everybody read the repository"
            )
        self._used = login is not None
        for challenge in challenges:
            scheme, _, rest = challenge.partition(" ")
            if scheme.lower() == "basic" and login is not None and login.user:
                self.headers = {hdrs.AUTHORIZATION: login.header}
                return True
            if scheme.lower() == "bearer":
                token = await self._token(session, dict(_PARAMETER.findall(rest)), login)
                self.headers = {hdrs.AUTHORIZATION: f"Bearer {token}"}
                self._challenges = tuple(challenges)
                return True
        return False

    async def renew(self, session: aiohttp.ClientSession) -> None:
        """Get a token in place of one that has expired. Raises Interrupted or PullFailed."""
        if self._expired:
            self._expired, self.headers = False, {}
            await self.answer(session, self._challenges)

    def expire(self, challenges: Iterable[str]) -> bool:
        """Note that the registry no longer takes the token; return False if no other one would help."""
        if str(self.headers.get(hdrs.AUTHORIZATION, "")).startswith("Basic"):
            return False
        self._challenges = tuple(challenges) or self._challenges
        self._expired = bool(self._challenges)
        return self._expired

    def explain(self) -> str:
        """Return what to do about a registry that denies the file."""
        config = self._config
        if self._used and config is not None:
            return (
                f"the login in {config.path} for {self._reference.registry} is wrong, or must not read this"
            )
        if config is not None and config.has_helpers:
            return (
                f"{config.path} keeps logins in a program (credsStore, credHelpers), which is not run: write "
                f"the login of {self._reference.registry} into `auths`"
            )
        where = (
            f"{config.path} has none for it"
            if config is not None and config.path
            else "DOCKER_CONFIG is unset"
        )
        return f"{self._reference.registry} wants a login in Docker's config.json, and {where}"

    async def _token(
        self, session: aiohttp.ClientSession, parameters: Mapping[str, str], login: Login | None
    ) -> str:
        """Return a token of the login service that the challenge names."""
        realm = parameters.get("realm", "")
        if not _is_allowed(realm) and self._is_private:
            raise PullFailed(
                f"{self._reference.registry} sends to {origin_of(realm)} for a token; allowed is https"
            )
        asked = {
            "service": parameters.get("service", ""),
            "scope": parameters.get("scope") or f"repository:{self._reference.repository}:pull",
        }
        try:
            async with asyncio.timeout(self._timeout_s):
                if login is not None and login.identity_token:
                    form = asked | {"grant_type": "refresh_token", "client_id": _CLIENT}
                    form["refresh_token"] = login.identity_token
                    request = session.post(
                        URL(realm, encoded=True),
                        data=form,
                        allow_redirects=False,
                        **proxy_options(session, realm),
                    )
                else:
                    url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(asked)}"
                    request = session.get(
                        URL(url, encoded=True),
                        headers={hdrs.AUTHORIZATION: login.header} if login is not None else {},
                        allow_redirects=False,
                        **proxy_options(session, realm),
                    )
                async with request as response:
                    return await self._token_of(response)
        except TimeoutError as error:
            raise Interrupted(f"{origin_of(realm)} does not answer") from error
        except aiohttp.ClientError as error:
            raise classify_error(error, 0) from error

    async def _token_of(self, response: aiohttp.ClientResponse) -> str:
        where = f"{origin_of(str(response.url))}, which gives tokens for {self._reference.registry},"
        if response.status == 429 or response.status >= 500:
            raise Interrupted(f"{where} answers {response.status} {response.reason}")
        if response.status != 200:
            raise PullFailed(f"{where} answers {response.status} {response.reason}; {self.explain()}")
        try:
            values = await response.json(content_type=None)
            token = values.get("token") or values.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise PullFailed(f"{where} answers without a token")
        return token


def _is_allowed(url: str) -> bool:
    try:
        check_url(url)
    except ValueError:
        return False
    return True
