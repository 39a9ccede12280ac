"""The service answers as it was recorded, and the comparison finds a difference in a single field."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

import streamer.client
from streamer.http.route_policy import ROUTES
from tests.helpers.openapi_check import OpenApiCheck
from tests.recordings.client_library import describe_library
from tests.recordings.command_line import describe_commands
from tests.recordings.differences import differences, report
from tests.recordings.http_exchanges import REQUESTS
from tests.recordings.normalise import normalise, normalise_headers, normalise_sdp
from tests.recordings.recorder import as_committed, read_recording, record_service

_AFTERWARDS = (
    "If that is intended, run `python -m tests.recordings.record`, read what it prints, and commit it."
)


def check(name: str, now: Any) -> None:
    """Fail if the new recording differs from the committed one of this name."""
    changed = report(read_recording(name), as_committed(now))
    assert not changed, f"recording {name!r}: {changed}\n{_AFTERWARDS}"


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """Return the recordings of the service as it answers now."""
    return record_service()


@pytest.mark.parametrize("name", ["http", "websocket", "metrics", "openapi"])
def test_the_service_answers_as_recorded(made: dict[str, Any], name: str) -> None:
    check(name, made[name])


def test_every_answer_is_as_the_openapi_document_describes(made: dict[str, Any]) -> None:
    document = OpenApiCheck(made["openapi"])
    for answer in made["answers"]:
        if document.operation(answer.method, answer.path) is not None:
            document.check(answer)
        elif answer.status >= 400:  # an error on a page, a wrong method or an unknown path
            document.check_body("Problem", json.loads(answer.body))
    assert len(document.seen) > 80, "most requests are about routes of the document"


def test_an_answer_that_the_document_does_not_describe_is_found(made: dict[str, Any]) -> None:
    """Check that the comparison rejects a real answer after its status, header, type or field is changed."""
    document = OpenApiCheck(made["openapi"])
    real = next(answer for answer in made["answers"] if answer.path == "/health" and answer.method == "GET")
    document.check(real)
    body = json.loads(real.body)
    headers = dict(real.headers)
    wrong = [
        replace(real, status=418),
        replace(real, headers={"Content-Type": "application/json"}),
        replace(real, headers=headers | {"Content-Type": "text/html"}),
        replace(real, body=json.dumps(body | {"unheard_of": 1}).encode()),
        replace(real, body=json.dumps(body | {"status": "fine"}).encode()),
        replace(real, body=json.dumps(body | {"samples": "many"}).encode()),
        replace(real, body=json.dumps({name: body[name] for name in body if name != "drift"}).encode()),
    ]
    for answer in wrong:
        with pytest.raises(AssertionError):
            document.check(answer)


def test_commands_have_the_recorded_options_and_exit_codes() -> None:
    check("commands", describe_commands())


def test_the_client_library_has_the_recorded_names() -> None:
    check("client", describe_library(streamer.client))


def test_every_route_is_recorded() -> None:
    """Check that each route of the table has a request with its method and the shape of its path."""
    asked = {(request.method, tuple(request.path.partition("?")[0].split("/"))) for request in REQUESTS}

    def is_asked(method: str, path: str) -> bool:
        parts = path.split("/")
        return any(
            sent_method == method
            and len(sent) == len(parts)
            and all(part.startswith("{") or part == given for part, given in zip(parts, sent, strict=True))
            for sent_method, sent in asked
        )

    assert [route for route in ROUTES if not is_asked(*route)] == []


@pytest.mark.parametrize("name", ["http", "websocket", "metrics", "openapi", "commands", "client"])
def test_a_changed_field_anywhere_in_a_recording_is_found(name: str) -> None:
    """Change values all over the recording, one at a time, and check that each change is found."""
    recorded = read_recording(name)
    changed = copy.deepcopy(recorded)
    assert report(recorded, changed) == ""
    leaves = list(_leaves(changed))
    assert len(leaves) > 50
    for holder, key in leaves[:: len(leaves) // 25]:
        before, holder[key] = holder[key], "something else"
        assert len(list(differences(recorded, changed))) == 1, (key, before)
        holder[key] = before


def _leaves(value: Any) -> Any:
    """Yield, for each plain value, the map or list that contains it and its key or index there."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, dict | list):
            yield from _leaves(item)
        else:
            yield value, key


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"status": 404, "body": {"detail": "No.", "boxes": [[1, 2]]}}, "status: 200 -> 404"),
        ({"status": 200, "body": {"detail": "No."}}, "body > boxes: [[1, 2]] -> (absent)"),
        (
            {"status": 200, "body": {"detail": "No.", "boxes": [[1, 2]], "new": 1}},
            "body > new: (absent) -> 1",
        ),
        ({"status": 200, "body": {"detail": "No.", "boxes": [[1, 2.0]]}}, "body > boxes > 0 > 1: 2 -> 2.0"),
        (
            {"status": 200, "body": {"detail": "No.", "boxes": [[1, 2], []]}},
            "body > boxes > 1: (absent) -> []",
        ),
    ],
)
def test_a_difference_names_its_place(now: Any, said: str) -> None:
    recorded = {"status": 200, "body": {"detail": "No.", "boxes": [[1, 2]]}}
    assert report(recorded, now) == f"the interface has changed:\n  {said}"


def test_other_words_are_told_apart_from_another_interface() -> None:
    recorded = {"a": {"status": 200, "detail": "No."}}
    assert report(recorded, {"a": {"status": 200, "detail": "Not."}}) == (
        'only words have changed:\n  a > detail: "No." -> "Not."'
    )


def test_what_varies_is_replaced_and_the_rest_stays() -> None:
    answer = {
        "session": "0-abcdefghijklmnopqrstuvw_",
        "url": "http://127.0.0.1:4711/v1/whip/12-abcdefghijklmnopqrstuvwx",
        "timings_ms": {"decode": 1.5},
        "box": [1.5, 2],
        "win": 3,
        "alive": True,
    }
    assert normalise(answer) == {
        "session": "<session>",
        "url": "http://127.0.0.1:<port>/v1/whip/<session>",
        "timings_ms": {"decode": "<number>"},
        "box": [1.5, 2],
        "win": "<number>",
        "alive": True,
    }
    headers = [("Date", "now"), ("Retry-After", "7"), ("Vary", "Origin"), ("vary", "Accept")]
    assert normalise_headers(headers) == {"retry-after": "<seconds>", "vary": "Origin, Accept"}
    assert normalise_sdp("v=0\r\nm=video 4711 RTP 96\r\na=candidate:1 2\r\na=candidate:3\r\na=mid:0") == [
        *("v=…", "m=video <port> RTP 96", "a=mid:0"),
    ]
