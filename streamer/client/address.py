"""Turns the address of the service, as a user types it, into a URL and a header with the credentials."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit, urlunsplit

from streamer.client.errors import BadInput
from streamer.core.redact import redact, secrets_of

STREAM_PATH = "/v1/stream"
PREDICT_PATH = "/v1/predict"
VIDEO_PATH = "/v1/webrtc"
_SECURE = {"ws": False, "http": False, "wss": True, "https": True}


@dataclass(frozen=True, slots=True)
class Address:
    """Holds where to connect: a URL without credentials, and the header that carries the credentials."""

    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    #: Credentials, which must not appear in any message or log.
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def shown(self) -> str:
        """The address without credentials, for messages and logs."""
        return redact(self.url, self.secrets)

    def clean(self, text: object) -> str:
        """Return ``text``, which may be an exception, without the credentials of this address."""
        return redact(text, self.secrets)


def stream_address(text: str, token: str | None = None) -> Address:
    """Return the WebSocket address. http(s) becomes ws(s); the default path is ``/v1/stream``.

    Raises BadInput.
    """
    return _address(text, token, ("ws", "wss"), STREAM_PATH)


def predict_address(text: str, token: str | None = None) -> Address:
    """Return the HTTP address. ws(s) becomes http(s); the default path is ``/v1/predict``.

    Raises BadInput.
    """
    return _address(text, token, ("http", "https"), PREDICT_PATH)


def root_address(text: str, token: str | None = None) -> Address:
    """Return the HTTP address below which the routes of the service lie, without a slash at its end.

    Raises BadInput.
    """
    address = _address(text, token, ("http", "https"), "")
    return replace(address, url=address.url.rstrip("/"))


def video_address(text: str, token: str | None = None) -> Address:
    """Return the HTTP address that takes WebRTC offers; a path ``.../stream`` becomes ``.../webrtc``.

    Raises BadInput.
    """
    address = _address(text, token, ("http", "https"), VIDEO_PATH)
    parts = urlsplit(address.url)
    path = parts.path.rstrip("/")
    if path.endswith("/stream"):
        path = f"{path.removesuffix('stream')}webrtc"
    return replace(address, url=urlunsplit(parts._replace(path=path)))


def _address(text: str, token: str | None, schemes: tuple[str, str], default_path: str) -> Address:
    given = text.strip()
    if "://" not in given:
        given = f"{schemes[0]}://{given}"
    known = tuple(secret for secret in (token, *secrets_of(given)) if secret)
    try:
        parts = urlsplit(given)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadInput(
            f"address {redact(given, known)!r} cannot be read: {redact(error, known)}; write ws://HOST:PORT"
        ) from None
    if parts.scheme.lower() not in _SECURE or not host:
        raise BadInput(f"address {redact(given, known)!r} must begin with ws://, wss://, http:// or https://")
    scheme = schemes[_SECURE[parts.scheme.lower()]]
    shown_host = f"[{host}]" if ":" in host else host
    where = shown_host if port is None else f"{shown_host}:{port}"
    path = parts.path if parts.path not in ("", "/") else default_path
    headers, secrets = _credentials(parts.username, parts.password, token)
    return Address(urlunsplit((scheme, where, path, parts.query, "")), headers, (*known, *secrets))


def _credentials(
    user: str | None, password: str | None, token: str | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the header for the token, or else for ``user:password@``, and the secret texts in it."""
    if token is not None:
        if not token.isascii() or not token.isprintable() or " " in token or not token:
            raise BadInput("the token must be printable ASCII without spaces")
        return {"Authorization": f"Bearer {token}"}, (token,)
    if user is None:
        return {}, ()
    pair = f"{unquote(user)}:{unquote(password or '')}"
    encoded = base64.b64encode(pair.encode()).decode()
    return {"Authorization": f"Basic {encoded}"}, tuple(s for s in (unquote(password or ""), encoded) if s)
