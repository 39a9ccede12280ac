"""The route for tickets in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from streamer.server.openapi.parts import problems

_PROBLEMS = {
    401: "API keys are configured and none, or a wrong one, was sent; a ticket gets no other ticket.",
    403: "The key has no scope `stream`, or pages of this origin may not use this server.",
    429: "Too many tickets of this client wait to be used, or too many wrong keys came from its address.",
}
_WORDS = (
    "For browsers, which cannot set headers on a WebSocket: a ticket stands for the key in `hello.token`, or "
    "as the subprotocol `ticket.<ticket>` beside `detect.v1.json`. It is good once, for a minute, for "
    "streams and sessions."
)


def ticket_paths() -> dict[str, Any]:
    """Return the paths."""
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
                "description": _WORDS,
                "responses": {
                    "201": {
                        "description": "The ticket.",
                        "content": {"application/json": {"schema": answer}},
                    },
                    **problems(_PROBLEMS),
                },
            }
        }
    }
