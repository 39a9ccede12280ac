"""The S3 bucket in which samples are stored, and what its errors mean.

Errors of botocore are recognised by class name and error code, so this file does not import botocore.

The client runs on the event loop of the delivery thread, because creating the client blocks a loop for up to
half a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from streamer.sampling.errors import ObjectRefused, StoreError, StoreMisconfigured, StoreUnavailable

#: Reason and hint by S3 error code.
_SETTINGS: dict[str, tuple[str, str]] = {
    "AccessDenied": (
        "denied",
        "the key needs s3:PutObject on the bucket and prefix; the bucket may not exist",
    ),
    "AllAccessDisabled": ("denied", "the bucket is blocked; ask its owner"),
    "UserSuspended": ("denied", "the user of this key is suspended"),
    "InvalidAccessKeyId": ("credentials", "AWS_ACCESS_KEY_ID is not known to the store"),
    "SignatureDoesNotMatch": ("credentials", "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID"),
    "ExpiredToken": ("credentials", "AWS_SESSION_TOKEN has expired; renew it"),
    "InvalidToken": ("credentials", "AWS_SESSION_TOKEN is not valid"),
    "TokenRefreshRequired": ("credentials", "AWS_SESSION_TOKEN must be renewed"),
    "NoSuchBucket": ("no_bucket", "make the bucket, or set S3_BUCKET_NAME"),
    "InvalidBucketName": ("no_bucket", "S3_BUCKET_NAME is not the name of a bucket"),
    "PermanentRedirect": ("region", "set AWS_REGION to the bucket's region"),
    "TemporaryRedirect": ("region", "set AWS_REGION to the bucket's region"),
    "AuthorizationHeaderMalformed": ("region", "set AWS_REGION to the bucket's region"),
    "IllegalLocationConstraintException": ("region", "set AWS_REGION to the bucket's region"),
    "RequestTimeTooSkewed": ("clock", "this machine's clock is wrong; synchronise it"),
}
#: Reason and hint by class name, for errors that botocore raises before sending anything.
_LOCAL: dict[str, tuple[str, str]] = {
    "NoCredentialsError": (
        "credentials",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or assign a role",
    ),
    "PartialCredentialsError": ("credentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, both"),
    "CredentialRetrievalError": ("credentials", "the credentials of the role cannot be fetched"),
    "ProfileNotFound": ("credentials", "AWS_PROFILE names a profile that does not exist"),
    "NoRegionError": ("region", "set AWS_REGION"),
    "InvalidRegionError": ("region", "AWS_REGION is not the name of a region"),
    "ParamValidationError": ("no_bucket", "S3_BUCKET_NAME is not the name of a bucket"),
}
_TRANSIENT_CODES = frozenset(
    (
        "SlowDown",
        "RequestTimeout",
        "RequestTimeoutException",
        "InternalError",
        "ServiceUnavailable",
        "Throttling",
        "OperationAborted",
        "ConditionalRequestConflict",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
    )
)
_TRANSIENT_STATUS = frozenset((408, 409, 425, 429))


def meaning_of(error: BaseException) -> StoreError:
    """Translate an error of ``put_object``; the text names the cause and what to do."""
    name = type(error).__name__
    if name in _LOCAL:
        reason, hint = _LOCAL[name]
        return StoreMisconfigured(reason, f"{error}; {hint}")
    # Read timeouts have a `response` of None.
    response = getattr(error, "response", None)
    if not isinstance(response, Mapping):
        return StoreUnavailable(f"{name}: {error}" if str(error) else name)
    return _meaning_of_response(response)


def _meaning_of_response(response: Mapping[str, Any]) -> StoreError:
    code = str(response.get("Error", {}).get("Code", ""))
    message = str(response.get("Error", {}).get("Message", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    text = f"{status} {code}: {message}".strip(": ")
    if code in _SETTINGS:
        reason, hint = _SETTINGS[code]
        return StoreMisconfigured(reason, f"{text}; {hint}")
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUS or status >= 500 or status < 300:
        return StoreUnavailable(text)
    if status in (301, 302, 307):
        return StoreMisconfigured("region", f"{text}; {_SETTINGS['PermanentRedirect'][1]}")
    if status in (401, 403):
        return StoreMisconfigured("denied", f"{text}; {_SETTINGS['AccessDenied'][1]}")
    if status == 404:
        return StoreMisconfigured("no_bucket", f"{text}; {_SETTINGS['NoSuchBucket'][1]}")
    return ObjectRefused(text)


CONNECT_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 1.0
#: Region for S3-compatible services when none is set.
_DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where objects are stored. botocore finds the credentials: environment, profile, role."""

    name: str
    #: Prefix of every key, without leading and trailing slash; may be empty.
    prefix: str = ""
    #: Address of an S3-compatible service; empty for AWS.
    endpoint: str = ""
    region: str = ""
    #: ``AES256``, ``aws:kms`` or empty for the bucket's default.
    encryption: str = ""
    #: Time limit for one object, from its first byte to the response.
    timeout_s: float = 30.0

    def key(self, key: str) -> str:
        """Return the key with its prefix."""
        return f"{self.prefix}/{key}" if self.prefix else key


class S3Store:
    """Stores objects in a bucket; the client is created with the first one."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._stack = AsyncExitStack()
        #: One for the whole process, because sessions and clients leak memory when created repeatedly.
        self._client: Any = None

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store one object. Raises StoreUnavailable, StoreMisconfigured or ObjectRefused."""
        bucket = self._bucket
        options = {"ServerSideEncryption": bucket.encryption} if bucket.encryption else {}
        try:
            client = self._client or await self._connect()
            # botocore's own timeouts do not cover a service that accepts the request and never responds.
            async with asyncio.timeout(bucket.timeout_s):
                await client.put_object(
                    Bucket=bucket.name,
                    Key=bucket.key(key),
                    Body=body,
                    ContentType=content_type,
                    **options,
                )
        except Exception as error:
            raise meaning_of(error) from error

    async def close(self) -> None:
        """Close all connections."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._stack.aclose()

    async def _connect(self) -> Any:
        client = await self._stack.enter_async_context(open_client(self._bucket))
        # botocore would follow redirects with HeadBucket requests, and would wait for `100 Continue` without
        # limit.
        client.meta.events.register_last("before-call.s3", _prepare)
        self._client = client
        return client


def open_client(bucket: Bucket) -> Any:
    """Return an S3 client as an asynchronous context manager."""
    from aiobotocore.config import AioConfig  # noqa: PLC0415 - 0.7 s and 30 MB, only where S3 is used
    from aiobotocore.session import get_session  # noqa: PLC0415 - see above

    # S3-compatible services may know neither the newer checksums nor host names that contain the bucket.
    elsewhere = bool(
        bucket.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    )
    when = "when_required" if elsewhere else "when_supported"
    config = AioConfig(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=bucket.timeout_s,
        max_pool_connections=4,
        # `delivery` retries; botocore's retries would block one call for ten seconds.
        retries={"total_max_attempts": 1, "mode": "standard"},
        s3={"addressing_style": "path" if elsewhere else "auto"},
        request_checksum_calculation=when,
        response_checksum_validation=when,
    )
    return get_session().create_client(
        "s3",
        region_name=bucket.region or (_DEFAULT_REGION if elsewhere else None),
        endpoint_url=bucket.endpoint or None,
        config=config,
    )


def _prepare(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """Prevent additional requests and waiting; see the registration of this handler."""
    params["headers"].pop("Expect", None)
    context.setdefault("s3_redirect", {})["redirected"] = True
