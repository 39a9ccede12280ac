"""Lists the requests to probes, predict routes, pages, tickets and drift; `video_requests` has the others."""

from __future__ import annotations

import base64

from tests.recordings.requests import (
    CUT_JPEG,
    EVIL,
    GIF,
    HUGE_JPEG,
    IMAGE,
    JPEG,
    LARGE,
    NOISE,
    PAGE,
    PNG,
    TEXT,
    Body,
    Request,
    as_json,
    form,
    text_body,
)

_BASE64 = base64.b64encode(IMAGE).decode()
_PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
_UNKNOWN = "0-aaaaaaaaaaaaaaaaaaaaaaaa"
#: Plain rows without times. They cover 0 h, so the service learns a reference from them only with `force`.
_ROWS = [{"brightness": 90 + number % 7, "contrast": 20 + number % 5} for number in range(500)]

_PROBES = [
    Request("health", "GET", "/health"),
    Request("health: head", "HEAD", "/health"),
    Request("health: any host", "GET", "/health", headers={"Host": "balancer.example"}),
    Request("health: wrong method", "POST", "/health"),
    Request("livez", "GET", "/livez"),
    Request("metrics: no key", "GET", "/metrics"),
    Request("metrics: admin", "GET", "/metrics", "admin"),
    Request("metrics: wrong host", "GET", "/metrics", headers={"Host": "evil.example"}),
]
_IMAGES = [
    Request("predict: jpeg", "POST", "/v1/predict", "predict", JPEG),
    Request("predict: png", "POST", "/v1/predict", "predict", PNG),
    Request("predict: without a version", "POST", "/predict", "predict", JPEG),
    Request("predict: version by header", "POST", "/predict", "predict", JPEG, {"X-Model-Version": "v2"}),
    Request("predict: unknown by header", "POST", "/predict", "predict", JPEG, {"X-Model-Version": "v9"}),
    Request("predict: own id", "POST", "/v2/predict", "predict", JPEG, {"X-Request-Id": "my-id.1"}),
    Request("predict: insane id", "POST", "/v2/predict", "predict", JPEG, {"X-Request-Id": "x" * 129}),
    Request("predict: msgpack", "POST", "/v1/predict", "predict", JPEG, {"Accept": "application/msgpack"}),
    Request("predict: drawn", "POST", "/v1/predict", "predict", JPEG, {"Accept": "image/jpeg"}),
    Request("predict: no such form", "POST", "/v1/predict", "predict", JPEG, {"Accept": "text/html"}),
    Request("predict: form", "POST", "/v1/predict", "predict", form(IMAGE, conf_threshold="0.8")),
    Request("predict: form of three", "POST", "/v1/predict", "predict", form(IMAGE, b"text here", NOISE)),
    Request("predict: no image", "POST", "/v1/predict", "predict"),
    Request("predict: form without file", "POST", "/v1/predict", "predict", form(conf_threshold="0.8")),
    Request("predict: form of an empty file", "POST", "/v1/predict", "predict", form(b"")),
    Request("predict: form of a large file", "POST", "/v1/predict", "predict", form(LARGE.content)),
    Request("predict: too many bytes", "POST", "/v1/predict", "predict", LARGE),
    Request("predict: too many images", "POST", "/v1/predict", "predict", form(*[NOISE] * 17)),
    Request("predict: text", "POST", "/v1/predict", "predict", TEXT),
    Request("predict: gif", "POST", "/v1/predict", "predict", GIF),
    Request("predict: damaged", "POST", "/v1/predict", "predict", CUT_JPEG),
    Request("predict: too large", "POST", "/v1/predict", "predict", HUGE_JPEG),
    Request(
        "predict: broken form",
        "POST",
        "/v1/predict",
        "predict",
        Body("half a form", b"--recorded\r\nContent", "multipart/form-data; boundary=recorded"),
    ),
    Request(
        "predict: form without boundary",
        "POST",
        "/v1/predict",
        "predict",
        Body("jpeg", IMAGE, "multipart/form-data"),
    ),
    Request("predict: json", "POST", "/v1/predict", "predict", as_json("json", {})),
    *(
        Request(f"predict: json, {name}", "POST", "/v1/predict", "predict", as_json(name, content))
        for name, content in (
            ("image", {"image": _BASE64, "conf_threshold": 0.5}),
            ("images", {"images": [_BASE64, _BASE64[:100]]}),
            ("no image in it", {"image": "photo.jpg"}),
            ("both", {"image": _BASE64, "images": [_BASE64]}),
        )
    ),
    Request("predict: compressed", "POST", "/v1/predict", "predict", JPEG, {"Content-Encoding": "gzip"}),
    *(
        Request(f"predict: {query}", "POST", f"/v1/predict?{query}", "predict", JPEG)
        for query in (
            "classes=0",
            "max_detections=1",
            "iou_threshold=1",
            "collect=0",
            "conf_threshold=nan",
            "conf_threshold=",
            "iou_threshold=2",
            "max_detections=0",
            "classes=unicorn",
            "collect=maybe",
            "treshold=0.5",
            "conf_threshold=0.5&conf_threshold=0.6",
            "token=abc",
        )
    ),
]
_ACCESS = [
    Request("predict: no key", "POST", "/v1/predict", "", JPEG),
    Request("predict: wrong key", "POST", "/v1/predict", "wrong", JPEG),
    Request("predict: other scope", "POST", "/v1/predict", "stream", JPEG),
    Request("predict: without a version, no key", "POST", "/predict", "", JPEG),
    Request("predict: within quota", "POST", "/v1/predict", "poor", JPEG),
    Request("predict: over quota", "POST", "/v1/predict", "poor", JPEG),
    Request("predict: foreign page", "POST", "/v1/predict", "predict", JPEG, {"Origin": EVIL}),
    Request("predict: allowed page", "POST", "/v1/predict", "predict", JPEG, {"Origin": PAGE}),
    Request("predict: wrong host", "POST", "/v1/predict", "predict", JPEG, {"Host": "evil.example"}),
    Request("predict: wrong method", "GET", "/v1/predict", "predict"),
    Request("predict: unknown version", "POST", "/v3/predict", "predict", JPEG),
    Request("predict: preflight", "OPTIONS", "/v1/predict", headers=_PREFLIGHT),
    Request("predict: foreign preflight", "OPTIONS", "/v1/predict", headers=_PREFLIGHT | {"Origin": EVIL}),
    Request("nothing there", "GET", "/nothing"),
    Request("ticket: no key", "POST", "/tickets"),
    Request("ticket: other scope", "POST", "/tickets", "predict"),
    Request("ticket", "POST", "/tickets", "stream"),
    Request("ticket: whose", "POST", "/tickets/{ticket}"),
    Request("ticket: used up", "POST", "/tickets/{ticket}"),
    Request("ticket: wrong method", "GET", "/tickets", "stream"),
]
_STREAMS = [
    Request("stream: no upgrade", "GET", "/v1/stream", "stream"),
    Request("stream: without a version, no upgrade", "GET", "/stream", "stream"),
    Request("stream: wrong key", "GET", "/v1/stream", "wrong", headers=_UPGRADE),
    Request("stream: other scope", "GET", "/v1/stream", "predict", headers=_UPGRADE),
    Request("stream: unknown version", "GET", "/v3/stream", "stream", headers=_UPGRADE),
    Request("stream: over quota", "GET", "/v1/stream", "poor", headers=_UPGRADE),
    Request("stream: foreign page", "GET", "/v1/stream", "stream", headers=_UPGRADE | {"Origin": EVIL}),
    Request(
        "stream: unknown subprotocol",
        "GET",
        "/v1/stream",
        "stream",
        headers=_UPGRADE | {"Sec-WebSocket-Protocol": "detect.v9.json"},
    ),
    Request(
        "stream: wrong ticket",
        "GET",
        "/v1/stream",
        headers=_UPGRADE | {"Sec-WebSocket-Protocol": "detect.v1.json, ticket.tkt_none"},
    ),
    Request("stream: unknown session", "POST", f"/v1/stream/{_UNKNOWN}", "stream"),
    Request("stream: session, no key", "POST", f"/v1/stream/{_UNKNOWN}"),
    Request("stream: session, wrong method", "GET", f"/v1/stream/{_UNKNOWN}", "stream"),
]
_DRIFT = [
    Request("replica load: not a replica", "GET", "/replicas/load", "admin"),
    # What administrators see in addition depends on timing.
    Request("versions: no key", "GET", "/versions"),
    Request("versions: page", "GET", "/versions", headers={"Accept": "text/html"}),
    Request("load: no key", "POST", "/versions/v1/load", "", as_json("absent", {"path": "absent.onnx"})),
    Request("load: absent", "POST", "/versions/v1/load", "admin", as_json("absent", {"path": "absent.onnx"})),
    Request("load: outside", "POST", "/versions/v2/load", "admin", as_json("outside", {"path": "../a.onnx"})),
    Request("load: unknown version", "POST", "/versions/v3/load", "admin", as_json("a", {"path": "a.onnx"})),
    Request("promote: other scope", "POST", "/versions/promote", "stream"),
    Request("rollback: nothing before", "POST", "/versions/rollback", "admin"),
    Request("versions: no such picture", "GET", "/versions/pictures/0-0", "admin"),
    Request("split: no key", "PUT", "/versions/split", "", as_json("a tenth", {"v2": 0.1})),
    Request("split: other scope", "PUT", "/versions/split", "stream", as_json("a tenth", {"v2": 0.1})),
    Request("split: nobody", "PUT", "/versions/split", "admin", as_json("nobody", {"v2": 0})),
    Request("split: too much", "PUT", "/versions/split", "admin", as_json("all and more", {"v2": 2})),
    Request("split: no share", "PUT", "/versions/split", "admin", as_json("{}", {})),
    Request("split: wrong name", "PUT", "/versions/split", "admin", as_json("a share of v1", {"v1": 1})),
    Request("shadow: no key", "PUT", "/versions/shadow", "", as_json("a tenth", {"v2": 0.1})),
    Request("shadow: none", "PUT", "/versions/shadow", "admin", as_json("nobody", {"v2": 0})),
    Request("shadow: too much", "PUT", "/versions/shadow", "admin", as_json("all and more", {"v2": 2})),
    Request("split: a list", "PUT", "/versions/split", "admin", as_json("a list", [1])),
    Request("drift status: no key", "GET", "/drift/status"),
    Request("drift status: admin", "GET", "/drift/status", "admin"),
    Request("drift report: no key", "GET", "/drift/report"),
    Request("drift report: other scope", "GET", "/drift/report", "predict"),
    Request("drift report: nothing yet", "GET", "/drift/report", "admin"),
    Request("drift report: unknown group", "GET", "/drift/report?group=none", "admin"),
    Request("reference: no key", "POST", "/reference/update", "", as_json("rows", _ROWS)),
    Request("reference: other scope", "POST", "/reference/update", "stream", as_json("rows", _ROWS)),
    Request("reference: dry run", "POST", "/reference/update?dry_run=1", "admin", as_json("rows", _ROWS)),
    Request(
        "reference: forced", "POST", "/reference/update?dry_run=1&force=1", "admin", as_json("rows", _ROWS)
    ),
    # Another group may have rows by now, depending on how long the requests before took.
    Request(
        "reference: of samples",
        "POST",
        "/reference/update?dry_run=1",
        "admin",
        as_json("a group without rows", {"group": "nobody"}),
    ),
    Request("reference: wrong flag", "POST", "/reference/update?force=x", "admin", as_json("{}", {})),
    Request("reference: few rows", "POST", "/reference/update", "admin", as_json("a row", _ROWS[:1])),
    Request("reference: wrong column", "POST", "/reference/update", "admin", as_json("a row", [{"x": 1}])),
    Request(
        "reference: not JSON",
        "POST",
        "/reference/update",
        "admin",
        text_body("half a list", "[", "application/json"),
    ),
    Request(
        "reference: wrong type", "POST", "/reference/update", "admin", text_body("text", "[]", "text/plain")
    ),
]
_PAGES = [
    *(
        Request(f"page {path}", "GET", path)
        for path in (
            *("/", "/favicon.ico", "/openapi.json", "/docs", "/docs-init.js", "/redoc"),
            *("/static/page.css", "/static/js/app.js"),
        )
    ),
    Request("page: known already", "GET", "/", headers={"If-None-Match": "*"}),
    Request("page: head", "HEAD", "/"),
    Request("page: wrong method", "POST", "/"),
    Request("page: wrong host", "GET", "/", headers={"Host": "evil.example"}),
    Request("page: not served", "GET", "/static/__init__.py"),
    Request("clip: a part", "GET", "/data/sample.mp4", headers={"Range": "bytes=0-99"}),
    Request("clip: beyond its end", "GET", "/data/sample.mp4", headers={"Range": "bytes=999999999-"}),
]

#: Requests about drift come before images, whose streams `/drift/status` shows after some time.
REQUESTS = [*_PROBES, *_DRIFT, *_IMAGES, *_ACCESS, *_STREAMS, *_PAGES]
