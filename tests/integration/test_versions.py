"""`GET /versions` of a service with two workers: all answer the same, and keys decide what is told."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from inference.models.manifest import manifest_path
from tests.helpers.model_factory import blob_model
from tests.helpers.service import PATIENT, Service
from tests.helpers.waiting import wait_for
from tests.unit.images import encode, scene

KEY = "k" * 40
IMAGES, WRONG = 12, 3
SCORES = {
    "pictures": 20,
    "map50": 0.84,
    "map50_95": 0.6,
    "intervals": {"map50": [0.8, 0.9]},
    "promoted": {"as": "v1", "at": "2026-12-01T15:00:00+00:00"},
}
PARENT = {"name": "first", "sha256": "ab" * 32}


def ask(
    service: Service, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, Any, str]:
    """Send a request on a connection of its own, which any worker may get; return status, JSON and type."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        data, kind = answer.read(), answer.headers.get_content_type()
    finally:
        connection.close()
    return answer.status, json.loads(data) if "json" in kind else data, kind


def check_boxes(version: Any, answers: list[Any]) -> None:
    """Check that the boxes of all answers were counted, by their labels."""
    found = [body["detections"] for body in answers if "detections" in body]
    told = version["traffic"]["boxes"]
    assert told["total"] == sum(map(len, found)) > 0
    assert (told["frames"], told["without"]) == (IMAGES, sum(not each for each in found))
    assert told["by_class"] == Counter(each["label"] for detections in found for each in detections)


def test_all_workers_tell_the_same_and_keys_decide_what(tmp_path: Path) -> None:
    path = blob_model(tmp_path / "own.onnx")
    manifest = {"name": "second", "licence": "MIT", "parents": [PARENT], "metrics": {"promotion": SCORES}}
    manifest_path(path).write_text(json.dumps(manifest))
    other = blob_model(tmp_path / "other.onnx")
    settings = PATIENT | {"MODEL_V1_PATH": str(path), "MODEL_V2_PATH": str(other), "WORKERS": "2"}
    with Service(settings | {"API_KEYS": KEY, "BATCH_MAX": "2"}) as service:
        bearer = {"Authorization": f"Bearer {KEY}"}
        picture = scene()
        picture[20:60, 40:90] = 255  # which the model finds
        image = encode(picture)
        with ThreadPoolExecutor(4) as pool:
            sent = [(image, 200)] * IMAGES + [(b"nonsense", 415)] * WRONG
            answers = list(pool.map(lambda each: ask(service, "POST", "/v1/predict", bearer, each[0]), sent))
        assert [status for status, _, _ in answers] == [status for _, status in sent]

        def told() -> Any:
            status, document, kind = ask(service, "GET", "/versions", bearer)
            assert (status, kind) == (200, "application/json")
            return document

        def answered() -> int:
            # A request is counted just after its answer has been sent.
            durations = told()["versions"]["v1"]["traffic"]["latency"].get("request", {"count": 0})
            return int(durations["count"])

        wait_for(lambda: answered() == IMAGES + WRONG)
        documents = [told() for _ in range(8)]  # each on a connection of its own
        windows = [document.pop("elapsed_s") for document in documents]
        assert windows == sorted(windows)
        started = {datetime.fromisoformat(document.pop("since")) for document in documents}
        assert (max(started) - min(started)).total_seconds() <= 1  # of rounding
        assert all(document == documents[0] for document in documents)

        (document, *_) = documents
        assert document["workers"] == 2
        v1, v2 = document["versions"]["v1"], document["versions"]["v2"]
        assert v1["model"] | {"name": "second", "file": "own.onnx"} == v1["model"]
        assert v1["model"]["sha256"] == service.get_json("/health")["models"]["v1"]["sha256"]
        assert len(v1["model"]["labels"]["names"]) == v1["model"]["labels"]["count"]
        assert v1["model"]["batches"][0]["size"] == 1
        assert v1["lineage"]["parents"] == [PARENT]
        assert v1["lineage"]["promotion"] == SCORES["promoted"]
        assert v1["evaluations"]["promotion"]["intervals"] == {"map50": [0.8, 0.9]}
        assert v1["traffic"]["requests"] == v1["traffic"]["frames"]["answered"] == IMAGES
        assert v1["traffic"]["errors"]["requests"] == {"415": WRONG}
        assert v1["traffic"]["latency"]["stages"]["inference"]["count"] == IMAGES
        check_boxes(v1, [body for _, body, _ in answers])
        assert v2["traffic"]["frames"]["received"] == 0
        assert "evaluations" not in v2
        assert "metrics" in v2["absent"]["evaluations"]

        # Without a key there is what /health tells everybody.
        status, public, _ = ask(service, "GET", "/versions", {})
        assert status == 200
        assert "traffic" not in public["versions"]["v1"]
        assert public["versions"]["v1"]["model"]["labels"] == {"count": v1["model"]["labels"]["count"]}
        # A browser gets the page at the same address.
        status, page, kind = ask(service, "GET", "/versions", {"Accept": "text/html,*/*;q=0.8"})
        assert (status, kind) == (200, "text/html")
        assert b"<h1" in page
