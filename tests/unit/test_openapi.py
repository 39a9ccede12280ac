"""Tests that the OpenAPI document is valid, complete, and true to the code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from aiohttp import web
from jsonschema import Draft202012Validator

from inference.core.detection_params import DetectionParams
from inference.models.model import Family, ModelInfo, Placement
from streamer.drift.learned_reference import MAX_HOURS, HistoryUpdate, RowsUpdate
from streamer.drift.reference_document import _PLAIN_FIELDS
from streamer.http.problem_details import Problem
from streamer.http.route_policy import ROUTES, Entry
from streamer.predict import routes as images
from streamer.predict.json_body import LIST_FIELDS, SINGLE_FIELDS
from streamer.predict.parameters import NAMES, read_parameters
from streamer.predict.responses import describe_prediction
from streamer.protocol.client_messages import Params, StreamOffer
from streamer.scheduling.job import Prediction
from streamer.server import health
from streamer.server.openapi import openapi_document

DOCUMENT = openapi_document()


def validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}
    )


def test_it_is_a_valid_document_of_plain_json() -> None:
    from openapi_spec_validator import OpenAPIV31SpecValidator  # noqa: PLC0415 - imported slowly

    OpenAPIV31SpecValidator(json.loads(json.dumps(DOCUMENT))).validate()


def test_its_references_lead_to_components() -> None:
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            yield from ([part["$ref"]] if isinstance(part.get("$ref"), str) else [])
        for value in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            yield from references(value)

    used = set(references(DOCUMENT))
    kinds = DOCUMENT["components"]
    assert used == {
        f"#/components/{kind}/{name}" for kind in ("schemas", "headers") for name in kinds[kind]
    }, "each reference leads to a component, and each component is used"


def test_people_find_a_description_of_everything() -> None:
    without: list[str] = []
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            if method == "parameters":
                continue
            texts = {"summary": operation.get("summary")}
            texts |= {code: response["description"] for code, response in operation["responses"].items()}
            texts |= {each["name"]: each.get("description") for each in operation.get("parameters", ())}
            without += [f"{method} {path}: {name}" for name, text in texts.items() if not text]
    schemas = DOCUMENT["components"]["schemas"]
    offer = DOCUMENT["paths"]["/v1/webrtc"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    without += [name for name, schema in schemas.items() if not schema.get("description")]
    without += list(_fields_without_description({"offer": offer} | schemas))
    assert without == []


def _fields_without_description(schema: Any, where: str = "") -> Iterator[str]:
    """Yield the fields of schemas, at any depth, that have neither a description nor a `$ref`."""
    if isinstance(schema, dict):
        for name, field in schema.get("properties", {}).items():
            column = name in _PLAIN_FIELDS  # docs/drift.md describes these columns
            if isinstance(field, dict) and not column and not field.keys() & {"description", "$ref"}:
                yield f"{where}.{name}"
        for name, part in schema.items():
            yield from _fields_without_description(part, f"{where}.{name}")
    elif isinstance(schema, list):
        for part in schema:
            yield from _fields_without_description(part, where)


def test_it_has_every_route_of_the_http_table() -> None:
    predict = {f"{prefix}/predict" for prefix in ("", "/v1", "/v2")}
    stream = {f"{prefix}/stream" for prefix in ("", "/v1", "/v2")}
    video = {
        f"/{version}/{kind}{rest}"
        for version in ("v1", "v2")
        for kind in ("webrtc", "whip")
        for rest in ("", "/{session}", "/{session}/results")
    } | {"/webrtc", "/whip"}
    drift = {"/drift/status", "/drift/report", "/reference/update"}
    versions = {"/versions", "/versions/split", "/versions/shadow", "/versions/pictures/{picture}"}
    versions |= {"/versions/v1/load", "/versions/v2/load", "/versions/promote", "/versions/rollback"}
    operations = {"/health", "/livez", "/metrics", "/tickets"} | versions
    assert set(DOCUMENT["paths"]) == predict | stream | video | drift | operations
    app = web.Application()
    images.add_routes(app)
    served = {
        route.resource.canonical.replace("{version}", version)
        for route in app.router.routes()
        for version in ("v1", "v2")
        if route.resource is not None
    }
    assert served == predict


def test_it_names_what_the_guard_refuses_on_every_route_that_wants_a_key() -> None:
    guarded = {
        (method.lower(), path.replace("{version}", "v1").replace("{kind}", kind))
        for (method, path), policy in ROUTES.items()
        if policy.entry in (Entry.KEY, Entry.ADMIN, Entry.SOCKET)
        for kind in ("webrtc", "whip")
    }
    operations = {
        (method, path): operation["responses"].keys()
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
        if "responses" in operation
    }
    for route in guarded & operations.keys():
        assert {"401", "403", "429"} <= operations[route], route
    for route in operations.keys() - guarded:
        if "/v2" not in route[1]:
            assert not {"401", "429"} & operations[route], route
    assert "403" not in operations["get", "/health"], "load balancers send any `Host`"
    assert "403" in operations["get", "/metrics"]


def test_health_has_every_status_that_there_is() -> None:
    found = DOCUMENT["components"]["schemas"]["Health"]["properties"]["status"]["enum"]
    assert set(found) == {"ok", *health._REASONS}


def test_its_parameters_are_those_the_code_takes() -> None:
    operation = DOCUMENT["paths"]["/v1/predict"]["post"]
    assert [parameter["name"] for parameter in operation["parameters"]] == list(NAMES)
    content = operation["requestBody"]["content"]
    # Swagger UI would send a parameter twice if both the query and the form had it.
    assert set(content["multipart/form-data"]["schema"]["properties"]) == {"file"}
    assert set(content["application/json"]["schema"]["properties"]) == {*SINGLE_FIELDS, *LIST_FIELDS, *NAMES}


def test_answers_and_problems_match_their_schemas() -> None:
    model = ModelInfo("nano", "ab", Family.YOLOX, ("cat",), 416, 416, Placement.TOP_LEFT, 114)
    boxes = np.array([[1, 2, 3, 4, 0.5, 0]], np.float32)
    answer = describe_prediction(Prediction(10, 10, boxes, 1, 1, 1, 1, 1), "v1", model, 4.0, "id")
    problem = Problem.invalid_parameter("classes", "x", "y").members("id")
    validator("Prediction").validate(answer)
    validator("Problem").validate(problem)
    failed = {"error": problem, "request_id": "id"}
    validator("Predictions").validate({"results": [answer, failed], "request_id": "id"})
    assert not validator("Prediction").is_valid(failed)


def test_bounds_of_parameters_are_those_of_the_models_that_validate_them() -> None:
    parameters = {
        parameter["name"]: parameter["schema"]
        for parameter in DOCUMENT["paths"]["/v1/predict"]["post"]["parameters"]
    }
    assert (parameters["conf_threshold"]["minimum"], parameters["conf_threshold"]["maximum"]) == (0, 1)
    assert parameters["max_detections"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 1000,
        "default": 300,
        "description": "Greatest number of detections of one image.",
    }
    assert parameters["classes"]["maxItems"] == 1000
    offer = DOCUMENT["paths"]["/v1/webrtc"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(offer["properties"]["params"]["properties"]) == set(Params.model_fields)
    assert set(offer["properties"]["streams"]["items"]["properties"]) == set(StreamOffer.model_fields)
    assert offer["properties"]["streams"]["items"]["required"] == ["id"]


def test_a_query_is_refused_beyond_the_bounds_of_the_document_and_taken_at_them() -> None:
    parameters = {
        parameter["name"]: parameter["schema"]
        for parameter in DOCUMENT["paths"]["/v1/predict"]["post"]["parameters"]
    }

    def taken(name: str, value: object) -> bool:
        try:
            read_parameters([(name, str(value))], ("cat",), DetectionParams())
        except Problem:
            return False
        return True

    for name, step in (("conf_threshold", 0.001), ("iou_threshold", 0.001), ("max_detections", 1)):
        least, most = parameters[name]["minimum"], parameters[name]["maximum"]
        found = [taken(name, value) for value in (least - step, least, most, most + step)]
        assert found == [False, True, True, False], name
    most = parameters["classes"]["maxItems"]
    assert [taken("classes", ",".join(["0"] * count)) for count in (most, most + 1)] == [True, False]


def test_the_update_of_the_reference_has_the_fields_that_the_code_reads() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert set(schemas["HistoryUpdate"]["properties"]) == set(HistoryUpdate.model_fields)
    assert set(schemas["RowsUpdate"]["properties"]) == set(RowsUpdate.model_fields)
    assert schemas["HistoryUpdate"]["properties"]["hours"]["maximum"] == MAX_HOURS
    row = schemas["RowsUpdate"]["properties"]["rows"]["items"]
    assert set(row["properties"]) == _PLAIN_FIELDS
