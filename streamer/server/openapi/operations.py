"""The routes for probes and metrics in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from streamer.server.openapi.parts import ref


def operation_paths() -> dict[str, Any]:
    """Return the paths of probes and metrics."""
    return {"/health": {"get": _health()}, "/livez": {"get": _livez()}, "/metrics": {"get": _metrics()}}


def _operation(name: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "tags": ["operations"],
        "summary": summary,
        "security": [{}],
        "responses": responses,
    }


def _health() -> dict[str, Any]:
    content = {"application/json": {"schema": ref("Health")}}
    return _operation(
        "health",
        "Whether this replica can serve",
        {
            "200": {"description": "It can.", "content": content},
            "503": {"description": "It cannot at the moment; `reasons` says why.", "content": content},
        },
    )


def _livez() -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return _operation(
        "livez",
        "Whether the inference loop runs",
        {
            "200": {"description": "It runs, or is being restarted.", "content": content},
            "503": {
                "description": "It hangs, and nothing restarts it: restart this replica.",
                "content": content,
            },
        },
    )


def _metrics() -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    return _operation(
        "metrics",
        "Prometheus metrics of all processes of this replica",
        {"200": {"description": "Text exposition format.", "content": content}},
    )
