"""Serves the routes that change what is served: load, promote and rollback. The supervisor does the work.

Only administrators may use them (`Entry.ADMIN`), and the supervisor writes each change to the audit log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from streamer.http.body import BodyReader, hold_body, media_type
from streamer.http.caller import identity_of
from streamer.http.problem_details import Problem
from streamer.versions.errors import ChangeRefused
from streamer.versions.model_check import check_model
from streamer.versions.model_path import MAX_NAME_CHARS
from streamer.versions.requests import SupervisorUnavailable, ask_supervisor

MAX_BODY_BYTES = 16 << 10
BODY_TIMEOUT_S = 10.0
#: A change may take as long as a start, and this time for its checks.
_CHECKS_S = 120.0


AnyRequest = TypeVar("AnyRequest", bound=BaseModel)


class PromoteRequest(BaseModel):
    """What to check when v2 becomes v1."""

    model_config = ConfigDict(strict=True, extra="forbid")

    labels_may_change: bool = Field(
        False,
        description="Whether the version may get other classes than it has now, which clients that know "
        "classes by number would misread.",
    )


class LoadRequest(PromoteRequest):
    """Which file to serve as a version."""

    path: str = Field(
        max_length=MAX_NAME_CHARS,
        description="Name of an ONNX file below `MODELS_DIR`, or below the folder of the configured model.",
    )
    sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 that the file must have, in lower-case hexadecimal digits.",
    )


class VersionFile(TypedDict):
    """The file of a version."""

    file: Annotated[str, Field(description="Name of the file.")]
    sha256: Annotated[str, Field(description="SHA-256 of the file.")]


class VersionsChange(TypedDict):
    """What is served after a change."""

    generation: Annotated[int, Field(description="Number of the set of inference processes that serves.")]
    versions: Annotated[dict[str, VersionFile], Field(description="What is served, by version.")]
    rollback: Annotated[
        dict[str, VersionFile] | None, Field(description="What a rollback goes back to; null if to nothing.")
    ]
    rollback_is_warm: Annotated[
        bool, Field(description="Whether the processes for a rollback are loaded, so that it takes no time.")
    ]
    doing: Annotated[str, Field(description="Empty after a change.")]
    changed_at: NotRequired[Annotated[float, Field(description="When it was changed, in Unix seconds.")]]


class VersionRoutes:
    """Passes changes to the supervisor. ``folders`` has the folder of the models of each version.

    ``address`` is that of the supervisor's control socket, and ``start_s`` how long loading may take.
    """

    def __init__(self, address: str, folders: Mapping[str, Path], start_s: float) -> None:
        self._address = address
        self._folders = folders
        self._timeout_s = start_s + _CHECKS_S

    async def load(self, request: web.Request) -> web.Response:
        """Serve another file as a version, and answer when it is served."""
        version = request.match_info["version"]
        folder = self._folders.get(version)
        if folder is None:
            raise Problem.not_found(f"There is no version {version[:40]!r}; versions are v1 and v2.")
        asked = _parse(LoadRequest, await _read_body(request))
        try:
            await asyncio.to_thread(check_model, folder, asked.path, asked.sha256)
        except ChangeRefused as refused:
            raise _problem_of(refused) from refused
        return await self._ask(request, {"verb": "load", "version": version, **asked.model_dump()})

    async def promote(self, request: web.Request) -> web.Response:
        """Serve the model of v2 as v1, too."""
        asked = (
            _parse(PromoteRequest, await _read_body(request)) if request.can_read_body else PromoteRequest()
        )
        return await self._ask(request, {"verb": "promote", **asked.model_dump()})

    async def rollback(self, request: web.Request) -> web.Response:
        """Serve what was served before the last change."""
        if request.can_read_body:
            raise Problem.bad_request("This request carries no body.")
        return await self._ask(request, {"verb": "rollback"})

    async def _ask(self, request: web.Request, message: dict[str, Any]) -> web.Response:
        message["who"] = identity_of(request).name
        try:
            done = await ask_supervisor(self._address, message, self._timeout_s)
        except ChangeRefused as refused:
            raise _problem_of(refused) from refused
        except SupervisorUnavailable as error:
            raise Problem.unavailable(f"{str(error).capitalize()}.", retry_after_s=5) from error
        return web.json_response(done, headers={"Cache-Control": "no-store"})


def add_version_routes(app: web.Application, routes: VersionRoutes) -> None:
    """Add the three routes."""
    app.router.add_post("/versions/{version}/load", routes.load)
    app.router.add_post("/versions/promote", routes.promote)
    app.router.add_post("/versions/rollback", routes.rollback)


async def _read_body(request: web.Request) -> bytes:
    """Return the body of a request. Raises Problem 408, 413 or 415."""
    # A browser sends this type for a page of another origin only after a preflight request.
    if media_type(request) != "application/json":
        raise Problem.unsupported_media("Content-Type must be application/json.")
    with hold_body(request) as holding:
        reader = BodyReader(request, holding, most_bytes=MAX_BODY_BYTES, limit_s=BODY_TIMEOUT_S)
        return bytes(await reader.read_all())


def _parse(kind: type[AnyRequest], body: bytes) -> AnyRequest:
    """Return the request in a body. Raises Problem 422 that names the first wrong field."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])[:100]
        where = f"Field `{field}`" if field else "The body"
        raise Problem(422, "invalid_body", f"{where}: {first['msg'][:300]}.", field=field) from error


def _problem_of(refused: ChangeRefused) -> Problem:
    text = str(refused)
    first, _, rest = text.partition(" ")
    if first.isalpha():  # and not the name of a version or a file
        text = f"{first.capitalize()} {rest}"
    return Problem(refused.status, refused.code, text if text.endswith(".") else f"{text}.")
