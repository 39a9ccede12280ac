"""Describes the routes that change what is served in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from streamer.accounting.ledger import VERSIONS
from streamer.server.openapi.components import Components, answer, operation, schema_of
from streamer.server.version_routes import LoadRequest, PromoteRequest, VersionsChange


def version_change_paths(components: Components) -> dict[str, Any]:
    """Return the paths of load, promote and rollback."""
    loads = {
        f"/versions/{version}/load": {"post": _load_version(components, version)} for version in VERSIONS
    }
    return loads | {
        "/versions/promote": {"post": _promote(components)},
        "/versions/rollback": {"post": _rollback(components)},
    }


_CHANGE_REFUSALS = {
    400: "The request has a body.",
    409: "Nothing was changed, because of the present state: another change is in progress, there is no room "
    "in memory, or there is nothing to promote or to go back to.",
    422: "Nothing was changed, because the model cannot be served: `detail` has the cause.",
    503: "The supervisor does not answer.",
}
_PROMOTE_REFUSALS = _CHANGE_REFUSALS | {
    400: "The body cannot be read.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not JSON.",
}
_LOAD_REFUSALS = _PROMOTE_REFUSALS | {
    422: "Nothing was changed: a field of the body is wrong, or the file cannot be served; `detail` has the "
    "cause.",
}
_CHANGE_WORDS = (
    "The service loads and warms up the model in further processes beside those that serve, and then changes "
    "over to them between two frames. It answers when the model is served. Streams stay open and get "
    "`configured`. Whatever fails leaves everything as it was."
)


def _load_version(components: Components, version: str) -> dict[str, Any]:
    return operation(
        f"load_{version}",
        "operations",
        f"Serve another model file as {version}",
        {
            "200": answer("The file is served.", components.json(VersionsChange)),
            **components.refusals("POST", "/versions/{version}/load", _LOAD_REFUSALS),
        },
        description=_CHANGE_WORDS,
        requestBody={"required": True, "content": {"application/json": {"schema": schema_of(LoadRequest)}}},
    )


def _promote(components: Components) -> dict[str, Any]:
    return operation(
        "promote_version",
        "operations",
        "Serve the model of v2 as v1, too",
        {
            "200": answer("v1 and v2 serve the same file.", components.json(VersionsChange)),
            **components.refusals("POST", "/versions/promote", _PROMOTE_REFUSALS),
        },
        description="The processes with the model that was v1 stay loaded for `ROLLBACK_KEEP_S`. "
        + _CHANGE_WORDS,
        requestBody={
            "required": False,
            "content": {"application/json": {"schema": schema_of(PromoteRequest)}},
        },
    )


def _rollback(components: Components) -> dict[str, Any]:
    return operation(
        "roll_back_version",
        "operations",
        "Serve what was served before the last change",
        {
            "200": answer("The earlier files are served.", components.json(VersionsChange)),
            **components.refusals("POST", "/versions/rollback", _CHANGE_REFUSALS),
        },
        description=_CHANGE_WORDS,
    )
