"""Stores samples in an S3 bucket, and translates its errors into causes and hints.

Errors of botocore are recognised by class name and error code, so this file does not import botocore.

The client runs on the event loop of the delivery thread, because creating the client blocks a loop for up to
half a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
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
#: Codes with which a store refuses the region of a request or of its signature.
_REGION_CODES = frozenset(
    (
        "PermanentRedirect",
        "TemporaryRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "InvalidRegion",
    )
)
#: Codes and texts with which a store refuses a checksum, its trailer, or a request without a checksum.
_CHECKSUM_CODES = frozenset(
    ("BadDigest", "InvalidChecksum", "InvalidDigest", "MalformedTrailerError", "XAmzContentSHA256Mismatch")
)
_REQUIRED_TEXT = re.compile(r"required|missing|must", re.IGNORECASE)
_CHECKSUM_TEXT = re.compile(r"checksum|crc32|trailer|aws-chunked|content-md5|content-sha256", re.IGNORECASE)
#: Codes and texts with which a store refuses an address because of where it contains the bucket's name.
_ADDRESSING_CODES = frozenset(
    (
        "InvalidPathAccess",
        "PathStyleDomainForbidden",
        "SecondLevelDomainForbidden",
        "VirtualHostDomainRequired",
    )
)
_ADDRESSING_TEXT = re.compile(
    r"path.?style|virtual.?host|(?:second|third).?level.?domain|addressing", re.IGNORECASE
)
#: Matches the part of an error text that names the region that the store expects.
_EXPECTED_REGION = re.compile(r"expecting '([\w-]+)'|expected: ?\d+/([\w-]+)/s3")
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
#: By HTTP status: the code of `_SETTINGS` that applies if the error's own code is unknown.
_BY_STATUS = {401: "AccessDenied", 403: "AccessDenied", 404: "NoSuchBucket"}
_TRANSIENT_STATUS = frozenset((408, 409, 425, 429))


#: Standard variable of the SDK that decides whether requests have a checksum.
_CHECKSUM_VARIABLE = "AWS_REQUEST_CHECKSUM_CALCULATION"


def meaning_of(error: BaseException, bucket: Bucket) -> StoreError:
    """Translate an error of a request; the text names the cause and, if one helps, the setting to change."""
    name = type(error).__name__
    if name in _LOCAL:
        reason, hint = _LOCAL[name]
        return StoreMisconfigured(reason, f"{error}; {hint}")
    # The attribute `response` of a read timeout is None.
    response = getattr(error, "response", None)
    if not isinstance(response, Mapping):
        text = f"{name}: {error}" if str(error) else name
        if bucket.is_elsewhere and bucket.style == "virtual":
            # The name may not resolve, or the certificate may not be valid for it.
            text += f"; with S3_ADDRESSING_STYLE=virtual the host is {bucket.name}.HOST, with path it is HOST"
        return StoreUnavailable(text)
    return _meaning_of_response(response, bucket)


def _meaning_of_response(response: Mapping[str, Any], bucket: Bucket) -> StoreError:
    error: Mapping[str, Any] = response.get("Error", {})
    code, message = str(error.get("Code", "")), str(error.get("Message") or "")
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    text = f"{status} {code}: {message}".strip(": ")
    special = _addressing_hint(status, error, bucket) or _checksum_hint(status, code, message, bucket)
    if special is not None:
        return StoreMisconfigured(special[0], f"{text}; {special[1]}")
    if code in _REGION_CODES or status in (301, 302, 307, 308):
        return StoreMisconfigured("region", f"{text}; {_region_hint(response)}")
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUS or status >= 500 or status < 300:
        return StoreUnavailable(text)
    known = code if code in _SETTINGS else _BY_STATUS.get(status)
    return ObjectRefused(text) if known is None else _misconfigured(known, text, bucket)


def _misconfigured(code: str, text: str, bucket: Bucket) -> StoreMisconfigured:
    """Return the error for a code of `_SETTINGS`."""
    reason, hint = _SETTINGS[code]
    if bucket.is_elsewhere and reason in ("denied", "no_bucket"):
        # A store that expects the other style of address looks for a wrong bucket, and its error may not name
        # that bucket.
        hint += f"; if bucket and rights are right, set S3_ADDRESSING_STYLE={bucket.other_style}"
    return StoreMisconfigured(reason, f"{text}; {hint}")


def _addressing_hint(status: int, error: Mapping[str, Any], bucket: Bucket) -> tuple[str, str] | None:
    """Return reason and hint if the store reads a wrong bucket name from the address."""
    code, message = str(error.get("Code", "")), str(error.get("Message") or "")
    if not 400 <= status < 500:
        return None
    # A store that does not support bucket names in host names takes the first part of the key for the bucket.
    other = bucket.is_elsewhere and str(error.get("BucketName", "") or bucket.name) != bucket.name
    told = code in _ADDRESSING_CODES or (code != "NoSuchBucket" and _ADDRESSING_TEXT.search(message))
    if not other and not told:
        return None
    place = "path" if bucket.style == "path" else "host name"
    return (
        "addressing",
        f"the store does not take the bucket from the {place}; set S3_ADDRESSING_STYLE={bucket.other_style}",
    )


def _checksum_hint(status: int, code: str, message: str, bucket: Bucket) -> tuple[str, str] | None:
    """Return reason and hint if the store refuses a checksum, or requires one."""
    if not (400 <= status < 500 or status == 501):
        return None
    adds_one = bucket.checksums == "when_supported"
    # Status 501: the store does not support a feature of the request, which can only be the checksum or the
    # encryption.
    lacks_it = status == 501 and adds_one and not bucket.encryption
    if code not in _CHECKSUM_CODES and not lacks_it and not _CHECKSUM_TEXT.search(message):
        return None
    if adds_one:
        hint = f"the store may not know the checksum of the SDK; set {_CHECKSUM_VARIABLE}=when_required"
    elif _REQUIRED_TEXT.search(message):
        hint = f"the store wants a checksum; set {_CHECKSUM_VARIABLE}=when_supported"
    else:
        hint = "the object has changed on its way; see what stands between the service and S3_ENDPOINT_URL"
    return "checksum", hint


def _region_hint(response: Mapping[str, Any]) -> str:
    """Return a hint that says which setting to change, with the region or address that the store names."""
    error = response.get("Error", {})
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    told = _EXPECTED_REGION.search(str(error.get("Message") or ""))
    region = headers.get("x-amz-bucket-region") or error.get("Region") or (told and (told[1] or told[2]))
    if region:
        return f"set AWS_REGION={region}"
    if error.get("Endpoint"):
        return f"the store refers to {error['Endpoint']}; set AWS_REGION or S3_ENDPOINT_URL accordingly"
    return "set AWS_REGION to the bucket's region"


CONNECT_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 1.0
#: Region for S3-compatible services when none is set.
_DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Bucket:
    """Describes the bucket in which objects are stored.

    botocore finds the credentials in the environment, a profile or a role.
    """

    name: str
    #: Prefix of every key, without leading and trailing slash; may be empty.
    prefix: str = ""
    #: Address of an S3-compatible service; empty for AWS.
    endpoint: str = ""
    region: str = ""
    #: ``AES256``, ``aws:kms`` or empty for the bucket's default.
    encryption: str = ""
    #: Time limit for storing one object, until the response has arrived.
    timeout_s: float = 30.0
    #: Where an address contains the bucket's name: ``path``, ``virtual`` (in the host name) or ``auto``.
    addressing: str = "auto"

    @property
    def is_elsewhere(self) -> bool:
        """Whether this is a store that is compatible with S3, and not AWS."""
        return bool(
            self.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        )

    @property
    def style(self) -> str:
        """The style of addresses; ``auto``, with which botocore chooses, occurs only for AWS."""
        # Compatible stores may not support host names that contain the bucket.
        return "path" if self.addressing == "auto" and self.is_elsewhere else self.addressing

    @property
    def other_style(self) -> str:
        """The style of addresses that is not in use."""
        return "virtual" if self.style == "path" else "path"

    @property
    def checksums(self) -> str:
        """When requests have a checksum: ``when_supported`` or ``when_required``.

        The default is ``when_required`` outside AWS, because compatible stores may not know newer checksums.
        """
        usual = "when_required" if self.is_elsewhere else "when_supported"
        return os.environ.get(_CHECKSUM_VARIABLE, "").strip().lower() or usual

    def key(self, key: str) -> str:
        """Return the key with its prefix."""
        return f"{self.prefix}/{key}" if self.prefix else key


class S3Store:
    """Stores objects in a bucket. It creates its client when the first object is stored."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._stack = AsyncExitStack()
        #: None before the first object. The client is never created again, because sessions and clients leak
        #: memory when they are created repeatedly.
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
            raise meaning_of(error, bucket) from error

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


def open_client(bucket: Bucket, *, signature_version: str | None = None) -> Any:
    """Return an S3 client as an asynchronous context manager.

    Requests are signed with version 4 anyway; presigned addresses only with ``signature_version`` ``s3v4``.
    """
    from aiobotocore.config import AioConfig  # noqa: PLC0415 - 0.7 s and 30 MB, only where S3 is used
    from aiobotocore.session import get_session  # noqa: PLC0415 - see above

    config = AioConfig(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=bucket.timeout_s,
        max_pool_connections=4,
        signature_version=signature_version,
        # `delivery` retries; botocore's retries would block one call for ten seconds.
        retries={"total_max_attempts": 1, "mode": "standard"},
        s3={"addressing_style": bucket.style},
        request_checksum_calculation=bucket.checksums,
        response_checksum_validation="when_required" if bucket.is_elsewhere else "when_supported",
    )
    return get_session().create_client(
        "s3",
        region_name=bucket.region or (_DEFAULT_REGION if bucket.is_elsewhere else None),
        endpoint_url=bucket.endpoint or None,
        config=config,
    )


def _prepare(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """Keep botocore from following redirects and from waiting for `100 Continue`."""
    params["headers"].pop("Expect", None)
    context.setdefault("s3_redirect", {})["redirected"] = True
