"""The schemas of answers in the OpenAPI document; a test compares them with what the code answers."""

from __future__ import annotations

from typing import Any

from streamer.drift.status import DriftStatus
from streamer.sampling.process_handle import SamplingStatus
from streamer.server.openapi.drift import drift_schemas
from streamer.server.openapi.parts import VERSIONS, object_of, ref


def answer_schemas() -> dict[str, Any]:
    """Return the components by name."""
    number, text, whole = {"type": "number"}, {"type": "string"}, {"type": "integer"}
    detection = object_of(
        {
            "box": {
                "type": "array",
                "items": number,
                "minItems": 4,
                "maxItems": 4,
                "description": "x1, y1, x2, y2 in pixels of the upright original.",
            },
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            "class_id": whole,
            "label": text,
        }
    )
    prediction = object_of(
        {
            "model": object_of({"version": {"enum": list(VERSIONS)}, "name": text, "sha256": text}),
            "image": object_of({"width": whole, "height": whole, "damaged": {"const": True}}, ("damaged",)),
            "detections": {"type": "array", "items": ref("Detection")},
            "timings_ms": object_of(
                {"decode": number, "queue": number, "inference": number, "total": number}
            ),
            "request_id": text,
        }
    )
    failed = object_of({"error": ref("Problem"), "request_id": text})
    results = {"type": "array", "items": {"oneOf": [ref("Prediction"), ref("FailedImage")]}}
    problem = object_of(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": text,
            "status": whole,
            "detail": {"type": "string", "description": "What was found, what is allowed, what to do."},
            "code": {"type": "string", "description": "A stable word for programs."},
            "field": {"type": "string", "description": "The parameter or form field that is wrong."},
            "request_id": text,
        },
        optional=("field",),
    )
    health = object_of(
        {
            "status": {
                "enum": [
                    *("ok", "starting", "loading", "warming", "restarting"),
                    *("hung", "draining", "saturated"),
                ]
            },
            "models": {"type": "object"},
            "device": {"type": ["string", "null"]},
            "samples": whole,
            "sampling": {"enum": [status.name.lower() for status in SamplingStatus]},
            "drift": {"enum": [status.name.lower() for status in DriftStatus]},
            "access": object_of(
                {"keys": {"enum": ["required", "none"]}, "keys_file": {"enum": ["ok", "failed"]}},
                optional=("keys_file",),
            ),
            "decoders": object_of({"alive": whole, "sandbox": {"type": "array", "items": text}}),
            "reasons": {"type": "array", "items": text},
        },
        optional=("reasons",),
    )
    return {
        "Detection": detection,
        "Prediction": prediction,
        "FailedImage": failed,
        "Predictions": object_of({"results": results, "request_id": text}),
        "Problem": problem,
        "Health": health,
        **drift_schemas(),
    }
