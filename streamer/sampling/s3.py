"""The store in S3 or an S3-compatible service; the only request is ``PutObject``.

It runs on the event loop of the delivery thread, because creating the client blocks a loop for up to half a
second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from streamer.sampling.s3_errors import meaning_of

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
