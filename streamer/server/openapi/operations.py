"""The routes for probes, metrics and tickets in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from streamer.server.openapi.parts import problems, ref

_TICKET_PROBLEMS = {
    401: "API keys are configured and none, or a wrong one, was sent; a ticket gets no other ticket.",
    403: "The key has no scope `stream`, or pages of this origin may not use this server.",
    429: "Too many tickets of this client wait to be used, or too many wrong keys came from its address.",
}
_TICKET_WORDS = (
    "For browsers, which cannot set headers on a WebSocket: a ticket stands for the key in `hello.token`, or "
    "as the subprotocol `ticket.<ticket>` beside `detect.v1.json`. It is good once, for a minute, for "
    "streams and sessions."
)


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


def ticket_paths() -> dict[str, Any]:
    """Return the path of tickets."""
    answer = {
        "type": "object",
        "properties": {"ticket": {"type": "string"}, "expires_s": {"type": "number"}},
        "required": ["ticket", "expires_s"],
    }
    return {
        "/tickets": {
            "post": {
                "operationId": "take_ticket",
                "tags": ["stream"],
                "summary": "Take a ticket that opens one stream",
                "description": _TICKET_WORDS,
                "responses": {
                    "201": {
                        "description": "The ticket.",
                        "content": {"application/json": {"schema": answer}},
                    },
                    **problems(_TICKET_PROBLEMS),
                },
            }
        }
    }
