"""Translates S3 errors into store errors that say what a person can do about them. Pure.

Errors of botocore are recognised by class name and error code, so this file does not import botocore.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamer.sampling.errors import (
    ObjectRefused,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
)

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
