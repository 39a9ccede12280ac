"""Makes the parts that all operations of the OpenAPI document share: schemas from types, and refusals."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, TypeAdapter

from streamer.http.problem_details import PROBLEM_TYPE, REQUEST_ID_HEADER, ProblemDocument
from streamer.http.route_policy import ROUTES, Entry
from streamer.http.version_split import VERSION_HEADER

_REF = "#/components/schemas/"
#: Suffix of the names of types that describe whole answers. The names of their schemas lack it.
_SUFFIX = "Document"
_KEY_IN_QUERY = "The query contains an API key; send keys in the header `Authorization`."
_WRONG_KEYS = "Too many wrong keys came from this address."


class Components:
    """Collects the schemas to which operations refer; an operation refers to a type's schema with ``ref``."""

    def __init__(self) -> None:
        #: Types whose schemas were requested. The types that these contain are added when the schemas are
        #: generated.
        self._types: dict[str, type] = {}

    def ref(self, kind: type) -> dict[str, str]:
        """Return a reference to the schema of a type, which is a pydantic model or a TypedDict."""
        self._types[kind.__name__] = kind
        return {"$ref": _REF + kind.__name__.removesuffix(_SUFFIX)}

    def json(self, kind: type) -> dict[str, Any]:
        """Return the content of an answer or a request whose JSON has the schema of a type."""
        return {"application/json": {"schema": self.ref(kind)}}

    def refusals(self, method: str, route: str, words: dict[int, str] | None = None) -> dict[str, Any]:
        """Return the refusals of a route of `route_policy`, by status.

        ``words`` describes the refusals of the route's own handler, by status; those of the guard are added.
        """
        found = _guard_refusals(method, route)
        for status, text in (words or {}).items():
            found[status] = f"{text} {found[status]}" if status in found else text
        versioned = _names_version(route)
        return {
            str(status): self._refusal(status, found[status], versioned=versioned) for status in sorted(found)
        }

    def _refusal(self, status: int, text: str, *, versioned: bool) -> dict[str, Any]:
        headers = id_header() | (version_header() if versioned else {})
        if status in (429, 503):
            headers |= {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
        return {
            "description": f"{HTTPStatus(status).phrase}. {text}",
            "headers": headers,
            "content": {PROBLEM_TYPE: {"schema": self.ref(ProblemDocument)}},
        }

    def describe(self) -> dict[str, Any]:
        """Return the components of the document, with the schemas of all types that were requested.

        Raises ValueError if different types would have schemas of the same name.
        """
        schemas: dict[str, Any] = {}
        for name, kind in self._types.items():
            generated = _clean_schema(TypeAdapter(kind).json_schema(ref_template=_REF + "{model}"))
            contained = generated.pop("$defs", {})
            for found_name, found in (*contained.items(), (name, generated)):
                known = schemas.setdefault(found_name.removesuffix(_SUFFIX), found)
                if known != found:
                    raise ValueError(f"two types would have the schema {found_name.removesuffix(_SUFFIX)}")
        return {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key with the scope that the operation needs, if the service "
                    "requires keys. Streams and sessions also accept a ticket of `POST /tickets`.",
                }
            },
            "headers": {
                "ModelVersion": {
                    "description": "The model version that answers or refuses.",
                    "schema": {"type": "string"},
                },
                "RequestId": {
                    "description": "The id of the request: the one that the client has sent, if it is valid.",
                    "schema": {"type": "string"},
                },
                "RetryAfter": {
                    "description": "The number of seconds after which to try again.",
                    "schema": {"type": "integer", "minimum": 1},
                },
            },
        }


def operation(
    name: str,
    tag: str,
    summary: str,
    responses: dict[str, Any],
    *,
    description: str = "",
    open_to_all: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Return an operation; ``more`` holds its parameters and its body, if it has them."""
    found: dict[str, Any] = {"operationId": name, "tags": [tag], "summary": summary}
    if description:
        found["description"] = description
    if open_to_all:
        found["security"] = [{}]
    return found | more | {"responses": responses}


def _names_version(route: str) -> bool:
    """Return whether the answers of a route of `route_policy` name a model version."""
    return route.startswith("/{version}/") or route in ("/predict", "/stream", "/{kind}")


def id_header() -> dict[str, Any]:
    """Return the header with the request id, which every answer has."""
    return {REQUEST_ID_HEADER: {"$ref": "#/components/headers/RequestId"}}


def version_header() -> dict[str, Any]:
    """Return the header with the model version, which every answer of a route with models has."""
    return {VERSION_HEADER: {"$ref": "#/components/headers/ModelVersion"}}


def answer(
    description: str, content: dict[str, Any] | None = None, *, versioned: bool = False, **headers: str
) -> dict[str, Any]:
    """Return an answer; ``headers`` describes the headers that it has in addition to the request id.

    ``versioned``: it names the model version, too.
    """
    found: dict[str, Any] = {
        "description": description,
        "headers": id_header()
        | (version_header() if versioned else {})
        | {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()},
    }
    return found | ({"content": content} if content is not None else {})


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of what a model accepts, with a plain schema for each field."""
    generated = _generated(model)
    found: dict[str, Any] = {
        "type": "object",
        "properties": {name: field_schema(model, name) for name in generated["properties"]},
    }
    if "required" in generated:
        found["required"] = generated["required"]
    return found


def field_schema(model: type[BaseModel], name: str) -> dict[str, Any]:
    """Return the schema of one field, without the null that stands for an absent field."""
    generated = _generated(model)
    field: dict[str, Any] = dict(generated["properties"][name])
    if field.get("default", ...) is None:
        del field["default"]
    branches = [branch for branch in field.pop("anyOf", ()) if branch != {"type": "null"}]
    if len(branches) == 1:
        return {**branches[0], **field}
    return {**field, "anyOf": branches} if branches else field


@cache
def _generated(model: type[BaseModel]) -> dict[str, Any]:
    found: dict[str, Any] = _clean_schema(model.model_json_schema(mode="validation"))
    return found


def _clean_schema(schema: Any) -> Any:
    """Return a generated schema without titles, which only repeat names, and with the names of components."""
    if isinstance(schema, list):
        return [_clean_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    # A property may have the name `title`. Its value is then a schema and not a text, and it is kept.
    found = {
        name: _clean_schema(part)
        for name, part in schema.items()
        if name != "title" or isinstance(part, dict)
    }
    if isinstance(found.get("$ref"), str):
        found["$ref"] = found["$ref"].removesuffix(_SUFFIX)
    if isinstance(found.get("required"), list) and isinstance(found.get("properties"), dict):
        # Examples show the fields in the order of the schema, so those that are always present come first.
        required = found["required"]
        fields = sorted(found["properties"].items(), key=lambda field: field[0] not in required)
        found["properties"] = dict(fields)
    if isinstance(found.get("description"), str):
        found["description"] = " ".join(found["description"].split())
    return found


def _guard_refusals(method: str, route: str) -> dict[int, str]:
    """Return the guard's refusals on a route, by status. Raises KeyError if there is no such route."""
    policy = ROUTES[method, route]
    found = {400: _KEY_IN_QUERY}
    if policy.entry is Entry.PROBE:
        return found
    reasons = []
    if policy.entry in (Entry.KEY, Entry.ADMIN, Entry.SOCKET) and policy.scope is not None:
        reasons.append(f"the key does not have the scope `{policy.scope.value}`")
        found[401] = _missing_key(late=policy.entry is Entry.SOCKET, tickets=policy.tickets)
        found[429] = _WRONG_KEYS
    if policy.entry is Entry.ADMIN:
        reasons.append(
            "no keys of administrators are set, and the client is not on the machine of the server"
        )
    if policy.guards_origin:
        reasons.append("the request comes from a page of an origin that is not allowed")
    reasons.append("the service does not answer under the name in `Host`")
    text = ", or ".join(reasons)
    found[403] = f"{text[0].upper()}{text[1:]}."
    return found


def _missing_key(*, late: bool, tickets: bool) -> str:
    if late:
        return "The request has a wrong API key, or a ticket that is used up or expired."
    if tickets:
        return "The service requires an API key or a ticket, and the request has none or a wrong one."
    return (
        "The service requires an API key, and the request has none or a wrong one. Tickets are not accepted."
    )
