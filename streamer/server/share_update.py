"""Changes the share of v2, of clients or of frames: reads the request, and sets the share for all workers."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from inference.ipc.shared_status import SharedStatus
from streamer.http.caller import identity_of
from streamer.http.problem_details import Problem
from streamer.versions.errors import ChangeRefused
from streamer.versions.requests import SupervisorUnavailable, ask_supervisor
from streamer.webrtc.signalling import read_json

_BODY_BYTES = 4 << 10
_SHARE = "a number from 0 to 1"
#: Time for writing a small file, also on a slow disk.
_KEEP_S = 20.0


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


async def set_share(
    request: web.Request, name: str, share: float, shared_status: SharedStatus, control_address: str
) -> None:
    """Set the field ``name`` of the shared status, by the supervisor, which keeps it across restarts.

    ``control_address`` is that of the supervisor's control socket; empty without a supervisor. Raises Problem
    409 or 503.
    """
    if not control_address:
        shared_status.post(name, share)
        return
    message = {"verb": "share", "name": name, "value": share, "who": identity_of(request).name}
    try:
        await ask_supervisor(control_address, message, _KEEP_S)
    except ChangeRefused as refused:
        raise Problem(409, refused.code, f"{str(refused).capitalize()}.") from refused
    except SupervisorUnavailable as error:
        raise Problem.unavailable(f"{str(error).capitalize()}.", retry_after_s=2) from error
