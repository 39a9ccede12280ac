"""Every route answers as the OpenAPI document says, with each status that requests alone can cause."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.openapi_check import OpenApiCheck, RealAnswer
from tests.helpers.service import PATIENT, Service
from tests.helpers.waiting import wait_for
from tests.recordings.requests import CUT_JPEG, GIF, JPEG, key_file, key_text
from tests.recordings.video_requests import SDP, SDP_OF_VP9, SDP_WITH_CHANNELS

#: Time-out of each connection, in seconds.
_TIMEOUT_S = 120.0
_UNKNOWN = "0-aaaaaaaaaaaaaaaaaaaaaaaa"
#: Number of wrong keys to send, well above the burst that `failed_keys` allows, so that the service then
#: refuses further unknown keys.
_MANY_WRONG_KEYS = 60
_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
#: Statuses that this test cannot cause: 423 needs two simultaneous updates, the others failures or load.
_NOT_CAUSED = {"423", "500", "503", "504"}
#: Operations and statuses that this test cannot cause, because they need a service with one model missing,
#: another replica, hours of drift rows, frames on which two models differ, or another model to change to.
_NOT_CAUSED_HERE = re.compile(
    r"((predict|stream)_\w+|webrtc_describe_v.|\w+_offer_v.) 404|\w+_(state|end)_v. 410|drift_report 200"
    r"|versions_picture 200|(split|shadow)_update 409|load_v. 409|(promote|roll_back)_version 200"
    r"|roll_back_version 422"
)


@dataclass(frozen=True, slots=True)
class Operation:
    """Holds one operation of the OpenAPI document."""

    method: str
    path: str
    described: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.described["operationId"])

    @property
    def statuses(self) -> set[str]:
        return set(self.described["responses"])

    @property
    def key(self) -> str:
        """Name of a key that may use the operation; empty when the operation needs no key."""
        return "all" if "401" in self.statuses else ""


@dataclass
class Client:
    """Sends requests to one service, and checks every answer against the service's OpenAPI document."""

    service: Service
    document: OpenApiCheck
    operations: list[Operation]
    #: Paths of open sessions, by transport and version.
    sessions: dict[tuple[str, str], str] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)

    def send(
        self,
        operation: Operation,
        *,
        path: str = "",
        query: str = "",
        key: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> RealAnswer:
        """Send a request, check the answer against the document and return it.

        ``path`` replaces the operation's path, for example with the path of a session.
        """
        sent = dict(headers or {})
        if key:
            sent["Authorization"] = f"Bearer {key_text(key)}"
        target = (path or operation.path.format(session=_UNKNOWN, picture="0-0")) + query
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=_TIMEOUT_S)
        try:
            connection.request(operation.method.upper(), target, body, sent)
            response = connection.getresponse()
            endless = response.headers.get_content_type() == "text/event-stream" or response.status == 101
            content = b"" if response.status == 101 else response.readline() if endless else response.read()
        finally:
            connection.close()
        answer = RealAnswer(operation.method.upper(), target, response.status, response.headers, content)  # type: ignore[arg-type]
        self.document.check(answer)
        return answer

    def operation(self, name: str) -> Operation:
        """Return the operation with that ``operationId``."""
        return next(operation for operation in self.operations if operation.name == name)

    def with_status(self, *statuses: str) -> list[Operation]:
        """Return the operations whose documented responses include all of these statuses."""
        return [operation for operation in self.operations if {*statuses} <= operation.statuses]

    def open_session(self, kind: str, version: str) -> str:
        """Open a session and return its path."""
        json_body = json.dumps({"type": "offer", "sdp": SDP_WITH_CHANNELS}).encode()
        types = {"webrtc": ("application/json", json_body), "whip": ("application/sdp", SDP.encode())}
        content_type, body = types[kind]
        answer = self.send(
            self.operation(f"{kind}_offer_{version}"),
            key="all",
            headers={"Content-Type": content_type},
            body=body,
        )
        assert answer.status == 201
        path = "/" + answer.headers["Location"].split("/", 3)[3]
        self.sessions[kind, version] = path
        self.etags[path] = answer.headers["ETag"]
        return path


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    keys: Path = tmp_path_factory.mktemp("keys") / "keys.json"
    keys.write_text(key_file())
    settings = {"API_KEYS_FILE": str(keys), "WORKERS": "1", "BODY_TIMEOUT_S": "5", "DRAIN_DELAY_S": "5"}
    with Service(PATIENT | settings) as service:
        wait_for(lambda: service.get_json("/health")["sampling"] == "on", "answers about drift")
        found = service.get_json("/openapi.json")
        operations = [
            Operation(method, path, operation)
            for path, methods in found["paths"].items()
            for method, operation in methods.items()
            if method != "parameters"
        ]
        yield Client(service, OpenApiCheck(found), operations)


def test_a_key_in_the_address_is_refused_everywhere(client: Client) -> None:
    for operation in client.operations:
        assert client.send(operation, query="?token=abc", key=operation.key).status == 400


def test_another_name_of_the_service_is_refused_but_by_probes(client: Client) -> None:
    refused = client.with_status("403")
    assert {operation.path for operation in client.operations if operation not in refused} == {
        "/health",
        "/livez",
    }
    for operation in refused:
        assert client.send(operation, headers={"Host": "evil.example"}).status == 403


def test_a_key_is_required_and_has_a_scope(client: Client) -> None:
    guarded = client.with_status("401")
    assert len(guarded) > 30
    for operation in guarded:
        late = operation.name.startswith("stream_")
        assert client.send(operation, key="unknown" if late else "").status == 401
        streams = late or operation.path.startswith(("/v1/", "/v2/", "/webrtc", "/whip", "/tickets"))
        other = "predict" if streams and not operation.path.endswith("/predict") else "stream"
        headers = _UPGRADE if late else {}
        assert client.send(operation, key=other, headers=headers).status == 403, operation.name


def test_sessions_that_nobody_has_are_not_found(client: Client) -> None:
    of_sessions = [operation for operation in client.operations if "{session}" in operation.path]
    assert len(of_sessions) == 16
    for operation in of_sessions:
        assert client.send(operation, key="all").status == 404


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("kind", ["webrtc", "whip"])
def test_a_session_from_its_offer_to_its_end(client: Client, kind: str, version: str) -> None:
    path = client.open_session(kind, version)
    state, trickle, results, end = (
        client.operation(f"{kind}_{name}_{version}") for name in ("state", "trickle", "results", "end")
    )
    assert client.send(state, path=path, key="all").status == 200
    assert client.send(results, path=f"{path}/results", key="all").status == 200
    assert client.send(results, path=f"{path}/results", key="all", headers=_UPGRADE).status == 101
    good = {"If-Match": client.etags[path]} if kind == "whip" else {}
    content_type = next(iter(trickle.described["requestBody"]["content"]))
    sent = good | {"Content-Type": content_type}
    candidate = b"" if kind == "whip" else b'{"candidate": ""}'
    assert client.send(trickle, path=path, key="all", headers=sent, body=candidate).status == 204
    bad = b"nonsense" if kind == "whip" else b"{}"
    assert client.send(trickle, path=path, key="all", headers=sent, body=bad).status == 400
    assert client.send(trickle, path=path, key="all", headers={"Content-Type": "text/x"}).status == 415
    if kind == "whip":
        del sent["If-Match"]
        assert client.send(trickle, path=path, key="all", headers=sent).status == 428
        assert client.send(trickle, path=path, key="all", headers=sent | {"If-Match": '"x"'}).status == 412
        restart = b"a=ice-ufrag:zzzz\r\n"
        assert client.send(trickle, path=path, key="all", headers=sent | good, body=restart).status == 422
    assert client.send(end, path=path, key="all").status == (200 if kind == "whip" else 204)
    assert client.send(state, path=path, key="all").status == 200
    assert client.send(results, path=f"{path}/results", key="all").status == 410
    assert client.send(trickle, path=path, key="all", headers=sent | good).status == 410


def test_bodies_are_refused_that_are_too_large_too_slow_or_of_another_type(client: Client) -> None:
    """The test sends all requests at once, because each slow one takes seconds."""
    sessions = {
        (kind, version): client.open_session(kind, version)
        for kind in ("webrtc", "whip")
        for version in ("v1", "v2")
    }
    waiting: list[tuple[Operation, str, int, socket.socket]] = []
    for operation in client.with_status("408"):
        path = operation.path
        if "{session}" in path:
            _, version, kind, _ = path.split("/")
            path = sessions[kind, version]
        predicts = operation.name.startswith("predict")
        content_type = "image/jpeg" if predicts else next(iter(operation.described["requestBody"]["content"]))
        large = bytes((16 << 20) + 1 if operation.name == "reference_update" else 150_000)
        wrong = [(408, content_type, b"a", 1000)]
        # The predict routes refuse a body by its declared length alone.
        wrong += [(413, content_type, b"", 1 << 40) if predicts else (413, content_type, large, len(large))]
        wrong += [] if predicts else [(415, "text/x", b"", 10)]
        for status, kind_sent, content, size in wrong:
            waiting.append(
                (operation, path, status, _begin(client, operation, path, kind_sent, content, size))
            )
    assert len(waiting) > 30
    for operation, path, status, connection in waiting:
        with connection:
            response = http.client.HTTPResponse(connection)
            response.begin()
            content = response.read()
        answer = RealAnswer(operation.method.upper(), path, response.status, response.headers, content)  # type: ignore[arg-type]
        client.document.check(answer)
        assert answer.status == status, operation.name


def _begin(
    client: Client, operation: Operation, path: str, content_type: str, content: bytes, size: int
) -> socket.socket:
    """Send a request that declares a body of ``size`` bytes but sends only ``content`` of it."""
    connection = socket.create_connection(("127.0.0.1", client.service.port), _TIMEOUT_S)
    head = (
        f"{operation.method.upper()} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
        f"Authorization: Bearer {key_text('all')}\r\nContent-Length: {size}\r\n\r\n"
    )
    connection.sendall(head.encode() + content)
    return connection


@pytest.mark.parametrize("name", ["predict_v1", "predict_v2", "predict_any"])
def test_images_that_are_answered_and_refused(client: Client, name: str) -> None:
    predict = client.operation(name)

    def status(content: bytes, accept: str = "*/*", query: str = "", key: str = "all", **headers: str) -> int:
        sent = {"Content-Type": "image/jpeg", "Accept": accept} | headers
        return client.send(predict, query=query, key=key, headers=sent, body=content).status

    for accept in ("application/json", "application/msgpack", "image/jpeg"):
        assert status(JPEG.content, accept) == 200
    assert status(JPEG.content, "text/plain") == 406
    assert status(GIF.content) == 415
    assert status(CUT_JPEG.content) == 422
    assert status(JPEG.content, query="?conf_threshold=2") == 400
    assert status(JPEG.content, key="poor") in (200, 429)
    assert status(JPEG.content, key="poor") == 429
    if name == "predict_any":
        assert status(JPEG.content, **{"X-Model-Version": "v3"}) == 404


@pytest.mark.parametrize("name", ["stream_v1", "stream_v2", "stream_any"])
def test_streams_that_are_opened_and_refused(client: Client, name: str) -> None:
    stream = client.operation(name)
    assert client.send(stream, key="all", headers=_UPGRADE).status == 101
    assert client.send(stream, key="poor", headers=_UPGRADE).status == 429
    assert client.send(stream, key="all").status == 426


@pytest.mark.parametrize("version", ["v1", "v2", "any"])
def test_offers_that_are_refused(client: Client, version: str) -> None:
    for kind, content_type in (("webrtc", "application/json"), ("whip", "application/sdp")):
        offer = client.operation(f"{kind}_offer_{version}")
        for key, sdp, status in (("all", "v=1", 400), ("all", SDP_OF_VP9, 422), ("poor", SDP, 429)):
            body = json.dumps({"type": "offer", "sdp": sdp}) if kind == "webrtc" else sdp
            headers = {"Content-Type": content_type}
            assert client.send(offer, key=key, headers=headers, body=body.encode()).status == status
    assert client.send(client.operation(f"webrtc_describe_{version}"), key="all").status == 200


def test_offers_without_a_version_open_sessions_of_one(client: Client) -> None:
    for kind in ("webrtc", "whip"):
        assert client.open_session(kind, "any").startswith(f"/v1/{kind}/")
        offer = client.operation(f"{kind}_offer_any")
        headers = {"X-Model-Version": "v3"} | ({"Content-Type": "application/sdp"} if kind == "whip" else {})
        assert client.send(offer, key="all", headers=headers).status == 404
    for name in ("webrtc_describe_any", "stream_any"):
        headers = _UPGRADE | {"X-Model-Version": "v3"}
        assert client.send(client.operation(name), key="all", headers=headers).status == 404


def test_the_share_of_v2_is_changed_and_refused(client: Client) -> None:
    update, headers = client.operation("split_update"), {"Content-Type": "application/json"}
    for body, status in ((b'{"v2": 0}', 200), (b'{"v2": 2}', 400), (b"[]", 400), (b'{"v3": 1}', 400)):
        assert client.send(update, key="all", headers=headers, body=body).status == status
    shadow = client.operation("shadow_update")
    assert client.send(shadow, key="all", headers=headers, body=b'{"v2": 0}').status == 200


def test_changes_of_versions_that_are_refused_or_change_nothing(client: Client) -> None:
    headers = {"Content-Type": "application/json"}
    for name, body, status in (
        *(("load_v1", b"{}", 422), ("load_v2", b"{}", 422)),
        *(("load_v1", b'{"path": "null.onnx"}', 200), ("load_v2", b'{"path": "null.onnx"}', 200)),
        *(("promote_version", b'{"labels_may_change": 1}', 422), ("promote_version", b"{}", 409)),
        ("roll_back_version", b"{}", 400),
    ):
        assert client.send(client.operation(name), key="all", headers=headers, body=body).status == status
    assert client.send(client.operation("roll_back_version"), key="all").status == 409


def test_health_metrics_and_drift(client: Client) -> None:
    for name in ("health", "livez", "metrics", "versions", "drift_status"):
        for key in ("", "all"):
            assert client.send(client.operation(name), key=key).status == 200
    picture = client.operation("versions_picture")
    assert client.send(picture, key="all").status == 404
    report, update = client.operation("drift_report"), client.operation("reference_update")
    assert client.send(report, key="all").status == 409
    assert client.send(report, key="all", query="?group=none").status == 404
    headers = {"Content-Type": "application/json"}
    rows = json.dumps([{"brightness": 100 + number % 7, "group": "gate"} for number in range(600)]).encode()
    for body, query, status in ((b"{}", "", 409), (b"[1]", "", 400), (rows, "?dry_run=1&force=1", 200)):
        assert client.send(update, key="all", query=query, headers=headers, body=body).status == status


def test_one_client_gets_a_hundred_tickets(client: Client) -> None:
    statuses = [client.send(client.operation("take_ticket"), key="stream").status for _ in range(101)]
    assert statuses == [201] * 100 + [429]


def test_after_many_wrong_keys_further_ones_are_not_looked_at(client: Client) -> None:
    for number in range(_MANY_WRONG_KEYS):
        client.send(client.operation("take_ticket"), key=f"wrong-{number}")
    for operation in client.with_status("401"):
        # Tries come back in time, so a slow machine may have a few left.
        answers = (
            client.send(operation, key="wrong", headers=_UPGRADE).status for _ in range(_MANY_WRONG_KEYS)
        )
        assert 429 in answers, operation.name


def test_health_while_the_service_drains(client: Client) -> None:
    client.service.signal(signal.SIGTERM)
    answer = client.send(client.operation("health"))
    while answer.status == 200:
        answer = client.send(client.operation("health"))
    assert json.loads(answer.body)["status"] == "draining"


def test_what_requests_alone_can_cause_was_seen(client: Client) -> None:
    unseen = client.document.documented() - client.document.seen
    missing = {f"{name} {status}" for name, status in unseen if status not in _NOT_CAUSED}
    assert {text for text in missing if not _NOT_CAUSED_HERE.fullmatch(text)} == set()
