"""The bucket store sends one PUT per object, whatever happens, and its errors say what to do."""

from __future__ import annotations

import dataclasses
import functools
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from botocore.loaders import create_loader

from streamer.config.settings import SettingsError, load_settings
from streamer.sampling.errors import ObjectRefused, StoreError, StoreMisconfigured, StoreUnavailable
from streamer.sampling.s3 import Bucket, S3Store, meaning_of
from streamer.sampling.store import bucket_of
from tests.helpers.stores.faulty import BUCKET, FaultyS3

#: Time for one request on a machine that hardly runs, in seconds.
PATIENCE_S = 150.0


@pytest.fixture(scope="module", autouse=True)
def _descriptions_are_read_once() -> Iterator[None]:
    """Let all clients share the description of S3, which botocore otherwise reads again for each of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", functools.cache(create_loader))
        yield


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "dummy-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "dummy-secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with FaultyS3() as running:
        yield running


@pytest.fixture
async def store(server: FaultyS3) -> AsyncIterator[S3Store]:
    opened = S3Store(Bucket(BUCKET, "team/a", server.url, encryption="AES256", timeout_s=PATIENCE_S))
    yield opened
    await opened.close()


async def test_an_object_is_one_put(server: FaultyS3, store: S3Store) -> None:
    await store.put("v1/images/x.jpg", b"jpeg" * 50_000, "image/jpeg")
    assert server.objects == {"team/a/v1/images/x.jpg": b"jpeg" * 50_000}
    assert server.methods == {"PUT": 1}
    assert server.headers["Content-Type"] == "image/jpeg"
    assert server.headers["x-amz-server-side-encryption"] == "AES256"
    assert "Expect" not in server.headers
    assert not any("checksum" in name.lower() for name in server.headers)


@pytest.mark.parametrize(
    ("answer", "kind", "reason", "text"),
    [
        ((500, "InternalError"), StoreUnavailable, "", "500"),
        ((503, "SlowDown"), StoreUnavailable, "", "SlowDown"),
        ((429, "Busy"), StoreUnavailable, "", "429"),
        ((409, "OperationAborted"), StoreUnavailable, "", "409"),
        ((400, "RequestTimeout"), StoreUnavailable, "", "RequestTimeout"),
        ((403, "AccessDenied"), StoreMisconfigured, "denied", "s3:PutObject"),
        ((403, "SignatureDoesNotMatch"), StoreMisconfigured, "credentials", "AWS_SECRET_ACCESS_KEY"),
        ((403, "InvalidAccessKeyId"), StoreMisconfigured, "credentials", "AWS_ACCESS_KEY_ID"),
        ((400, "ExpiredToken"), StoreMisconfigured, "credentials", "AWS_SESSION_TOKEN"),
        ((403, "RequestTimeTooSkewed"), StoreMisconfigured, "clock", "clock"),
        ((404, "NoSuchBucket"), StoreMisconfigured, "no_bucket", "S3_BUCKET_NAME"),
        ((301, "PermanentRedirect"), StoreMisconfigured, "region", "AWS_REGION"),
        ((400, "AuthorizationHeaderMalformed"), StoreMisconfigured, "region", "AWS_REGION"),
        ((400, "InvalidArgument"), ObjectRefused, "", "InvalidArgument"),
        ((403, "Strange"), StoreMisconfigured, "denied", "s3:PutObject"),
        ((404, "Strange"), StoreMisconfigured, "no_bucket", "S3_BUCKET_NAME"),
    ],
)
async def test_every_answer_has_a_meaning_and_is_asked_once(
    server: FaultyS3,
    store: S3Store,
    answer: tuple[int, str],
    kind: type[StoreError],
    reason: str,
    text: str,
) -> None:
    server.answer = answer
    with pytest.raises(kind, match=text) as caught:
        await store.put("k", b"x", "image/jpeg")
    assert getattr(caught.value, "reason", "") == reason
    # botocore neither repeats the request nor asks for the bucket's region.
    assert server.methods == {"PUT": 1}
    server.answer = None
    await store.put("k", b"x", "image/jpeg")


FOREIGN, OWN = "<BucketName>v1</BucketName>", f"<BucketName>{BUCKET}</BucketName>"
MALFORMED, SCOPE = "AuthorizationHeaderMalformed", "expected: 20261130/garage/s3/aws4_request"
#: Addressing style, checksum setting, answer (status, code, message, elements), reason, error text.
_OF_SETTINGS = [
    ("path", "", (403, "SecondLevelDomainForbidden", "", ""), "addressing", "ADDRESSING_STYLE=virtual"),
    ("path", "", (403, "AccessDenied", "Use virtual-hosted style.", ""), "addressing", "_STYLE=virtual"),
    ("path", "", (400, "VirtualHostDomainRequired", "", ""), "addressing", "ADDRESSING_STYLE=virtual"),
    ("path", "", (404, "NoSuchBucket", "", FOREIGN), "addressing", "ADDRESSING_STYLE=virtual"),
    ("virtual", "", (404, "NoSuchBucket", "", FOREIGN), "addressing", "ADDRESSING_STYLE=path"),
    ("virtual", "", (403, "AccessDenied", "", FOREIGN), "addressing", "ADDRESSING_STYLE=path"),
    ("path", "", (404, "NoSuchBucket", "", OWN), "no_bucket", "S3_BUCKET_NAME"),
    # When the answer does not show which cause applies, the error names both.
    ("path", "", (403, "AccessDenied", "", ""), "denied", "ADDRESSING_STYLE=virtual"),
    ("path", "when_supported", (501, "NotImplemented", "a header", ""), "checksum", "=when_required"),
    ("path", "when_supported", (400, "InvalidArgument", "bad trailer", ""), "checksum", "=when_required"),
    ("path", "when_supported", (400, "XAmzContentSHA256Mismatch", "", ""), "checksum", "=when_required"),
    ("path", "", (400, "InvalidRequest", "Content-MD5 is required", ""), "checksum", "=when_supported"),
    ("path", "", (400, "BadDigest", "", ""), "checksum", "has changed on its way"),
    ("path", "", (501, "NotImplemented", "", ""), "", "501"),
    ("path", "", (301, "PermanentRedirect", "", "<Endpoint>b.example</Endpoint>"), "region", "b.example"),
    ("path", "", (400, MALFORMED, "", "<Region>mars-1</Region>"), "region", "AWS_REGION=mars-1"),
    ("path", "", (400, MALFORMED, "expecting 'mars-1'", ""), "region", "AWS_REGION=mars-1"),
    ("path", "", (403, MALFORMED, SCOPE, ""), "region", "AWS_REGION=garage"),
]


@pytest.mark.parametrize(("style", "checksums", "answer", "reason", "text"), _OF_SETTINGS)
async def test_a_refusal_names_the_setting_that_decides(
    server: FaultyS3,
    monkeypatch: pytest.MonkeyPatch,
    style: str,
    checksums: str,
    answer: tuple[int, str, str, str],
    reason: str,
    text: str,
) -> None:
    if checksums:
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", checksums)
    server.answer, server.message, server.elements = answer[:2], *answer[2:]
    # For an IP address, botocore puts the bucket into the path in any style, so requests reach the server.
    store = S3Store(Bucket(BUCKET, endpoint=server.url, addressing=style, timeout_s=PATIENCE_S))
    with pytest.raises(StoreError, match=text) as caught:
        await store.put("v1/k", b"x", "image/jpeg")
    await store.close()
    assert getattr(caught.value, "reason", "") == reason
    assert bool(checksums) == any("checksum" in name.lower() for name in server.headers)
    assert server.methods == {"PUT": 1}


async def test_a_redirect_names_the_region(server: FaultyS3, store: S3Store) -> None:
    server.answer, server.answer_headers = (301, ""), {"x-amz-bucket-region": "mars-1"}
    with pytest.raises(StoreMisconfigured, match="AWS_REGION=mars-1"):
        await store.put("k", b"x", "image/jpeg")


async def test_the_style_decides_where_the_bucket_stands(
    server: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **more: resolve("127.0.0.1", *rest, **more))
    endpoint = f"http://store.example:{server.port}"
    for style, host in (
        ("auto", "store.example"),
        ("path", "store.example"),
        ("virtual", f"{BUCKET}.store.example"),
    ):
        store = S3Store(Bucket(BUCKET, endpoint=endpoint, addressing=style))
        await store.put(f"{BUCKET}/{style}", b"x", "image/jpeg")
        await store.close()
        assert server.headers["Host"] == f"{host}:{server.port}"


async def test_a_name_that_does_not_resolve_is_explained_by_the_style(server: FaultyS3) -> None:
    store = S3Store(Bucket(BUCKET, endpoint="http://store.invalid", addressing="virtual"))
    with pytest.raises(StoreUnavailable, match=f"S3_ADDRESSING_STYLE=virtual the host is {BUCKET}.HOST"):
        await store.put("k", b"x", "image/jpeg")
    await store.close()


def test_an_address_that_has_the_bucket_already_is_refused() -> None:
    values = {"s3_bucket_name": "parcels", "s3_endpoint_url": "https://parcels.store.example"}
    with pytest.raises(SettingsError, match=r"begins with the bucket 'parcels'.*S3_ADDRESSING_STYLE=virtual"):
        load_settings(**values)
    assert load_settings(**values, s3_addressing_style="path").s3_endpoint_url
    assert bucket_of(load_settings(s3_addressing_style="virtual")).addressing == "virtual"


@pytest.mark.parametrize("fault", ["hang", "reset", "reset_midway"])
async def test_a_store_that_does_not_answer_is_unavailable_in_time(
    server: FaultyS3, store: S3Store, fault: str
) -> None:
    await store.put("k", b"x", "image/jpeg")  # this call creates the client
    server.share, server.faults = 1.0, (fault,)
    store._bucket = dataclasses.replace(store._bucket, timeout_s=1.0)
    with pytest.raises(StoreUnavailable):
        await store.put("k", b"x" * 1_000_000, "image/jpeg")
    assert set(server.methods) == {"PUT"}


async def test_a_store_that_is_not_there_is_unavailable(server: FaultyS3) -> None:
    store = S3Store(Bucket(BUCKET, endpoint="http://127.0.0.1:9", timeout_s=5.0))
    with pytest.raises(StoreUnavailable):
        await store.put("k", b"x", "image/jpeg")
    await store.close()


async def test_no_credentials_are_told_as_such(server: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    store = S3Store(Bucket(BUCKET, endpoint=server.url))
    with pytest.raises(StoreMisconfigured, match="AWS_ACCESS_KEY_ID") as caught:
        await store.put("k", b"x", "image/jpeg")
    assert caught.value.reason == "credentials"
    assert server.methods == {}
    await store.close()


def test_a_read_time_out_whose_response_is_none_is_transient() -> None:
    class ReadTimeoutError(Exception):
        response = None

    assert isinstance(meaning_of(ReadTimeoutError("slow"), Bucket(BUCKET)), StoreUnavailable)
    assert isinstance(meaning_of(TimeoutError(), Bucket(BUCKET)), StoreUnavailable)
    assert str(meaning_of(TimeoutError(), Bucket(BUCKET))) == "TimeoutError"


@pytest.mark.parametrize(
    ("store", "variable", "expected"),
    [
        ("auto", None, False),
        ("auto", "AWS_ACCESS_KEY_ID", True),
        ("auto", "AWS_WEB_IDENTITY_TOKEN_FILE", True),
        ("folder", "AWS_ACCESS_KEY_ID", False),
        ("s3", None, True),
    ],
)
def test_s3_is_used_where_somebody_has_set_it_up(
    monkeypatch: pytest.MonkeyPatch, store: str, variable: str | None, expected: bool
) -> None:
    if variable:
        monkeypatch.setenv(variable, "dummy")
    assert load_settings(samples_store=store).uses_s3 is expected
