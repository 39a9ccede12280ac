"""The client accepts addresses as people type them, and never shows a credential."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.client.address import predict_address, stream_address
from streamer.client.errors import BadInput
from streamer.client.options import Params
from streamer.core.redact import redact, secrets_of

SECRET = "hunter22-dummy"  # noqa: S105 - a dummy, to be found nowhere


@pytest.mark.parametrize(
    ("given_text", "stream", "predict"),
    [
        ("host:8000", "ws://host:8000/v1/stream", "http://host:8000/v1/predict"),
        ("http://host", "ws://host/v1/stream", "http://host/v1/predict"),
        ("wss://host/", "wss://host/v1/stream", "https://host/v1/predict"),
        ("https://host/v2/x?a=1", "wss://host/v2/x?a=1", "https://host/v2/x?a=1"),
        ("[::1]:80", "ws://[::1]:80/v1/stream", "http://[::1]:80/v1/predict"),
        (" ws://127.0.0.1:8000 ", "ws://127.0.0.1:8000/v1/stream", "http://127.0.0.1:8000/v1/predict"),
    ],
)
def test_what_is_missing_is_added(given_text: str, stream: str, predict: str) -> None:
    assert stream_address(given_text).url == stream
    assert predict_address(given_text).url == predict


@pytest.mark.parametrize("text", ["ftp://host", "ws://", "http://host:port", "rtsp://host/x", "http://[::1"])
def test_an_address_that_cannot_be_used_is_named(text: str) -> None:
    with pytest.raises(BadInput, match="address"):
        stream_address(text)


def test_credentials_become_a_header_and_leave_the_address() -> None:
    address = stream_address(f"https://me:{SECRET}@host/v1/stream")
    assert address.url == "wss://host/v1/stream"
    assert address.headers["Authorization"].startswith("Basic ")
    bearer = stream_address(f"https://me:{SECRET}@host", "dummy-token")
    assert bearer.headers == {"Authorization": "Bearer dummy-token"}
    for shown in (repr(address), address.shown, repr(bearer), bearer.clean("failed with dummy-token")):
        assert SECRET not in shown
        assert "dummy-token" not in shown


def test_secrets_in_the_query_are_sent_and_not_shown() -> None:
    address = stream_address(f"ws://host/v1/stream?token={SECRET}&x=1")
    assert SECRET in address.url
    assert address.shown == "ws://host/v1/stream?token=***&x=1"
    assert SECRET not in address.clean(f"cannot reach {address.url}")


@pytest.mark.parametrize("token", ["", "two words", "täst", "line\nbreak"])
def test_a_token_that_no_header_can_carry_is_refused_without_repeating_it(token: str) -> None:
    with pytest.raises(BadInput) as caught:
        stream_address("host", token)
    assert not token or token not in str(caught.value)


def test_a_wrong_address_is_reported_without_its_password() -> None:
    for text in (f"ftp://me:{SECRET}@host", f"http://me:{SECRET}@host:port"):
        with pytest.raises(BadInput) as caught:
            stream_address(text)
        assert SECRET not in str(caught.value)


@given(st.text(alphabet=st.characters(codec="ascii", categories=["L", "N"]), min_size=8, max_size=30))
def test_redact_removes_a_secret_wherever_it_stands(secret: str) -> None:
    marked = f"q9{secret}"
    for text in (
        f"rtsp://admin:{marked}@cam.example:554/live",
        f"https://host/x?api_key={marked}&y=1",
        f"Authorization: Bearer {marked}",
        f"plain {marked} words",
    ):
        secrets = [marked] if text.startswith("plain") else []
        assert marked not in redact(text, secrets)


def test_secrets_of_an_address_are_found() -> None:
    found = secrets_of(f"rtsp://admin:{SECRET}@cam/x?password=abcd&fps=5")
    assert set(found) == {SECRET, "abcd"}
    assert secrets_of("http://[broken") == ()


def test_parameters_are_checked_by_name_and_merged() -> None:
    for wrong in (
        {"conf_threshold": 1.5},
        {"iou_threshold": -1},
        {"max_detections": 0},
        {"classes": "person"},
    ):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            Params(**wrong)
    merged = Params(conf_threshold=0.5, classes=["a", 3]).merged(Params(conf_threshold=0.0, track=True))
    assert merged.to_wire() == {"conf_threshold": 0.0, "classes": ["a", 3], "track": True}
    across = Params(agnostic_nms=True)
    assert across.to_wire() == {"agnostic_nms": True}
    assert across.to_query() == [("agnostic_nms", "1")]
    assert merged.to_query() == [("conf_threshold", "0.0"), ("classes", "a"), ("classes", "3")]


def test_the_digest_of_an_artifact_is_no_secret() -> None:
    digest = "sha256:" + "0a" * 32
    for address in (f"oci://host:5000/models/x@{digest}", f"oci://host:5000/models/x:1.0@{digest}"):
        assert redact(f"{address}: not there") == f"{address}: not there"
    wrong = redact(f"oci://me:{SECRET}/x@host:5000/models/x@{digest}")
    assert wrong == f"oci://***@host:5000/models/x@{digest}"
