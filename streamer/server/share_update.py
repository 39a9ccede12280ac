"""Reads the body of a request that changes the share of v2, of clients or of frames."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from streamer.http.problem_details import Problem
from streamer.webrtc.signalling import read_json

_BODY_BYTES = 4 << 10
_SHARE = "a number from 0 to 1"


Update = TypeVar("Update", bound=BaseModel)


async def read_update(request: web.Request, kind: type[Update], limit_s: float) -> Update:
    """Return the body, which must arrive within ``limit_s``, as ``kind``, whose only field is `v2`.

    Raises Problem 400 that names the field, or as `read_json`.
    """
    try:
        return kind.model_validate(await read_json(request, _BODY_BYTES, limit_s))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:
            raise Problem.bad_request(f'The body is no map; expected {{"v2": {_SHARE}}}.') from error
        name = str(first["loc"][0])
        if name not in kind.model_fields:
            raise Problem.bad_request(
                f"Field `{name[:40]}` is not known; allowed is `v2`.", "invalid_parameter", field=name[:40]
            ) from error
        found = "absent" if first["type"] == "missing" else str(first["input"])
        raise Problem.invalid_parameter(name, found, _SHARE) from error
