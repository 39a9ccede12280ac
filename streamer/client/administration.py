"""Sends the requests of administrators, which change what a service serves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp

from streamer.client.address import root_address
from streamer.client.errors import BadInput, ClientError, ConnectionFailed
from streamer.client.http import client_version, connect_error_text

#: A change takes as long as a start: the service loads and warms up the model.
TIMEOUT_S = 900.0


class ChangeRefused(ClientError):
    """The service refuses a change. ``code`` is the reason for programs, the text that for people."""

    def __init__(self, text: str, *, status: int, code: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


def ask(
    method: str, path: str, url: str, token: str | None, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Send a request to ``path`` of the service at ``url``, and return its JSON.

    Raises BadInput, ConnectionFailed or ChangeRefused.
    """
    return asyncio.run(_ask(method, path, url, token, body))


async def _ask(
    method: str, path: str, url: str, token: str | None, body: Mapping[str, Any] | None
) -> dict[str, Any]:
    address = root_address(url, token)
    headers = {**address.headers, "Accept": "application/json"}
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                headers={"User-Agent": f"streamer-client/{client_version()}"},
            ) as session,
            session.request(method, address.url + path, json=body, headers=headers) as response,
        ):
            found = await response.json(content_type=None)
            if response.status == 200 and isinstance(found, dict):
                return found
            told = found if isinstance(found, dict) else {}
            raise ChangeRefused(
                address.clean(told.get("detail") or response.reason or "refused"),
                status=response.status,
                code=str(told.get("code", "")),
            )
    except TimeoutError:
        raise ConnectionFailed(f"{address.shown} did not answer within {TIMEOUT_S:g} s") from None
    except aiohttp.InvalidURL as error:
        raise BadInput(f"address {address.shown!r} cannot be used: {address.clean(error)}") from None
    except aiohttp.ClientConnectorError as error:
        raise ConnectionFailed(f"cannot connect to {address.shown}: {connect_error_text(error)}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise ConnectionFailed(f"cannot reach {address.shown}: {address.clean(error)}") from None
    except ValueError:
        raise ConnectionFailed(f"{address.shown} gave an answer that is not JSON") from None
